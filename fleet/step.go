package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// Defaults of a pool's policy. See inventory.Policy.
const (
	bootDeadline  = 10 * time.Minute
	drainDeadline = 5 * time.Minute
)

// missing is a member that the list should have and has not.
type missing struct {
	pp    *poolPlan
	index int
}

// step moves one droplet on, as far as it can without looking at the others.
func (p *planner) step(pp *poolPlan, was *inventory.Droplet) {
	pp.members = append(pp.members, member{was: was, d: was, standing: made})
	m := &pp.members[len(pp.members)-1]
	if was.ID == 0 {
		m.standing = unasked
		p.resolve(pp, m)
	} else if p.f.got[was.ID].state == gotGone {
		m.standing = gone
	}
	if m.standing == made || m.standing == gone {
		p.refresh(pp, m)
	}
	if m.alive() {
		if _, ok := slices.BinarySearch(pp.was.Remove, was.Name); ok {
			m.away = true // it stays as it is until its turn comes
			return
		}
	}
	switch m.d.Phase {
	case inventory.Requested:
	case inventory.Booting:
		p.booting(pp, m)
	case inventory.Serving:
	case inventory.Draining:
		p.draining(pp, m)
	case inventory.Deleting:
		p.deleting(pp, m)
	}
}

// resolve finds out what became of a droplet without an id: whether it may be
// asked for, or may exist, or what its id is.
func (p *planner) resolve(pp *poolPlan, m *member) {
	d := m.was
	if o, ok := p.f.outcomes[d.Name]; ok && !d.Asked.IsZero() && o.asked.Equal(d.Asked) {
		switch {
		case o.made != nil:
			p.found(pp, m, o.made)
			return
		case o.refused != "":
			m.edit().Asked = time.Time{}
			m.d.Reason = o.refused
			m.withPool = true
			p.failed(pp, o.refused, "pool.refused", d.Name)
		case o.unsent:
			m.edit().Asked = time.Time{}
		default:
			m.edit().Asked = time.Time{}
			m.withPool = true
			if o.until.After(pp.until) {
				pp.until = o.until.Round(0).UTC()
			}
		}
		return
	}
	if c := p.namesake(pp, d); c != nil {
		p.found(pp, m, c)
		return
	}
	if d.Asked.IsZero() {
		return
	}
	// A call in flight, one that this leader knows no outcome of, or one that
	// the leader before may have sent. Its name is free again only once a list
	// lacks it that was sent after the call must have taken effect.
	m.standing = asked
	p.wait(d.Asked)
	if _, flying := p.f.creating[d.Name]; flying {
		return
	}
	from := d.Asked
	if from.Before(p.f.Term) || from.After(p.now) { // another leader's clock
		from = p.f.Term
	}
	settled := from.Add(p.Settings.CreateTimeout + p.Settings.Settle)
	p.at(settled)
	if p.f.List != nil && p.f.List.Sent.After(settled) {
		m.standing = unasked
	}
}

// namesake is the listed droplet that a record without an id is of.
func (p *planner) namesake(pp *poolPlan, d *inventory.Droplet) *cloud.Droplet {
	if p.f.List == nil {
		return nil
	}
	id, ok := p.f.List.byName[d.Name]
	if !ok {
		return nil
	}
	usable := func(c *cloud.Droplet) bool {
		return c.Pool == d.Pool && p.f.got[c.ID].state != gotGone &&
			!slices.Contains(pp.was.Import, c.ID) && p.record(c.ID) == ""
	}
	if c := p.f.List.byID[id]; usable(c) {
		return c
	}
	var best *cloud.Droplet
	for i := range p.f.List.All {
		c := &p.f.List.All[i]
		if c.Name == d.Name && usable(c) && (best == nil || c.ID < best.ID) {
			best = c
		}
	}
	return best
}

// found gives a droplet its id. One that is leaving goes on leaving.
func (p *planner) found(pp *poolPlan, m *member, c *cloud.Droplet) {
	d := m.edit()
	d.ID, d.Asked = c.ID, time.Time{}
	m.standing = made
	if d.Phase == inventory.Requested {
		m.enter(inventory.Booting, p.now, "")
		m.message = fmt.Sprintf("created with id %d", c.ID)
	}
	take(m, c, p.now)
	pp.found = true
}

// refresh takes over what the list says of a droplet.
func (p *planner) refresh(pp *poolPlan, m *member) {
	if m.d.Phase == inventory.Deleting || p.f.List == nil {
		return
	}
	c := p.f.List.byID[m.d.ID]
	switch {
	case m.standing == gone:
	case c != nil:
		p.expected++
		if m.d.Phase != inventory.Draining && p.f.List.Sent.After(m.d.Since) {
			take(m, c, p.now)
		}
		return
	case !p.f.List.Sent.After(m.d.Since.Add(p.Settings.ListLag)):
		return
	}
	p.expected++
	p.missing = append(p.missing, missing{pp, len(pp.members) - 1})
}

// take changes the record only where the cloud says otherwise: each write makes
// every node look at the droplet again.
func take(m *member, c *cloud.Droplet, now time.Time) {
	d := m.d
	if d.Status == c.Status && d.PrivateIPv4 == c.PrivateIPv4 && d.PublicIPv4 == c.PublicIPv4 &&
		d.PublicIPv6 == c.PublicIPv6 && d.PriceHourly == c.PriceHourly &&
		(!d.Active.IsZero() || c.Status != "active") {
		return
	}
	d = m.edit()
	d.Status, d.PriceHourly = c.Status, c.PriceHourly
	d.PrivateIPv4, d.PublicIPv4, d.PublicIPv6 = c.PrivateIPv4, c.PublicIPv4, c.PublicIPv6
	if d.Active.IsZero() && c.Status == "active" {
		d.Active = now
	}
}

func reachable(d *inventory.Droplet) bool {
	return d.PrivateIPv4.IsValid() || d.PublicIPv4.IsValid()
}

// booting waits for health on a quorum of nodes, up to the deadline.
func (p *planner) booting(pp *poolPlan, m *member) {
	d := m.d
	if d.Active.IsZero() || !reachable(d) {
		p.wait(d.Since)
	}
	if reachable(d) && p.nodes.quorum(d, inventory.Up) {
		m.enter(inventory.Serving, p.now, "")
		if d = m.d; d.Served.IsZero() {
			d.Served = p.now
		}
		m.message = fmt.Sprintf("healthy on %d of %d nodes", p.nodes.count(m.was, inventory.Up), len(p.nodes.running))
		pp.healthy = true
		return
	}
	within := pp.was.Policy.BootDeadline.Or(bootDeadline)
	deadline := d.Since.Add(within)
	p.at(deadline)
	if p.now.Before(deadline) || p.paused() || len(p.nodes.running) == 0 { // without HAProxy nothing can be healthy
		return
	}
	// One that no HAProxy looked at is not judged. An older copy of the inventory
	// may say booting, and since long ago, of a droplet that serves.
	if reachable(d) && !p.nodes.watched(d) {
		return
	}
	reason := fmt.Sprintf("not healthy within %s", within)
	if d.Adopted {
		// Nobody asked for it to be made, so it may hold what nobody can make again.
		if d.Reason != reason {
			m.edit().Reason = reason
		}
		p.note("unhealthy "+d.Name, "droplet.unhealthy", d.Pool, d.Name, fmt.Sprintf(
			"%s was %s. It was adopted, so it is not deleted unasked, and it counts as one of its pool: mend it, or doproxy delete %s", d.Name, reason, d.Name))
		return
	}
	m.enter(inventory.Deleting, p.now, reason)
	m.withPool = true
	p.failed(pp, d.Name+" was "+reason, "pool.unhealthy", d.Name)
}

func (p *planner) draining(pp *poolPlan, m *member) {
	within := pp.was.Policy.DrainDeadline.Or(drainDeadline)
	deadline := m.d.Since.Add(within)
	switch {
	case p.nodes.drained(m.d) && !p.missed(within), !reachable(m.d):
		m.enter(inventory.Deleting, p.now, m.d.Reason)
		m.message = "no session is left"
	case !p.now.Before(deadline):
		m.enter(inventory.Deleting, p.now, m.d.Reason)
		m.message = fmt.Sprintf("drain deadline of %s is over", within)
	default:
		p.at(deadline)
	}
}

// deleting asks the cloud for the end once no HAProxy has the droplet, until the
// cloud says that it is gone: then the record goes.
func (p *planner) deleting(_ *poolPlan, m *member) {
	d := m.d
	switch m.standing {
	case unasked, gone:
		m.remove = true
		m.event, m.message = "droplet.deleted", d.Reason
		return
	case asked:
		return // resolve goes on looking for it
	}
	if d.Mod == 0 || m.d != m.was {
		return // its id is not on record yet
	}
	a := p.f.deletes[d.ID]
	if a.message != "" {
		p.note("delete "+d.Name, "droplet.refused", d.Pool, d.Name, "delete refused: "+a.message)
	}
	if !a.done.IsZero() {
		p.wait(a.done)
		if l := p.f.List; l != nil && l.byID[d.ID] == nil && l.Sent.After(a.done) {
			p.get(d.ID, l.Sent)
		}
	}
	deadline := d.Since.Add(p.Settings.RemoveDeadline)
	if !p.nodes.removed(d) && p.now.Before(deadline) {
		p.at(deadline)
		return
	}
	p.destroy(d.ID)
}

// leave starts a droplet's way out.
func (p *planner) leave(m *member, reason string) {
	d := m.d
	switch {
	case m.standing == unasked:
		m.remove = true
		m.event, m.message = "droplet.deleted", reason+" before it was made"
	case m.standing == asked, m.standing == gone, !reachable(d),
		d.Phase == inventory.Booting && !d.Adopted && p.nodes.count(d, inventory.Up) == 0:
		m.enter(inventory.Deleting, p.now, reason)
	default:
		m.enter(inventory.Draining, p.now, reason)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// wait says that something is on its way at the cloud since then.
func (p *planner) wait(since time.Time) {
	p.waiting = true
	if since.After(p.youngest) && !since.After(p.now) {
		p.youngest = since
	}
}
