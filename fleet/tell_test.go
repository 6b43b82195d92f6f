package fleet

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

func condition(key, message string) Note {
	return Note{Key: key, Event: inventory.Event{Type: "test", Message: message}}
}

func TestTellKeepsSince(t *testing.T) {
	var told []News
	before := noon.Add(-time.Hour)
	tr := newTeller(func(n News) { told = append(told, n) }, noon, &inventory.Report{
		Conditions: []inventory.Condition{{Key: "a", Since: before}, {Key: "b", Since: before}}, Prices: map[string]float64{"s": 1}})
	fresh := tr.conditions([]Note{condition("a", "1"), condition("c", "1")}, noon)
	if len(fresh) != 1 || fresh[0].Key != "c" {
		t.Errorf("new conditions %v", fresh)
	}
	if again := tr.publish(noon, false); len(told) != 0 || !again.Equal(noon.Add(firstNews)) {
		t.Errorf("told before the first list: %v, %s", told, again)
	}
	tr.publish(noon, true)
	c := told[0].Conditions
	if len(c) != 2 || !c[0].Since.Equal(before) || !c[1].Since.Equal(noon) || told[0].Prices["s"] != 1 {
		t.Errorf("told %+v", told[0])
	}
	later := noon.Add(time.Minute)
	tr.conditions([]Note{condition("a", "2"), condition("b", "1")}, later)
	tr.publish(later, true)
	c = told[1].Conditions
	if len(told) != 2 || c[0].Message != "2" || !c[0].Since.Equal(before) || !c[1].Since.Equal(before) {
		t.Errorf("told %+v", told)
	}
	// What went and comes again is new, and so is what the leader before had long ago.
	tr.conditions(nil, later)
	if fresh := tr.conditions([]Note{condition("a", "2")}, later); len(fresh) != 1 {
		t.Error("a condition that comes again is not new")
	}
}

func TestTellHoldsUsageBack(t *testing.T) {
	told := 0
	tr := newTeller(func(News) { told++ }, noon, nil)
	use := func(at time.Duration, u inventory.Usage) time.Time {
		tr.news.Usage = u
		return tr.publish(noon.Add(at), true)
	}
	use(0, inventory.Usage{Droplets: 1})
	if again := use(300*time.Millisecond, inventory.Usage{Droplets: 2}); told != 1 || !again.Equal(noon.Add(time.Second)) {
		t.Errorf("told %d times, again at %s", told, again)
	}
	use(time.Second, inventory.Usage{Droplets: 3})
	if again := use(3*time.Second, inventory.Usage{Droplets: 3, APIMinute: 9}); told != 2 || !again.IsZero() {
		t.Errorf("told %d times, again at %s", told, again)
	}
	use(12*time.Second, inventory.Usage{Droplets: 3, APIMinute: 9})
	if told != 3 {
		t.Errorf("told %d times", told)
	}
	tr.news.CloudError = "down"
	use(12*time.Second, inventory.Usage{Droplets: 3, APIMinute: 9})
	use(13*time.Second, inventory.Usage{Droplets: 3, APIMinute: 9})
	if told != 4 {
		t.Errorf("told %d times", told)
	}
}

type fakePrices map[string]float64

func (f fakePrices) Prices(context.Context) (map[string]float64, error) { return f, nil }

func TestLoopTellsAndKeepsLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool("web", 20)
		p.Template.Size = "small"
		r := newRig(t, p)
		defer r.stop()
		put(t, r.store, r.keys.Settings(), inventory.Settings{Limits: inventory.Limits{CostHourly: 0.03}})
		var mu sync.Mutex
		var last News
		var keys []string
		defer r.leadWith("a", r.store, func(o *Options) {
			o.Prices, o.Budget = fakePrices{"small": 0.01}, &cloud.Budget{}
			o.Tell = func(n News) {
				mu.Lock()
				defer mu.Unlock()
				last = n
				for _, c := range n.Conditions {
					keys = append(keys, c.Key)
				}
			}
		})()
		time.Sleep(time.Second)
		r.scale("web", 5)
		r.until(2*time.Minute, "serving", func() bool { return r.count("web", inventory.Serving) == 3 })
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if r.cloud.has() != 3 {
			t.Errorf("%d droplets", r.cloud.has())
		}
		if u := last.Usage; u.Droplets != 3 || u.CostHourly != 0.03 || last.Prices["small"] != 0.01 {
			t.Errorf("told %+v", last)
		}
		if !slices.Contains(keys, "limit.cost_hourly web") || len(last.Conditions) != 1 {
			t.Errorf("conditions %v, at last %+v", keys, last.Conditions)
		}
	})
}
