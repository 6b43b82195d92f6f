package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// vanish takes droplets off the list, and the cloud says that they are gone.
func (s *scene) vanish(ids ...int64) {
	s.Facts.List.All = slices.DeleteFunc(s.Facts.List.All, func(d cloud.Droplet) bool { return slices.Contains(ids, d.ID) })
	s.Facts.List = newList(s.Facts.List.Sent, s.Facts.List.All)
	for _, id := range ids {
		s.Facts.got[id] = got{at: noon, state: gotGone}
		s.State.Droplets[fmt.Sprintf("web-%d", id-1000)].Since = noon.Add(-time.Hour)
	}
}

func (s *scene) confirm(names ...string) {
	s.State.Confirms = map[string]*inventory.Confirm{"web": {Pool: "web", Names: names, Since: noon.Add(-time.Minute)}}
}

// held are the names that a decision's notes hold.
func held(d Decision) (names []string) {
	for _, n := range d.Notes {
		names = append(names, n.Names...)
	}
	return names
}

func TestWipeGuard(t *testing.T) {
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	serve, boot, req := inventory.Serving, inventory.Booting, inventory.Requested
	down, up := inventory.ServerState{Health: inventory.Down}, inventory.ServerState{Health: inventory.Up}
	for _, test := range []struct {
		name  string
		phase inventory.Phase
		set   func(s *scene)
		want  string
		held  string
	}{
		{"unasked, one of three", serve, func(s *scene) { s.pool.Desired = 2 }, "web-2 draining id 1002", ""},
		{"unasked, two of three", serve, func(s *scene) { s.pool.Desired = 1 }, "note surplus web", "web-1 web-2"},
		{"unasked, all", serve, func(s *scene) { s.pool.Desired = 0 }, "note surplus web", "web-0 web-1 web-2"},
		{"released, all", serve, func(s *scene) { s.pool.Desired, s.pool.Release = 0, 3 },
			"pool(next 3, failures 0, desired 0, remove [], import []); web-0 draining id 1000; web-1 draining id 1001; web-2 draining id 1002", ""},
		{"released one, two more unasked", serve, func(s *scene) { s.pool.Desired, s.pool.Release = 0, 1 },
			"pool(next 3, failures 0, desired 0, remove [], import []); web-2 draining id 1002; note surplus web", "web-0 web-1"},
		{"confirmed", serve, func(s *scene) { s.pool.Desired = 1; s.confirm("web-1", "web-2") }, "web-1 draining id 1001; web-2 draining id 1002", ""},
		{"confirmed, another", serve, func(s *scene) { s.pool.Desired = 1; s.confirm("web-0") }, "note surplus web", "web-1 web-2"},
		{"confirmed long ago", serve, func(s *scene) {
			s.pool.Desired = 1
			s.confirm("web-1", "web-2")
			s.State.Confirms["web"].Since = ago(time.Hour)
		}, "note surplus web", "web-1 web-2"},
		{"confirmed for another pool", serve, func(s *scene) {
			s.pool.Desired = 1
			s.confirm("web-1", "web-2")
			s.State.Confirms["api"] = s.State.Confirms["web"]
			delete(s.State.Confirms, "web")
		}, "note surplus web", "web-1 web-2"},
		{"adopted, one of three", serve, func(s *scene) { s.pool.Desired = 2; s.State.Droplets["web-2"].Adopted = true }, "note surplus web", "web-2"},
		{"booting, nothing to lose", boot, func(s *scene) {
			s.pool.Desired = 0
			s.sees(3, down)
			delete(s.State.Droplets, "web-0")
			delete(s.State.Droplets, "web-2")
			s.list(ago(time.Second), 1001)
		}, "web-1 deleting id 1001", ""},
		{"booting, up on one", boot, func(s *scene) { s.pool.Desired = 2; s.sees(1, up) }, "web-1 draining id 1001", ""},
		{"booting, in a restored inventory", boot, func(s *scene) { s.pool.Desired, s.pool.Rewound = 2, ago(time.Hour); s.sees(3, down) }, "note surplus web", "web-1"},
		{"restored, one of three", serve, func(s *scene) { s.pool.Desired, s.pool.Rewound = 2, ago(time.Hour) }, "note surplus web", "web-2"},
		{"restored, confirmed", serve, func(s *scene) { s.pool.Desired, s.pool.Rewound = 2, ago(time.Hour); s.confirm("web-2") },
			"web-2 draining id 1002; pool(next 3, failures 0, desired 2, remove [], import [])", ""},
		{"restored, never made", req, func(s *scene) { s.unmade(time.Time{}); s.pool.Desired, s.pool.Rewound = 2, ago(time.Hour) },
			"forget web-1; pool(next 3, failures 0, desired 2, remove [], import [])", ""},
		{"asked away by name", serve, func(s *scene) { s.pool.Desired, s.pool.Remove = 0, []string{"web-0", "web-1", "web-2"} },
			"web-0 draining id 1000; web-1 draining id 1001; web-2 draining id 1002", ""},
		{"before the first list of the term", serve, func(s *scene) { s.pool.Desired, s.pool.Release = 2, 1; s.Facts.Term = noon }, "", ""},
		{"released, and no surplus is left", serve, func(s *scene) { s.pool.Release = 2 }, "pool(next 3, failures 0, desired 3, remove [], import [])", ""},

		{"gone, one of three", serve, func(s *scene) { s.pool.Desired = 2; s.vanish(1001) }, "web-1 deleting id 1001", ""},
		{"gone, two of three, and up", serve, func(s *scene) { s.vanish(1001, 1002) }, "note gone web", "web-1 web-2"},
		{"gone, two of three, and down", serve, func(s *scene) {
			s.pool.Desired = 1
			s.vanish(1001, 1002)
			for _, n := range s.State.Nodes {
				n.Servers["web-1"], n.Servers["web-2"] = down, down
			}
		}, "web-1 deleting id 1001; web-2 deleting id 1002", ""},
		{"gone, two of three, and one of these down", serve, func(s *scene) {
			s.pool.Desired = 2
			s.vanish(1001, 1002)
			s.pool.RetryAt = noon.Add(time.Second)
			s.sees(3, down)
		}, "web-1 deleting id 1001; web-2 deleting id 1002", ""},
		{"gone and up, confirmed", serve, func(s *scene) { s.pool.Desired = 1; s.vanish(1001, 1002); s.confirm("web-1", "web-2") },
			"web-1 deleting id 1001; web-2 deleting id 1002", ""},
		{"gone and up: asked for again", serve, func(s *scene) {
			s.vanish(1001, 1002)
			for _, id := range []int64{1001, 1002} {
				s.Facts.got[id] = got{at: ago(2 * time.Minute), state: gotGone}
			}
		}, "get 1001; get 1002; note gone web", "web-1 web-2"},
		{"all missing, but the list has another of the cluster", serve, func(s *scene) {
			for _, d := range s.State.Droplets {
				d.Since = ago(time.Hour)
			}
			s.list(ago(time.Second), 1007)
		}, "pool(next 8, failures 0, desired 3, remove [], import []); get 1000; get 1001; get 1002; get 1007", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(test.phase)
			test.set(s)
			before := dump(s.State)
			d := Plan(s.Input)
			if got := story(d); got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
			if got := strings.Join(held(d), " "); got != test.held {
				t.Errorf("held %q, want %q", got, test.held)
			}
			if dump(s.State) != before {
				t.Error("the input was changed")
			}
		})
	}
}

func TestWipeGuardSaysWhatToDo(t *testing.T) {
	s := newScene(inventory.Serving)
	s.pool.Desired = 1
	n := Plan(s.Input).Notes[0]
	want := "pool web: 2 of 3 serving droplets are surplus and no request let them go: held. " +
		"See them with doproxy status; doproxy confirm web lets them go, doproxy scale web=N sets what you want"
	if n.Message != want || n.Type != "fleet.held" || n.Pool != "web" {
		t.Errorf("%s", dump(n))
	}
}

// TestReleaseIsCountedDown also keeps each transaction within what etcd takes.
func TestReleaseIsCountedDown(t *testing.T) {
	for _, n := range []int{30, 300} {
		in := resting(n)
		pool := in.State.Pools["web"]
		pool.Desired, pool.Release = 3, n-3
		for pass := 1; pool.Release > 0; pass++ {
			if pass > n/30+1 {
				t.Fatalf("%d droplets: %d are still to go after %d passes", n, pool.Release, pass)
			}
			before, left := pool.Release, 0
			for _, g := range Plan(in).Groups {
				if len(g.Writes) > maxWrites {
					t.Errorf("%d writes in one transaction", len(g.Writes))
				}
				for _, w := range g.Writes {
					if w.Pool != nil {
						in.State.Pools["web"], pool = w.Pool, w.Pool
					} else if w.Droplet.Phase == inventory.Draining {
						left++
						in.State.Droplets[w.Droplet.Name] = w.Droplet
					}
				}
			}
			if left == 0 || before-pool.Release != left {
				t.Fatalf("%d droplets: %d leave and the release falls from %d to %d", n, left, before, pool.Release)
			}
		}
	}
}

// TestOldCopy is about records of a restored inventory, and what became of their
// droplets since.
func TestOldCopy(t *testing.T) {
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	up := inventory.ServerState{Health: inventory.Up}
	for _, test := range []struct {
		name  string
		phase inventory.Phase
		set   func(s *scene)
		want  string
	}{
		{"requested, serves", inventory.Requested, func(s *scene) { s.unmade(ago(time.Hour)); s.list(ago(time.Second), 1000, 1001, 1002) }, "web-1 booting id 1001"},
		{"requested and surplus, serves", inventory.Requested, func(s *scene) {
			s.unmade(ago(time.Hour))
			s.pool.Desired = 2
			s.list(ago(time.Second), 1000, 1001, 1002, 1007)
		}, "web-1 booting id 1001; pool(next 8, failures 0, desired 2, remove [], import []); get 1007; note surplus web"},
		{"requested, gone", inventory.Requested, func(s *scene) {
			s.unmade(ago(time.Hour))
			s.d.Created = ago(time.Hour)
			s.pool.Rewound = ago(time.Minute)
		}, "forget web-1; pool(next 4, failures 0, desired 3, remove [], import []); web-3 requested id 0 asked; create web-3"},
		{"requested, perhaps gone", inventory.Requested, func(s *scene) {
			s.unmade(ago(10 * time.Second))
			s.d.Created, s.pool.Rewound = ago(time.Hour), ago(time.Second)
		}, ""},
		{"booting for long, no node looked yet", inventory.Booting, func(s *scene) { s.d.Since = ago(time.Hour) }, ""},
		{"booting for long, serves", inventory.Booting, func(s *scene) { s.d.Since = ago(time.Hour); s.sees(3, up) }, "web-1 serving id 1001"},
		{"booting, gone", inventory.Booting, func(s *scene) { s.pool.Desired = 2; s.vanish(1001) },
			"pool(next 3, failures 1, desired 2, remove [], import []); web-1 deleting id 1001"},
		{"draining, gone", inventory.Draining, func(s *scene) { s.pool.Desired = 2; s.vanish(1001) }, "web-1 deleting id 1001"},
		{"deleting, gone", inventory.Deleting, func(s *scene) { s.pool.Desired = 2; s.vanish(1001) }, "forget web-1"},
		{"a name beyond the next", inventory.Serving, func(s *scene) {
			s.pool.Desired, s.pool.Release = 2, 2
			s.list(ago(time.Second), 1000, 1001, 1002, 1007)
			s.Facts.got[1007] = got{at: noon, state: gotExists}
		}, "pool(next 8, failures 0, desired 2, remove [], import []); web-7 booting id 1007; note surplus web"},
		{"an import beyond the next", inventory.Serving, func(s *scene) {
			s.pool.Desired, s.pool.Import = 4, []int64{1007}
			s.list(ago(time.Second), 1000, 1001, 1002, 1007)
		}, "get 1007"},
		{"names that nodes remember", inventory.Serving, func(s *scene) {
			s.pool.Desired = 4
			s.Floor = map[string]int64{"web": 9}
		}, "pool(next 9, failures 0, desired 4, remove [], import [])"},
		{"names seen in this term", inventory.Serving, func(s *scene) {
			s.pool.NextOrdinal = 9
			s.Facts.See(s.State, noon)
			s.pool.NextOrdinal, s.pool.Desired = 3, 4
		}, "pool(next 9, failures 0, desired 4, remove [], import [])"},
		{"nothing is made while the list may lag", inventory.Serving, func(s *scene) { s.pool.Desired, s.pool.Rewound = 4, ago(20*time.Second) }, ""},
		{"every droplet is on record", inventory.Serving, func(s *scene) { s.pool.Rewound = ago(time.Minute) },
			"pool(next 3, failures 0, desired 3, remove [], import [])"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(test.phase)
			test.set(s)
			if got := story(Plan(s.Input)); got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestOldCopyIsNoted(t *testing.T) {
	s := newScene(inventory.Serving)
	s.pool.Release = 2
	s.list(noon.Add(-time.Second), 1000, 1001, 1002, 1007, 1008)
	d := Plan(s.Input)
	g := d.Groups[0]
	if p := g.Writes[0].Pool; !p.Rewound.Equal(noon) || p.Release != 0 || p.NextOrdinal != 9 {
		t.Errorf("%s", dump(p))
	}
	if len(g.Events) != 1 || g.Events[0].Type != "pool.rewound" {
		t.Errorf("%s", dump(g.Events))
	}
}

// TestUnreadableHoldsItsPoolAlone: the others go on.
func TestUnreadableHoldsItsPoolAlone(t *testing.T) {
	s := newScene(inventory.Serving)
	s.pool.Desired = 4
	s.State.Pools["api"] = &inventory.Pool{PoolSpec: inventory.PoolSpec{Name: "api", HostnamePrefix: "api", Max: 5}, Desired: 1, Mod: 6}
	for key, want := range map[string]string{
		"/doproxy/c/droplets/web/web-1": "pool(next 1, failures 0, desired 1, remove [], import []); api-0 requested id 0 asked; create api-0; note unreadable /doproxy/c/droplets/web/web-1",
		"/doproxy/c/pools/web":          "pool(next 1, failures 0, desired 1, remove [], import []); api-0 requested id 0 asked; create api-0; note unreadable /doproxy/c/pools/web",
		"/doproxy/c/else/web": "pool(next 1, failures 0, desired 1, remove [], import []); api-0 requested id 0 asked; " +
			"pool(next 4, failures 0, desired 4, remove [], import []); web-3 requested id 0 asked; create api-0; create web-3",
		"/doproxy/c/members/lb-1": "",
	} {
		s.State.Unreadable = map[string]string{key: "bad"}
		got := story(Plan(s.Input))
		if strings.Contains(want, "web-3") || want == "" {
			if !strings.Contains(got, "create api-0") || !strings.Contains(got, "create web-3") || strings.Contains(got, "note") {
				t.Errorf("%s: %s", key, got)
			}
		} else if got != want {
			t.Errorf("%s:\n got %s\nwant %s", key, got, want)
		}
	}
}

// TestOldCopyRestored goes back to an earlier copy of the store at some moment,
// while the cloud does not. From then on nobody asks for anything: nothing that
// serves may go. In the end, once an operator confirmed, all must be as wanted.
func TestOldCopyRestored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.operator()
		w.steps(rapid.IntRange(1, 80).Draw(t, "steps before"))
		old := w.copy()
		w.steps(rapid.IntRange(1, 80).Draw(t, "steps lost"))
		w.restore(old)
		for range rapid.IntRange(1, 80).Draw(t, "steps after") {
			w.step()
			w.kept()
		}
		w.quiet, w.protected = false, nil
		w.settle()
	})
}

func (w *world) steps(n int) {
	for range n {
		w.step()
	}
}

// copy is the records that a snapshot of the store has.
func (w *world) copy() map[string][]byte {
	l, err := w.store.List(context.Background(), w.keys.Prefix())
	if err != nil {
		w.t.Fatal(err)
	}
	old := map[string][]byte{}
	for _, kv := range l.KVs {
		if rest := strings.TrimPrefix(kv.Key, w.keys.Prefix()); strings.HasPrefix(rest, "pools/") || strings.HasPrefix(rest, "droplets/") {
			old[kv.Key] = kv.Value
		}
	}
	return old
}

func (w *world) restore(old map[string][]byte) {
	w.protected = map[int64]bool{}
	for _, d := range w.state().Droplets {
		if w.served[d.ID] && !d.Phase.Leaving() {
			w.protected[d.ID] = true
		}
	}
	for key := range w.copy() {
		if old[key] == nil {
			if _, err := w.store.Commit(context.Background(), inventory.Txn{Ops: []inventory.Op{{Key: key, Delete: true}}}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(old)) {
		if _, err := w.store.Commit(context.Background(), inventory.Txn{Ops: []inventory.Op{{Key: key, Value: old[key]}}}); err != nil {
			w.t.Fatal(err)
		}
	}
	s := w.state()
	p := s.Pools["web"]
	for _, d := range s.Droplets {
		// What was asked for then may be carried out now. A name that had no
		// droplet yet is the one case in which a name may come to be twice.
		if slices.Contains(p.Remove, d.Name) || d.Phase.Leaving() {
			delete(w.protected, d.ID)
		}
		if d.ID == 0 {
			w.excused[d.Name] = true
		}
	}
	w.quiet, w.doubles, w.released = true, true, p.Release
}

// kept checks that nothing that served is on its way out.
func (w *world) kept() {
	leaving := 0
	for _, d := range w.state().Droplets {
		if sim := w.droplets[d.ID]; d.Phase.Leaving() && w.protected[d.ID] && sim.lives(w.now) && !sim.sick && !w.excused[d.Name] {
			if leaving++; leaving > w.released {
				w.t.Fatalf("%s, which serves, is %s since %s: %s", d.Name, d.Phase, d.Since, d.Reason)
			}
		}
	}
	for name, n := range w.made {
		if n > 1 && !w.excused[name] {
			w.t.Fatalf("%s was made %d times", name, n)
		}
	}
}
