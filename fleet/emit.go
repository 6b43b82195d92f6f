package fleet

import (
	"cmp"
	"slices"

	"github.com/doproxy/doproxy/inventory"
)

// emit turns what was decided into transactions: first moves, which clients feel,
// then each pool with all that must change with its record, then creates of names
// long on record.
func (p *planner) emit() {
	pools := p.inOrder()
	var moves Group
	for _, pp := range pools {
		for _, m := range pp.changed() {
			if m.withPool || m.standing == asked && m.was != nil && pp.asks(m.d.Name) {
				continue
			}
			if len(moves.Writes) == maxWrites {
				p.out.Groups = append(p.out.Groups, moves)
				moves = Group{}
			}
			p.add(&moves, m)
		}
	}
	if len(moves.Writes) > 0 {
		p.out.Groups = append(p.out.Groups, moves)
	}
	for _, pp := range pools {
		p.emitPool(pp)
	}
}

func (p *planner) emitPool(pp *poolPlan) {
	changed := pp.changed()
	withPool := map[string]bool{}
	var g Group
	if pp.next != nil {
		g.Writes = append(g.Writes, Write{Pool: pp.next})
	}
	g.Events = append(g.Events, pp.events...)
	// New records come first: the pool's counts them in. Others that do not fit
	// are decided on anew by the next run.
	for _, fresh := range []bool{true, false} {
		for _, m := range changed {
			if m.withPool && (m.was == nil || pp.asks(m.d.Name)) == fresh && (fresh || len(g.Writes) < maxWrites) {
				withPool[m.d.Name] = true
				p.add(&g, m)
			}
		}
	}
	var later []Create
	for _, c := range pp.creates {
		if slices.ContainsFunc(c.Names, func(name string) bool { return withPool[name] }) {
			// Names that are new and names that are not may share a call.
			for _, m := range changed {
				if !m.withPool && slices.Contains(c.Names, m.d.Name) {
					p.add(&g, m)
				}
			}
			g.Creates = append(g.Creates, c)
		} else {
			later = append(later, c)
		}
	}
	if len(g.Writes) > 0 || len(g.Events) > 0 {
		p.out.Groups = append(p.out.Groups, g)
	}
	for _, c := range later {
		var g Group
		for _, m := range changed {
			if slices.Contains(c.Names, m.d.Name) {
				p.add(&g, m)
			}
		}
		g.Creates = []Create{c}
		p.out.Groups = append(p.out.Groups, g)
	}
}

func (p *planner) add(g *Group, m *member) {
	g.Writes = append(g.Writes, Write{Droplet: m.d, Delete: m.remove})
	if m.event != "" {
		g.Events = append(g.Events, inventory.Event{Time: p.now, Type: m.event, Pool: m.d.Pool, Droplet: m.d.Name, Message: m.message})
	}
}

// changed members, in order of their names.
func (pp *poolPlan) changed() []*member {
	var all []*member
	for i := range pp.members {
		if m := &pp.members[i]; m.remove || m.d != m.was {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *member) int {
		return cmp.Or(cmp.Compare(len(a.d.Name), len(b.d.Name)), cmp.Compare(a.d.Name, b.d.Name))
	})
	return all
}

func (pp *poolPlan) asks(name string) bool {
	for _, c := range pp.creates {
		if slices.Contains(c.Names, name) {
			return true
		}
	}
	return false
}
