package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/inventory"
)

// TestNothingIsLost lets everything go wrong for a while, and then nothing: in
// the end the pool must be as wanted, with no droplet unknown or left over.
func TestNothingIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.operator()
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			w.step()
		}
		w.settle()
	})
}

// TestStrangersComeHome also puts droplets at the cloud that no record has, some
// by names that are taken, takes records away, and imports.
func TestStrangersComeHome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.doubles = true
		w.operator()
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			w.step()
			switch w.r.IntN(40) {
			case 0:
				w.make("web", []string{fmt.Sprintf("web-%d", w.r.IntN(60))})
			case 1:
				w.make("web", []string{fmt.Sprintf("made-by-hand-%d", w.nextID)})
			case 2:
				s := w.state()
				if names := slices.Sorted(maps.Keys(s.Droplets)); len(names) > 0 {
					d := s.Droplets[names[w.r.IntN(len(names))]]
					if _, err := w.store.Commit(context.Background(), inventory.Txn{Ops: []inventory.Op{{Key: w.keys.Droplet(d.Pool, d.Name), Delete: true}}}); err != nil {
						t.Fatal(err)
					}
				}
			case 3:
				w.bring()
			}
		}
		w.settle()
	})
}

// step is a few seconds of trouble.
func (w *world) step() {
	w.run(w.now.Add(w.delay(6 * time.Second)))
	for _, n := range w.nodes {
		if !w.chance(50) {
			w.report(n)
		}
	}
	switch {
	case w.r.IntN(20) == 0:
		w.operator()
	case w.chance(2):
		w.facts = nil
	case w.chance(2):
		for _, id := range slices.Sorted(maps.Keys(w.droplets)) {
			if d := w.droplets[id]; d.lives(w.now) {
				d.goneAt = w.now
				if rec := w.state().Droplets[d.Name]; rec != nil && rec.ID == 0 {
					w.made[d.Name]-- // nobody knew of it: what is on record is to be made yet
				}
				break
			}
		}
	}
	w.lead()
	w.check()
}

// settle lets nothing go wrong any more, and wants the end to be right.
func (w *world) settle() {
	w.faults = false
	w.set.VanishGuard = -1
	for _, d := range w.droplets {
		d.sick = false
	}
	if p := w.state().Pools["web"]; !p.Stopped.IsZero() {
		p.Stopped, p.Failures, p.RetryAt, p.Reason = time.Time{}, 0, time.Time{}, ""
		w.put(w.keys.Pool("web"), p)
	}
	for range 1200 {
		w.run(w.now.Add(2 * time.Second))
		for _, n := range w.nodes {
			w.report(n)
		}
		w.lead()
		w.check()
		w.confirm()
		if len(w.pending) == 0 && w.converged() == "" {
			return
		}
	}
	w.t.Fatalf("not converged: %s\n%s", w.converged(), dump(w.state()))
}

// confirm lets go, as an operator may, what the wipe guard holds.
func (w *world) confirm() {
	p := w.state().Pools["web"]
	if w.heldNames == nil || w.r.IntN(20) > 0 {
		return
	}
	w.put(w.keys.Confirm(p.Name), inventory.Confirm{Pool: p.Name, Names: w.heldNames, Since: w.now})
}

// bring imports a droplet made elsewhere, or one that does not exist.
func (w *world) bring() {
	s := w.state()
	p := s.Pools["web"]
	if p.Desired >= 25 {
		return
	}
	id := int64(7)
	if w.r.IntN(3) > 0 {
		id = w.make("", []string{fmt.Sprintf("elsewhere-%d", w.nextID)})[0].ID
	}
	if slices.Contains(p.Import, id) {
		return
	}
	p.Import = append(p.Import, id)
	slices.Sort(p.Import)
	p.Desired++
	w.put(w.keys.Pool("web"), p)
}

func (w *world) converged() string {
	s := w.state()
	serving := 0
	for _, d := range s.Droplets {
		if d.Phase != inventory.Serving {
			return d.Name + " is " + string(d.Phase)
		}
		if c := w.droplets[d.ID]; c == nil || !c.lives(w.now) {
			return d.Name + " is not at the cloud"
		}
		serving++
	}
	switch p := s.Pools["web"]; {
	case serving != p.Desired:
		return "the count is not what is wanted"
	case len(p.Import) > 0:
		return "imports are left"
	case len(p.Remove) > 0:
		return "names are left to be removed"
	}
	for _, c := range w.droplets {
		if c.lives(w.now) && c.Pool != "" && (s.Droplets[c.Name] == nil || s.Droplets[c.Name].ID != c.ID) {
			return c.Name + " is at the cloud and on no record"
		}
	}
	return ""
}
