package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// predict what comes of a change of the pool web.
func predict(t *testing.T, in Input, change func(s *inventory.State, p *inventory.Pool)) Prediction {
	t.Helper()
	before, after := *in.State, *in.State
	before.Report = &inventory.Report{Prices: map[string]float64{"small": 0.01}}
	after.Report = before.Report
	p := *in.State.Pools["web"]
	after.Pools = map[string]*inventory.Pool{"web": &p}
	change(&after, &p)
	was, is := dump(before), dump(after)
	got := Predict(in.Now, &before, &after)
	if dump(before) != was || dump(after) != is {
		t.Error("the input was changed")
	}
	return got
}

// priced is a pool at rest of small droplets.
func priced(n int) Input {
	in := resting(n)
	in.State.Pools["web"].Template.Size = "small"
	for _, d := range in.State.Droplets {
		d.Size = "small"
	}
	return in
}

func TestPredict(t *testing.T) {
	limit := func(l inventory.Limits, desired, release int) func(*inventory.State, *inventory.Pool) {
		return func(s *inventory.State, p *inventory.Pool) {
			s.Settings = &inventory.Settings{Limits: l}
			p.Desired, p.Release, p.Max = desired, release, 50
		}
	}
	const out = "creates [web-4 web-5 web-6] drains [] deletes []"
	const in = "creates [] drains [web-1 web-2 web-3] deletes [web-1 web-2 web-3]"
	for _, test := range []struct {
		name   string
		change func(*inventory.State, *inventory.Pool)
		want   string
		cost   float64
		hold   string
	}{
		{"nothing", limit(inventory.Limits{}, 4, 0), "creates [] drains [] deletes []", 0.04, ""},
		{"out", limit(inventory.Limits{}, 7, 0), out, 0.07, ""},
		{"in", limit(inventory.Limits{}, 1, 3), in, 0.01, ""},
		{"all", limit(inventory.Limits{}, 0, 4), "creates [] drains [web-0 web-1 web-2 web-3] deletes [web-0 web-1 web-2 web-3]", 0, ""},
		{"by name", func(_ *inventory.State, p *inventory.Pool) { p.Desired, p.Remove = 3, []string{"web-2"} },
			"creates [] drains [web-2] deletes [web-2]", 0.03, ""},
		{"in unasked: held", limit(inventory.Limits{}, 1, 0), "creates [] drains [] deletes []", 0.04, "held"},
		{"limit of droplets", limit(inventory.Limits{Droplets: 5}, 7, 0), "creates [web-4] drains [] deletes []", 0.05, "2 of 7 wanted droplets wait: limits.droplets is 5"},
		{"limit of cost", limit(inventory.Limits{CostHourly: 0.06}, 7, 0), "creates [web-4 web-5] drains [] deletes []", 0.06, "limits.cost_hourly is $0.06"},
		{"creates an hour only stretch", limit(inventory.Limits{CreatesHourly: 1}, 7, 0), out, 0.07, "limits.creates_hourly is 1"},
		{"share that leaves only stretches", limit(inventory.Limits{LeavePercent: 25}, 1, 3), in, 0.01, "limits.leave_percent is 25%"},
		{"pause", func(s *inventory.State, p *inventory.Pool) {
			s.Pause = &inventory.Pause{Node: "lb-1"}
			p.Desired = 7
		}, out, 0.07, "doproxy resume"},
		{"stopped", func(_ *inventory.State, p *inventory.Pool) {
			p.Desired, p.Stopped, p.Reason = 7, noon, "10 failures"
		}, "creates [] drains [] deletes []", 0.04, "creates nothing: 10 failures"},
		{"held back", func(_ *inventory.State, p *inventory.Pool) {
			p.Desired, p.Failures, p.RetryAt, p.Reason = 7, 4, noon.Add(time.Hour), "no capacity"
		}, out, 0.07, "pool web creates nothing before 2026-01-01T13:00:00Z: no capacity"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := predict(t, priced(4), test.change)
			if got := fmt.Sprintf("creates %v drains %v deletes %v", p.Creates, p.Drains, p.Deletes); got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
			if p.CostBefore != 0.04 || p.CostAfter != test.cost || len(p.Unpriced) > 0 {
				t.Errorf("cost %v to %v, want %v; unpriced %v", p.CostBefore, p.CostAfter, test.cost, p.Unpriced)
			}
			if holds := strings.Join(p.Holds, "\n"); !strings.Contains(holds, test.hold) || test.hold == "" && holds != "" {
				t.Errorf("holds %q, want %q", holds, test.hold)
			}
		})
	}
}

func TestPredictWithoutPrices(t *testing.T) {
	in := resting(2)
	p := predict(t, in, func(_ *inventory.State, p *inventory.Pool) { p.Desired, p.Template.Size = 3, "odd" })
	if len(p.Creates) != 1 || !slices.Equal(p.Unpriced, []string{"odd", "unknown"}) {
		t.Errorf("%+v", p)
	}
	if p := Predict(noon, new(inventory.State), new(inventory.State)); len(p.Creates) > 0 {
		t.Errorf("of nothing: %+v", p)
	}
}

func TestPredictIsQuick(t *testing.T) {
	for name, change := range map[string]func(s *inventory.State, p *inventory.Pool){
		"out": func(_ *inventory.State, p *inventory.Pool) { p.Desired = 2000 },
		"in":  func(_ *inventory.State, p *inventory.Pool) { p.Desired, p.Release = 0, 1000 },
		"in slowly": func(s *inventory.State, p *inventory.Pool) {
			s.Settings = &inventory.Settings{Limits: inventory.Limits{LeavePercent: 1}}
			p.Desired, p.Release = 0, 1000
		},
	} {
		began := time.Now()
		p := predict(t, priced(1000), change)
		took := time.Since(began) // with the check that the input stays as it was
		t.Logf("%s: %s", name, took)
		if len(p.Creates)+len(p.Deletes) != 1000 {
			t.Errorf("%s: %d creates, %d deletes", name, len(p.Creates), len(p.Deletes))
		}
		if took > 2*time.Second { // it takes some tens of milliseconds on a quiet machine
			t.Errorf("%s took %s", name, took)
		}
	}
}

// TestPredictComesTrue compares forecasts with what a leader then does.
func TestPredictComesTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, pool("web", 60))
		defer r.stop()
		defer r.lead("a", r.store, Settings{})()
		for _, change := range []func(p *inventory.Pool){
			func(p *inventory.Pool) { p.Desired = 12 },
			func(p *inventory.Pool) { p.Desired, p.Release = 7, 5 },
			func(p *inventory.Pool) { p.Desired, p.Remove = 5, []string{"web-1", "web-3"} },
			func(p *inventory.Pool) { p.Desired = 50 },
			func(p *inventory.Pool) { p.Desired, p.Release = 3, 47 },
		} {
			time.Sleep(time.Minute) // the leader has written what the last change left to write
			synctest.Wait()
			before := r.mirror.State()
			p := *before.Pools["web"]
			change(&p)
			after := *before
			after.Pools = map[string]*inventory.Pool{"web": &p}
			want := Predict(time.Now(), before, &after)

			had, made := r.names(), len(r.cloud.names)
			r.commit(inventory.PutPool(r.keys, &p))
			r.until(10*time.Minute, "as wanted", func() bool {
				return r.count("web", inventory.Serving) == p.Desired && len(r.mirror.State().Droplets) == p.Desired && r.cloud.has() == p.Desired
			})
			has := r.names()
			gone := slices.DeleteFunc(had, func(name string) bool { return slices.Contains(has, name) })
			sorted := func(names []string) []string { return slices.Sorted(slices.Values(names)) }
			if got := r.cloud.names[made:]; !slices.Equal(sorted(got), sorted(want.Creates)) {
				t.Errorf("created %v, foretold %v", got, want.Creates)
			}
			if !slices.Equal(sorted(gone), sorted(want.Deletes)) {
				t.Errorf("deleted %v, foretold %v", gone, want.Deletes)
			}
		}
	})
}

// names at the cloud.
func (r *rig) names() (names []string) {
	r.cloud.mu.Lock()
	defer r.cloud.mu.Unlock()
	for _, d := range r.cloud.droplets {
		names = append(names, d.Name)
	}
	return names
}
