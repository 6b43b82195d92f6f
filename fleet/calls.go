package fleet

import (
	"context"
	"time"

	"github.com/doproxy/doproxy/cloud"
)

// start makes the calls that depend on no write of this pass.
func (r *run) start(ctx context.Context, now time.Time, d Decision) {
	deadline := now.Add(r.Settings.CallTimeout)
	for _, id := range d.Deletes {
		r.facts.StartDelete(id, now)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			err := r.Cloud.Delete(ctx, id)
			return func(now time.Time) {
				r.failed("deleting a droplet", err, "id", id)
				r.facts.EndDelete(id, now, err)
			}
		})
	}
	for _, id := range d.Gets {
		r.facts.StartGet(id)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			sent := time.Now()
			got, err := r.Cloud.Get(ctx, id)
			return func(now time.Time) {
				r.failed("asking for a droplet", err, "id", id)
				r.facts.EndGet(id, sent, now, got, err)
			}
		})
	}
	for _, a := range d.Adopts {
		r.facts.StartAdopt(a.ID, now)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			err := r.Cloud.Adopt(ctx, a.ID, a.Pool)
			return func(now time.Time) {
				r.failed("tagging a droplet", err, "id", a.ID, "pool", a.Pool)
				r.facts.EndAdopt(a.ID, now, err)
			}
		})
	}
	if d.List {
		r.facts.StartList(now)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			sent := time.Now()
			all, err := r.Cloud.List(ctx)
			return func(now time.Time) {
				r.failed("listing droplets", err)
				r.listErr = ""
				if err != nil {
					r.listErr = err.Error()
				}
				r.facts.EndList(sent, now, all, err)
			}
		})
	}
	if d.Prices && r.Prices != nil {
		r.facts.StartPrices(now)
		r.rounds.Call(ctx, deadline, func(ctx context.Context) func(time.Time) {
			prices, err := r.Prices.Prices(ctx)
			return func(now time.Time) {
				r.failed("asking for the prices", err)
				r.facts.EndPrices(now, prices, err)
			}
		})
	}
}

// create asks for droplets whose names are on record by now. The call is over by
// the time that the record says; one that could not have its due is not sent.
func (r *run) create(c Create) {
	deadline := c.Asked.Add(r.Settings.CreateTimeout)
	if time.Since(c.Asked) > r.Settings.CreateTimeout/2 {
		r.facts.DropCreate(c)
		return
	}
	r.facts.StartCreate(c)
	r.rounds.Call(r.creates, deadline, func(ctx context.Context) func(time.Time) {
		made, err := r.Cloud.Create(ctx, cloud.CreateRequest{Names: c.Names, Pool: c.Pool, Template: c.Template})
		return func(now time.Time) {
			r.failed("creating droplets", err, "pool", c.Pool, "names", c.Names)
			r.facts.EndCreate(c, now, made, err)
		}
	})
}

func (r *run) failed(what string, err error, args ...any) {
	if err != nil {
		r.Log.Warn(what, append(args, "error", err)...)
	}
}
