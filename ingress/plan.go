package ingress

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// Plan decides what to do next about every address and name. It is pure: the
// same input gives the same decision, and the input is left as it was.
func Plan(in Input) Decision {
	in.Settings = in.Settings.withDefaults()
	p := &planner{
		Input:  in,
		now:    in.Now.Round(0).UTC(), // as it reads back from a record
		f:      in.Facts,
		stands: map[string]standing{},
		unread: map[string]bool{},
		plans:  map[netip.Addr]*plan{},
	}
	if p.distrusted() {
		p.out.Held = true
		return p.out
	}
	p.times = timesOf(in.State.Settings.Ingress)
	p.unreadable()
	p.look()
	p.reservedIPs()
	p.names()
	p.audit()
	p.verify()
	slices.SortFunc(p.out.Notes, func(a, b Note) int { return cmp.Compare(a.Key, b.Key) })
	return p.out
}

// planner is one run of Plan.
type planner struct {
	Input
	now    time.Time
	f      *Facts
	out    Decision
	times  times
	stands map[string]standing
	order  []string        // of the nodes with a report, by name
	unread map[string]bool // records set aside: ip/<address>, dns/<fqdn>
	lost   bool            // the settings cannot be read, so nothing is forgotten on their word
	spent  int             // calls planned

	plans map[netip.Addr]*plan
}

// distrusted says that the inventory is not to be acted upon: it was not read, or
// is no longer what it was. Why is told by package fleet, which does not act then
// either.
func (p *planner) distrusted() bool {
	meta := p.State.Meta
	return !trusted(p.State) || meta == nil || meta.UID != p.UID || meta.Schema > inventory.Schema
}

// unreadable keeps hands off records that were set aside.
func (p *planner) unreadable() {
	for _, key := range slices.Sorted(maps.Keys(p.State.Unreadable)) {
		parts := strings.SplitN(key, "/", 5) // see inventory.Keys: "", doproxy, cluster, folder, …
		if len(parts) < 4 {
			continue
		}
		switch {
		case parts[3] == "settings":
			p.lost = true
		case parts[3] == "ingress" && len(parts) == 5:
			p.unread[parts[4]] = true
			_, what, _ := strings.Cut(parts[4], "/")
			p.note("unreadable "+parts[4], "ingress.held", "",
				fmt.Sprintf("the record of %s cannot be read, so it is left alone: %s", what, p.State.Unreadable[key]))
		}
	}
	if s := p.State; s.Settings.Mod == 0 && len(s.Assignments)+len(s.DNS) > 0 {
		p.lost = true
	}
	if p.lost {
		p.note("settings", "ingress.held", "", "the settings cannot be read or are missing: reserved IPs stay as recorded, DNS records are left alone; write them with `doproxy apply`")
	}
}

// look takes stock of the nodes.
func (p *planner) look() {
	p.order = slices.Sorted(maps.Keys(p.State.Nodes))
	for name := range p.f.nodes {
		p.stands[name] = p.stand(name)
	}
}

// standing of a node; one that is not known is lost.
func (p *planner) standing(name string) standing {
	if st, ok := p.stands[name]; ok {
		return st
	}
	return p.stand(name)
}

func (p *planner) paused() bool { return p.State.Pause != nil }

// note says that a condition stands.
func (p *planner) note(key, kind, node, message string) {
	p.out.Notes = append(p.out.Notes, Note{
		Key:   "ingress " + key,
		Event: inventory.Event{Time: p.now, Type: kind, Node: node, Message: message},
	})
}

// at asks for another run at t.
func (p *planner) at(t time.Time) {
	if t.After(p.now) && (p.out.Next.IsZero() || t.Before(p.out.Next)) {
		p.out.Next = t
	}
}

// due says whether t has come, and asks for another run then if not.
func (p *planner) due(t time.Time) bool {
	p.at(t)
	return !p.now.Before(t)
}

// spend says whether a call may be sent now, and counts it.
func (p *planner) spend(class cloud.Class) bool {
	until := p.f.Hold
	if p.Budget != nil && p.Budget[class].N <= p.spent {
		until = p.Budget[class].Until
		if !until.After(p.now) {
			until = p.now.Add(time.Second)
		}
	}
	if until.After(p.now) {
		p.at(until)
		if !slices.ContainsFunc(p.out.Notes, func(n Note) bool { return n.Key == "ingress throttled" }) {
			p.note("throttled", "ingress.held", "", "DigitalOcean's limit on requests is reached: calls wait until "+until.UTC().Format(time.RFC3339))
		}
		return false
	}
	p.spent++
	return true
}

// audit lists all reserved IPs when that is due.
func (p *planner) audit() {
	if len(p.plans) == 0 || p.f.listing {
		return
	}
	next := p.f.listTried.Add(p.Settings.AuditEvery)
	switch {
	case p.f.listTried.IsZero(), p.asked() && p.f.listTried.Before(p.f.verifySeen):
		next = p.now
	case p.f.listFailures > 0:
		next = p.f.listEnded.Add(max(time.Second, p.Settings.backoff(p.f.listFailures)))
	}
	if p.due(next) && p.spend(cloud.Poll) {
		p.out.List = true
	}
}

// asked says that a Verify waits for its answer.
func (p *planner) asked() bool { return p.f.verify != "" && p.f.verify != p.f.verified }
