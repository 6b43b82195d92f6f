package ingress

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// namePlan is what is decided of one DNS name.
type namePlan struct {
	Name
	ttl     int
	was     *inventory.DNSRecords // nil while there is no record
	next    inventory.DNSRecords
	changed bool
	f       records
	events  []inventory.Event
	creates []Create
	urgent  bool // a new list is wanted before the next audit

	listed map[int64]cloud.DNSRecord // the last list, by id
	ours   map[int64]bool            // ids on record
	// sound are addresses that the list shows in a record that is not leaving and
	// whose node is fit now.
	sound map[netip.Addr]bool
}

// names decides about all DNS names.
func (p *planner) names() {
	if p.lost {
		return
	}
	wanted := map[string]bool{}
	for _, n := range p.State.Settings.Ingress.DNS {
		fqdn := n.FQDN()
		if wanted[fqdn] {
			continue
		}
		wanted[fqdn] = true
		if !p.unread["dns/"+fqdn] {
			p.name(n)
		}
	}
	for _, fqdn := range slices.Sorted(maps.Keys(p.State.DNS)) {
		if !wanted[fqdn] && !p.unread["dns/"+fqdn] && !p.f.names[fqdn].busy() {
			p.forgetName(p.State.DNS[fqdn], "is no longer in ingress.dns")
		}
	}
}

func (p *planner) forgetName(was *inventory.DNSRecords, why string) {
	p.out.Groups = append(p.out.Groups, Group{
		Writes: []Write{{DNS: was, Delete: true}},
		Events: []inventory.Event{{Time: p.now, Type: "dns.forgotten",
			Message: fmt.Sprintf("%s %s: its %d records are left at DigitalOcean", was.FQDN, why, len(was.Records))}},
	})
}

func (p *planner) name(n inventory.DNSName) {
	fqdn, within := n.FQDN(), n.Name
	if within == "" {
		within = "@"
	}
	d := &namePlan{Name: Name{fqdn, n.Domain, within}, ttl: n.TTL, was: p.State.DNS[fqdn], f: p.f.names[fqdn]}
	if d.ttl == 0 {
		d.ttl = defaultTTL
	}
	d.next = inventory.DNSRecords{FQDN: fqdn, Domain: n.Domain}
	if d.was != nil {
		if d.was.Domain != n.Domain {
			if !d.f.busy() {
				p.forgetName(d.was, fmt.Sprintf("is now in domain %s instead of %s", n.Domain, d.was.Domain))
			}
			return
		}
		d.next = *d.was
		d.next.Records = slices.Clone(d.was.Records)
	}
	d.ours = map[int64]bool{}
	for _, r := range d.next.Records {
		d.ours[r.ID] = true
	}
	if l := d.f.list; l != nil {
		d.listed = map[int64]cloud.DNSRecord{}
		for _, x := range l.all {
			d.listed[x.ID] = x
		}
	}
	p.resolve(d)
	if d.f.list != nil {
		p.check(d)
		p.adopt(d)
		p.take(d)
		p.letGo(d)
		p.drop(d)
		p.add(d)
		p.ttls(d)
	}
	if d.changed {
		if len(d.creates) == 0 && !slices.ContainsFunc(d.next.Records, func(r inventory.DNSRecord) bool { return r.ID == 0 }) {
			d.next.Error = ""
		}
		p.out.Groups = append(p.out.Groups, Group{Writes: []Write{{DNS: &d.next}}, Creates: d.creates, Events: d.events})
	}
	if d.next.Error != "" {
		p.note("dns "+fqdn+" failing", "dns.failing", "", fmt.Sprintf("%s: %s", fqdn, d.next.Error))
	}
	p.list(d)
}

// list asks for the records of a name when that is due.
func (p *planner) list(d *namePlan) {
	f := d.f
	if f.missing {
		p.note("dns "+d.FQDN+" missing", "dns.missing", "", fmt.Sprintf("the account has no domain %s: add it at DigitalOcean, or take %s out of ingress.dns", d.Domain, d.FQDN))
	}
	if f.listing {
		return
	}
	next, class := f.listTried.Add(p.Settings.DNSAuditEvery), cloud.Poll
	switch {
	case f.listTried.IsZero(), p.asked() && f.listTried.Before(p.f.verifySeen):
		next = p.now
	case f.listFailures > 0:
		next = f.listEnded.Add(max(time.Second, p.Settings.backoff(f.listFailures)))
	case d.urgent:
		next, class = f.listEnded.Add(time.Second), cloud.Failover
	}
	if p.due(next) && p.spend(class) {
		p.out.Names = append(p.out.Names, d.Name)
	}
}

func (p *planner) dnsEvent(d *namePlan, kind, node, format string, args ...any) {
	d.events = append(d.events, inventory.Event{Time: p.now, Type: kind, Node: node, Message: d.FQDN + ": " + fmt.Sprintf(format, args...)})
}

// text names a record for people.
func text(r inventory.DNSRecord) string {
	return fmt.Sprintf("%s %s (%s)", recordType(r.Address), r.Address, r.Node)
}

// shows says that a listed record is what one of ours is to be.
func shows(x cloud.DNSRecord, a netip.Addr) bool {
	data, err := netip.ParseAddr(x.Data)
	return err == nil && data == a && x.Type == recordType(a)
}

// settled is when a change that was sent at a time must show in a list sent
// then. A time of another leader's clock is taken as the beginning of the term.
func (p *planner) settled(sent time.Time) time.Time {
	if sent.Before(p.f.Term) || sent.After(p.now) {
		sent = p.f.Term
	}
	return sent.Add(p.Settings.CallTimeout + p.Settings.Settle)
}

// resolve finds out what became of creates.
func (p *planner) resolve(d *namePlan) {
	for i := range d.next.Records {
		r := &d.next.Records[i]
		if r.ID != 0 || r.Asked.IsZero() {
			continue
		}
		if asked, flying := d.f.creating[r.Address]; flying && asked.Equal(r.Asked) {
			continue
		}
		o, ok := d.f.created[r.Address]
		ok = ok && o.asked.Equal(r.Asked)
		switch {
		case ok && o.outcome == accepted:
			p.made(d, r, o.id)
			continue
		case ok && o.outcome != unknown:
			r.Asked, d.changed = time.Time{}, true
			if o.message != "" {
				message := fmt.Sprintf("DigitalOcean refused to create %s: %s", text(*r), o.message)
				if d.next.Error != message {
					p.dnsEvent(d, "dns.refused", r.Node, "%s", message)
				}
				d.next.Error = message
			}
			continue
		}
		d.urgent = true
		if l := d.f.list; l != nil && (!ok || l.sent.After(o.ended)) {
			if id := d.find(r.Address); id != 0 {
				p.made(d, r, id)
			} else if l.sent.After(p.settled(r.Asked)) {
				r.Asked, d.changed = time.Time{}, true
			}
		}
	}
}

// find is the newest listed record with this address that is not on record.
func (d *namePlan) find(a netip.Addr) (id int64) {
	for _, x := range d.f.list.all {
		if shows(x, a) && !d.ours[x.ID] && !d.f.deletes[x.ID].gone {
			id = max(id, x.ID)
		}
	}
	return id
}

func (p *planner) made(d *namePlan, r *inventory.DNSRecord, id int64) {
	r.ID, r.Asked, r.Since = id, time.Time{}, p.now
	d.ours[id], d.changed = true, true
	p.dnsEvent(d, "dns.added", r.Node, "%s is added", text(*r))
}

// check compares what is on record with what the list shows.
func (p *planner) check(d *namePlan) {
	list := d.f.list
	d.next.Records = slices.DeleteFunc(d.next.Records, func(r inventory.DNSRecord) bool {
		if !r.Leaving || !d.f.deletes[r.ID].gone {
			return false
		}
		d.changed = true
		p.dnsEvent(d, "dns.removed", r.Node, "%s is removed: %s", text(r), r.Reason)
		return true
	})
	for i := range d.next.Records {
		r := &d.next.Records[i]
		if r.ID == 0 {
			continue
		}
		x, there := d.listed[r.ID]
		if !there {
			known := r.Since
			if made, ok := d.f.made[r.ID]; ok && made.After(known) {
				known = made
			}
			if known.After(p.now) {
				known = p.f.Term
			}
			if !list.sent.After(known.Add(p.Settings.Settle)) {
				continue
			}
			if !r.Leaving {
				p.dnsEvent(d, "dns.repaired", r.Node, "%s was deleted by somebody else: it is made again", text(*r))
			}
			r.ID, r.Asked, d.changed = 0, time.Time{}, true
			continue
		}
		if !r.Leaving && !shows(x, r.Address) && list.sent.After(d.f.made[r.ID]) {
			p.dnsEvent(d, "dns.repaired", r.Node, "%s was changed to %s by somebody else: it is made again", text(*r), x.Data)
			r.Leaving, r.Reason, r.Since, d.changed = true, "it was changed to "+x.Data, p.now, true
		}
	}
	// One that left and is there no more has no use.
	d.next.Records = slices.DeleteFunc(d.next.Records, func(r inventory.DNSRecord) bool {
		gone := r.Leaving && r.ID == 0 && r.Asked.IsZero()
		if gone {
			d.changed = true
			p.dnsEvent(d, "dns.removed", r.Node, "%s is gone: %s", text(r), r.Reason)
		}
		return gone
	})
}

// adopt takes records over that point at a node of the cluster and are on record
// nowhere: the name was out of the settings for a while, or the inventory was
// lost. Left alone they would keep clients coming to a node that has died.
func (p *planner) adopt(d *namePlan) {
	for _, name := range p.order {
		for _, a := range publicAddresses(p.State.Nodes[name]) {
			if slices.ContainsFunc(d.next.Records, func(r inventory.DNSRecord) bool { return r.Address == a }) {
				continue
			}
			if id := d.find(a); id != 0 && !d.f.changing[id] {
				r := inventory.DNSRecord{Address: a, Node: name, ID: id, Since: p.now}
				d.next.Records = append(d.next.Records, r)
				d.ours[id], d.changed = true, true
				p.dnsEvent(d, "dns.adopted", name, "%s was there", text(r))
			}
		}
	}
}

// take finds the addresses that the list shows in a record whose node is fit.
func (p *planner) take(d *namePlan) {
	d.sound = map[netip.Addr]bool{}
	leaving := map[int64]bool{}
	for _, r := range d.next.Records {
		leaving[r.ID] = r.Leaving
	}
	for _, name := range p.order {
		st := p.standing(name)
		if !st.fit {
			continue
		}
		for _, a := range publicAddresses(st.node) {
			for _, x := range d.f.list.all {
				if shows(x, a) && !leaving[x.ID] && !d.f.changing[x.ID] && !d.f.deletes[x.ID].gone {
					d.sound[a] = true
				}
			}
		}
	}
}

// publicAddresses of a node, those that it has.
func publicAddresses(n *inventory.Node) (all []netip.Addr) {
	for _, a := range []netip.Addr{n.PublicIPv4, n.PublicIPv6} {
		if a.IsValid() {
			all = append(all, a.Unmap())
		}
	}
	return all
}

// another says that the list shows a sound record of the address's family beside it.
func (d *namePlan) another(a netip.Addr) bool {
	for b := range d.sound {
		if b != a && sameFamily(a, b) {
			return true
		}
	}
	return false
}

// lookForOthers asks for a list soon if that may show a record of a fit node that
// the last one was too early for.
func (d *namePlan) lookForOthers() {
	for _, r := range d.next.Records {
		if _, listed := d.listed[r.ID]; r.ID != 0 && !r.Leaving && !listed {
			d.urgent = true
		}
	}
}

// letGo marks records whose node is not to have them any more.
func (p *planner) letGo(d *namePlan) {
	for i := range d.next.Records {
		r := &d.next.Records[i]
		if r.Leaving {
			p.stay(d, r)
			continue
		}
		why := p.unwanted(r)
		if why == "" {
			continue
		}
		if r.ID == 0 {
			continue // add drops it unless it may exist
		}
		key := fmt.Sprintf("dns %s %s", d.FQDN, r.Address)
		switch {
		case !d.another(r.Address):
			d.lookForOthers()
			p.note(key, "dns.kept", r.Node, fmt.Sprintf("%s: %s stays though %s: no other %s record of a fit node is there", d.FQDN, text(*r), why, recordType(r.Address)))
		case p.paused():
			p.note(key, "dns.kept", r.Node, fmt.Sprintf("%s: %s stays though %s: all changes are paused", d.FQDN, text(*r), why))
		default:
			r.Leaving, r.Reason, r.Since, d.changed = true, why, p.now, true
			delete(d.sound, r.Address)
		}
	}
}

// unwanted says why a record's node is not to have it; empty is that it may.
func (p *planner) unwanted(r *inventory.DNSRecord) string {
	st := p.standing(r.Node)
	if st.lost {
		return st.reason
	}
	if st.node == nil {
		return ""
	}
	have := st.node.PublicIPv4
	if r.Address.Is6() {
		have = st.node.PublicIPv6
	}
	if have.IsValid() && have.Unmap() != r.Address {
		return fmt.Sprintf("%s's address is now %s", r.Node, have)
	}
	return ""
}

// stay takes a record back whose node is fit again, unless a delete may be on
// its way.
func (p *planner) stay(d *namePlan, r *inventory.DNSRecord) {
	x, there := d.listed[r.ID]
	st := p.standing(r.Node)
	if !there || !shows(x, r.Address) || !st.settled || p.unwanted(r) != "" || d.f.changing[r.ID] {
		return
	}
	if del := d.f.deletes[r.ID]; !del.sent.IsZero() || r.Since.Before(p.f.Term) {
		if until := p.settled(del.sent); !d.f.list.sent.After(until) {
			p.at(until.Add(time.Millisecond))
			d.urgent = d.urgent || p.now.After(until)
			return
		}
	}
	r.Leaving, r.Reason, r.Since, d.changed = false, "", p.now, true
	d.sound[r.Address] = true
	p.dnsEvent(d, "dns.added", r.Node, "%s stays after all", text(*r))
}
