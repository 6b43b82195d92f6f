package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// allow is a budget with this many calls for each class.
func allow(deletes, creates, polls int, until time.Time) *cloud.Allowances {
	a := &cloud.Allowances{}
	for c, n := range map[cloud.Class]int{cloud.Failover: 100, cloud.Delete: deletes, cloud.Create: creates, cloud.Poll: polls} {
		a[c] = cloud.Allowance{N: n}
		if n == 0 {
			a[c].Until = until
		}
	}
	return a
}

// busy wants two deletes, ten creates, a get and a list.
func busy(t *testing.T) *scene {
	s := newScene(inventory.Deleting)
	s.State.Droplets["web-2"].Phase = inventory.Deleting
	s.pool.Desired, s.pool.Max = 21, 99
	s.list(noon.Add(-5*time.Minute), 1000, 1001, 1002)
	s.also(cloud.Droplet{Droplet: inventory.Droplet{Name: "old-box", Pool: "web", ID: 9}})
	s.Facts.Term = noon.Add(-time.Hour)
	d := Plan(s.Input)
	if len(d.Deletes) != 2 || len(d.Gets) != 1 || !d.List || creates(d) != 2 || !d.Prices {
		t.Fatalf("without a budget: %s, list %v, prices %v", story(d), d.List, d.Prices)
	}
	return s
}

func creates(d Decision) (n int) {
	for _, g := range d.Groups {
		n += len(g.Creates)
	}
	return n
}

func TestBudgetDividesCalls(t *testing.T) {
	until := noon.Add(20 * time.Second)
	for _, test := range []struct {
		name                    string
		budget                  *cloud.Allowances
		deletes, creates, looks int
		notes                   string
	}{
		{"plenty", allow(100, 100, 100, until), 2, 2, 3, ""},
		{"none for polls", allow(50, 30, 0, until), 2, 2, 0, "budget.poll"},
		{"none for creates", allow(50, 0, 0, until), 2, 0, 0, "budget.create budget.poll"},
		{"none at all", allow(0, 0, 0, until), 0, 0, 0, "budget.create budget.delete budget.poll"},
		{"deletes take from creates", allow(20, 3, 3, until), 2, 1, 0, ""},
		{"one delete", allow(1, 1, 1, until), 1, 0, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := busy(t)
			s.Budget = test.budget
			d := Plan(s.Input)
			looks := len(d.Gets)
			for _, b := range []bool{d.List, d.Prices} {
				if b {
					looks++
				}
			}
			if len(d.Deletes) != test.deletes || creates(d) != test.creates || looks != test.looks {
				t.Errorf("%d deletes, %d creates, %d looks: %s", len(d.Deletes), creates(d), looks, story(d))
			}
			var notes []string
			for _, n := range d.Notes {
				notes = append(notes, n.Key)
				if !strings.Contains(n.Message, "wait until 2026-01-01T12:00:20Z") {
					t.Error(n.Message)
				}
			}
			if got := strings.Join(notes, " "); got != test.notes {
				t.Errorf("notes %q, want %q", got, test.notes)
			}
			if test.notes != "" && (d.Next.IsZero() || d.Next.After(until)) {
				t.Errorf("next look %s", d.Next)
			}
		})
	}
}

func TestBudgetStretchesPolling(t *testing.T) {
	for left, want := range map[int]time.Duration{1000: time.Minute, 100: time.Minute, 50: 2 * time.Minute, 1: 10 * time.Minute} {
		s := newScene(inventory.Serving)
		s.Facts.EndPrices(noon, nil, nil)
		s.Budget = allow(left, left, left, noon)
		if d := Plan(s.Input); !d.Next.Equal(noon.Add(want - time.Second)) {
			t.Errorf("with %d calls left the next list is at %s", left, d.Next)
		}
	}
}

func TestPause(t *testing.T) {
	s := busy(t)
	s.State.Pause = &inventory.Pause{Since: noon.Add(-time.Minute), Node: "lb-1", Reason: "maintenance"}
	d := Plan(s.Input)
	if len(d.Deletes)+len(d.Adopts)+len(d.Groups) != 0 || len(d.Gets) == 0 || !d.List {
		t.Errorf("while paused: %s", story(d))
	}
	const want = "paused on lb-1 since 2026-01-01T11:59:00Z (maintenance): nothing is created, deleted or tagged at DigitalOcean; go on with doproxy resume"
	if got := noteOf(d, "paused"); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	for _, test := range []struct {
		name  string
		phase inventory.Phase
		set   func(*scene)
		want  string
	}{
		{"scale in waits", inventory.Serving, func(s *scene) { s.pool.Desired, s.pool.Release = 1, 2 }, "note paused"},
		{"asked away waits", inventory.Serving, func(s *scene) { s.pool.Desired, s.pool.Remove = 2, []string{"web-1"} }, "note paused"},
		{"import waits", inventory.Serving, func(s *scene) { s.pool.Desired, s.pool.Import = 4, []int64{9} }, "note paused"},
		{"boot deadline waits", inventory.Booting, func(s *scene) { s.d.Since = noon.Add(-time.Hour) }, "note paused"},
		{"health goes on", inventory.Booting, func(s *scene) { s.sees(3, inventory.ServerState{Health: inventory.Up}) }, "web-1 serving id 1001; note paused"},
		{"a drain ends", inventory.Draining, func(s *scene) { s.pool.Desired = 2; s.sees(3, inventory.ServerState{}) }, "web-1 deleting id 1001; note paused"},
		{"a delete waits", inventory.Deleting, func(s *scene) { s.pool.Desired = 2 }, "note paused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(test.phase)
			test.set(s)
			s.State.Pause = &inventory.Pause{Since: noon, Node: "lb-1"}
			if got := story(Plan(s.Input)); got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestPricesAreAskedFor(t *testing.T) {
	s := newScene(inventory.Serving)
	if d := Plan(s.Input); !d.Prices {
		t.Error("not at the begin of a term")
	}
	s.Facts.StartPrices(noon)
	if d := Plan(s.Input); d.Prices {
		t.Error("twice at once")
	}
	s.Facts.EndPrices(noon, nil, cloud.ErrAmbiguous)
	s.Now = noon.Add(10 * time.Second)
	if d := Plan(s.Input); d.Prices {
		t.Error("again too soon without a limit")
	}
	s.State.Settings = &inventory.Settings{Limits: inventory.Limits{CostHourly: 1}}
	if d := Plan(s.Input); !d.Prices {
		t.Error("not again though a limit waits")
	}
	s.State.Settings = nil
	s.Facts.EndPrices(noon, map[string]float64{"small": 1}, nil)
	for after, want := range map[time.Duration]bool{time.Hour: false, 6 * time.Hour: true} {
		s.Now = noon.Add(after)
		if d := Plan(s.Input); d.Prices != want {
			t.Errorf("after %s: %v", after, d.Prices)
		}
	}
}
