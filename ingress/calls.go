package ingress

import (
	"context"
	"errors"
	"time"

	"github.com/doproxy/doproxy/cloud"
)

// start makes the calls that depend on no write of this pass.
func (r *run) start(ctx context.Context, now time.Time, d Decision) {
	deadline := now.Add(r.Settings.CallTimeout)
	for _, a := range d.Assigns {
		r.facts.StartAssign(a)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			err := r.Reserved.Assign(ctx, a.Address, a.Droplet)
			return func(now time.Time) {
				r.failed("assigning a reserved IP", err, "address", a.Address, "node", a.Node, "droplet", a.Droplet)
				r.facts.EndAssign(a, now, err)
			}
		})
	}
	for _, a := range d.Looks {
		r.facts.StartLook(a, now)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			sent := time.Now()
			got, err := r.Reserved.ReservedIP(ctx, a)
			return func(time.Time) {
				r.failed("asking for a reserved IP", err, "address", a)
				r.facts.EndLook(a, sent, got, err)
			}
		})
	}
	if d.List {
		r.facts.StartList(now)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			sent := time.Now()
			all, err := r.Reserved.ReservedIPs(ctx)
			return func(now time.Time) {
				r.failed("listing reserved IPs", err)
				r.facts.EndList(sent, now, all, err)
			}
		})
	}
	for _, n := range d.Names {
		r.facts.StartRecords(n, now)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			sent := time.Now()
			all, err := r.DNS.Records(ctx, n.Domain, n.Name)
			return func(now time.Time) {
				r.failed("listing DNS records", err, "name", n.FQDN)
				r.facts.EndRecords(n, sent, now, all, err)
			}
		})
	}
	for _, c := range d.Deletes {
		r.facts.StartDelete(c, now)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			err := r.DNS.DeleteRecord(ctx, c.Domain, c.Record.ID)
			return func(now time.Time) {
				r.failed("deleting a DNS record", err, "name", c.FQDN, "id", c.Record.ID)
				r.facts.EndDelete(c, now, err)
			}
		})
	}
	for _, c := range d.TTLs {
		r.facts.StartTTL(c, now)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			err := r.DNS.SetTTL(ctx, c.Domain, c.Record)
			return func(now time.Time) {
				r.failed("setting the TTL of a DNS record", err, "name", c.FQDN, "id", c.Record.ID)
				r.facts.EndTTL(c, now, err)
			}
		})
	}
}

// create makes a DNS record that is on record by now. The call is over by the
// time that the record says; one that could not have its due is not sent.
func (r *run) create(ctx context.Context, c Create) {
	if time.Since(c.Asked) > r.Settings.CallTimeout/2 {
		r.facts.DropCreate(c)
		return
	}
	r.facts.StartCreate(c)
	r.rounds.Call(ctx, c.Asked.Add(r.Settings.CallTimeout), func(ctx context.Context) func(time.Time) {
		made, err := r.DNS.CreateRecord(ctx, c.Domain, c.wanted())
		return func(now time.Time) {
			r.failed("creating a DNS record", err, "name", c.FQDN, "address", c.Address)
			r.facts.EndCreate(c, now, made, err)
		}
	})
}

// failed logs a call that went wrong, and tells the budget when there were too
// many.
func (r *run) failed(what string, err error, args ...any) {
	if err == nil {
		return
	}
	r.Log.Warn(what, append(args, "error", err)...)
	var throttled *cloud.Throttled
	if r.Budget != nil && errors.As(err, &throttled) {
		r.Budget.Hold(throttled.Until)
	}
}
