package ingress

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// drop deletes records that are leaving, each only while a fresh list shows
// another one of its family whose node is fit.
func (p *planner) drop(d *namePlan) {
	for _, r := range d.next.Records {
		if !r.Leaving || r.ID == 0 || d.f.changing[r.ID] {
			continue
		}
		if _, there := d.listed[r.ID]; !there {
			d.urgent = true // the list is from before the record
			continue
		}
		key := fmt.Sprintf("dns %s %s", d.FQDN, r.Address)
		del := d.f.deletes[r.ID]
		switch {
		case !p.onRecord(d, r): // not yet
		case !d.another(r.Address) && !d.sound[r.Address]:
			d.lookForOthers()
			p.note(key, "dns.kept", r.Node, fmt.Sprintf("%s: %s stays though %s: no other %s record of a fit node is there", d.FQDN, text(r), r.Reason, recordType(r.Address)))
		case p.paused():
			p.note(key, "dns.kept", r.Node, fmt.Sprintf("%s: %s stays though %s: all changes are paused", d.FQDN, text(r), r.Reason))
		case !d.f.eager && del.failures > 0 && !p.due(del.ended.Add(p.Settings.backoff(del.failures))):
			p.note(key, "dns.failing", r.Node, fmt.Sprintf("%s: %s cannot be deleted, and is tried again: %s", d.FQDN, text(r), del.message))
		case p.now.Sub(d.f.list.sent) > p.Settings.ListFresh || !d.f.list.sent.After(del.ended):
			d.urgent = true
		case p.spend(cloud.Failover):
			p.out.Deletes = append(p.out.Deletes, Change{d.Name, cloud.DNSRecord{ID: r.ID}})
		}
	}
}

// onRecord says that a record that is leaving is so in the inventory already.
func (p *planner) onRecord(d *namePlan, r inventory.DNSRecord) bool {
	return d.was != nil && slices.ContainsFunc(d.was.Records, func(x inventory.DNSRecord) bool { return x.ID == r.ID && x.Leaving })
}

// add asks for the records that are missing, and drops those that never came to
// be and are not wanted.
func (p *planner) add(d *namePlan) {
	wanted := p.wanted(d)
	d.next.Records = slices.DeleteFunc(d.next.Records, func(r inventory.DNSRecord) bool {
		if r.ID != 0 || !r.Asked.IsZero() {
			return false
		}
		_, want := wanted[r.Address]
		drop := !want || d.find(r.Address) != 0 // somebody else made it
		d.changed = d.changed || drop
		return drop
	})
	for _, name := range p.order {
		st := p.standing(name)
		if st.node == nil {
			continue
		}
		for _, a := range publicAddresses(st.node) {
			if wanted[a] == name {
				p.ask(d, a, name)
			}
		}
	}
}

// wanted are the addresses that are to have a record, with their nodes: those of
// settled nodes, and where a family has none of these and no record of a fit node,
// those of any fit node.
func (p *planner) wanted(d *namePlan) map[netip.Addr]string {
	all := map[netip.Addr]string{}
	for _, four := range []bool{true, false} {
		sound := false
		for a := range d.sound {
			sound = sound || a.Is4() == four
		}
		for _, settled := range []bool{true, false} {
			found := false
			for _, name := range p.order {
				st := p.standing(name)
				if !st.fit || st.settled != settled {
					continue
				}
				for _, a := range publicAddresses(st.node) {
					if _, taken := all[a]; !taken && a.Is4() == four {
						all[a] = name
						found = true
					}
				}
			}
			if found || sound {
				break
			}
		}
	}
	// What a node has and need not lose it is to have.
	for i := range d.next.Records {
		r := &d.next.Records[i]
		if _, ok := all[r.Address]; !ok && !r.Leaving && p.standing(r.Node).fit && p.unwanted(r) == "" {
			all[r.Address] = r.Node
		}
	}
	return all
}

// ask puts the intent of one record on record, and has it created then.
func (p *planner) ask(d *namePlan, a netip.Addr, node string) {
	at := -1
	for i, r := range d.next.Records {
		if r.Address != a {
			continue
		}
		x, there := d.listed[r.ID]
		switch {
		case r.ID == 0 && r.Asked.IsZero():
			at = i
		case r.Leaving && there && !shows(x, a): // it is another's now
		default:
			if !r.Leaving && r.Node != node {
				d.next.Records[i].Node, d.changed = node, true
			}
			return
		}
	}
	if d.find(a) != 0 || p.now.Sub(d.f.list.sent) > p.Settings.DNSAuditEvery+p.Settings.CallTimeout {
		return
	}
	if p.paused() {
		p.note(fmt.Sprintf("dns %s %s", d.FQDN, a), "dns.waiting", node, fmt.Sprintf("%s: %s %s (%s) is to be added, and all changes are paused", d.FQDN, recordType(a), a, node))
		return
	}
	if b := d.f.creates[a]; b.failures > 0 && !d.f.eager && !p.due(b.last.Add(p.Settings.backoff(b.failures))) {
		return
	}
	if _, flying := d.f.creating[a]; flying || !p.spend(cloud.Failover) {
		return
	}
	r := inventory.DNSRecord{Address: a, Node: node, Asked: p.now, Since: p.now}
	if at < 0 {
		d.next.Records = append(d.next.Records, r)
	} else {
		d.next.Records[at] = r
	}
	d.changed = true
	d.creates = append(d.creates, Create{Name: d.Name, Address: a, TTL: d.ttl, Asked: p.now})
}

// ttls mends the TTL of records of ours.
func (p *planner) ttls(d *namePlan) {
	for _, r := range d.next.Records {
		x, there := d.listed[r.ID]
		c := d.f.ttls[r.ID]
		if !there || r.Leaving || x.TTL == d.ttl || !shows(x, r.Address) || d.f.changing[r.ID] || p.paused() {
			continue
		}
		if !d.f.list.sent.After(c.ended) {
			d.urgent = true
			continue
		}
		if c.failures > 0 {
			p.note(fmt.Sprintf("dns %s %s ttl", d.FQDN, r.Address), "dns.failing", r.Node,
				fmt.Sprintf("%s: the TTL of %s cannot be set to %d, and is tried again: %s", d.FQDN, text(r), d.ttl, c.message))
			if !d.f.eager && !p.due(c.ended.Add(p.Settings.backoff(c.failures))) {
				continue
			}
		}
		if p.spend(cloud.Failover) {
			x.TTL = d.ttl
			p.out.TTLs = append(p.out.TTLs, Change{d.Name, x})
		}
	}
}

// verify answers a Verify once everything was listed since it was seen.
func (p *planner) verify() {
	if !p.asked() {
		return
	}
	since := p.f.verifySeen
	if len(p.plans) > 0 && (p.f.listing || p.f.listTried.Before(since)) {
		return
	}
	names := p.State.Settings.Ingress.DNS
	for _, n := range names {
		if r := p.f.names[n.FQDN()]; !p.lost && !p.unread["dns/"+n.FQDN()] && (r.listing || r.listTried.Before(since)) {
			return
		}
	}
	p.out.Verified = p.f.verify
	if len(p.plans) > 0 && p.f.listed.Before(since) {
		p.differ("reserved_ip.unknown", "reserved IPs", "", "they cannot be listed: "+p.f.listError)
	} else {
		p.addressDifferences()
	}
	for _, n := range names {
		p.nameDifferences(n, since)
	}
}

func (p *planner) differ(kind, subject, node, message string) {
	p.out.Differences = append(p.out.Differences, inventory.Difference{Kind: kind, Subject: subject, Node: node, Message: message})
}

func (p *planner) addressDifferences() {
	for _, q := range p.sorted() {
		a, seen := q.was, q.ip.seen
		switch {
		case q.forget:
		case seen.missing:
			p.differ("reserved_ip.missing", q.address.String(), "", "the account has no such reserved IP")
		case a == nil || a.Node == "":
			p.differ("reserved_ip.unassigned", q.address.String(), "", "no node is meant to hold it")
		case seen.droplet != a.Droplet:
			p.differ("reserved_ip.holder", q.address.String(), a.Node,
				fmt.Sprintf("it is at droplet %d and is meant for %s, droplet %d", seen.droplet, a.Node, a.Droplet))
		}
	}
}

func (p *planner) nameDifferences(n inventory.DNSName, since time.Time) {
	fqdn, f := n.FQDN(), p.f.names[n.FQDN()]
	if f.list == nil || f.list.sent.Before(since) {
		p.differ("dns.unknown", fqdn, "", "its records cannot be listed: "+f.listError)
		return
	}
	ttl := n.TTL
	if ttl == 0 {
		ttl = defaultTTL
	}
	ours := map[int64]inventory.DNSRecord{}
	if was := p.State.DNS[fqdn]; was != nil {
		for _, r := range was.Records {
			ours[r.ID] = r
		}
	}
	there := map[netip.Addr]bool{}
	for _, x := range f.list.all {
		r, mine := ours[x.ID]
		data, _ := netip.ParseAddr(x.Data)
		there[data] = true
		switch {
		case !mine: // another's: nothing to mend
		case !shows(x, r.Address):
			p.differ("dns.changed", fqdn, r.Node, fmt.Sprintf("%s is now %s", text(r), x.Data))
		case r.Leaving:
			p.differ("dns.leaving", fqdn, r.Node, fmt.Sprintf("%s is to go: %s", text(r), r.Reason))
		case x.TTL != ttl:
			p.differ("dns.ttl", fqdn, r.Node, fmt.Sprintf("%s has TTL %d instead of %d", text(r), x.TTL, ttl))
		}
	}
	for _, name := range p.order {
		st := p.standing(name)
		if !st.settled {
			continue
		}
		for _, a := range publicAddresses(st.node) {
			if !there[a] {
				p.differ("dns.missing", fqdn, name, fmt.Sprintf("%s %s (%s) is missing", recordType(a), a, name))
			}
		}
	}
}
