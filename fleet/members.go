package fleet

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// joinGrace is how long a node that was never seen in this term may take to
// report before it is called silent.
const joinGrace = 5 * time.Second

// attendance puts on record which of the known nodes went silent, and which are
// back. A node without a membership writes that itself.
func (p *planner) attendance() {
	for _, name := range slices.Sorted(maps.Keys(p.State.Members)) {
		m := p.State.Members[name]
		next := *m
		event := inventory.Event{Time: p.now, Node: name}
		switch alive := p.State.Nodes[name] != nil; {
		case alive && !m.Silent.IsZero():
			next.Silent = time.Time{}
			event.Type = "node.back"
			event.Message = fmt.Sprintf("reports again after %s", p.now.Sub(m.Silent).Round(time.Second))
		case !alive && m.Silent.IsZero():
			since := p.silentSince(m)
			if _, seen := p.f.nodes[name]; !seen {
				if due := since.Add(joinGrace); p.now.Before(due) {
					p.at(due)
					continue
				}
			}
			next.Silent = since.Round(0).UTC()
			event.Type = "node.silent"
			event.Message = "its report is missing; its HAProxy may serve on"
		default:
			continue
		}
		// Each on its own: an operator may be changing one of them.
		p.out.Groups = append(p.out.Groups, Group{Writes: []Write{{Member: &next}}, Events: []inventory.Event{event}})
	}
}

// silentSince is the last moment at which a node that does not report may have.
func (p *planner) silentSince(m *inventory.Member) time.Time {
	if !m.Silent.IsZero() {
		return m.Silent
	}
	if seen, ok := p.f.nodes[m.Name]; ok {
		return seen
	}
	return later(p.f.Term, m.Joined)
}

// missed says that a node has gone silent within that time. Its HAProxy may
// serve on, with sessions that nobody tells of.
func (p *planner) missed(within time.Duration) bool {
	missed := false
	miss := func(name string, since time.Time) {
		if until := since.Add(within); p.State.Nodes[name] == nil && p.now.Before(until) {
			p.at(until)
			missed = true
		}
	}
	for name, seen := range p.f.nodes {
		miss(name, seen)
	}
	for name, m := range p.State.Members {
		miss(name, p.silentSince(m))
	}
	return missed
}
