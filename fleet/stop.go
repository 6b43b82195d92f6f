package fleet

import (
	"fmt"
	"strings"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// A pool's failures are creates refused, droplets that did not become healthy in
// time, and early deaths. Each holds creates back for longer, and Settings.StopAfter
// of them in a row stop the pool until an operator says otherwise.
//
// A droplet that becomes healthy ends the row, unless there is an early death in
// it: droplets that become healthy and die would never end else. Then only one
// that was put on record after the last failure ends the row, by having served
// for Settings.EarlyDeath.
//
// That there is one in the row is known from the pool's Reason, which keeps the
// words of the last early death for as long as the row lasts.

// earlyDeath begins the words about an early death.
const earlyDeath = "early death: "

// diedEarly: it first served less than Settings.EarlyDeath ago.
func (p *planner) diedEarly(m *member) bool {
	return !m.d.Served.IsZero() && p.now.Sub(m.d.Served) < p.Settings.EarlyDeath
}

// failed counts against the pool. Of several in one run the first by name speaks.
func (p *planner) failed(pp *poolPlan, reason, kind, droplet string) {
	if pp.failure == nil || droplet < pp.failure.Droplet {
		pp.failure = &inventory.Event{Time: p.now, Type: kind, Pool: pp.name(), Droplet: droplet, Message: reason}
	}
}

// mourn counts droplets that the cloud no longer has though nobody asked for
// their end: those that had served only briefly, and new ones that never did.
// Of those that were on record at the last failure, which all may have had the
// same end, none counts again.
func (p *planner) mourn(pp *poolPlan) {
	if !pp.pool().Rewound.IsZero() {
		return // its records are old: these went long ago
	}
	last := p.lastFailure(pp.was)
	for i := range pp.members {
		m := &pp.members[i]
		if m.standing != gone || m.was == nil || m.away || m.was.Phase.Leaving() || m.d.Phase != inventory.Deleting || m.d.Adopted {
			continue
		}
		var how string
		switch {
		case m.d.Created.Before(last):
			continue
		case p.diedEarly(m):
			how = fmt.Sprintf("gone from DigitalOcean %s after it first served", p.now.Sub(m.d.Served).Round(time.Second))
		case m.was.Phase == inventory.Booting:
			how = "gone from DigitalOcean before it served"
		default:
			continue
		}
		m.withPool = m.withPool || pp.together() < maxWrites
		p.failed(pp, earlyDeath+m.d.Name+" was "+how, "droplet.died", m.d.Name)
	}
}

// lastFailure is when the row's last failure was; zero without one.
func (p *planner) lastFailure(pool *inventory.Pool) time.Time {
	if pool.Failures == 0 || pool.RetryAt.IsZero() {
		return time.Time{}
	}
	return pool.RetryAt.Add(-p.Settings.backoff(pool.Failures))
}

// lasted says that a droplet made after the last failure has served for long
// enough to end a row with early deaths.
func (p *planner) lasted(pp *poolPlan) bool {
	last := p.lastFailure(pp.was)
	var first time.Time // the droplet that will have lasted first
	for i := range pp.members {
		m := &pp.members[i]
		if m.d.Phase != inventory.Serving || m.standing == gone || m.d.Served.IsZero() || m.d.Created.Before(last) {
			continue
		}
		if first.IsZero() || m.d.Served.Before(first) {
			first = m.d.Served
		}
	}
	if first.IsZero() {
		return false
	}
	end := first.Add(p.Settings.EarlyDeath)
	p.at(end)
	return !p.now.Before(end)
}

// judge holds the pool's creates back after failures, for longer with each, and
// stops them after too many. Several failures in one run count once.
func (p *planner) judge(pp *poolPlan) {
	p.mourn(pp)
	pool := pp.was
	deadly := pool.Failures > 0 && strings.Contains(pool.Reason, earlyDeath)
	switch {
	case pp.failure != nil:
		p.count(pp)
	case !pool.Stopped.IsZero():
	case deadly && !p.lasted(pp):
	case (pp.healthy || deadly) && (pool.Failures > 0 || !pool.RetryAt.IsZero() || pool.Reason != ""):
		pool = pp.edit()
		pool.Failures, pool.RetryAt, pool.Reason = 0, time.Time{}, ""
	case pp.found && pool.Reason != "" && !p.now.Before(pool.RetryAt):
		pool = pp.edit()
		pool.Reason = ""
	}
	p.tellStop(pp)
	if pp.until.IsZero() {
		return
	}
	// Refused for the account's request limit: nobody's fault, so not counted.
	pool = pp.edit()
	if until := later(pp.until, p.now.Add(p.Settings.RetryMin)); until.After(pool.RetryAt) {
		pool.RetryAt = until
		if pp.failure == nil && !deadly && pool.Stopped.IsZero() {
			pool.Reason = cloud.ErrThrottled.Error()
		}
	}
}

// count adds a failure to the row.
func (p *planner) count(pp *poolPlan) {
	pool := pp.edit()
	pool.Failures++
	pool.RetryAt = p.now.Add(p.Settings.backoff(pool.Failures))
	reason := pp.failure.Message
	if at := strings.Index(pool.Reason, earlyDeath); at >= 0 && pool.Failures > 1 && !strings.HasPrefix(reason, earlyDeath) {
		before, _, _ := strings.Cut(pool.Reason[at:], mend)
		reason += "; before it " + before
	}
	pool.Reason = reason
	pp.events = append(pp.events, *pp.failure)
	if p.Settings.StopAfter < 0 || pool.Failures < p.Settings.StopAfter {
		return
	}
	pool.Reason = fmt.Sprintf("%d failures in a row, the last: %s%s doproxy apply, or go on with doproxy resume pools/%s",
		pool.Failures, reason, mend, pool.Name)
	if pool.Stopped.IsZero() {
		pool.Stopped = p.now
		pp.event(p.now, "pool.stopped", "", "creates are stopped: "+pool.Reason)
	}
}

// mend begins what a stopped pool's reason ends with.
const mend = "; mend the cause and"

// tellStop notes that a pool is stopped. The event came with its record.
func (p *planner) tellStop(pp *poolPlan) {
	pool := pp.pool()
	if pool.Stopped.IsZero() {
		return
	}
	p.note("stopped "+pool.Name, "pool.stopped", pool.Name, "", "pool "+pool.Name+" creates nothing: "+pool.Reason)
	p.out.Notes[len(p.out.Notes)-1].told = true
}
