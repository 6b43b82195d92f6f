package ingress

import (
	"fmt"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// health is what a leader remembers of one node: whether it can serve clients,
// and for how long that has been so. A drain is apart from it.
type health struct {
	reason string // why it is unfit, as one says it; empty while it is fit
	gone   bool   // there is no report
	// since is when it became fit or unfit, as far as this leader saw.
	since time.Time
	// grace says that being unfit counts only after FailAfter.
	grace bool
	// again is since when it is fit after having been unfit; zero once that no
	// longer matters or never did.
	again   time.Time
	drained bool
	// young says that it was never fit as far as this leader saw, and is coming up
	// for the first time: once fit it has nothing to prove.
	young bool

	// behind is a revision that the node has not applied since lag; zero is none.
	behind inventory.Revision
	lag    time.Time
}

// lostAt is when a node that is unfit counts as such.
func (h health) lostAt(t times) time.Time {
	if h.grace {
		return h.since.Add(t.fail)
	}
	return h.since
}

// See notes what the state says of nodes, and which look was asked for. Call it
// before each Plan.
func (f *Facts) See(s *inventory.State, now time.Time) {
	if !trusted(s) {
		return
	}
	if s.Inventory != f.inventory || f.changed == 0 {
		f.inventory, f.changed = s.Inventory, lastChange(s)
	}
	t := timesOf(s.Settings.Ingress)
	names := map[string]bool{}
	for name := range f.nodes {
		names[name] = true
	}
	for name := range s.Nodes {
		names[name] = true
	}
	for name := range s.Members {
		names[name] = true
	}
	for _, a := range s.Assignments {
		if a.Node != "" {
			names[a.Node] = true
		}
	}
	for _, d := range s.DNS {
		for _, r := range d.Records {
			names[r.Node] = true
		}
	}
	for name := range names {
		h, known := f.nodes[name]
		f.nodes[name] = f.look(h, known, name, s, t, now)
	}
	f.began = true
	if v := s.Verify; v != nil && v.ID != f.verify {
		f.verify, f.verifySeen = v.ID, now
		if v.Repair {
			f.eager()
		}
	}
}

// look is what is known of a node now.
func (f *Facts) look(h health, known bool, name string, s *inventory.State, t times, now time.Time) health {
	node, member := s.Nodes[name], s.Members[name]
	drained := member != nil && !member.Drained.IsZero()
	h.lagging(node, f.changed, now)
	reason := unfit(name, node)
	if reason == "" && h.behind != 0 && now.Sub(h.lag) >= t.stale {
		reason = fmt.Sprintf("%s's HAProxy has lagged behind the inventory for %s", name, t.stale)
	}
	wasFit := known && h.reason == ""
	switch {
	case reason == "" && !known:
		h.since = now
		h.again = returned(name, s, t, now)
	case reason == "" && !wasFit:
		if !now.Before(h.lostAt(t)) && !h.young {
			h.again = now
		}
		h.since, h.young = now, false
	case reason != "" && (wasFit || !known):
		h.since, h.grace = now, node != nil || !known
		h.young = !known && (node != nil && node.HAProxy == "starting" || member == nil || now.Sub(member.Joined) < t.settle)
		if !known && !f.began && node == nil {
			// Missing since before the term, or it has yet to report for the first time.
			if member != nil && !member.Silent.IsZero() && member.Silent.Before(now) {
				h.since = member.Silent
			} else if f.Term.Before(now) {
				h.since = f.Term
			}
		}
	case reason != "" && node == nil && !h.gone && now.Before(h.lostAt(t)):
		h.since, h.grace = now, false // its report's lease took long enough to expire
	}
	if reason == "" && h.drained && !drained {
		h.again = time.Time{} // it was asked for
	}
	if !h.again.IsZero() && reason == "" && now.Sub(h.again) >= t.settle {
		h.again = time.Time{}
	}
	h.reason, h.gone, h.drained = reason, node == nil, drained
	return h
}

// lagging keeps the clock of a node that has not applied the inventory as it was
// at some moment. Once it has, the clock begins anew.
func (h *health) lagging(node *inventory.Node, changed inventory.Revision, now time.Time) {
	switch {
	case node == nil || node.Applied >= changed:
		h.behind, h.lag = 0, time.Time{}
	case h.behind == 0 || node.Applied >= h.behind:
		h.behind, h.lag = changed, now
	}
}

// lastChange is the revision of the last change to a pool or droplet that has a
// record. State.Inventory is not it: that is the revision of the listing if there
// was none since, which no node has to come to.
func lastChange(s *inventory.State) (last inventory.Revision) {
	for _, p := range s.Pools {
		last = max(last, p.Mod)
	}
	for _, d := range s.Droplets {
		last = max(last, d.Mod)
	}
	return last
}

// unfit says why a node cannot serve clients, as far as its report tells; empty
// is that it can.
func unfit(name string, node *inventory.Node) string {
	switch {
	case node == nil:
		return name + " no longer reports"
	case node.HAProxy == "running":
		return ""
	case node.HAProxy == "failed":
		return name + "'s HAProxy has failed"
	default:
		return fmt.Sprintf("%s's HAProxy is %s", name, node.HAProxy)
	}
}

// returned is since when a node that this leader sees for the first time has been
// fit after having been unfit; zero if nothing says that it was.
func returned(name string, s *inventory.State, t times, now time.Time) (again time.Time) {
	if m := s.Members[name]; m != nil && !m.Silent.IsZero() {
		return now
	}
	for _, a := range s.Assignments {
		if n := len(a.Moves); a.From == name && n > 0 && a.Moves[n-1].Equal(a.Since) && now.Sub(a.Since) < t.settle && a.Since.After(again) {
			again = a.Since
		}
	}
	return again
}

// trusted says that the state may be acted upon at all.
func trusted(s *inventory.State) bool { return s.Listed && s.Err == nil && s.Settings != nil }

// standing is what Plan makes of a node.
type standing struct {
	node *inventory.Node // its report, or nil
	// lost says that it is to lose what it has, for this reason.
	lost   bool
	reason string
	// fit nodes may get something, settled ones rather than others.
	fit, settled bool
	drained      bool
}

// stand is a node's standing. A reason without lost is one that does not count yet.
func (p *planner) stand(name string) standing {
	h, known := p.f.nodes[name]
	st := standing{node: p.State.Nodes[name], drained: h.drained, reason: h.reason}
	switch {
	case !known:
		return standing{reason: name + " is not known", lost: true}
	case h.drained:
		st.lost = true
		if st.reason == "" {
			st.reason = name + " is drained"
			if m := p.State.Members[name]; m != nil && m.Reason != "" {
				st.reason += ": " + m.Reason
			}
		}
	case h.reason != "":
		at := h.lostAt(p.times)
		p.at(at)
		st.lost = !p.now.Before(at)
	default:
		st.fit = st.node != nil
		st.settled = st.fit && h.again.IsZero()
		if !h.again.IsZero() {
			p.at(h.again.Add(p.times.settle))
		}
	}
	if h.behind != 0 && h.reason == "" {
		p.at(h.lag.Add(p.times.stale))
	}
	return st
}
