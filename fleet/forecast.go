package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// Prediction is what a leader would make of a change, as far as can be told
// from the inventory alone.
type Prediction struct {
	// Creates, Drains and Deletes are hostnames, sorted by age. What drains is
	// deleted afterwards: Deletes has it too. Names on record that were never made
	// are in none of them, nor are droplets that are leaving already.
	Creates, Drains, Deletes []string
	// Cost of all droplets an hour, in US dollars, before and when all is done.
	CostBefore, CostAfter float64
	Unpriced              []string // sizes whose price is not known
	// Holds say what would hold the change up, or stretch it.
	Holds []string
}

// forecastRounds bounds a forecast that does not come to an end.
const forecastRounds = 1000

// Predict tells what would come of the inventory if it were as in after, which
// differs from before in its pools and settings. Neither is changed.
//
// It lets Plan decide again and again, and the cloud and the nodes do at once
// what is asked of them. What only takes time, such as a pause, a delay after a
// failure, or a limit on how many come or go at once, is told in Holds and then
// set aside; what stops a change for good is not.
func Predict(now time.Time, before, after *inventory.State) Prediction {
	f := newForecast(now, after)
	for range forecastRounds {
		if !f.round() {
			break
		}
	}
	return f.result(before)
}

// forecast is an inventory in memory that a leader works on.
type forecast struct {
	in      Input
	state   *inventory.State // own, but for the records
	prices  map[string]float64
	nextID  int64
	created map[string]*inventory.Droplet
	drained map[string]*inventory.Droplet
	deleted map[string]*inventory.Droplet
	holds   []string
	held    map[string]bool // keys in holds
}

func newForecast(now time.Time, after *inventory.State) *forecast {
	s := *after
	s.Pools, s.Droplets = maps.Clone(after.Pools), maps.Clone(after.Droplets)
	s.Listed, s.Err, s.Verify, s.Members = true, nil, nil, nil
	if s.Settings == nil {
		s.Settings = new(inventory.Settings)
	}
	f := &forecast{
		state: &s, nextID: math.MaxInt64 / 2, held: map[string]bool{},
		created: map[string]*inventory.Droplet{}, drained: map[string]*inventory.Droplet{}, deleted: map[string]*inventory.Droplet{},
	}
	if after.Report != nil {
		f.prices = after.Report.Prices
	}
	f.in = Input{Now: now, State: &s, Facts: NewFacts(now.Add(-time.Hour)), Floor: after.Floor}
	f.in.Settings = Settings{CreateParallel: math.MaxInt32, CallParallel: math.MaxInt32, GetParallel: math.MaxInt32}.withDefaults()
	f.in.Facts.Prices = f.prices
	if s.Meta != nil {
		f.in.UID = s.Meta.UID
	}
	f.list()
	return f
}

// list makes the cloud's list of what is on record.
func (f *forecast) list() {
	all := make([]cloud.Droplet, 0, len(f.state.Droplets))
	for _, d := range f.state.Droplets {
		if d.ID != 0 {
			all = append(all, cloud.Droplet{Droplet: *d})
		}
	}
	f.in.Facts.List = newList(f.in.Now, all)
}

// round is one decision carried out. It returns whether there is more to decide.
func (f *forecast) round() bool {
	f.in.Facts.Prune(f.state)
	d := Plan(f.in)
	changed := false
	for _, n := range d.Notes {
		if holds(n) {
			f.hold(n.Key, n.Message)
		}
	}
	for _, g := range d.Groups {
		for _, w := range g.Writes {
			f.write(w)
			changed = true
		}
		for _, c := range g.Creates {
			for _, name := range c.Names {
				f.created[name] = f.state.Droplets[name]
			}
		}
	}
	return f.advance() || changed
}

// holds says that a condition is worth telling before a change.
func holds(n Note) bool {
	return len(n.Names) > 0 || n.Type == "fleet.held" || n.Type == "fleet.paused" || n.Type == "pool.stopped" || strings.HasPrefix(n.Type, "limit.")
}

func (f *forecast) hold(key, message string) {
	if !f.held[key] {
		f.held[key] = true
		f.holds = append(f.holds, message)
	}
}

func (f *forecast) write(w Write) {
	switch d := w.Droplet; {
	case w.Pool != nil:
		pool := *w.Pool
		pool.Mod++
		f.state.Pools[pool.Name] = &pool
	case d == nil:
	case w.Delete:
		f.forget(d)
	default:
		d := *d
		d.Mod++
		f.state.Droplets[d.Name] = &d
		if d.Phase == inventory.Draining {
			f.drained[d.Name] = &d
		}
	}
}

// forget ends a droplet. One that never was leaves no trace.
func (f *forecast) forget(d *inventory.Droplet) {
	if d.ID != 0 {
		f.deleted[d.Name] = d
	}
	delete(f.state.Droplets, d.Name)
}

// advance lets the cloud and the nodes do what is asked of them, and sets aside
// what only takes time.
func (f *forecast) advance() bool {
	changed := false
	for _, d := range f.state.Droplets {
		switch {
		case d.Phase.Leaving():
			f.forget(d)
		case d.Phase == inventory.Booting && d.Adopted, d.Phase == inventory.Serving, d.ID == 0 && d.Asked.IsZero():
			continue
		default:
			next := *d
			if next.ID == 0 {
				f.nextID++
				next.ID, next.Asked = f.nextID, time.Time{}
			}
			next.Phase, next.Since, next.Status = inventory.Serving, f.in.Now, "active"
			f.state.Droplets[next.Name] = &next
		}
		changed = true
	}
	if changed {
		f.list()
	}
	return f.setAside() || changed
}

func (f *forecast) setAside() bool {
	changed := f.state.Pause != nil
	f.state.Pause = nil
	if l := f.state.Settings.Limits; l.CreatesHourly > 0 || l.LeavePercent > 0 {
		settings := *f.state.Settings
		settings.Limits.CreatesHourly, settings.Limits.LeavePercent = 0, 0
		f.state.Settings, changed = &settings, true
	}
	for name, pool := range f.state.Pools {
		if !pool.Stopped.IsZero() || pool.Failures == 0 && pool.RetryAt.IsZero() {
			continue
		}
		if f.in.Now.Before(pool.RetryAt) {
			f.hold("retry "+name, fmt.Sprintf("pool %s creates nothing before %s: %s", name, pool.RetryAt.UTC().Format(time.RFC3339), pool.Reason))
		}
		next := *pool
		next.Failures, next.RetryAt = 0, time.Time{}
		f.state.Pools[name], changed = &next, true
	}
	return changed
}

func (f *forecast) result(before *inventory.State) Prediction {
	unpriced := map[string]bool{}
	p := Prediction{
		CostBefore: f.cost(before.Droplets, unpriced),
		CostAfter:  f.cost(f.state.Droplets, unpriced),
		Creates:    byAge(f.created, nil),
		Drains:     byAge(f.drained, before.Droplets),
		Deletes:    byAge(f.deleted, before.Droplets),
		Holds:      f.holds,
	}
	p.Unpriced = slices.Sorted(maps.Keys(unpriced))
	return p
}

// cost of all that are or may be at the cloud.
func (f *forecast) cost(droplets map[string]*inventory.Droplet, unpriced map[string]bool) (sum float64) {
	for _, d := range droplets {
		if d.ID == 0 && d.Asked.IsZero() {
			continue
		}
		price, known := f.prices[d.Size]
		if d.PriceHourly > 0 {
			price, known = d.PriceHourly, true
		}
		if !known {
			unpriced[cmp.Or(d.Size, "unknown")] = true
		}
		sum += price
	}
	return round(sum)
}

// byAge are the names of droplets but those that were leaving before.
func byAge(droplets, before map[string]*inventory.Droplet) []string {
	var all []*inventory.Droplet
	for name, d := range droplets {
		if was := before[name]; was == nil || !was.Phase.Leaving() {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b *inventory.Droplet) int { return newestFirst(b, a) })
	var names []string
	for _, d := range all {
		names = append(names, d.Name)
	}
	return names
}
