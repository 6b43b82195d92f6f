package agent

import (
	"strings"
	"testing"

	"github.com/doproxy/doproxy/inventory"
)

func TestRetain(t *testing.T) {
	state := func(pool bool, phases ...inventory.Phase) *inventory.State {
		s := &inventory.State{Pools: map[string]*inventory.Pool{}, Droplets: map[string]*inventory.Droplet{}}
		if pool {
			s.Pools["web"] = &inventory.Pool{PoolSpec: inventory.PoolSpec{Name: "web"}}
		}
		for i, phase := range phases {
			if phase != "" {
				name := inventory.DropletName("web", int64(i))
				s.Droplets[name] = &inventory.Droplet{Name: name, Pool: "web", Phase: phase, ID: int64(i + 1)}
			}
		}
		return s
	}
	const serving, booting, draining, deleting = inventory.Serving, inventory.Booting, inventory.Draining, inventory.Deleting
	wanting := func(s *inventory.State, desired int, remove ...string) *inventory.State {
		s.Pools["web"].Desired, s.Pools["web"].Remove = desired, remove
		return s
	}
	confirmed := func(s *inventory.State, names ...string) *inventory.State {
		s.Confirms = map[string]*inventory.Confirm{"web": {Pool: "web", Names: names}}
		return s
	}
	for _, test := range []struct {
		name      string
		last, now *inventory.State
		down      string
		held      string
		pools     int
		serving   int
	}{
		{name: "nothing changed", last: state(true, serving, serving), now: state(true, serving, serving), pools: 1, serving: 2},
		{name: "one of two drained", last: state(true, serving, serving), now: wanting(state(true, serving, draining), 2), pools: 1, serving: 1},
		{name: "deleting", last: state(true, serving, draining), now: state(true, serving, deleting), pools: 1, serving: 1},
		{name: "gone after its drain", last: state(true, serving, deleting), now: state(true, serving), pools: 1, serving: 1},
		{name: "all records vanished", last: state(true, serving, serving), now: state(true), held: "web-0 web-1", pools: 1, serving: 2},
		{name: "vanished, and confirmed", last: state(true, serving, serving), now: confirmed(state(true), "web-0"), held: "web-1", pools: 1, serving: 1},
		{name: "vanished and down", last: state(true, serving, serving), now: state(true), down: "web-0", held: "web-1", pools: 1, serving: 1},
		{name: "found again", last: state(true, serving, serving), now: state(true, booting, serving), held: "web-0", pools: 1, serving: 2},
		{name: "the pool's record vanished", last: state(true, serving, serving), now: state(false, serving, serving), held: "web-0 web-1", pools: 1, serving: 2},
		{name: "an empty pool was deleted", last: state(true), now: state(false)},
		{name: "first picture", now: state(true, serving), pools: 1, serving: 1},

		{name: "two of three sent away, unasked", last: state(true, serving, serving, serving), now: wanting(state(true, serving, draining, deleting), 3), held: "web-1 web-2", pools: 1, serving: 3},
		{name: "the last sent away, unasked", last: state(true, serving), now: wanting(state(true, draining), 1), held: "web-0", pools: 1, serving: 1},
		{name: "two of three, by a request to scale", last: state(true, serving, serving, serving), now: wanting(state(true, serving, draining, draining), 1), pools: 1, serving: 1},
		{name: "two of three, by name", last: state(true, serving, serving, serving), now: wanting(state(true, serving, draining, draining), 3, "web-1", "web-2"), pools: 1, serving: 1},
		{name: "two of three, confirmed", last: state(true, serving, serving, serving), now: confirmed(wanting(state(true, serving, draining, draining), 3), "web-1", "web-2"), pools: 1, serving: 1},
		{name: "two of three, one of them down", last: state(true, serving, serving, serving), now: wanting(state(true, serving, deleting, deleting), 3), down: "web-2", held: "web-1", pools: 1, serving: 2},
		{name: "replaced while a new one boots", last: state(true, serving, serving), now: wanting(state(true, serving, draining, booting), 2), pools: 1, serving: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, held := retain(test.last, test.now, func(d *inventory.Droplet) bool { return d.Name != test.down })
			var names []string
			for _, h := range held {
				names = append(names, h.names...)
			}
			n := 0
			for _, d := range got.Droplets {
				if d.Phase == serving {
					n++
				}
			}
			if strings.Join(names, " ") != test.held || len(got.Pools) != test.pools || n != test.serving {
				t.Errorf("held %v, %d pools, %d serving; want %s, %d, %d", names, len(got.Pools), n, test.held, test.pools, test.serving)
			}
		})
	}
}
