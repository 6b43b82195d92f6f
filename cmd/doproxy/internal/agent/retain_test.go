package agent

import (
	"slices"
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
	for _, test := range []struct {
		name      string
		last, now *inventory.State
		down      string
		kept      []string
		pools     int
		serving   int
	}{
		{name: "nothing changed", last: state(true, serving, serving), now: state(true, serving, serving), pools: 1, serving: 2},
		{name: "drained", last: state(true, serving, serving), now: state(true, serving, draining), pools: 1, serving: 1},
		{name: "deleting", last: state(true, serving, draining), now: state(true, serving, deleting), pools: 1, serving: 1},
		{name: "gone after its drain", last: state(true, serving, deleting), now: state(true, serving), pools: 1, serving: 1},
		{name: "all records vanished", last: state(true, serving, serving), now: state(true), kept: []string{"web-0", "web-1"}, pools: 1, serving: 2},
		{name: "vanished and down", last: state(true, serving, serving), now: state(true), down: "web-0", kept: []string{"web-1"}, pools: 1, serving: 1},
		{name: "found again", last: state(true, serving, serving), now: state(true, booting, serving), kept: []string{"web-0"}, pools: 1, serving: 2},
		{name: "the pool's record vanished", last: state(true, serving, serving), now: state(false, serving, serving), kept: []string{"web-0", "web-1"}, pools: 1, serving: 2},
		{name: "an empty pool was deleted", last: state(true), now: state(false)},
		{name: "first picture", now: state(true, serving), pools: 1, serving: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, kept := retain(test.last, test.now, func(d *inventory.Droplet) bool { return d.Name != test.down })
			n := 0
			for _, d := range got.Droplets {
				if d.Phase == serving {
					n++
				}
			}
			if !slices.Equal(kept, test.kept) || len(got.Pools) != test.pools || n != test.serving {
				t.Errorf("kept %v, %d pools, %d serving; want %v, %d, %d", kept, len(got.Pools), n, test.kept, test.pools, test.serving)
			}
		})
	}
}
