package fleet

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// scale brings the count of droplets nearer to what is wanted.
func (p *planner) scale(pp *poolPlan) {
	c, pool := pp.census(), pp.pool()
	switch {
	case pool.Desired < 0:
	case c.alive > pool.Desired:
		// Only what is on record is let go: a surplus of droplets that were just
		// found must not cost one that serves. They are on record at the next run.
		if !p.paused() {
			p.shrink(pp, pp.recorded()-pool.Desired)
		}
	case c.alive < pool.Desired && p.mayCreate(pool):
		want := pool.Desired - c.alive
		b := p.names(pp, c)
		pp.wait(want-b.n, b)
		p.grow(pp, min(want, b.n))
	}
}

// mayCreate: nothing is made before the first whole list of the term, which may
// show droplets that the records lack, nor while creates are held back.
func (p *planner) mayCreate(pool *inventory.Pool) bool {
	if p.paused() || !pool.Stopped.IsZero() {
		return false
	}
	if p.held || p.f.List == nil || p.f.List.Sent.Before(p.f.Term) || p.onHold() || p.rewinding(pool) {
		return false
	}
	if p.now.Before(pool.RetryAt) {
		p.at(pool.RetryAt)
		return false
	}
	return true
}

// sendAway starts the way out of droplets asked away by name, in the order of
// their names, as far as the limit lets it.
func (p *planner) sendAway(pp *poolPlan) {
	if p.paused() {
		return
	}
	var away []*member
	for i := range pp.members {
		if m := &pp.members[i]; m.away && !m.remove && !m.d.Phase.Leaving() {
			away = append(away, m)
		}
	}
	slices.SortFunc(away, func(a, b *member) int {
		return cmp.Or(cmp.Compare(len(a.d.Name), len(b.d.Name)), cmp.Compare(a.d.Name, b.d.Name))
	})
	p.release(pp, away, func(m *member) { p.leave(m, "asked away") })
}

// shrink lets surplus droplets go. First those that cost nothing to lose: not yet
// made, then not yet serving, then down; among equals the newest.
func (p *planner) shrink(pp *poolPlan, surplus int) {
	type candidate struct {
		m    *member
		cost int
	}
	var all []candidate
	for i := range pp.members {
		if m := &pp.members[i]; m.alive() && m.was != nil {
			all = append(all, candidate{m, p.cost(m)})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.cost, b.cost), newestFirst(a.m.d, b.m.d))
	})
	var out []*member
	for _, c := range all[:max(0, min(surplus, len(all)))] {
		out = append(out, c.m)
	}
	p.release(pp, p.mayShrink(pp, out), func(m *member) { p.scaleIn(pp, m) })
}

// release lets droplets leave in the order given, as many as may be leaving at
// once. Those that are not at the cloud always may.
func (p *planner) release(pp *poolPlan, members []*member, leave func(*member)) {
	if len(members) == 0 {
		return
	}
	free, _, _ := p.exits(pp)
	for _, m := range members {
		switch {
		case m.standing == unasked || m.standing == gone:
		case free == 0:
			pp.leaving++
			continue
		default:
			free--
		}
		leave(m)
	}
}

func (p *planner) cost(m *member) int {
	switch {
	case m.standing == unasked:
		return 0
	case m.standing == gone:
		return 1
	case m.standing == asked:
		return 2
	case m.d.Phase == inventory.Booting:
		return 3
	case p.nodes.quorum(m.d, inventory.Down):
		return 4
	}
	return 5
}

func newestFirst(a, b *inventory.Droplet) int {
	return cmp.Or(
		b.Created.Compare(a.Created),
		cmp.Compare(len(b.Name), len(a.Name)), // ordinals grow: web-10 after web-9
		cmp.Compare(b.Name, a.Name),
	)
}

// grow puts new names on record. ask sends for as many as there is room for.
func (p *planner) grow(pp *poolPlan, n int) {
	together := 1 // the pool's record
	for i := range pp.members {
		if pp.members[i].withPool {
			together++
		}
	}
	n = min(n, maxWrites-together)
	if n <= 0 {
		return
	}
	pool := pp.edit()
	hash := TemplateHash(pool.Template)
	for ; n > 0; n-- {
		name := inventory.DropletName(pool.HostnamePrefix, pool.NextOrdinal)
		pool.NextOrdinal++
		if p.taken(name) {
			n++
			continue
		}
		pool.Creates = enter(pool.Creates, p.now, p.now)
		p.bill.create(1, p.now.Add(lately))
		pp.members = append(pp.members, member{
			d: &inventory.Droplet{
				Name: name, Pool: pool.Name, Phase: inventory.Requested, Since: p.now,
				Region: pool.Template.Region, Size: pool.Template.Size, Image: pool.Template.Image,
				TemplateHash: hash, Created: p.now,
			},
			standing: unasked, withPool: true,
			event: "droplet.requested", message: "",
		})
	}
}

func (p *planner) taken(name string) bool {
	if p.State.Droplets[name] != nil {
		return true
	}
	_, listed := p.f.List.byName[name]
	return listed
}

// ask puts on record that names are asked for now, and plans the calls. After
// failures it asks for few at a time, one call after the other.
func (p *planner) ask(pp *poolPlan) {
	pool := pp.pool()
	var waiting []*member
	for i := range pp.members {
		if m := &pp.members[i]; m.standing == unasked && m.alive() && m.d.Phase == inventory.Requested {
			waiting = append(waiting, m)
		}
	}
	if len(waiting) == 0 || !p.mayCreate(pool) {
		return
	}
	slots, size := p.Settings.CreateParallel, cloud.MaxCreate
	if pool.Failures > 0 {
		slots, size = 1, max(1, cloud.MaxCreate>>min(pool.Failures, 8))
	}
	slots -= p.f.creates[pool.Name]
	room := p.room(pp, pp.census())
	pp.wait(len(waiting)-room.n, room)
	defer p.reserve(pp, len(waiting))
	n := min(len(waiting), slots*size, room.n)
	if n <= 0 {
		return
	}
	n = min(n, size*p.wants(cloud.Create, (n+size-1)/size, "creates"))
	slices.SortFunc(waiting, func(a, b *member) int { return newestFirst(b.d, a.d) })
	hash := TemplateHash(pool.Template)
	for batch := range slices.Chunk(waiting[:n], size) {
		c := Create{Pool: pool.Name, Template: pool.Template, Asked: p.now}
		for _, m := range batch {
			d := m.edit()
			d.Asked, d.Reason = p.now, ""
			// The template may have changed since the name was put on record.
			d.Region, d.Size, d.Image, d.TemplateHash = pool.Template.Region, pool.Template.Size, pool.Template.Image, hash
			m.standing = asked
			price, known := p.price(d.Size)
			p.bill.charge(1, d.Size, price, known)
			c.Names = append(c.Names, d.Name)
		}
		pp.creates = append(pp.creates, c)
	}
}

// reserve keeps room for those of a pool's queue that are asked for as soon as
// calls under way are over, so that no pool after it takes it.
func (p *planner) reserve(pp *poolPlan, queued int) {
	for _, c := range pp.creates {
		queued -= len(c.Names)
	}
	queued = max(0, min(queued, p.room(pp, pp.census()).n))
	price, _ := p.price(pp.pool().Template.Size)
	p.bill.reserved += queued
	p.bill.reservedCost += float64(queued) * price
}

// TemplateHash tells templates apart: equal ones hash alike.
func TemplateHash(t inventory.Template) string {
	data, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings and booleans always marshal
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:6])
}

// poll says when the cloud's list is due.
func (p *planner) poll() {
	if p.f.listing {
		return
	}
	every := p.Settings.PollIdle
	if p.waiting {
		every = min(max(p.f.listTried.Sub(p.youngest)/2, p.Settings.PollFirst), p.Settings.PollBusy)
	}
	every = p.stretch(every)
	due := p.f.listTried.Add(every)
	switch {
	case p.f.listFailures > 0:
		due = p.f.listTried.Add(min(p.Settings.backoff(p.f.listFailures), p.Settings.PollIdle))
	case p.f.List == nil, p.lookNow():
		due = time.Time{}
	case p.waiting:
		if first := p.youngest.Add(p.Settings.PollFirst); first.After(due) {
			due = first
		}
	}
	if p.f.Hold.After(due) {
		due = p.f.Hold
	}
	if p.now.Before(due) {
		p.at(due)
		return
	}
	p.out.List = true
}
