package haproxy

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/inventory"
)

func TestWanted(t *testing.T) {
	pools := map[string]*inventory.Pool{
		"web": {PoolSpec: inventory.PoolSpec{Name: "web"}},
		"api": {PoolSpec: inventory.PoolSpec{Name: "api", Backend: inventory.Backend{Port: 8080, HealthPath: "/up", Paths: []string{"/api"}}}},
	}
	private, public := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("203.0.113.1")
	droplets := map[string]*inventory.Droplet{}
	for i, d := range []inventory.Droplet{
		{Pool: "web", Phase: inventory.Requested},
		{Pool: "web", Phase: inventory.Booting, ID: 1},
		{Pool: "web", Phase: inventory.Booting, ID: 2, PrivateIPv4: private},
		{Pool: "web", Phase: inventory.Serving, ID: 3, PrivateIPv4: private, PublicIPv4: public},
		{Pool: "web", Phase: inventory.Draining, ID: 4, PublicIPv4: public},
		{Pool: "web", Phase: inventory.Deleting, ID: 5, PrivateIPv4: private},
		{Pool: "api", Phase: inventory.Serving, ID: 6, PrivateIPv4: private},
		{Pool: "gone", Phase: inventory.Serving, ID: 7, PrivateIPv4: private},
	} {
		d.Name = fmt.Sprintf("d-%d", i)
		droplets[d.Name] = &d
	}
	got := map[string]string{}
	for _, b := range Wanted(Config{}, pools, droplets).Backends {
		for _, s := range b.Servers {
			got[s.Name] = fmt.Sprintf("%s %s:%d weight %d of %s", b.Name, s.Address, s.Port, s.Weight, s.Hostname)
		}
	}
	want := map[string]string{
		"www-2": "web 10.0.0.1:80 weight 0 of d-2",
		"www-3": "web 10.0.0.1:80 weight 100 of d-3",
		"www-4": "web 203.0.113.1:80 weight 0 of d-4",
		"www-6": "api 10.0.0.1:8080 weight 100 of d-6",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// Whatever happens to an inventory, a Tracker wants what Wanted does, and leaves
// what it returned before as it was.
func TestTrackerWantsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pools := map[string]*inventory.Pool{}
		droplets := map[string]*inventory.Droplet{}
		tracker := NewTracker(Config{})
		type step struct{ got, want Config }
		var steps []step
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			pools, droplets = maps.Clone(pools), maps.Clone(droplets)
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				name := fmt.Sprintf("d-%d", rapid.IntRange(0, 6).Draw(t, "droplet"))
				pool := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "pool")
				switch rapid.IntRange(0, 5).Draw(t, "kind") {
				case 0:
					delete(droplets, name)
				case 1:
					pools[pool] = &inventory.Pool{PoolSpec: inventory.PoolSpec{Name: pool, Backend: inventory.Backend{Port: uint16(rapid.IntRange(0, 3).Draw(t, "port"))}}}
				default:
					d := &inventory.Droplet{Name: name, Pool: pool}
					if old := droplets[name]; old != nil {
						d.Pool = old.Pool
					}
					d.Phase = rapid.SampledFrom([]inventory.Phase{inventory.Requested, inventory.Booting, inventory.Serving, inventory.Draining, inventory.Deleting}).Draw(t, "phase")
					if d.Phase != inventory.Requested {
						d.ID = int64(100 + len(name)*10 + int(name[2]) + 10*rapid.IntRange(0, 1).Draw(t, "id"))
						d.PrivateIPv4 = netip.AddrFrom4([4]byte{10, 0, 0, name[2]})
					}
					droplets[name] = d
				}
			}
			steps = append(steps, step{tracker.Wanted(&inventory.State{Pools: pools, Droplets: droplets}), Wanted(Config{}, pools, droplets)})
		}
		for i, s := range steps {
			if len(s.got.Backends) != len(s.want.Backends) {
				t.Fatalf("step %d: %v, want %v", i, s.got, s.want)
			}
			for j := range s.want.Backends {
				got, want := s.got.Backends[j], s.want.Backends[j]
				if len(got.Servers) == 0 && len(want.Servers) == 0 {
					got.Servers, want.Servers = nil, nil
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("step %d: %+v\nwant %+v", i, got, want)
				}
			}
		}
	})
}
