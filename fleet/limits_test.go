package fleet

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// limit sets the operator's limits and what a size costs.
func (s *scene) limit(l inventory.Limits) {
	s.State.Settings = &inventory.Settings{Limits: l}
	s.Facts.EndPrices(noon, map[string]float64{"small": 0.01, "big": 0.05}, nil)
	s.pool.Template.Size = "small"
	for _, d := range s.State.Droplets {
		d.Size = "small"
	}
}

// asks are the names that a decision asks for, and the text of a note.
func asks(d Decision) (n int) {
	for _, g := range d.Groups {
		for _, c := range g.Creates {
			n += len(c.Names)
		}
	}
	return n
}

func noteOf(d Decision, key string) string {
	for _, n := range d.Notes {
		if n.Key == key {
			return n.Message
		}
	}
	return ""
}

func TestLimitsHoldCreates(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits inventory.Limits
		set    func(*scene)
		asks   int
		key    string
		note   string
	}{
		{"none", inventory.Limits{}, nil, 5, "", ""},
		{"droplets", inventory.Limits{Droplets: 5}, nil, 2, "limit.droplets web",
			"pool web: 3 of 8 wanted droplets wait: limits.droplets is 5 and 3 are there in all pools; raise it with doproxy apply or scale down"},
		{"droplets, leaving ones count", inventory.Limits{Droplets: 5}, func(s *scene) {
			s.d.Phase = inventory.Draining
			s.sees(3, inventory.ServerState{Sessions: 1})
		}, 2, "limit.droplets web", "4 of 8 wanted"},
		{"droplets, a stranger counts", inventory.Limits{Droplets: 5}, func(s *scene) {
			s.also(cloud.Droplet{Droplet: inventory.Droplet{Name: "x", Pool: "other", ID: 7}})
		}, 1, "limit.droplets web", "4 of 8 wanted"},
		{"cost", inventory.Limits{CostHourly: 0.05}, nil, 2, "limit.cost_hourly web",
			"pool web: 3 of 8 wanted droplets wait: limits.cost_hourly is $0.05 and $0.03 is spent, one more costs $0.01; raise it with doproxy apply or scale down"},
		{"cost, exactly", inventory.Limits{CostHourly: 0.08}, nil, 5, "", ""},
		{"cost of another size", inventory.Limits{CostHourly: 0.09}, func(s *scene) { s.pool.Template.Size = "big" }, 1, "limit.cost_hourly web", "4 of 8"},
		{"cost on record goes before that of the size", inventory.Limits{CostHourly: 0.09}, func(s *scene) { s.d.PriceHourly, s.d.Since = 0.07, noon }, 0, "limit.cost_hourly web", "$0.09 is spent"},
		{"price not known", inventory.Limits{CostHourly: 9}, func(s *scene) { s.pool.Template.Size = "odd" }, 0, "limit.cost_hourly web", "the price of size odd is not known"},
		{"prices of the leader before", inventory.Limits{CostHourly: 0.05}, func(s *scene) {
			s.Facts.Prices = nil
			s.State.Report = &inventory.Report{Prices: map[string]float64{"small": 0.01}}
		}, 2, "limit.cost_hourly web", "3 of 8"},
		{"creates", inventory.Limits{CreatesHourly: 4}, func(s *scene) {
			s.pool.Creates = []inventory.Count{{Time: noon.Add(-2 * time.Hour), N: 9}, {Time: noon.Add(-30 * time.Minute), N: 3}}
		}, 1, "limit.creates_hourly web",
			"pool web: 4 of 8 wanted droplets wait: limits.creates_hourly is 4 and 3 were created in the last hour; the next from 12:32Z on, or raise it with doproxy apply"},
		{"creates, long on record and made lately", inventory.Limits{CreatesHourly: 4}, func(s *scene) {
			s.d.Created, s.d.Active = noon.Add(-5*time.Hour), noon.Add(-time.Minute)
		}, 3, "limit.creates_hourly web", "1 was created"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(inventory.Serving)
			s.pool.Desired, s.pool.Max = 8, 20
			for _, d := range s.State.Droplets {
				d.Created, d.Active = noon.Add(-5*time.Hour), noon.Add(-5*time.Hour)
			}
			s.limit(test.limits)
			if test.set != nil {
				test.set(s)
			}
			d := Plan(s.Input)
			if asks(d) != test.asks {
				t.Errorf("asks for %d, want %d: %s", asks(d), test.asks, story(d))
			}
			if got := noteOf(d, test.key); !strings.Contains(got, test.note) || test.note == "" && strings.Contains(story(d), "limit.") {
				t.Errorf("note %q, want %q in %s", got, test.note, story(d))
			}
			if test.key == "limit.creates_hourly web" && d.Next.IsZero() {
				t.Error("no next look though the limit ends")
			}
		})
	}
}

func TestLimitsAreSharedInOrderOfNames(t *testing.T) {
	s := newScene(inventory.Serving)
	s.pool.Desired, s.pool.Max = 8, 20
	api := &inventory.Pool{PoolSpec: inventory.PoolSpec{Name: "api", HostnamePrefix: "api", Max: 20}, Desired: 4, Mod: 5}
	api.Template.Size = "small"
	s.State.Pools["api"] = api
	s.limit(inventory.Limits{Droplets: 9})
	d := Plan(s.Input)
	got := map[string]int{}
	for _, g := range d.Groups {
		for _, c := range g.Creates {
			got[c.Pool] += len(c.Names)
		}
		for _, w := range g.Writes {
			if w.Pool != nil && (len(w.Pool.Creates) != 1 || w.Pool.Creates[0] != inventory.Count{Time: noon, N: got[w.Pool.Name]}) {
				t.Errorf("creates of %s on record: %v", w.Pool.Name, w.Pool.Creates)
			}
		}
	}
	if got["api"] != 4 || got["web"] != 2 {
		t.Errorf("asks for %v", got)
	}
	if u := d.Usage; u.Droplets != 9 || u.CostHourly != 0.09 || u.Creates != 6 {
		t.Errorf("usage %+v", u)
	}
}

func TestLeavePercent(t *testing.T) {
	leaving := func(in Input) (n int, d Decision) {
		d = Plan(in)
		for _, g := range d.Groups {
			for _, w := range g.Writes {
				if w.Droplet != nil && w.Droplet.Phase.Leaving() {
					n++
				}
			}
		}
		return n, d
	}
	for _, test := range []struct {
		name    string
		percent int
		set     func(in Input, pool *inventory.Pool)
		want    int
	}{
		{"no limit", 0, func(_ Input, p *inventory.Pool) { p.Desired, p.Release = 2, 8 }, 8},
		{"scaled in", 25, func(_ Input, p *inventory.Pool) { p.Desired, p.Release = 2, 8 }, 2},
		{"at least one", 5, func(_ Input, p *inventory.Pool) { p.Desired, p.Release = 2, 8 }, 1},
		{"asked away", 25, func(_ Input, p *inventory.Pool) {
			p.Desired, p.Remove = 6, []string{"web-1", "web-2", "web-3", "web-4"}
		}, 2},
		{"both", 35, func(_ Input, p *inventory.Pool) { p.Desired, p.Release, p.Remove = 6, 3, []string{"web-1"} }, 3},
		{"one leaves already", 25, func(in Input, p *inventory.Pool) {
			p.Desired, p.Release = 2, 7
			in.State.Droplets["web-3"].Phase, in.State.Droplets["web-3"].Since = inventory.Draining, in.Now
		}, 1},
		{"those not made count for nothing", 10, func(in Input, p *inventory.Pool) {
			p.Desired, p.Release = 2, 8
			d := in.State.Droplets["web-3"]
			d.Phase, d.ID = inventory.Requested, 0
			in.Facts.List = newList(in.Facts.List.Sent, append(in.Facts.List.All[:3:3], in.Facts.List.All[4:]...))
		}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := resting(10)
			in.State.Settings = &inventory.Settings{Limits: inventory.Limits{LeavePercent: test.percent}}
			test.set(in, in.State.Pools["web"])
			n, d := leaving(in)
			if n != test.want {
				t.Errorf("%d leave, want %d: %s", n, test.want, story(d))
			}
			if (noteOf(d, "limit.leave_percent web") != "") != (test.percent > 0) {
				t.Errorf("notes: %s", story(d))
			}
		})
	}
	in := resting(10)
	in.State.Settings = &inventory.Settings{Limits: inventory.Limits{LeavePercent: 20}}
	in.State.Pools["web"].Desired, in.State.Pools["web"].Remove = 7, []string{"web-1", "web-2", "web-3"}
	_, d := leaving(in)
	const want = "pool web: 1 droplet waits to leave: limits.leave_percent is 20% and 2 of 10 are on the way out; the next follows when one is gone, or raise it with doproxy apply"
	if got := noteOf(d, "limit.leave_percent web"); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if strings.Contains(story(d), "web-3 draining") || strings.Contains(story(d), "web-9") {
		t.Errorf("others than the first of those asked away leave: %s", story(d))
	}
}

func TestMoney(t *testing.T) {
	for dollars, want := range map[float64]string{0: "$0.00", 0.5: "$0.50", 0.00893: "$0.00893", 0.1 + 0.2: "$0.30", 12: "$12.00"} {
		if got := money(dollars); got != want {
			t.Errorf("%v is %s, want %s", dollars, got, want)
		}
	}
}

// TestLimitsHold lets everything go wrong while an operator scales two pools: at
// no moment may the cloud have more than the limits let it.
func TestLimitsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.set.StopAfter = -1
		limits := inventory.Limits{
			Droplets:      rapid.IntRange(0, 20).Draw(t, "droplets"),
			CreatesHourly: rapid.IntRange(0, 30).Draw(t, "creates hourly"),
			CostHourly:    float64(rapid.IntRange(0, 40).Draw(t, "cents")) / 100,
			LeavePercent:  rapid.IntRange(0, 100).Draw(t, "leave percent"),
		}
		w.settings = &inventory.Settings{Limits: limits}
		price := map[string]float64{"web": 0.01, "api": 0.03}
		w.prices = map[string]float64{"size-web": 0.01, "size-api": 0.03}
		for name := range price {
			p := inventory.Pool{PoolSpec: inventory.PoolSpec{Name: name, HostnamePrefix: name, Max: 30, Template: inventory.Template{Size: "size-" + name},
				Policy: inventory.Policy{BootDeadline: inventory.Duration(5 * time.Minute), DrainDeadline: inventory.Duration(2 * time.Minute)}}}
			w.put(w.keys.Pool(name), p)
		}
		w.watch = func(s *inventory.State, d Decision) {
			for name := range price {
				leavePercentHolds(t, w, s, d, name, limits.LeavePercent)
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if w.r.IntN(10) == 0 {
				w.run(w.now.Add(w.delay(20 * time.Minute)))
			}
			if w.r.IntN(5) == 0 {
				s := w.state()
				p := s.Pools[[]string{"api", "web"}[w.r.IntN(2)]]
				p.Desired = w.r.IntN(20)
				w.request(s, p)
			}
			w.step()
			live, lately, cost := 0, 0, 0.0
			for _, d := range w.droplets {
				if d.lives(w.now) {
					live++
					cost += price[d.Pool]
				}
				if w.now.Sub(d.born) < time.Hour {
					lately++
				}
			}
			if limits.Droplets > 0 && live > limits.Droplets || limits.CostHourly > 0 && cost > limits.CostHourly+1e-6 ||
				limits.CreatesHourly > 0 && lately > limits.CreatesHourly {
				t.Fatalf("%d droplets at $%.2f, %d created in the last hour: %+v", live, cost, lately, limits)
			}
		}
	})
}

func leavePercentHolds(t *rapid.T, w *world, s *inventory.State, d Decision, pool string, percent int) {
	after := map[string]*inventory.Droplet{}
	for name, d := range s.Droplets {
		if d.Pool == pool && (d.ID != 0 || !d.Asked.IsZero()) && w.facts.got[d.ID].state != gotGone {
			after[name] = d
		}
	}
	all, started := len(after), 0
	for _, g := range d.Groups {
		for _, wr := range g.Writes {
			d := wr.Droplet
			if d == nil || after[d.Name] == nil {
				continue
			}
			if wr.Delete {
				delete(after, d.Name)
				continue
			}
			if (d.Reason == "scaled in" || d.Reason == "asked away") && !after[d.Name].Phase.Leaving() {
				started++
			}
			after[d.Name] = d
		}
	}
	leaving := 0
	for _, d := range after {
		if d.Phase.Leaving() && !strings.HasPrefix(d.Reason, "not healthy") && !strings.HasPrefix(d.Reason, "gone") {
			leaving++
		}
	}
	if most := max(1, all*percent/100); percent > 0 && started > 0 && leaving > most {
		t.Fatalf("%d of %d leave at once, at most %d%% may: %s", leaving, all, percent, story(d))
	}
}
