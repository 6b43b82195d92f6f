package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/doproxy/doproxy/inventory"
)

// hold is what the wipe guard keeps of one pool.
type hold struct {
	pool  string
	names []string // of droplets, sorted
	why   string
}

// retain is the picture that HAProxy is brought to: state, but for what no
// decision of doproxy can have led to. This is the node's wipe guard.
//
// A droplet that serves stops serving by way of Draining or Deleting. One whose
// record vanished, or came back as Booting because the leader found it at the
// cloud again, or whose pool's record vanished, says that the store was wiped or
// meddled with: it serves on for as long as HAProxy finds it up. So do those that
// are sent away when they are more than half of a pool's serving droplets, or
// all, and no request asked for that. What an operator confirmed goes.
//
// last is the picture before. Neither is changed; state itself is returned when
// there is nothing to keep.
func retain(last, state *inventory.State, up func(*inventory.Droplet) bool) (_ *inventory.State, held []hold) {
	if last == nil {
		return state, nil
	}
	g := guard{last: last, state: state, up: up, held: map[string]*hold{}}
	leaving := map[string][]*inventory.Droplet{}
	// What both begin and end with is the same record: the cost follows the change.
	before, after := last.SortedDroplets(), state.SortedDroplets()
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] {
		before, after = before[1:], after[1:]
	}
	for len(before) > 0 && len(after) > 0 && before[len(before)-1] == after[len(after)-1] {
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	for _, old := range before {
		now := state.Droplets[old.Name]
		if old == now || old.Phase != inventory.Serving {
			continue
		}
		switch {
		case now == nil:
			g.keep(old, old, "their records vanished")
		case now.ID != old.ID:
		case now.Phase == inventory.Booting:
			g.keep(old, serving(now), "their records came back as new")
		case now.Phase.Leaving():
			leaving[now.Pool] = append(leaving[now.Pool], now)
		}
	}
	for pool, droplets := range leaving {
		g.exodus(pool, droplets)
	}
	g.lostPools()
	if len(g.held) == 0 {
		return state, nil
	}
	pools, droplets := state.Pools, state.Droplets
	if g.pools != nil {
		pools = g.pools
	}
	if g.droplets != nil {
		droplets = g.droplets
	}
	for _, pool := range slices.Sorted(maps.Keys(g.held)) {
		h := *g.held[pool]
		slices.Sort(h.names)
		h.names = slices.Compact(h.names)
		held = append(held, h)
	}
	return state.With(pools, droplets), held
}

type guard struct {
	last, state *inventory.State
	up          func(*inventory.Droplet) bool

	droplets map[string]*inventory.Droplet
	pools    map[string]*inventory.Pool
	held     map[string]*hold
}

func serving(d *inventory.Droplet) *inventory.Droplet {
	s := *d
	s.Phase = inventory.Serving
	return &s
}

// keep shows a droplet in this form, unless it is down or confirmed away.
func (g *guard) keep(old, as *inventory.Droplet, why string) {
	if g.confirmed(old) || !g.up(old) {
		return
	}
	if g.droplets == nil {
		g.droplets = maps.Clone(g.state.Droplets)
	}
	g.droplets[old.Name] = as
	g.hold(old, why)
}

func (g *guard) hold(d *inventory.Droplet, why string) {
	h := g.held[d.Pool]
	if h == nil {
		h = &hold{pool: d.Pool, why: why}
		g.held[d.Pool] = h
	}
	h.names = append(h.names, d.Name)
}

func (g *guard) confirmed(d *inventory.Droplet) bool {
	c := g.state.Confirms[d.Pool]
	return c != nil && slices.Contains(c.Names, d.Name)
}

// exodus keeps droplets of a pool that are sent away at once and too many, if
// no request accounts for them: it named them, or wants no more than remain.
func (g *guard) exodus(name string, leaving []*inventory.Droplet) {
	pool := g.state.Pools[name]
	if pool == nil {
		return // lostPools has it
	}
	served, remain := 0, 0
	for _, d := range g.last.PoolDroplets(name) {
		if d.Phase == inventory.Serving {
			served++
		}
	}
	if 2*len(leaving) <= served {
		return
	}
	for _, d := range g.state.PoolDroplets(name) {
		if !d.Phase.Leaving() {
			remain++
		}
	}
	if pool.Desired <= remain {
		return
	}
	for _, d := range leaving {
		if !slices.Contains(pool.Remove, d.Name) {
			g.keep(d, serving(d), "more than half are sent away at once, and no request asked for it")
		}
	}
}

// lostPools keeps the pools of droplets that are still there.
func (g *guard) lostPools() {
	lost := false
	for name := range g.last.Pools {
		lost = lost || g.state.Pools[name] == nil
	}
	if !lost {
		return
	}
	all := g.state.Droplets
	if g.droplets != nil {
		all = g.droplets
	}
	for _, d := range all {
		p := g.last.Pools[d.Pool]
		if g.state.Pools[d.Pool] != nil || p == nil || g.confirmed(d) {
			continue
		}
		if g.pools == nil {
			g.pools = maps.Clone(g.state.Pools)
		}
		g.pools[d.Pool] = p
		g.hold(d, "their pool's record vanished")
	}
}

// message tells an operator of a hold.
func (h *hold) message() string {
	shown := strings.Join(h.names[:min(len(h.names), 5)], ", ")
	if more := len(h.names) - 5; more > 0 {
		shown += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("servers of pool %s stay in HAProxy, %d: %s (%s). If they are to go, `doproxy confirm %s`; else see docs/operations.md, the wipe guard",
		h.pool, len(h.names), h.why, shown, h.pool)
}
