package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// vanished looks after droplets that the list lacks and should have. The list
// may lag, so each is asked for by id before it is taken for gone.
func (p *planner) vanished() {
	n := len(p.missing)
	if n == 0 {
		return
	}
	// A list with any droplet of the cluster comes from the right account.
	if guard := p.Settings.VanishGuard; guard > 0 && n >= guard && n == p.expected && len(p.f.List.All) == 0 {
		p.held = true
		p.note("vanished", "fleet.held", "", "", fmt.Sprintf(
			"none of %d droplets is in DigitalOcean's list: is the token of the right account? None is taken for gone and none created", n))
		return
	}
	slices.SortFunc(p.missing, func(a, b missing) int {
		return cmp.Compare(a.pp.members[a.index].d.ID, b.pp.members[b.index].d.ID)
	})
	dead := map[*poolPlan][]*member{}
	for _, at := range p.missing {
		m := &at.pp.members[at.index]
		switch g := p.f.got[m.d.ID]; {
		case m.remove || m.d.Phase == inventory.Deleting:
		case m.standing == gone:
			dead[at.pp] = append(dead[at.pp], m)
		case g.state == gotUntagged && !g.at.Before(p.f.List.Sent):
			p.note("untagged "+m.d.Name, "droplet.untagged", m.d.Pool, m.d.Name, "it lost its tag at DigitalOcean and gets it again")
			p.adopt(m.d.ID, m.d.Pool)
		default:
			p.get(m.d.ID, p.f.List.Sent)
		}
	}
	for _, pp := range p.inOrder() {
		p.bury(pp, dead[pp])
	}
}

// strangers looks after listed droplets that no record has: those that a leader
// lost sight of are adopted, second ones of a name are removed.
func (p *planner) strangers() {
	if p.f.List == nil {
		return
	}
	for i := range p.f.List.All {
		c := &p.f.List.All[i]
		d := p.State.Droplets[c.Name]
		if d != nil && d.ID == c.ID {
			continue
		}
		if p.f.got[c.ID].state == gotGone {
			continue // the list lags
		}
		if name := p.record(c.ID); name != "" {
			p.note(fmt.Sprintf("renamed %d", c.ID), "droplet.renamed", c.Pool, name,
				fmt.Sprintf("droplet %d is on record as %s and named %s at DigitalOcean", c.ID, name, c.Name))
			continue
		}
		pp := p.poolOf(c)
		if pp == nil || pp.unread || p.unread[c.Name] {
			continue
		}
		switch {
		case d == nil:
			p.ahead(pp, c)
			p.foundling(pp, c)
		case d.ID == 0 && d.Pool == c.Pool && !slices.Contains(pp.was.Import, c.ID):
			// resolve took it, or a lower id of the name: then it is a duplicate
			// once that is on record.
			if p.f.List.byName[c.Name] != c.ID {
				pp.spare++
			}
		default:
			p.duplicate(pp, d, c)
		}
	}
}

// poolOf a stranger, or nil with the reason noted.
func (p *planner) poolOf(c *cloud.Droplet) *poolPlan {
	var why string
	switch {
	case c.Pool == "":
		why = "bears the cluster's tag and no pool's"
	case p.State.Pools[c.Pool] == nil && p.orphan(c):
		return nil
	case p.State.Pools[c.Pool] == nil:
		why = fmt.Sprintf("is tagged with pool %q, which does not exist", c.Pool)
	case inventory.ValidHostname(c.Name) != nil:
		why = "has a name that is not a hostname"
	default:
		return p.pool(c.Pool)
	}
	p.note(fmt.Sprintf("stranger %d", c.ID), "droplet.stranger", c.Pool, c.Name,
		fmt.Sprintf("droplet %d %s: it is left alone", c.ID, why))
	return nil
}

// ahead notes a stranger whose name is one that the pool's record says was never
// used. Names are on record before they are asked for, so the record is old.
func (p *planner) ahead(pp *poolPlan, c *cloud.Droplet) {
	n, ok := inventory.Ordinal(pp.pool().HostnamePrefix, c.Name)
	if ok && n >= pp.pool().NextOrdinal && !slices.Contains(pp.was.Import, c.ID) {
		p.rewound(pp, n+1, fmt.Sprintf("%s is at DigitalOcean with id %d", c.Name, c.ID))
	}
}

// foundling is adopted once the cloud confirms that it exists: the list may still
// show one whose record went because it was deleted. While the inventory is being
// rebuilt the word of a list of this term is enough, so that a thousand droplets
// do not take a thousand calls. Should one be gone after all, a later list lacks
// it and its record goes; until then it counts, so that at worst one more is
// created late. Nothing is deleted for its sake: unasked surplus is held.
func (p *planner) foundling(pp *poolPlan, c *cloud.Droplet) {
	for i := range pp.members { // two of one name: the next run sees the other
		if m := &pp.members[i]; m.was == nil && m.d.Name == c.Name {
			pp.spare++
			return
		}
	}
	if p.f.List.byName[c.Name] != c.ID && p.f.got[p.f.List.byName[c.Name]].state != gotGone {
		pp.spare++ // the lowest id goes first
		return
	}
	g := p.f.got[c.ID]
	sure := g.state == gotExists && !g.at.Before(p.f.List.Sent.Add(-time.Minute)) || p.rebuilding() && p.listed()
	switch {
	case !sure:
		pp.foreign++
		p.get(c.ID, p.f.List.Sent)
	case pp.together() >= maxWrites: // the next transaction has room
		pp.foreign++
	default:
		p.take(pp, c)
	}
}

// take puts a droplet on record that was not created from one.
func (p *planner) take(pp *poolPlan, c *cloud.Droplet) {
	d := &inventory.Droplet{
		Name: c.Name, Pool: pp.name(), Phase: inventory.Booting, Since: p.now,
		ID: c.ID, Status: c.Status, PriceHourly: c.PriceHourly,
		PrivateIPv4: c.PrivateIPv4, PublicIPv4: c.PublicIPv4, PublicIPv6: c.PublicIPv6,
		Region: c.Region, Size: c.Size, Image: c.Image,
		Created: p.now, Adopted: true,
	}
	if d.Status == "active" {
		d.Active = p.now
	}
	pp.members = append(pp.members, member{
		d: d, standing: made, withPool: true,
		event: "droplet.adopted", message: fmt.Sprintf("found at DigitalOcean with id %d", c.ID),
	})
	pool := pp.edit() // written in any case: its guard fails if the pool is deleted meanwhile
	if n, ok := inventory.Ordinal(pool.HostnamePrefix, c.Name); ok && n >= pool.NextOrdinal {
		pool.NextOrdinal = n + 1
	}
}

// duplicate is a second droplet of a recorded name. It is deleted by its id, and
// only while the one on record is known to exist.
func (p *planner) duplicate(pp *poolPlan, d *inventory.Droplet, c *cloud.Droplet) {
	switch {
	case slices.Contains(pp.was.Import, c.ID):
		pp.foreign++
		p.note(fmt.Sprintf("import %d", c.ID), "import.waiting", pp.name(), c.Name,
			fmt.Sprintf("droplet %d cannot be imported as %s, a name that is taken: rename it at DigitalOcean", c.ID, c.Name))
	case d.Pool != c.Pool:
		p.note(fmt.Sprintf("stranger %d", c.ID), "droplet.stranger", c.Pool, c.Name,
			fmt.Sprintf("droplet %d has the name of one in pool %s: it is left alone", c.ID, d.Pool))
	default:
		pp.spare++
		if d.ID == 0 || p.f.List.byID[d.ID] == nil || p.f.got[d.ID].state == gotGone {
			return
		}
		p.note(fmt.Sprintf("duplicate %d", c.ID), "droplet.duplicate", pp.name(), c.Name,
			fmt.Sprintf("droplet %d is a second %s beside %d: it is deleted", c.ID, c.Name, d.ID))
		p.destroy(c.ID)
	}
}

// imports takes droplets made elsewhere into the pool: tagged first, then found
// as any other that bears the tag. One that cannot be had is struck off, and
// what is wanted falls by one, since asking for it had raised that by one.
func (p *planner) imports(pp *poolPlan) {
	for _, id := range pp.was.Import {
		i := p.f.imports[id]
		switch {
		case p.record(id) != "":
			pool := pp.edit()
			pool.Import = slices.DeleteFunc(pool.Import, func(x int64) bool { return x == id })
			continue
		case i.refused != "" || p.f.got[id].state == gotGone:
			pool := pp.edit()
			pool.Import = slices.DeleteFunc(pool.Import, func(x int64) bool { return x == id })
			pool.Desired = max(pool.Desired-1, pool.Min)
			pp.event(p.now, "import.refused", "", fmt.Sprintf("droplet %d: %s", id, cmp.Or(i.refused, "DigitalOcean knows no such droplet")))
			continue
		}
		if p.f.List != nil && p.f.List.byID[id] != nil {
			continue // strangers has it
		}
		pp.foreign++
		if !i.done {
			p.adopt(id, pp.name())
			continue
		}
		// The list lags: what the cloud says of the id is as good.
		p.wait(i.at)
		if g := p.f.got[id]; g.state == gotExists && g.droplet.Pool == pp.name() && p.State.Droplets[g.droplet.Name] == nil &&
			inventory.ValidHostname(g.droplet.Name) == nil && pp.together() < maxWrites {
			pp.foreign--
			p.take(pp, &g.droplet)
		} else {
			p.get(id, i.at)
		}
	}
}

// adopt tags a droplet, again with backoff.
func (p *planner) adopt(id int64, pool string) {
	i := p.f.imports[id]
	if i.count > 0 {
		if again := i.at.Add(p.Settings.backoff(i.count)); p.now.Before(again) {
			p.at(again)
			return
		}
	}
	if p.f.calling[id] == 0 && !p.paused() && !p.onHold() {
		p.out.Adopts = append(p.out.Adopts, Adopt{ID: id, Pool: pool})
	}
}

// strike forgets names asked away that have no record any more, or never had.
func (p *planner) strike(pp *poolPlan) {
	for _, name := range pp.was.Remove {
		if d := p.State.Droplets[name]; d == nil || d.Pool != pp.name() {
			pool := pp.edit()
			pool.Remove = slices.DeleteFunc(pool.Remove, func(x string) bool { return x == name })
		}
	}
}

// record is the name under which an id is on record, empty if under none.
func (p *planner) record(id int64) string {
	if p.recorded == nil {
		p.recorded = recordedIDs(p.State.Droplets)
	}
	return p.recorded[id]
}
