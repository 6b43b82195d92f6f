package fleet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// scene is a pool of three with one droplet that the test is about.
type scene struct {
	Input
	pool *inventory.Pool
	d    *inventory.Droplet
}

func newScene(phase inventory.Phase) *scene {
	in := resting(3)
	in.Now = noon
	s := &scene{Input: in, pool: in.State.Pools["web"], d: in.State.Droplets["web-1"]}
	s.d.Phase, s.d.Since = phase, noon.Add(-10*time.Second)
	s.Facts.Term = noon.Add(-time.Hour)
	for _, n := range s.State.Nodes {
		n.Servers = map[string]inventory.ServerState{}
	}
	s.list(noon.Add(-time.Second), 1000, 1001, 1002)
	return s
}

// list as of a moment, of the pool's droplets with these ids.
func (s *scene) list(sent time.Time, ids ...int64) {
	var all []cloud.Droplet
	for _, id := range ids {
		d := cloud.Droplet{Droplet: inventory.Droplet{Name: fmt.Sprintf("web-%d", id-1000), Pool: "web", ID: id, Status: "active",
			PrivateIPv4: netip.AddrFrom4([4]byte{10, 0, 0, byte(id - 1000)})}}
		all = append(all, d)
	}
	s.Facts.StartList(sent)
	s.Facts.EndList(sent, sent, all, nil)
}

// also adds one to the last list.
func (s *scene) also(d cloud.Droplet) {
	s.Facts.List = newList(s.Facts.List.Sent, append(s.Facts.List.All, d))
}

// sees is what this many nodes report of the droplet.
func (s *scene) sees(count int, st inventory.ServerState) {
	for _, name := range []string{"lb-1", "lb-2", "lb-3"}[:count] {
		s.State.Nodes[name].Servers[s.d.Name] = st
	}
}

// unmade turns the droplet into a request that may or may not be under way.
func (s *scene) unmade(asked time.Time) {
	s.d.ID, s.d.Status, s.d.PrivateIPv4, s.d.Active, s.d.Asked = 0, "", netip.Addr{}, time.Time{}, asked
	s.list(noon.Add(-time.Second), 1000, 1002)
}

// story is a decision in few words.
func story(d Decision) string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, g := range d.Groups {
		for _, w := range g.Writes {
			switch {
			case w.Pool != nil:
				add("pool(next %d, failures %d, desired %d, remove %v, import %v)", w.Pool.NextOrdinal, w.Pool.Failures, w.Pool.Desired, w.Pool.Remove, w.Pool.Import)
			case w.Delete:
				add("forget %s", w.Droplet.Name)
			default:
				asked := ""
				if !w.Droplet.Asked.IsZero() {
					asked = " asked"
				}
				add("%s %s id %d%s", w.Droplet.Name, w.Droplet.Phase, w.Droplet.ID, asked)
			}
		}
		for _, c := range g.Creates {
			add("create %s", strings.Join(c.Names, " "))
		}
	}
	for _, id := range d.Deletes {
		add("delete %d", id)
	}
	for _, id := range d.Gets {
		add("get %d", id)
	}
	for _, a := range d.Adopts {
		add("adopt %d", a.ID)
	}
	for _, n := range d.Notes {
		add("note %s", n.Key)
	}
	return strings.Join(out, "; ")
}

func TestPlan(t *testing.T) {
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	req, boot, serve, drain, del := inventory.Requested, inventory.Booting, inventory.Serving, inventory.Draining, inventory.Deleting
	up, down := inventory.ServerState{Health: inventory.Up}, inventory.ServerState{Health: inventory.Down}
	for _, test := range []struct {
		name  string
		phase inventory.Phase
		set   func(s *scene)
		want  string
	}{
		{"rest", serve, func(s *scene) {}, ""},

		// What is not to be acted upon.
		{"no meta", boot, func(s *scene) { s.sees(3, up); s.State.Meta = nil }, "note meta"},
		{"another cluster", boot, func(s *scene) { s.sees(3, up); s.State.Meta.UID = "u2" }, "note meta"},
		{"not read", boot, func(s *scene) { s.sees(3, up); s.State.Listed = false }, "note mirror"},
		{"out of touch", boot, func(s *scene) { s.sees(3, up); s.State.Err = fmt.Errorf("lost") }, ""},
		{"pool's record gone", del, func(s *scene) { delete(s.State.Pools, "web") }, "note pool web"},
		{"wiped", serve, func(s *scene) { clear(s.State.Droplets); clear(s.State.Pools) }, "note stranger 1000; note stranger 1001; note stranger 1002"},
		{"unreadable record", serve, func(s *scene) {
			s.State.Unreadable = map[string]string{"/doproxy/c/droplets/web/web-1": "bad"}
			delete(s.State.Droplets, "web-1")
		}, "note unreadable /doproxy/c/droplets/web/web-1"},

		// Scaling.
		{"out", serve, func(s *scene) { s.pool.Desired = 5 },
			"pool(next 5, failures 0, desired 5, remove [], import []); web-3 requested id 0 asked; web-4 requested id 0 asked; create web-3 web-4"},
		{"out past max", serve, func(s *scene) { s.pool.Desired, s.pool.Max = 9, 4 },
			"pool(next 4, failures 0, desired 9, remove [], import []); web-3 requested id 0 asked; create web-3; note limit.max web"},
		{"out, leaving ones count for max", drain, func(s *scene) { s.pool.Desired, s.pool.Max = 3, 3; s.sees(3, inventory.ServerState{Sessions: 1}) }, "note limit.max web"},
		{"out before the first list", serve, func(s *scene) { s.pool.Desired = 5; s.Facts.List = nil }, ""},
		{"out with a list of an earlier term", serve, func(s *scene) { s.pool.Desired = 5; s.Facts.Term = noon }, ""},
		{"out while held back", serve, func(s *scene) { s.pool.Desired = 5; s.pool.RetryAt = noon.Add(time.Second) }, ""},
		{"out while throttled", serve, func(s *scene) { s.pool.Desired = 5; s.Facts.Hold = noon.Add(time.Second) }, "note throttled"},
		{"out after failures: one call of few", serve, func(s *scene) { s.pool.Desired, s.pool.Failures, s.pool.Max = 9, 2, 99 },
			"pool(next 9, failures 2, desired 9, remove [], import []); web-3 requested id 0 asked; web-4 requested id 0 asked; web-5 requested id 0; web-6 requested id 0; web-7 requested id 0; web-8 requested id 0; create web-3 web-4"},
		{"out, skipping names that are taken", serve, func(s *scene) { s.pool.Desired, s.pool.NextOrdinal = 4, 2 },
			"pool(next 4, failures 0, desired 4, remove [], import []); web-3 requested id 0 asked; create web-3"},
		{"in, newest first", serve, func(s *scene) { s.pool.Desired = 2 }, "web-2 draining id 1002"},
		{"in, down first", serve, func(s *scene) { s.pool.Desired = 2; s.sees(2, down) }, "web-1 draining id 1001"},
		{"in, booting first", boot, func(s *scene) { s.pool.Desired = 2 }, "web-1 deleting id 1001"},
		{"in, unasked first", req, func(s *scene) { s.unmade(time.Time{}); s.pool.Desired = 2 }, "forget web-1"},
		{"in, an adopted one drains", boot, func(s *scene) { s.pool.Desired, s.pool.Release = 2, 1; s.d.Adopted = true },
			"pool(next 3, failures 0, desired 2, remove [], import []); web-1 draining id 1001"},
		{"in, one that may exist is not forgotten", req, func(s *scene) { s.unmade(ago(5 * time.Second)); s.pool.Desired = 2 }, "web-1 deleting id 0 asked"},
		{"exactly these", serve, func(s *scene) { s.pool.Desired = 2; s.pool.Remove = []string{"gone", "web-1"} },
			"web-1 draining id 1001; pool(next 3, failures 0, desired 2, remove [web-1], import [])"},

		// A request and what became of it.
		{"unasked is asked", req, func(s *scene) { s.unmade(time.Time{}) }, "web-1 requested id 0 asked; create web-1"},
		{"in flight", req, func(s *scene) {
			s.unmade(ago(time.Hour))
			s.Facts.StartCreate(Create{Pool: "web", Names: []string{"web-1"}, Asked: s.d.Asked})
		}, ""},
		{"ambiguous waits", req, func(s *scene) { s.unmade(ago(50 * time.Second)) }, ""},
		{"ambiguous, settled, list too old", req, func(s *scene) { s.unmade(ago(60*time.Second + 500*time.Millisecond)) }, ""},
		{"ambiguous, settled", req, func(s *scene) { s.unmade(ago(62 * time.Second)) }, "web-1 requested id 0 asked; create web-1"},
		{"of a leader before: counted from this term", req, func(s *scene) { s.unmade(ago(time.Hour)); s.Facts.Term = ago(50 * time.Second) }, ""},
		{"asked by a clock ahead", req, func(s *scene) { s.unmade(noon.Add(time.Hour)) }, "web-1 requested id 0 asked; create web-1"},
		{"found in the list", req, func(s *scene) { s.unmade(ago(5 * time.Second)); s.list(ago(time.Second), 1000, 1001, 1002) }, "web-1 booting id 1001"},
		{"found in the list, of another pool", req, func(s *scene) {
			s.unmade(ago(5 * time.Second))
			s.also(cloud.Droplet{Droplet: inventory.Droplet{Name: "web-1", Pool: "api", ID: 9}})
		}, "note stranger 9"},
		{"two of a name: the lowest id", req, func(s *scene) {
			s.unmade(ago(5 * time.Second))
			s.also(cloud.Droplet{Droplet: inventory.Droplet{Name: "web-1", Pool: "web", ID: 9}})
			s.also(cloud.Droplet{Droplet: inventory.Droplet{Name: "web-1", Pool: "web", ID: 8}})
		}, "web-1 booting id 8"},
		{"made", req, func(s *scene) {
			s.unmade(ago(time.Second))
			s.Facts.outcomes["web-1"] = outcome{asked: s.d.Asked, made: &cloud.Droplet{Droplet: inventory.Droplet{Name: "web-1", ID: 77}}}
		}, "web-1 booting id 77"},
		{"an outcome of an earlier call", req, func(s *scene) {
			s.unmade(ago(time.Second))
			s.Facts.outcomes["web-1"] = outcome{asked: ago(time.Hour), refused: "no"}
		}, ""},
		{"refused", req, func(s *scene) {
			s.unmade(ago(time.Second))
			s.Facts.outcomes["web-1"] = outcome{asked: s.d.Asked, refused: "no"}
		}, "pool(next 3, failures 1, desired 3, remove [], import []); web-1 requested id 0"},
		{"throttled", req, func(s *scene) {
			s.unmade(ago(time.Second))
			s.Facts.outcomes["web-1"] = outcome{asked: s.d.Asked, until: noon.Add(time.Minute)}
		}, "pool(next 3, failures 0, desired 3, remove [], import []); web-1 requested id 0"},

		// Booting.
		{"healthy on two of three", boot, func(s *scene) { s.sees(2, up) }, "web-1 serving id 1001"},
		{"healthy on one of three", boot, func(s *scene) { s.sees(1, up) }, ""},
		{"healthy on the one that runs", boot, func(s *scene) {
			s.sees(1, up)
			s.State.Nodes["lb-2"].HAProxy, s.State.Nodes["lb-3"].HAProxy = "failed", "stopped"
		}, "web-1 serving id 1001"},
		{"healthy ends failures", boot, func(s *scene) { s.sees(3, up); s.pool.Failures = 3 },
			"web-1 serving id 1001; pool(next 3, failures 0, desired 3, remove [], import [])"},
		{"boot deadline", boot, func(s *scene) { s.d.Since = ago(10 * time.Minute); s.sees(2, down) },
			"pool(next 3, failures 1, desired 3, remove [], import []); web-1 deleting id 1001"},
		{"boot deadline, no HAProxy runs", boot, func(s *scene) {
			s.d.Since = ago(10 * time.Minute)
			for _, n := range s.State.Nodes {
				n.HAProxy = "failed"
			}
		}, ""},
		{"boot deadline of an adopted one", boot, func(s *scene) { s.d.Since = ago(10 * time.Minute); s.d.Adopted = true; s.sees(2, down) },
			"web-1 booting id 1001; note unhealthy web-1"},

		// Draining.
		{"no sessions on any", drain, func(s *scene) { s.pool.Desired = 2; s.sees(3, inventory.ServerState{}) }, "web-1 deleting id 1001"},
		{"a session on one", drain, func(s *scene) {
			s.pool.Desired = 2
			s.sees(3, inventory.ServerState{})
			s.sees(1, inventory.ServerState{Sessions: 1})
		}, ""},
		{"one has not reported", drain, func(s *scene) { s.pool.Desired = 2; s.sees(2, inventory.ServerState{}) }, ""},
		{"one has not seen the drain", drain, func(s *scene) {
			s.pool.Desired = 2
			s.sees(3, inventory.ServerState{})
			s.State.Nodes["lb-3"].Seen = s.d.Mod - 1
		}, ""},
		{"no nodes", drain, func(s *scene) { s.pool.Desired = 2; clear(s.State.Nodes) }, ""},
		{"drain deadline", drain, func(s *scene) {
			s.pool.Desired = 2
			s.sees(3, inventory.ServerState{Sessions: 9})
			s.d.Since = ago(5 * time.Minute)
		}, "web-1 deleting id 1001"},

		// Deleting.
		{"out of every HAProxy", del, func(s *scene) { s.pool.Desired = 2 }, "delete 1001"},
		{"still in one HAProxy", del, func(s *scene) { s.pool.Desired = 2; s.State.Nodes["lb-2"].Applied = s.d.Mod - 1 }, ""},
		{"remove deadline", del, func(s *scene) {
			s.pool.Desired = 2
			s.State.Nodes["lb-2"].Applied = s.d.Mod - 1
			s.d.Since = ago(30 * time.Second)
		}, "delete 1001"},
		{"delete again only later", del, func(s *scene) {
			s.pool.Desired = 2
			s.Facts.StartDelete(1001, ago(4*time.Second))
			s.Facts.EndDelete(1001, ago(3*time.Second), cloud.ErrAmbiguous)
		}, ""},
		{"delete again", del, func(s *scene) {
			s.pool.Desired = 2
			s.Facts.StartDelete(1001, ago(6*time.Second))
			s.Facts.EndDelete(1001, ago(3*time.Second), cloud.ErrAmbiguous)
		}, "delete 1001"},
		{"off the list: asked for by id", del, func(s *scene) {
			s.pool.Desired = 2
			s.Facts.StartDelete(1001, ago(4*time.Second))
			s.Facts.EndDelete(1001, ago(3*time.Second), nil)
			s.list(ago(time.Second), 1000, 1002)
		}, "get 1001"},
		{"gone", del, func(s *scene) {
			s.pool.Desired = 2
			s.Facts.StartDelete(1001, ago(time.Second))
			s.Facts.EndDelete(1001, noon, cloud.ErrNotFound)
		}, "forget web-1"},
		{"without an id, unresolved", del, func(s *scene) { s.unmade(ago(5 * time.Second)); s.pool.Desired = 2 }, ""},
		{"without an id, settled", del, func(s *scene) { s.unmade(ago(2 * time.Minute)); s.pool.Desired = 2 }, "forget web-1"},
		{"without an id, found", del, func(s *scene) {
			s.unmade(ago(5 * time.Second))
			s.pool.Desired = 2
			s.list(ago(time.Second), 1000, 1001, 1002)
		}, "web-1 deleting id 1001"},

		// What the list lacks.
		{"missing: asked for by id", serve, func(s *scene) { s.d.Since = ago(time.Hour); s.list(ago(time.Second), 1000, 1002) }, "get 1001"},
		{"missing, but new", serve, func(s *scene) { s.list(ago(time.Second), 1000, 1002) }, ""},
		{"missing and gone", serve, func(s *scene) {
			s.list(ago(time.Second), 1000, 1002)
			s.Facts.got[1001] = got{at: noon, state: gotGone}
			s.pool.Max = 3
		}, "web-1 deleting id 1001; pool(next 4, failures 0, desired 3, remove [], import []); web-3 requested id 0 asked; create web-3"},
		{"missing and there", serve, func(s *scene) {
			s.d.Since = ago(time.Hour)
			s.list(ago(time.Second), 1000, 1002)
			s.Facts.got[1001] = got{at: noon, state: gotExists}
		}, ""},
		{"missing and untagged", serve, func(s *scene) {
			s.d.Since = ago(time.Hour)
			s.list(ago(time.Second), 1000, 1002)
			s.Facts.got[1001] = got{at: noon, state: gotUntagged}
		}, "adopt 1001; note untagged web-1"},
		{"all missing: held", serve, func(s *scene) { s.d.Since = ago(time.Hour); s.pool.Desired = 5; s.list(ago(time.Second)) }, "note vanished"},

		// What the list has and no record.
		{"stranger: asked for by id, and counted", serve, func(s *scene) { s.pool.Desired = 4; s.list(ago(time.Second), 1000, 1001, 1002, 1007) },
			"pool(next 8, failures 0, desired 4, remove [], import []); get 1007"},
		{"stranger, confirmed", serve, func(s *scene) {
			s.pool.Desired = 4
			s.list(ago(time.Second), 1000, 1001, 1002, 1007)
			s.Facts.got[1007] = got{at: noon, state: gotExists}
		}, "pool(next 8, failures 0, desired 4, remove [], import []); web-7 booting id 1007"},
		{"stranger of another name, confirmed: the pool is written all the same, as a guard", serve, func(s *scene) {
			s.pool.Desired = 4
			s.also(cloud.Droplet{Droplet: inventory.Droplet{Name: "old-box", Pool: "web", ID: 9}})
			s.Facts.got[9] = got{at: noon, state: gotExists}
		}, "pool(next 3, failures 0, desired 4, remove [], import []); old-box booting id 9"},
		{"strangers in surplus cost no droplet on record", serve, func(s *scene) {
			s.list(ago(time.Second), 1000, 1001, 1002, 1007)
		}, "pool(next 8, failures 0, desired 3, remove [], import []); get 1007"},
		{"strangers in surplus, confirmed: taken up first", serve, func(s *scene) {
			s.list(ago(time.Second), 1000, 1001, 1002, 1007)
			s.Facts.got[1007] = got{at: noon, state: gotExists}
		}, "pool(next 8, failures 0, desired 3, remove [], import []); web-7 booting id 1007"},
		{"drained, but a node went silent during it", drain, func(s *scene) {
			s.pool.Desired = 2
			s.sees(3, inventory.ServerState{})
			s.Facts.nodes["lb-9"] = ago(time.Minute)
		}, ""},
		{"drained, and the silent node is long gone", drain, func(s *scene) {
			s.pool.Desired = 2
			s.sees(3, inventory.ServerState{})
			s.Facts.nodes["lb-9"] = ago(time.Hour)
		}, "web-1 deleting id 1001"},
		{"stranger, just deleted", serve, func(s *scene) {
			s.list(ago(time.Second), 1000, 1001, 1002, 1007)
			s.Facts.got[1007] = got{at: ago(time.Minute), state: gotGone}
		}, ""},
		{"duplicate", serve, func(s *scene) { s.also(cloud.Droplet{Droplet: inventory.Droplet{Name: "web-1", Pool: "web", ID: 9}}) }, "delete 9; note duplicate 9"},
		{"duplicate of one that is not listed", serve, func(s *scene) {
			s.list(ago(time.Second), 1000, 1002)
			s.also(cloud.Droplet{Droplet: inventory.Droplet{Name: "web-1", Pool: "web", ID: 9}})
		}, ""},
		{"duplicate that is to be imported", serve, func(s *scene) {
			s.pool.Import, s.pool.Desired = []int64{9}, 4
			s.also(cloud.Droplet{Droplet: inventory.Droplet{Name: "web-1", Pool: "web", ID: 9}})
		}, "note import 9"},
		{"renamed at the cloud", serve, func(s *scene) {
			s.list(ago(time.Second), 1000, 1002)
			s.also(cloud.Droplet{Droplet: inventory.Droplet{Name: "other", Pool: "web", ID: 1001, Status: "active", PrivateIPv4: s.d.PrivateIPv4}})
		}, "note renamed 1001"},

		// Imports.
		{"import", serve, func(s *scene) { s.pool.Import, s.pool.Desired = []int64{9}, 4 }, "adopt 9"},
		{"import refused", serve, func(s *scene) {
			s.pool.Import, s.pool.Desired = []int64{9}, 4
			s.Facts.StartAdopt(9, noon)
			s.Facts.EndAdopt(9, noon, cloud.ErrNotFound)
		}, "pool(next 3, failures 0, desired 3, remove [], import [])"},
		{"imported", serve, func(s *scene) { s.pool.Import = []int64{1001} }, "pool(next 3, failures 0, desired 3, remove [], import [])"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(test.phase)
			test.set(s)
			before := dump(s.State)
			if got := story(Plan(s.Input)); got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
			if dump(s.State) != before {
				t.Error("the input was changed")
			}
		})
	}
}

func TestPlanKeepsTransactionsSmall(t *testing.T) {
	s := newScene(inventory.Serving)
	s.pool.Desired, s.pool.Max = 500, 500
	d := Plan(s.Input)
	asked := 0
	for _, g := range d.Groups {
		if len(g.Writes) > 100 {
			t.Errorf("%d writes in a transaction", len(g.Writes))
		}
		for _, c := range g.Creates {
			asked += len(c.Names)
			for _, name := range c.Names {
				if !slices.ContainsFunc(g.Writes, func(w Write) bool {
					return w.Droplet != nil && w.Droplet.Name == name && w.Droplet.Asked.Equal(c.Asked)
				}) {
					t.Errorf("%s is asked for by a call whose transaction lacks it", name)
				}
			}
		}
	}
	if asked != 40 {
		t.Errorf("%d names asked for at once, want 4 calls of 10", asked)
	}
}

func TestPollFollowsWhatIsOnItsWay(t *testing.T) {
	s := newScene(inventory.Serving)
	if d := Plan(s.Input); d.List || !d.Next.Equal(noon.Add(59*time.Second)) {
		t.Errorf("at rest: %v, %s", d.List, d.Next)
	}
	s = newScene(inventory.Requested)
	s.unmade(noon.Add(-time.Second))
	if d := Plan(s.Input); !d.List {
		t.Errorf("with a request under way: next %s", d.Next)
	}
	s.Facts.StartList(noon)
	s.Facts.EndList(noon, noon, nil, cloud.ErrAmbiguous)
	if d := Plan(s.Input); d.List || d.Next.After(noon.Add(5*time.Second)) {
		t.Errorf("after a list that failed: %v, %s", d.List, d.Next)
	}
}

func TestBackoff(t *testing.T) {
	s := Settings{}.withDefaults()
	for failures, want := range map[int]time.Duration{1: 5 * time.Second, 2: 10 * time.Second, 3: 20 * time.Second, 7: 5 * time.Minute, 1000: 5 * time.Minute} {
		if got := s.backoff(failures); got != want {
			t.Errorf("after %d failures %s, want %s", failures, got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := (Settings{}).Validate(); err != nil {
		t.Error(err)
	}
	for _, s := range []Settings{{Settle: -1}, {CreateParallel: -1}, {RetryMin: time.Hour}, {EarlyDeath: -1}} {
		if s.Validate() == nil {
			t.Errorf("%+v: no error", s)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("empty options: no error")
	}
}
