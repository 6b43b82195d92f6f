package ingress

import (
	"fmt"
	"time"

	"github.com/doproxy/doproxy/cloud"
)

// keep moves an address away from a holder that is not to have it any more.
func (p *planner) keep(q *plan) {
	a := q.a()
	if a == nil || a.Node == "" || q.next != nil && q.next.Since.Equal(p.now) {
		return
	}
	st := p.standing(a.Node)
	words := q.refusal()
	switch {
	case st.lost:
		p.leave(q, st)
	case words != "":
		p.elsewhere(q, words)
	case st.node != nil && st.node.Droplet != 0 && st.node.Droplet != a.Droplet:
		// A machine made anew under its old name.
		if p.paused() {
			p.stays(q, fmt.Sprintf("%s is now droplet %d", a.Node, st.node.Droplet), "all changes are paused")
			return
		}
		p.intend(q, a.Node, fmt.Sprintf("%s is now droplet %d", a.Node, st.node.Droplet), false)
	}
}

// leave finds a new holder for an address whose holder is lost.
func (p *planner) leave(q *plan, st standing) {
	a := q.a()
	to, why := p.choose(q, a.Node)
	if why == "" && p.paused() {
		why = "all changes are paused; `doproxy resume` ends that"
	}
	if why != "" {
		p.stays(q, st.reason, why)
		return
	}
	asked := st.drained
	if moves := p.recent(a.Moves); !asked && len(moves) > 0 {
		last := moves[len(moves)-1]
		if until := last.Add(double(p.times.hold, len(moves)-1, holdDownMax)); !p.due(until) {
			p.stays(q, st.reason, fmt.Sprintf("it moved %d times of late, so it is held until %s", len(moves), until.UTC().Format(time.RFC3339)))
			return
		}
	}
	p.intend(q, to, st.reason, !asked)
}

func (p *planner) stays(q *plan, though, why string) {
	a := q.a()
	p.note(fmt.Sprintf("ip %s stays", q.address), "ingress.stays", a.Node, fmt.Sprintf("%s stays with %s though %s: %s", q.address, a.Node, though, why))
}

// elsewhere finds another node for an address that the cloud refuses the one it
// is meant for. If there is none, the call is tried again.
func (p *planner) elsewhere(q *plan, words string) {
	a := q.a()
	if p.paused() {
		return
	}
	node := a.Node
	if p.swap(q, words) {
		return
	}
	to, why := p.choose(q, node)
	if why != "" {
		p.failing(q, words)
		return
	}
	p.intend(q, to, fmt.Sprintf("DigitalOcean refused it for %s: %s", node, words), false)
	q.edit().Error = words
	p.event(q, "ingress.refused", node, fmt.Sprintf("DigitalOcean refused %s for %s: %s", q.address, node, words))
}

// swap takes two addresses as they are that each stand at the node of the other:
// neither droplet could take the one meant for it while it holds the other.
func (p *planner) swap(q *plan, words string) bool {
	a := q.a()
	there := p.nodeOf(q.ip.seen.droplet)
	if there == "" || !p.standing(there).fit {
		return false
	}
	for _, other := range p.sorted() {
		if other == q || other.node() != there || !sameFamily(q.address, other.address) || other.next != nil || q.next != nil ||
			!other.at(a.Droplet) || p.unread["ip/"+other.address.String()] {
			continue
		}
		node := a.Node
		for _, one := range []struct {
			q  *plan
			to string
		}{{q, there}, {other, node}} {
			p.intend(one.q, one.to, fmt.Sprintf("%s and %s were exchanged at DigitalOcean, which refuses to undo that: %s", q.address, other.address, words), false)
		}
		q.with, other.with = other, q
		return true
	}
	return false
}

// settle finds a holder for an address that has none.
func (p *planner) settle(q *plan) {
	a := q.a()
	if a != nil && a.Node != "" || q.unassigned() && p.leftThere(q) {
		return
	}
	to, why := p.choose(q, "")
	if why == "" && p.paused() {
		why = "all changes are paused; `doproxy resume` ends that"
	}
	if why != "" {
		p.note(fmt.Sprintf("ip %s stays", q.address), "ingress.stays", "", fmt.Sprintf("%s has no node: %s", q.address, why))
		return
	}
	reason := "no node held it"
	if a != nil && a.Reason != "" {
		reason = a.Reason
	}
	p.intend(q, to, reason, false)
}

// leftThere says that an address which this cluster has never assigned is left
// where it is for now. One that is at a fit node stays with it. One at a droplet
// that is none of the nodes' may serve somebody else's clients, such as those of a
// cluster with the same configuration: it comes only when an operator asks for it.
func (p *planner) leftThere(q *plan) bool {
	seen := q.ip.seen
	switch {
	case seen.sent.IsZero():
		if (!p.f.listed.IsZero() || p.f.listFailures > 0) && !q.ip.calling {
			p.lookAgain(q)
		}
		return true
	case q.ip.calling:
		return true
	case seen.missing:
		p.missing(q)
		return true
	case seen.droplet == 0:
		return false
	}
	name := p.nodeOf(seen.droplet)
	switch {
	case name == "":
		p.foreign(q)
		return true
	case p.standing(name).lost, p.taken(q, name, seen.droplet) != "":
		return false
	}
	n := q.edit()
	n.Node, n.Droplet, n.Since, n.Reason = name, seen.droplet, p.now, "it was there"
	p.event(q, "ingress.adopted", name, fmt.Sprintf("%s stays with %s, which holds it", q.address, name))
	return true
}

// foreign tells that a droplet of somebody else holds an address, unless it is
// told already why the address does not come as asked.
func (p *planner) foreign(q *plan) {
	if a := q.a(); a != nil && a.Want != "" {
		return
	}
	p.note(fmt.Sprintf("ip %s foreign", q.address), "ingress.foreign", "",
		fmt.Sprintf("%s is held by droplet %d, which is no node of this cluster: if it is to come here, `doproxy failover %s`", q.address, q.ip.seen.droplet, q.address))
}

func (p *planner) missing(q *plan) {
	p.note(fmt.Sprintf("ip %s missing", q.address), "ingress.missing", "",
		fmt.Sprintf("the account has no reserved IP %s: make it at DigitalOcean, or take it out of ingress.reserved_ips", q.address))
}

func (p *planner) fails(q *plan, words string) {
	p.note(fmt.Sprintf("ip %s failing", q.address), "ingress.failing", q.a().Node, fmt.Sprintf("%s cannot be assigned to %s, and is tried again: %s", q.address, q.a().Node, words))
}

// failing tells why an address is not where it is meant to be, and puts it on
// record.
func (p *planner) failing(q *plan, words string) {
	a := q.a()
	p.fails(q, words)
	if a.Error != words {
		q.edit().Error = words
		if q.ip.tried.outcome == refused {
			p.event(q, "ingress.refused", a.Node, fmt.Sprintf("DigitalOcean refused %s for %s: %s", q.address, a.Node, words))
		}
	}
}

// place brings an address to the holder on record, and makes sure that it is
// there.
func (p *planner) place(q *plan) {
	a := q.was
	if a != nil && q.next == nil && a.Verified.IsZero() && q.ip.tried.count > 1 && a.Error != "" {
		p.fails(q, a.Error) // until the attempt under way has ended otherwise
	}
	if a == nil || a.Node == "" || a.Droplet == 0 || q.ip.calling ||
		q.next != nil && (q.next.Droplet != a.Droplet || q.next.Node != a.Node) {
		return // it is not on record yet, or will be elsewhere
	}
	seen := q.ip.seen
	differs := q.fresh() && (seen.missing || seen.droplet != a.Droplet)
	switch {
	case q.fresh() && !differs:
		if a.Verified.IsZero() || a.Error != "" {
			p.confirm(q)
		}
	case !a.Verified.IsZero():
		if differs {
			p.repair(q)
		} // else the next audit tells
	case q.ip.tried.count == 0 || q.ip.tried.droplet != a.Droplet:
		if differs && seen.missing {
			p.missing(q)
			return
		}
		p.assign(q)
	case !q.fresh():
		p.lookAgain(q)
	default:
		p.insist(q)
	}
}

// confirm records that the cloud shows the address at its holder.
func (p *planner) confirm(q *plan) {
	if !q.ip.seen.sure {
		p.lookAgain(q)
		return
	}
	a := q.edit()
	a.Error = ""
	if a.Verified.IsZero() {
		a.Verified = p.now
		p.event(q, "ingress.verified", a.Node, fmt.Sprintf("%s is at %s", q.address, a.Node))
	}
}

// repair deals with an address that somebody else moved. The next pass assigns it
// again.
func (p *planner) repair(q *plan) {
	a, seen := q.was, q.ip.seen
	where := fmt.Sprintf("at droplet %d", seen.droplet)
	if name := p.nodeOf(seen.droplet); name != "" {
		where = "at " + name
	} else if seen.droplet == 0 {
		where = "at no droplet"
	}
	switch {
	case !seen.sure:
		p.lookAgain(q)
	case seen.missing:
		p.missing(q)
	case seen.locked: // an action on it is under way
		p.lookAgain(q)
	case p.paused():
		p.note(fmt.Sprintf("ip %s differs", q.address), "ingress.differs", a.Node, fmt.Sprintf("%s is %s instead of at %s, and all changes are paused", q.address, where, a.Node))
	case p.standing(a.Node).lost:
		// Nowhere better is known.
	default:
		n := q.edit()
		n.Verified, n.Error = time.Time{}, "it was "+where
		p.event(q, "ingress.repaired", a.Node, fmt.Sprintf("%s was %s instead of at %s: it is assigned again", q.address, where, a.Node))
	}
}

// insist goes on after an assign that was followed by a look which does not show
// it done.
func (p *planner) insist(q *plan) {
	tried, seen := q.ip.tried, q.ip.seen
	switch {
	case seen.missing:
		p.missing(q)
		return
	case seen.locked, tried.outcome == accepted && p.now.Before(tried.ended.Add(p.Settings.VerifyFor)):
		p.lookAgain(q)
		return
	}
	words := tried.message
	if words == "" {
		words = "DigitalOcean took the call, and does not show it done"
	}
	if q.refusal() == "" && (tried.count > 1 || tried.outcome == refused || tried.outcome == failed) {
		p.failing(q, words)
	}
	if p.due(tried.ended.Add(p.Settings.backoff(tried.count))) {
		p.assign(q)
	}
}

func (p *planner) assign(q *plan) {
	a := q.was
	if p.paused() {
		p.note(fmt.Sprintf("ip %s differs", q.address), "ingress.differs", a.Node, fmt.Sprintf("%s is to go to %s, and all changes are paused", q.address, a.Node))
		return
	}
	if p.spend(cloud.Failover) {
		p.out.Assigns = append(p.out.Assigns, Assign{q.address, a.Node, a.Droplet})
	}
}

// lookAgain asks for the address, later and later.
func (p *planner) lookAgain(q *plan) {
	ip := q.ip
	var next time.Time
	switch {
	case ip.lookTried.IsZero(), !ip.seen.sure && ip.lookFailures == 0:
	case ip.lookFailures > 0:
		next = ip.lookTried.Add(p.Settings.backoff(ip.lookFailures))
		if ip.lookFailures > 2 {
			p.note(fmt.Sprintf("ip %s unseen", q.address), "ingress.failing", "", fmt.Sprintf("DigitalOcean does not tell where %s is: %s", q.address, ip.lookError))
		}
	case !ip.seen.sent.Before(ip.lookTried):
		next = ip.seen.sent.Add(double(p.Settings.VerifyEvery, ip.looks-1, 5*time.Second))
	}
	if p.due(next) && p.spend(cloud.Failover) {
		p.out.Looks = append(p.out.Looks, q.address)
	}
}
