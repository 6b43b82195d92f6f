package ingress

import (
	"errors"
	"maps"
	"net/netip"
	"time"

	"github.com/doproxy/doproxy/cloud"
)

// records is what is known of one name's DNS records.
type records struct {
	listing      bool
	list         *nameList // nil before the first
	listTried    time.Time
	listEnded    time.Time
	listFailures int
	listError    string
	missing      bool // the account has no such domain

	creating map[netip.Addr]time.Time // creates under way, by their Asked
	created  map[netip.Addr]created   // what became of the last
	creates  map[netip.Addr]backoff   // creates that failed in a row
	made     map[int64]time.Time      // records made in this term: when that was known
	changing map[int64]bool           // deletes and TTL changes under way
	deletes  map[int64]change
	ttls     map[int64]change
	eager    bool // nothing is held back until the next failure
}

// nameList is what one list call told.
type nameList struct {
	sent time.Time
	all  []cloud.DNSRecord
}

// created is what became of a create. An unknown outcome leaves the record's
// Asked standing until lists settle it.
type created struct {
	asked   time.Time // that of the record when the call was sent
	ended   time.Time
	id      int64
	outcome outcome
	message string
}

type backoff struct {
	failures int
	last     time.Time
}

// change is a delete or a change of the TTL of one record.
type change struct {
	failures int
	sent     time.Time
	ended    time.Time
	gone     bool // the cloud said so
	message  string
}

func (r records) busy() bool { return r.listing || len(r.creating) > 0 || len(r.changing) > 0 }

// edit hands out a copy whose maps may be changed, and stores it afterwards.
func (f *Facts) edit(fqdn string, do func(r *records)) {
	r := f.names[fqdn]
	r.creating, r.created, r.creates = own(r.creating), own(r.created), own(r.creates)
	r.made, r.changing = own(r.made), own(r.changing)
	r.deletes, r.ttls = own(r.deletes), own(r.ttls)
	do(&r)
	f.names[fqdn] = r
}

func own[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

// StartRecords notes that the records of a name are about to be listed.
func (f *Facts) StartRecords(n Name, now time.Time) {
	f.edit(n.FQDN, func(r *records) { r.listing, r.listTried = true, now })
}

// EndRecords takes in the records of a name as of a call sent at a moment, or why
// there are none.
func (f *Facts) EndRecords(n Name, sent, now time.Time, all []cloud.DNSRecord, err error) {
	f.edit(n.FQDN, func(r *records) {
		r.listing, r.listEnded = false, now
		if err != nil {
			r.listFailures++
			_, r.listError = f.judge(err)
			r.missing = errors.Is(err, cloud.ErrNotFound)
			return
		}
		r.listFailures, r.listError, r.missing = 0, "", false
		r.list = &nameList{sent: sent, all: all}
		there := map[int64]bool{}
		for _, x := range all {
			there[x.ID] = true
		}
		for id := range r.deletes { // ids are not used again
			if !there[id] && !r.changing[id] {
				d := r.deletes[id]
				d.gone = true
				r.deletes[id] = d
			}
		}
	})
}

// StartCreate notes that a create is about to be sent.
func (f *Facts) StartCreate(c Create) {
	f.edit(c.FQDN, func(r *records) { r.creating[c.Address] = c.Asked })
}

// EndCreate takes in what became of a create.
func (f *Facts) EndCreate(c Create, now time.Time, made cloud.DNSRecord, err error) {
	f.edit(c.FQDN, func(r *records) {
		delete(r.creating, c.Address)
		o := created{asked: c.Asked, ended: now}
		o.outcome, o.message = f.judge(err)
		if err == nil {
			o.id = made.ID
			r.made[made.ID] = now
			delete(r.creates, c.Address)
		} else {
			b := r.creates[c.Address]
			r.creates[c.Address] = backoff{b.failures + 1, now}
			r.eager = false
		}
		r.created[c.Address] = o
	})
}

// DropCreate notes that a create that is on record was not sent.
func (f *Facts) DropCreate(c Create) {
	f.edit(c.FQDN, func(r *records) { r.created[c.Address] = created{asked: c.Asked, outcome: failed} })
}

// StartDelete and StartTTL note a change that is about to be sent.
func (f *Facts) StartDelete(c Change, now time.Time) {
	f.edit(c.FQDN, func(r *records) {
		r.changing[c.Record.ID] = true
		d := r.deletes[c.Record.ID]
		d.sent = now
		r.deletes[c.Record.ID] = d
	})
}

func (f *Facts) StartTTL(c Change, now time.Time) {
	f.edit(c.FQDN, func(r *records) {
		r.changing[c.Record.ID] = true
		d := r.ttls[c.Record.ID]
		d.sent = now
		r.ttls[c.Record.ID] = d
	})
}

// EndDelete takes in what became of a delete.
func (f *Facts) EndDelete(c Change, now time.Time, err error) {
	f.edit(c.FQDN, func(r *records) {
		delete(r.changing, c.Record.ID)
		d := r.deletes[c.Record.ID]
		d.ended, d.message = now, ""
		if err == nil || errors.Is(err, cloud.ErrNotFound) {
			d.gone, d.failures = true, 0
		} else {
			d.failures++
			_, d.message = f.judge(err)
			r.eager = false
		}
		r.deletes[c.Record.ID] = d
	})
}

// EndTTL takes in what became of a change of a TTL.
func (f *Facts) EndTTL(c Change, now time.Time, err error) {
	f.edit(c.FQDN, func(r *records) {
		delete(r.changing, c.Record.ID)
		d := r.ttls[c.Record.ID]
		d.ended, d.message, d.failures = now, "", 0
		if err != nil {
			d.failures = r.ttls[c.Record.ID].failures + 1
			_, d.message = f.judge(err)
			r.eager = false
		}
		r.ttls[c.Record.ID] = d
	})
}
