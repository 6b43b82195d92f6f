package fleet

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// resting is a pool of n droplets that all serve, as cloud and nodes see them.
func resting(n int) Input {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	s := &inventory.State{Listed: true, Meta: &inventory.Meta{UID: "u1", Schema: 1},
		Pools:    map[string]*inventory.Pool{"web": {PoolSpec: inventory.PoolSpec{Name: "web", HostnamePrefix: "web", Max: 2 * n}, Desired: n, NextOrdinal: int64(n), Mod: 5}},
		Droplets: map[string]*inventory.Droplet{}, Nodes: map[string]*inventory.Node{}}
	var all []cloud.Droplet
	for i := range n {
		d := inventory.Droplet{Name: fmt.Sprintf("web-%d", i), Pool: "web", Phase: inventory.Serving, Since: now.Add(-time.Hour),
			ID: int64(1000 + i), Status: "active", Active: now.Add(-time.Hour), Created: now.Add(-time.Hour),
			PrivateIPv4: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
		all = append(all, cloud.Droplet{Droplet: d})
		d.Mod = 10
		s.Droplets[d.Name] = &d
	}
	for _, name := range []string{"lb-1", "lb-2", "lb-3"} {
		s.Nodes[name] = &inventory.Node{Name: name, HAProxy: "running", Applied: 20, Seen: 20}
	}
	f := NewFacts(now.Add(-time.Hour))
	f.StartList(now)
	f.EndList(now, now, all, nil)
	return Input{Now: now.Add(time.Second), Settings: Settings{}.withDefaults(), UID: "u1", State: s, Facts: f}
}

func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("resting-%d", n), func(b *testing.B) {
			in := resting(n)
			b.ReportAllocs()
			for b.Loop() {
				Plan(in)
			}
		})
		b.Run(fmt.Sprintf("one-becomes-healthy-of-%d", n), func(b *testing.B) {
			in := resting(n)
			d := *in.State.Droplets["web-7"]
			d.Phase = inventory.Booting
			in.State.Droplets["web-7"] = &d
			for _, node := range in.State.Nodes {
				node.Servers = map[string]inventory.ServerState{"web-7": {Health: inventory.Up}}
			}
			b.ReportAllocs()
			for b.Loop() {
				if d := Plan(in); len(d.Groups) != 1 {
					b.Fatal(dump(d))
				}
			}
		})
	}
}
