package fleet

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// rebuilt is an inventory without droplets, and a cloud with n of pool web.
func rebuilt(n int) Input {
	in := resting(n)
	in.State.Meta.Rebuilt = in.Now.Add(-time.Minute)
	for i := range in.Facts.List.All {
		c := &in.Facts.List.All[i]
		c.Region, c.Size, c.Image = "fra1", "s-1vcpu-1gb", "ubuntu-24-04-x64"
	}
	clear(in.State.Droplets)
	return in
}

// follow carries out what a decision writes, and returns how many events of each
// type that brought.
func follow(in *Input, d Decision) map[string]int {
	events := map[string]int{}
	for _, g := range d.Groups {
		for _, w := range g.Writes {
			switch {
			case w.Pool != nil:
				p := *w.Pool
				p.Mod++
				in.State.Pools[p.Name] = &p
			case w.Delete:
				delete(in.State.Droplets, w.Droplet.Name)
			case w.Droplet != nil:
				d := *w.Droplet
				d.Mod++
				in.State.Droplets[d.Name] = &d
			}
		}
		for _, e := range g.Events {
			events[e.Type]++
		}
	}
	return events
}

func TestRebuildAdoptsAThousandWithoutAsking(t *testing.T) {
	in := rebuilt(1000)
	pool := in.State.Pools["web"]
	pool.NextOrdinal = 990 // the memory that it was made from was a little old
	pool.Desired = 990
	passes := 0
	for ; len(in.State.Droplets) < 1000; passes++ {
		if passes > 15 {
			t.Fatalf("%d on record after %d passes", len(in.State.Droplets), passes)
		}
		d := Plan(in)
		if len(d.Gets)+len(d.Deletes) > 0 {
			t.Fatalf("gets %v, deletes %v", d.Gets, d.Deletes)
		}
		for _, g := range d.Groups {
			if len(g.Writes) > maxWrites || len(g.Creates) > 0 {
				t.Fatalf("%d writes, creates %v", len(g.Writes), g.Creates)
			}
		}
		follow(&in, d)
	}
	t.Logf("%d passes", passes)
	p := in.State.Pools["web"]
	if p.NextOrdinal != 1000 || p.Desired != 990 {
		t.Errorf("%s", dump(p))
	}
	for _, d := range in.State.Droplets {
		d.Phase = inventory.Serving
	}
	d := Plan(in)
	if n := len(held(d)); n != 10 {
		t.Errorf("%d of the 10 beyond what was wanted are held: %s", n, story(d))
	}
	follow(&in, d)
	in.Now = in.Now.Add(2 * time.Hour)
	if d := Plan(in); len(held(d)) != 10 || len(d.Deletes) > 0 {
		t.Errorf("two hours later %s", story(d))
	}
}

func TestRebuildMakesPoolsFromTags(t *testing.T) {
	in := rebuilt(5)
	clear(in.State.Pools)
	stray := func(id int64, name, pool, size string) {
		in.Facts.List = newList(in.Facts.List.Sent, append(in.Facts.List.All, cloud.Droplet{Droplet: inventory.Droplet{
			Name: name, Pool: pool, ID: id, Region: "ams3", Size: size, Image: "debian-12-x64", PrivateIPv4: netip.AddrFrom4([4]byte{10, 2, 0, byte(id)}),
		}}))
	}
	stray(1, "old-box", "web", "s-2vcpu-2gb")
	stray(2, "WEB-7", "api", "s-2vcpu-2gb")
	stray(3, "box", "No Pool", "s-2vcpu-2gb")
	d := Plan(in)
	events := follow(&in, d)
	if events["pool.rebuilt"] != 2 || len(in.State.Droplets) != 0 || len(d.Gets) != 0 {
		t.Fatalf("%v: %s", events, story(d))
	}
	p := *in.State.Pools["web"]
	if p.HostnamePrefix != "web" || p.Desired != 6 || p.Min != 0 || p.Max != rebuiltMax || p.NextOrdinal != 5 ||
		p.Template.Region != "fra1" || p.Template.Size != "s-1vcpu-1gb" || p.Template.Image != "ubuntu-24-04-x64" || p.Stopped.IsZero() || p.Reason == "" {
		t.Errorf("%s", dump(p))
	}
	// Its names are of a prefix that differs from web's by case alone.
	if p := in.State.Pools["api"]; p.HostnamePrefix == "web" || p.Desired != 1 {
		t.Errorf("%s", dump(p))
	}
	if p := in.State.Pools["No Pool"]; p != nil {
		t.Errorf("%s", dump(p))
	}
	d = Plan(in)
	follow(&in, d)
	if len(in.State.Droplets) != 7 || len(d.Gets)+len(d.Deletes) > 0 {
		t.Errorf("%d on record: %s", len(in.State.Droplets), story(d))
	}
	if d := Plan(in); slices.ContainsFunc(d.Groups, func(g Group) bool { return len(g.Creates) > 0 }) || len(held(d)) > 0 {
		t.Errorf("%s", story(d))
	}
}

func TestRebuildOnlyWhenAsked(t *testing.T) {
	for what, set := range map[string]func(in *Input){
		"not rebuilt":                       func(in *Input) { in.State.Meta.Rebuilt = time.Time{} },
		"rebuilt long ago":                  func(in *Input) { in.State.Meta.Rebuilt = in.Now.Add(-rebuildFor) },
		"with a list of an earlier term":    func(in *Input) { in.Facts.Term = in.Now },
		"with a pool's record set aside":    func(in *Input) { in.State.Unreadable = map[string]string{"/doproxy/c/pools/web": "bad"} },
		"of another cluster, which is none": func(in *Input) { in.State.Meta.UID = "u2" },
	} {
		in := rebuilt(5)
		clear(in.State.Pools)
		set(&in)
		if d := Plan(in); len(d.Groups)+len(d.Gets)+len(d.Deletes) > 0 {
			t.Errorf("%s: %s", what, story(d))
		}
	}
}

func TestMembers(t *testing.T) {
	at := func(d time.Duration) time.Time { return noon.Add(d) }
	for _, test := range []struct {
		name string
		set  func(s *scene)
		want string
	}{
		{"all are there", func(s *scene) {}, ""},
		{"silent", func(s *scene) { s.Facts.nodes["lb-3"] = at(-time.Second); delete(s.State.Nodes, "lb-3") }, "node.silent lb-3 12:00:00 -1s"},
		{"silent, never seen", func(s *scene) { delete(s.State.Nodes, "lb-3") }, "node.silent lb-3 12:00:00 -1h0m0s"},
		{"silent, never seen, the term is young", func(s *scene) { delete(s.State.Nodes, "lb-3"); s.Facts.Term = at(-time.Second) }, ""},
		{"silent, just joined", func(s *scene) { delete(s.State.Nodes, "lb-3"); s.State.Members["lb-3"].Joined = at(-time.Second) }, ""},
		{"silent, on record", func(s *scene) { delete(s.State.Nodes, "lb-3"); s.State.Members["lb-3"].Silent = at(-time.Minute) }, ""},
		{"back", func(s *scene) { s.State.Members["lb-3"].Silent = at(-3 * time.Minute) }, "node.back lb-3 reports again after 3m0s"},
		{"not a member yet", func(s *scene) { delete(s.State.Members, "lb-3") }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(inventory.Serving)
			s.State.Members = map[string]*inventory.Member{}
			for name := range s.State.Nodes {
				s.State.Members[name] = &inventory.Member{Name: name, Joined: at(-24 * time.Hour), Mod: 3}
			}
			test.set(s)
			before := dump(s.State)
			got := ""
			for _, g := range Plan(s.Input).Groups {
				e, m := g.Events[0], g.Writes[0].Member
				got += fmt.Sprint(e.Type, " ", e.Node, " ")
				if m.Silent.IsZero() {
					got += e.Message
				} else {
					got += fmt.Sprint(noon.Format(time.TimeOnly), " ", m.Silent.Sub(noon))
				}
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if dump(s.State) != before {
				t.Error("the input was changed")
			}
		})
	}
}

// TestDrainWaitsForMembers: a node that fell silent before this leader's term may
// hold sessions as well.
func TestDrainWaitsForMembers(t *testing.T) {
	for silent, want := range map[time.Duration]string{time.Minute: "", time.Hour: "web-1 deleting id 1001"} {
		s := newScene(inventory.Draining)
		s.pool.Desired = 2
		s.sees(3, inventory.ServerState{})
		s.State.Members = map[string]*inventory.Member{"lb-9": {Name: "lb-9", Silent: noon.Add(-silent), Mod: 3}}
		if got := story(Plan(s.Input)); got != want {
			t.Errorf("silent for %s: %q, want %q", silent, got, want)
		}
	}
}
