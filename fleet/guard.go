package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// confirmFor is how long a confirmation counts, should its record outlive that.
const confirmFor = time.Hour

// mayShrink is the wipe guard: of surplus droplets, in the order in which they
// would go, it returns those that may.
//
//   - Those that an operator confirmed by name, and as many as requests have
//     released, may.
//   - Those that serve nobody may.
//   - Of the rest, which nobody asked to go, at most half of what serves may. None
//     may if the inventory was restored from an older copy, and none that was
//     adopted: such a surplus tells of a lost record, not of a wish. They are held
//     until they are confirmed, or a request says what is wanted.
//
// Before the term's first whole list, which shows whether the records are older
// than the droplets, only those go that are confirmed or not at the cloud.
func (p *planner) mayShrink(pp *poolPlan, candidates []*member) []*member {
	var may, unasked []*member
	going := map[*member]bool{}
	release, rewound := pp.pool().Release, !pp.pool().Rewound.IsZero()
	room := maxWrites - pp.together()
	for _, m := range candidates {
		switch {
		case p.confirmed(m), p.absent(m) && release == 0:
		case !p.listed():
			continue
		case release > 0:
			release--
			if room--; room < 0 { // it is counted in the pool's transaction: the next has room
				going[m] = true
				continue
			}
		case !p.serves(m) && !rewound:
		default:
			unasked = append(unasked, m)
			continue
		}
		going[m] = true
		may = append(may, m)
	}
	if len(unasked) == 0 {
		return may
	}
	if p.rebuilding() && !rewound {
		// Its record is a node's memory, or was made from tags.
		pp.edit().Rewound, rewound = p.now, true
	}
	staying := 0
	for i := range pp.members {
		if m := &pp.members[i]; m.was != nil && m.alive() && !going[m] && (rewound || p.serves(m)) {
			staying++
		}
	}
	held := unasked
	if !rewound && 2*len(unasked) <= staying {
		held = nil
		for _, m := range unasked {
			if m.d.Adopted {
				held = append(held, m)
			} else {
				may = append(may, m)
			}
		}
	}
	if len(held) > 0 {
		why := ""
		if rewound {
			why = ", whose record is older than its droplets"
		}
		p.hold(pp, "surplus", fmt.Sprintf("pool %s%s: %d of %d serving droplets are surplus and no request let them go: held. "+
			"See them with doproxy status; doproxy confirm %s lets them go, doproxy scale %s=N sets what you want",
			pp.name(), why, len(held), staying, pp.name(), pp.name()), held)
	}
	return may
}

// scaleIn lets a surplus droplet go, and counts it against what requests have
// released.
func (p *planner) scaleIn(pp *poolPlan, m *member) {
	if pp.pool().Release > 0 && !p.confirmed(m) {
		pp.edit().Release--
		m.withPool = true
	}
	p.leave(m, "scaled in")
}

// hold says that droplets stay though they would go, until an operator confirms.
func (p *planner) hold(pp *poolPlan, what, message string, held []*member) {
	names := make([]string, 0, len(held))
	for _, m := range held {
		names = append(names, m.d.Name)
	}
	p.note(what+" "+pp.name(), "fleet.held", pp.name(), "", message, names...)
}

// confirmed says that an operator let this very droplet go.
func (p *planner) confirmed(m *member) bool {
	c := p.State.Confirms[m.d.Pool]
	if c == nil || !p.now.Before(c.Since.Add(confirmFor)) {
		return false
	}
	_, ok := slices.BinarySearch(c.Names, m.d.Name)
	return ok
}

// absent: it is certainly not at the cloud, or the cloud says so and HAProxy does
// not see otherwise.
func (p *planner) absent(m *member) bool {
	return m.standing == unasked || m.standing == gone && !p.nodes.quorum(m.d, inventory.Up)
}

// serves says that losing the droplet may cost clients something. One that boots
// may serve too: an older copy of the inventory has it as it once was. It is let
// off only once a quorum of HAProxies has looked and none finds it up.
func (p *planner) serves(m *member) bool {
	switch {
	case p.absent(m):
		return false
	case m.d.Phase == inventory.Serving:
		return true
	case m.d.Phase != inventory.Booting || !reachable(m.d):
		return false
	}
	return m.d.Adopted || !p.nodes.watched(m.d) || p.nodes.count(m.d, inventory.Up) > 0
}

// bury takes droplets for gone, as the cloud says, unless they are more than half
// of what serves and HAProxy sees them up: then the cloud's word is doubted, and
// asked for again and again.
func (p *planner) bury(pp *poolPlan, dead []*member) {
	if len(dead) == 0 {
		return
	}
	var up, down []*member
	for _, m := range dead {
		if !m.d.Phase.Leaving() && !p.confirmed(m) && p.nodes.quorum(m.d, inventory.Up) {
			up = append(up, m)
		} else {
			down = append(down, m)
		}
	}
	serving := 0
	for i := range pp.members {
		if m := &pp.members[i]; m.alive() && p.serves(m) {
			serving++
		}
	}
	if 2*len(up) <= serving {
		down, up = append(down, up...), nil
	}
	for _, m := range down {
		m.enter(inventory.Deleting, p.now, "gone from DigitalOcean")
	}
	if len(up) == 0 {
		return
	}
	for _, m := range up {
		p.get(m.d.ID, p.now.Add(-p.Settings.PollIdle))
	}
	p.at(p.now.Add(p.Settings.PollIdle))
	p.hold(pp, "gone", fmt.Sprintf("pool %s: DigitalOcean says that %d of %d serving droplets are gone, and HAProxy sees them up: held. "+
		"Is the token of the right account? doproxy confirm %s takes them for gone", pp.name(), len(up), serving, pp.name()), up)
}

// rewound notes that names below next are in use, though the pool's record says
// otherwise: the store was restored from an older copy, or, while the inventory
// is rebuilt, the record is a memory some seconds old.
func (p *planner) rewound(pp *poolPlan, next int64, why string) {
	old := pp.pool().NextOrdinal
	pool := pp.edit()
	pool.NextOrdinal = next
	if p.rebuilding() || pool.Rewound.Equal(p.now) {
		return
	}
	pool.Rewound, pool.Release = p.now, 0 // what was let go then is not what is let go now
	pp.event(p.now, "pool.rewound", "", fmt.Sprintf("the record had the next name at %s, and %s: it is older than the droplets, "+
		"so nothing that serves is let go unasked", inventory.DropletName(pool.HostnamePrefix, old), why))
}

// catchUp takes a pool's record for no newer than what else is known.
func (p *planner) catchUp(pp *poolPlan) {
	pool := pp.pool()
	if floor := p.floor(pool.HostnamePrefix); floor > pool.NextOrdinal {
		p.rewound(pp, floor, fmt.Sprintf("names up to %s were seen", inventory.DropletName(pool.HostnamePrefix, floor-1)))
		pool = pp.pool()
	}
	if pool.Rewound.IsZero() {
		return
	}
	for i := range pp.members {
		// Its droplet may have come and gone since: the name is not used again.
		if m := &pp.members[i]; m.stale(pool) && m.standing == unasked {
			p.leave(m, "on record since before the inventory was restored, dropped")
		}
	}
}

// floor is an ordinal below which names with this prefix may have been used.
func (p *planner) floor(prefix string) int64 {
	return max(p.Floor[prefix], p.f.ordinals[prefix])
}

// stale: a name without a droplet from before the store was restored.
func (m *member) stale(pool *inventory.Pool) bool {
	return m.was != nil && m.alive() && m.d.Phase == inventory.Requested && m.was.Created.Before(pool.Rewound)
}

// rewinding: the list may still lack droplets that an older copy of the inventory
// does not know, so that no name can be known to be free.
func (p *planner) rewinding(pool *inventory.Pool) bool {
	if pool.Rewound.IsZero() || p.f.List != nil && p.f.List.Sent.After(pool.Rewound.Add(p.Settings.ListLag)) {
		return false
	}
	p.wait(pool.Rewound)
	return true
}

// settle ends what no surplus needs any more: what requests released, and the
// memory of a restored store once every droplet is on record.
func (p *planner) settle(pp *poolPlan) {
	pool := pp.pool()
	if pool.Release == 0 && pool.Rewound.IsZero() {
		return
	}
	c := pp.census()
	if c.alive > max(0, pool.Desired) {
		return
	}
	if pool.Release > 0 {
		pool = pp.edit()
		pool.Release = 0
	}
	if pool.Rewound.IsZero() || p.rewinding(pool) || pp.foreign+pp.spare > 0 ||
		slices.ContainsFunc(pp.members, func(m member) bool { return m.was == nil || m.stale(pool) }) {
		return
	}
	pool = pp.edit()
	pool.Rewound = time.Time{}
	pp.event(p.now, "pool.recovered", "", "every droplet is on record, and none is surplus")
}

// together counts the droplets that must be written with the pool's record, and
// that record.
func (pp *poolPlan) together() int {
	n := 1
	for i := range pp.members {
		if pp.members[i].withPool {
			n++
		}
	}
	return n
}

// listed says that the cloud's list was read whole in this term.
func (p *planner) listed() bool {
	return p.f.List != nil && !p.f.List.Sent.Before(p.f.Term)
}
