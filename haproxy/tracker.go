package haproxy

import (
	"maps"
	"slices"
	"strings"

	"github.com/doproxy/doproxy/inventory"
)

// Tracker is Wanted for one inventory after the other: its cost follows what
// changed in between. Records must be immutable, each change a new one, as a
// Mirror keeps them. The Configs share what did not change.
type Tracker struct {
	base     Config
	pools    map[string]*inventory.Pool
	droplets []*inventory.Droplet // in the order of `print`
	config   Config
}

// NewTracker returns a tracker of Configs that have all of base but its backends.
func NewTracker(base Config) *Tracker { return &Tracker{base: base} }

// Wanted returns what Wanted returns for the state's pools and droplets.
func (t *Tracker) Wanted(state *inventory.State) Config {
	droplets := state.SortedDroplets()
	if t.pools == nil || !maps.Equal(state.Pools, t.pools) {
		t.config = Wanted(t.base, state.Pools, state.Droplets)
	} else {
		t.config = t.patch(droplets)
	}
	t.pools, t.droplets = state.Pools, droplets
	return t.config
}

func (t *Tracker) patch(droplets []*inventory.Droplet) Config {
	old, now := trim(t.droplets, droplets)
	config := t.config
	config.Backends = slices.Clone(config.Backends)
	cloned := map[string]*Backend{}
	backend := func(pool string) *Backend {
		if b, ok := cloned[pool]; ok {
			return b
		}
		b := config.backend(pool)
		if b != nil {
			b.Servers = slices.Clone(b.Servers)
		}
		cloned[pool] = b
		return b
	}
	kept := make(map[*inventory.Droplet]bool, len(now))
	for _, d := range now {
		kept[d] = true
	}
	for _, d := range old {
		if kept[d] {
			delete(kept, d)
		} else {
			take(backend(d.Pool), d)
		}
	}
	for d := range kept { // these are new
		if s, ok := serverOf(t.pools, d); ok {
			put(backend(d.Pool), s)
		}
	}
	return config
}

// trim leaves out what both begin with and what both end with.
func trim(a, b []*inventory.Droplet) (_, _ []*inventory.Droplet) {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return a, b
}

func find(b *Backend, name string) (int, bool) {
	return slices.BinarySearchFunc(b.Servers, name, func(s Server, name string) int { return strings.Compare(s.Name, name) })
}

func take(b *Backend, d *inventory.Droplet) {
	if b == nil || d.ID == 0 {
		return
	}
	if i, ok := find(b, ServerName(d.ID)); ok && b.Servers[i].Hostname == d.Name {
		b.Servers = slices.Delete(b.Servers, i, i+1)
	}
}

func put(b *Backend, s Server) {
	if i, ok := find(b, s.Name); !ok {
		b.Servers = slices.Insert(b.Servers, i, s)
	}
}
