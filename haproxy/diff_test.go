package haproxy_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/haproxy"
)

func state(name string, weight uint16) haproxy.ServerState {
	return haproxy.ServerState{Name: name, Address: netip.MustParseAddr("10.0.0.1"), Port: 80, Weight: weight, Checks: true}
}

func TestDiff(t *testing.T) {
	moved := state("b", 1)
	moved.Port = 81
	maint, unchecked := state("a", 1), state("a", 1)
	maint.Admin, unchecked.Checks = haproxy.ForcedMaint, false
	type states = []haproxy.ServerState
	for name, c := range map[string]struct {
		have, want states
		changes    string
	}{
		"nothing":                          {states{state("a", 1)}, states{state("a", 1)}, ""},
		"new, booting":                     {nil, states{state("a", 0)}, "add a"},
		"new, serving":                     {nil, states{state("a", 5)}, "add a, set weight a 5"},
		"gone":                             {states{state("a", 1), state("b", 1)}, states{state("b", 1)}, "remove a"},
		"one drains as another is readied": {states{state("a", 9), state("b", 0)}, states{state("a", 0), state("b", 9)}, "set weight b 9, set weight a 0"},
		"moved":                            {states{state("a", 1), state("b", 1)}, states{state("a", 1), moved}, "remove b, add b, set weight b 1"},
		"replaced":                         {states{state("a", 1)}, states{state("b", 1)}, "add b, set weight b 1, remove a"},
		"in maintenance":                   {states{maint}, states{state("a", 1)}, "ready a"},
		"checks switched off":              {states{unchecked}, states{state("a", 1)}, "enable checks a"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tell(haproxy.Diff(c.have, c.want)); got != c.changes {
				t.Errorf("%q, want %q", got, c.changes)
			}
		})
	}
}

func tell(changes []haproxy.Change) string {
	var out []string
	for _, c := range changes {
		s := c.Kind.String() + " " + c.Server.Name
		if c.Kind == haproxy.SetWeight {
			s += fmt.Sprintf(" %d", c.Server.Weight)
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// Whatever HAProxy has, executing the changes in their order gives what is
// wanted, no step is impossible, and the input stays as it was.
func TestDiffLeadsThere(t *testing.T) {
	servers := rapid.Custom(func(t *rapid.T) []haproxy.ServerState {
		names := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}), rapid.ID[string]).Draw(t, "names")
		slices.Sort(names)
		var out []haproxy.ServerState
		for _, n := range names {
			out = append(out, haproxy.ServerState{
				Name: n, Address: netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "address") % 2}),
				Port: rapid.Uint16Range(1, 2).Draw(t, "port"), Weight: rapid.Uint16Range(0, 2).Draw(t, "weight"),
				Admin: haproxy.AdminState(rapid.SampledFrom([]int{0, 0, 1, 8}).Draw(t, "admin")), Checks: rapid.Bool().Draw(t, "checks"),
			})
		}
		return out
	})
	rapid.Check(t, func(t *rapid.T) {
		have, want := servers.Draw(t, "have"), servers.Draw(t, "want")
		for i := range want {
			want[i].Admin, want[i].Checks = 0, true
		}
		have0, want0 := slices.Clone(have), slices.Clone(want)
		changes := haproxy.Diff(have, want)
		if !reflect.DeepEqual(have, have0) || !reflect.DeepEqual(want, want0) {
			t.Fatal("the input was changed")
		}
		world := map[string]haproxy.ServerState{}
		for _, s := range have {
			world[s.Name] = s
		}
		for _, c := range changes {
			s, ok := world[c.Server.Name]
			if ok == (c.Kind == haproxy.Add) {
				t.Fatalf("%s cannot be done: %s", tell([]haproxy.Change{c}), tell(changes))
			}
			switch c.Kind {
			case haproxy.Add:
				s = c.Server
				s.Weight = 0
			case haproxy.Remove:
				delete(world, s.Name)
				continue
			case haproxy.SetWeight:
				s.Weight = c.Server.Weight
			case haproxy.Ready:
				s.Admin = 0
			case haproxy.EnableChecks:
				s.Checks = true
			}
			world[s.Name] = s
		}
		if len(world) != len(want) {
			t.Fatalf("%d servers instead of %d", len(world), len(want))
		}
		for _, w := range want {
			if world[w.Name] != w {
				t.Fatalf("%+v instead of %+v after %s", world[w.Name], w, tell(changes))
			}
		}
		if len(haproxy.Diff(want, want)) != 0 {
			t.Fatal("changes from a state to itself")
		}
	})
}
