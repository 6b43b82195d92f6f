package ingress

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/inventory"
)

// TestAddressesComeHome lets everything go wrong for a while, and then nothing: in
// the end every address must be at a fit node, and every fit node in the DNS.
func TestAddressesComeHome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			w.run(w.now.Add(w.delay(3 * time.Second)))
			w.nodesChange()
			if w.chance(3) {
				w.meddle()
			}
			w.lead()
		}
		w.settle()
	})
}

// TestFlapping wants few moves of nodes that do nothing but come and go.
func TestFlapping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.trouble = 0
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			w.run(w.now.Add(w.delay(4 * time.Second)))
			for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
				n := w.nodes[name]
				n.haproxy = []string{"running", "failed"}[w.r.IntN(2)]
				w.tell(n)
			}
			w.lead()
		}
		w.settle()
	})
}

// settle lets nothing go wrong any more, has an operator ask for what is somebody
// else's, and wants the end to be right.
func (w *world) settle() {
	w.faults = false
	for _, n := range w.nodes {
		n.haproxy, n.silent, n.drained = "running", false, false
		w.tell(n)
	}
	for _, a := range w.addresses {
		if as := w.state().Assignments[a]; as == nil || as.Node == "" && as.From == "" {
			w.ask(a, inventory.AnyNode)
		}
	}
	for range 1500 {
		w.run(w.now.Add(500 * time.Millisecond))
		w.lead()
		if len(w.pending) == 0 && w.converged() == "" {
			return
		}
	}
	w.t.Fatalf("not converged: %s\n%s\n%v\n%v\n%s", w.converged(), dump(w.state()), w.holders, w.records,
		story(Plan(Input{Now: w.now, Settings: w.set, UID: "u1", State: w.state(), Facts: w.facts})))
}

func (w *world) converged() string {
	s := w.state()
	for _, a := range w.addresses {
		as := s.Assignments[a]
		switch {
		case as == nil || as.Node == "":
			return fmt.Sprintf("%s has no node", a)
		case as.Verified.IsZero() || as.Error != "":
			return fmt.Sprintf("%s is not verified", a)
		case w.holders[a] != w.nodes[as.Node].droplet:
			return fmt.Sprintf("%s is at %d instead of %s", a, w.holders[a], as.Node)
		}
	}
	there := map[string]int{}
	for _, r := range w.records {
		there[r.Data]++
	}
	ours := map[int64]inventory.DNSRecord{}
	for _, d := range s.DNS {
		for _, r := range d.Records {
			ours[r.ID] = r
			if r.ID == 0 || r.Leaving {
				return fmt.Sprintf("%s is under way", r.Address)
			}
		}
	}
	for _, n := range w.nodes {
		for _, a := range []string{n.four.String(), n.six.String()} {
			if there[a] == 0 {
				return a + " is missing"
			}
		}
	}
	for id, r := range w.records {
		if _, other := w.foreign[id]; other {
			continue
		}
		if _, mine := ours[id]; !mine {
			return fmt.Sprintf("record %d, %s, is nobody's", id, r.Data)
		}
		if r.TTL != defaultTTL {
			return fmt.Sprintf("record %d has TTL %d", id, r.TTL)
		}
	}
	return ""
}
