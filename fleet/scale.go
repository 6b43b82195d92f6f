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
		p.shrink(pp, pp.recorded()-pool.Desired)
	case c.alive < pool.Desired && p.mayCreate(pool):
		p.grow(pp, min(pool.Desired-c.alive, room(pool, c)-c.queued))
	}
}

// mayCreate: nothing is made before the first whole list of the term, which may
// show droplets that the records lack, nor while creates are held back.
func (p *planner) mayCreate(pool *inventory.Pool) bool {
	if p.held || p.f.List == nil || p.f.List.Sent.Before(p.f.Term) || p.onHold() {
		return false
	}
	if p.now.Before(pool.RetryAt) {
		p.at(pool.RetryAt)
		return false
	}
	return true
}

// shrink lets surplus droplets go. First those that cost nothing to lose: not yet
// made, then not yet serving, then down; among equals the newest.
func (p *planner) shrink(pp *poolPlan, surplus int) {
	type candidate struct {
		index int
		cost  int
	}
	var all []candidate
	for i := range pp.members {
		if m := &pp.members[i]; m.alive() && m.was != nil {
			all = append(all, candidate{i, p.cost(m)})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.cost, b.cost), newestFirst(pp.members[a.index].d, pp.members[b.index].d))
	})
	for _, c := range all[:max(0, min(surplus, len(all)))] {
		p.leave(&pp.members[c.index], "scaled in")
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
	n := min(len(waiting), slots*size, room(pool, pp.census()))
	if n <= 0 {
		return
	}
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
			c.Names = append(c.Names, d.Name)
		}
		pp.creates = append(pp.creates, c)
	}
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
	due := p.f.listTried.Add(every)
	switch {
	case p.f.listFailures > 0:
		due = p.f.listTried.Add(min(p.Settings.backoff(p.f.listFailures), p.Settings.PollIdle))
	case p.f.List == nil:
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
