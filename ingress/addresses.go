package ingress

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// plan is what is decided of one reserved IP.
type plan struct {
	address netip.Addr
	was     *inventory.Assignment // nil while there is no record
	next    *inventory.Assignment // nil while it stays as it was
	forget  bool
	events  []inventory.Event
	with    *plan // goes into the same transaction
	ip      address
}

// a is the assignment as it will be, or nil.
func (q *plan) a() *inventory.Assignment {
	if q.next != nil {
		return q.next
	}
	return q.was
}

func (q *plan) edit() *inventory.Assignment {
	if q.next == nil {
		next := inventory.Assignment{Address: q.address}
		if q.was != nil {
			next = *q.was
			next.Moves = slices.Clone(next.Moves)
		}
		q.next = &next
	}
	return q.next
}

// node that is to hold the address; empty while none is.
func (q *plan) node() string {
	if a := q.a(); a != nil && !q.forget {
		return a.Node
	}
	return ""
}

// unassigned says that this cluster has never assigned the address: there is no
// record, or one of nothing but what an operator asked for.
func (q *plan) unassigned() bool {
	a := q.a()
	return a == nil || a.Node == "" && a.From == ""
}

// fresh says that the address was seen since the last call that could move it.
func (q *plan) fresh() bool {
	return !q.ip.seen.sent.IsZero() && !q.ip.seen.sent.Before(q.ip.tried.ended)
}

// at says that the address is at the droplet as far as is known.
func (q *plan) at(droplet int64) bool {
	return droplet != 0 && q.fresh() && !q.ip.seen.missing && q.ip.seen.droplet == droplet
}

// refusal is the cloud's definite no to the present holder; empty is none.
func (q *plan) refusal() string {
	a, t := q.a(), q.ip.tried
	if a == nil || a.Droplet == 0 || t.droplet != a.Droplet || t.outcome != refused || !q.fresh() ||
		q.ip.calling || q.ip.seen.locked || q.ip.seen.missing || q.ip.seen.droplet == a.Droplet {
		return ""
	}
	return t.message
}

// reservedIPs decides about all addresses: first what was asked for by hand, then
// what must move, then what has no holder.
func (p *planner) reservedIPs() {
	wanted := map[netip.Addr]bool{}
	for _, a := range p.State.Settings.Ingress.ReservedIPs {
		wanted[a] = true
		p.plans[a] = &plan{address: a, was: p.State.Assignments[a], ip: p.f.addresses[a]}
	}
	for a, was := range p.State.Assignments {
		if p.plans[a] == nil {
			p.plans[a] = &plan{address: a, was: was, ip: p.f.addresses[a]}
		}
	}
	var all []*plan
	for _, a := range slices.SortedFunc(maps.Keys(p.plans), netip.Addr.Compare) {
		q := p.plans[a]
		switch {
		case p.unread["ip/"+a.String()]:
		case !wanted[a] && !p.lost:
			if !q.ip.calling {
				q.forget = true
				p.event(q, "ingress.forgotten", q.was.Node, fmt.Sprintf("%s is no longer in ingress.reserved_ips: it is left where it is", a))
			}
		default:
			all = append(all, q)
		}
	}
	p.untangle(all)
	for _, q := range all {
		p.asHand(q)
	}
	for _, q := range all {
		p.keep(q)
	}
	for _, q := range all {
		p.settle(q)
	}
	for _, q := range all {
		p.place(q)
	}
	p.emitAddresses()
}

// untangle frees addresses of one family that are meant for one node, of which a
// droplet can hold but one.
func (p *planner) untangle(all []*plan) {
	for _, q := range all {
		for _, other := range all {
			if q == other || q.node() == "" || q.node() != other.node() || !sameFamily(q.address, other.address) {
				continue
			}
			// The one that is there stays, else the first.
			if there, others := q.at(q.a().Droplet), other.at(other.a().Droplet); there != others && there || there == others && q.address.Less(other.address) {
				continue
			}
			a := q.edit()
			a.From, a.Node, a.Droplet, a.Since, a.Verified = a.Node, "", 0, p.now, time.Time{}
			a.Reason = fmt.Sprintf("%s holds %s, and %s", a.From, other.address, onlyOne(q.address))
			break
		}
	}
}

func sameFamily(a, b netip.Addr) bool { return a.Is4() == b.Is4() }

func onlyOne(a netip.Addr) string {
	if a.Is4() {
		return "each droplet can hold one reserved IPv4"
	}
	return "each droplet can hold one reserved IPv6"
}

// asHand carries out what an operator asked for, when it can be.
func (p *planner) asHand(q *plan) {
	a := q.a()
	if a == nil || a.Want == "" {
		return
	}
	if a.Want == a.Node {
		q.edit().Want = ""
		return
	}
	to, why := a.Want, ""
	if to == inventory.AnyNode {
		to, why = p.choose(q, a.Node)
	} else {
		why = p.cannot(q, to)
	}
	if why == "" && p.paused() {
		why = "all changes are paused; `doproxy resume` ends that"
	}
	if why != "" {
		p.note(fmt.Sprintf("ip %s want", q.address), "ingress.waiting", a.Node, fmt.Sprintf("%s does not move as asked: %s", q.address, why))
		return
	}
	p.intend(q, to, "asked for by hand", false)
	q.next.Moves = nil // somebody has looked at it
}

// cannot says why a node cannot get the address; empty is that it can.
func (p *planner) cannot(q *plan, name string) string {
	st := p.standing(name)
	switch {
	case !st.fit:
		return st.reason
	case st.node.Droplet == 0:
		return name + " does not know its droplet's id"
	}
	return p.taken(q, name, st.node.Droplet)
}

// taken says which other address keeps a node's droplet from holding this one.
func (p *planner) taken(q *plan, name string, droplet int64) string {
	for _, other := range p.sorted() {
		if other != q && sameFamily(other.address, q.address) && (other.node() == name || other.node() == "" && other.at(droplet)) {
			return fmt.Sprintf("%s holds %s, and %s", name, other.address, onlyOne(q.address))
		}
	}
	for _, other := range p.f.others[droplet] {
		if o := p.plans[other]; (o == nil || o.node() == "" && o != q) && sameFamily(other, q.address) {
			return fmt.Sprintf("%s holds %s, and %s", name, other, onlyOne(q.address))
		}
	}
	return ""
}

func (p *planner) sorted() []*plan {
	return slices.SortedFunc(maps.Values(p.plans), func(a, b *plan) int { return a.address.Compare(b.address) })
}

// choose picks the node for an address, other than the one named, or says why
// there is none: settled ones before others, then where the address is already,
// then the one with the fewest addresses, then by name.
func (p *planner) choose(q *plan, not string) (to, why string) {
	type candidate struct {
		name      string
		unsettled bool
		elsewhere bool
		load      int
	}
	var all []candidate
	fit := 0
	for _, name := range p.order {
		st := p.standing(name)
		if !st.fit || name == not {
			continue
		}
		fit++
		if r, ok := q.ip.refused[name]; ok && p.now.Before(r.at.Add(p.Settings.RefusedFor)) {
			p.at(r.at.Add(p.Settings.RefusedFor))
			why = fmt.Sprintf("DigitalOcean refused it for %s: %s", name, r.message)
			continue
		}
		if p.cannot(q, name) != "" {
			if st.node.Droplet == 0 && why == "" {
				why = p.cannot(q, name)
			}
			continue
		}
		c := candidate{name: name, unsettled: !st.settled, elsewhere: !q.at(st.node.Droplet)}
		for _, other := range p.plans {
			if other != q && other.node() == name {
				c.load++
			}
		}
		all = append(all, c)
	}
	switch {
	case len(all) > 0:
		flag := func(b bool) int {
			if b {
				return 1
			}
			return 0
		}
		best := slices.MinFunc(all, func(a, b candidate) int {
			return cmp.Or(cmp.Compare(flag(a.unsettled), flag(b.unsettled)), cmp.Compare(flag(a.elsewhere), flag(b.elsewhere)),
				cmp.Compare(a.load, b.load), cmp.Compare(a.name, b.name))
		})
		return best.name, ""
	case fit == 0 && not != "":
		return "", "no other node is fit"
	case fit == 0:
		return "", "no node is fit"
	case why != "":
		return "", why
	}
	return "", fmt.Sprintf("no node is free: %s; add a node, or doproxy node undrain one", onlyOne(q.address))
}

// intend puts a new holder on record. Moves that nobody asked for count.
func (p *planner) intend(q *plan, to, reason string, counts bool) {
	a := q.edit()
	from := a.Node
	if q.was == nil {
		from = p.nodeOf(q.ip.seen.droplet)
	} else if a.Verified.IsZero() && a.From != "" && a.From != to {
		from = a.From // it never came to where it was meant to be
	}
	a.Moves = p.recent(a.Moves)
	if counts {
		a.Moves = append(a.Moves, p.now)
	}
	a.Node, a.Droplet = to, p.State.Nodes[to].Droplet
	a.Since, a.Reason, a.From = p.now, reason, from
	a.Verified, a.Want = time.Time{}, ""
	message := fmt.Sprintf("%s moves from %s to %s: %s", q.address, from, to, reason)
	if from == "" || from == to {
		message = fmt.Sprintf("%s goes to %s: %s", q.address, to, reason)
	}
	p.event(q, "ingress.moved", to, message)
}

// recent are the moves that are not yet forgotten.
func (p *planner) recent(moves []time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(moves), func(t time.Time) bool {
		return p.now.Sub(t) > movesKept || t.Sub(p.now) > holdDownMax // or of a clock that runs ahead
	})
}

// nodeOf is the live node with this droplet, or empty.
func (p *planner) nodeOf(droplet int64) string {
	for _, name := range p.order {
		if droplet != 0 && p.State.Nodes[name].Droplet == droplet {
			return name
		}
	}
	return ""
}

func (p *planner) event(q *plan, kind, node, message string) {
	q.events = append(q.events, inventory.Event{Time: p.now, Type: kind, Node: node, Message: message})
}

// emitAddresses turns what was decided into transactions.
func (p *planner) emitAddresses() {
	done := map[*plan]bool{}
	for _, q := range p.sorted() {
		var g Group
		for _, q := range []*plan{q, q.with} {
			if q == nil || done[q] {
				continue
			}
			done[q] = true
			switch {
			case q.forget:
				g.Writes = append(g.Writes, Write{Assignment: q.was, Delete: true})
			case q.next != nil:
				g.Writes = append(g.Writes, Write{Assignment: q.next})
			}
			g.Events = append(g.Events, q.events...)
		}
		if len(g.Writes) > 0 {
			p.out.Groups = append(p.out.Groups, g)
		}
	}
}
