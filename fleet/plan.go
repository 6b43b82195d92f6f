package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// maxWrites bounds one transaction. etcd takes 128 operations by default.
const maxWrites = 90

// Plan decides what to do next about every droplet. It is pure: the same input
// gives the same decision, and the input is left as it was.
func Plan(in Input) Decision {
	in.Settings = in.Settings.withDefaults()
	p := &planner{
		Input: in,
		now:   in.Now.Round(0).UTC(), // as it reads back from a record
		f:     in.Facts,
	}
	if p.distrusted() {
		return p.out
	}
	p.look()
	p.attendance()
	p.unreadable()
	for name, d := range in.State.Droplets {
		if pp := p.pool(d.Pool); pp != nil && !p.unread[name] {
			p.step(pp, d)
		}
	}
	p.vanished()
	p.strangers()
	p.rebuild()
	for _, pp := range p.inOrder() {
		if pp.unread {
			continue
		}
		p.judge(pp)
		p.imports(pp)
		p.strike(pp)
		p.catchUp(pp)
	}
	p.audit()
	p.startEnds()
	for _, pp := range p.inOrder() {
		p.sendAway(pp)
		if !pp.unread {
			p.scale(pp)
			p.settle(pp)
			p.ask(pp)
		}
		p.explain(pp)
	}
	p.emit()
	p.verify()
	p.poll()
	p.pricing()
	p.startLooks()
	p.tellPause()
	p.out.Usage, p.out.counted = p.bill.usage(), true
	slices.SortFunc(p.out.Notes, func(a, b Note) int { return cmp.Compare(a.Key, b.Key) })
	p.out.Notes = slices.CompactFunc(p.out.Notes, func(a, b Note) bool { return a.Key == b.Key })
	return p.out
}

// planner is one run of Plan. Decisions about droplets gather in members, those
// about pools in poolPlan.next, and emit turns both into groups.
type planner struct {
	Input
	now   time.Time
	f     *Facts
	out   Decision
	nodes nodes

	pools       map[string]*poolPlan
	unread      map[string]bool             // droplets whose record was set aside
	unreadPools map[string]bool             // pools of which one was
	orphans     map[string][]*cloud.Droplet // strangers whose pool is to be made from tags
	expected    int                         // droplets that the list should have
	missing     []missing
	held        bool // the list is not to be believed
	recorded    map[int64]string

	bill      bill
	priceless bool // a price is missed
	spent     int  // calls that start in this pass
	free      int  // that CallParallel still lets start

	waiting  bool // something is on its way at the cloud
	youngest time.Time
}

// poolPlan is what is decided of one pool.
type poolPlan struct {
	was     *inventory.Pool
	next    *inventory.Pool // nil while unchanged
	members []member
	unread  bool // its record or one of a droplet was set aside: its counts are wrong
	foreign int  // droplets at the cloud that count as the pool's and have no record yet
	spare   int  // others that exist and are to go
	events  []inventory.Event
	creates []Create

	// What limits hold up.
	waiting int   // droplets wanted that wait
	bound   bound // for this
	leaving int   // droplets that wait for their turn to leave

	// What judge makes of the pool's record.
	failure *inventory.Event
	until   time.Time // throttled until
	found   bool      // a droplet came to be
	healthy bool      // a droplet became Serving
}

// standing is what is known of a droplet's being at the cloud.
type standing uint8

const (
	unasked standing = iota // it is not there
	asked                   // it may be
	made                    // it is, with an id
	gone                    // it is no more
)

// member is one droplet of a pool.
type member struct {
	was      *inventory.Droplet // nil when its record is new
	d        *inventory.Droplet // was, or its changed copy
	standing standing
	remove   bool // its record goes
	away     bool // asked away by name
	withPool bool // in one transaction with its pool's record
	event    string
	message  string
}

// edit returns the copy that may be changed.
func (m *member) edit() *inventory.Droplet {
	if m.d == m.was {
		d := *m.was
		m.d = &d
	}
	return m.d
}

func (m *member) enter(phase inventory.Phase, now time.Time, reason string) {
	d := m.edit()
	d.Phase, d.Since, d.Reason = phase, now, reason
	m.event, m.message = "droplet."+string(phase), reason
}

// alive: it counts for what is wanted, neither leaving nor asked away.
func (m *member) alive() bool { return !m.remove && !m.away && !m.d.Phase.Leaving() }

func (pp *poolPlan) name() string { return pp.was.Name }

// pool is as it will be.
func (pp *poolPlan) pool() *inventory.Pool {
	if pp.next != nil {
		return pp.next
	}
	return pp.was
}

func (pp *poolPlan) edit() *inventory.Pool {
	if pp.next == nil {
		next := *pp.was
		next.Remove = slices.Clone(next.Remove)
		next.Import = slices.Clone(next.Import)
		pp.next = &next
	}
	return pp.next
}

func (pp *poolPlan) event(now time.Time, kind, droplet, message string) {
	pp.events = append(pp.events, inventory.Event{Time: now, Type: kind, Pool: pp.name(), Droplet: droplet, Message: message})
}

// distrusted says that the inventory is not to be acted upon: it was not read, or
// is no longer what it was.
func (p *planner) distrusted() bool {
	switch meta := p.State.Meta; {
	case !p.State.Listed:
		p.note("mirror", "fleet.held", "", "", "the inventory is not read yet: nothing is done")
	case p.State.Err != nil:
		// Out of touch: the lease will end, or the mirror will be back in step.
	case meta == nil:
		p.note("meta", "fleet.held", "", "", "the inventory lacks its meta record: nothing is done until it is back")
	case meta.UID != p.UID:
		p.note("meta", "fleet.held", "", "", fmt.Sprintf("the inventory is now of cluster %s, and was of %s: nothing is done", meta.UID, p.UID))
	case meta.Schema > inventory.Schema:
		p.note("meta", "fleet.held", "", "", fmt.Sprintf("the inventory has schema %d, this program knows up to %d: nothing is done", meta.Schema, inventory.Schema))
	default:
		return false
	}
	return true
}

// note says that a condition stands. names are those of droplets that a
// confirmation would let go.
func (p *planner) note(key, kind, pool, droplet, message string, names ...string) {
	slices.Sort(names)
	p.out.Notes = append(p.out.Notes, Note{
		Key:   key,
		Event: inventory.Event{Time: p.now, Type: kind, Pool: pool, Droplet: droplet, Message: message},
		Names: names,
	})
}

// pool returns the plan of a pool, or nil if there is no such pool: droplets of
// a pool whose record is missing are left alone.
func (p *planner) pool(name string) *poolPlan {
	if pp, ok := p.pools[name]; ok {
		return pp
	}
	var pp *poolPlan
	if pool := p.State.Pools[name]; pool != nil {
		pp = &poolPlan{was: pool}
	} else {
		p.note("pool "+name, "pool.missing", name, "", fmt.Sprintf("pool %q has droplets and no record: they are left alone", name))
	}
	if p.pools == nil {
		p.pools = make(map[string]*poolPlan, len(p.State.Pools))
	}
	p.pools[name] = pp
	if pp != nil {
		pp.members = make([]member, 0, len(p.State.Droplets)/len(p.State.Pools)+16)
	}
	return pp
}

func (p *planner) inOrder() []*poolPlan {
	all := make([]*poolPlan, 0, len(p.State.Pools))
	for name := range p.State.Pools {
		all = append(all, p.pool(name))
	}
	slices.SortFunc(all, func(a, b *poolPlan) int { return cmp.Compare(a.name(), b.name()) })
	return all
}

// unreadable keeps hands off records that were set aside, and does not count,
// create or adopt in a pool that has one: a half-read picture.
func (p *planner) unreadable() {
	for key, why := range p.State.Unreadable {
		parts := strings.Split(key, "/") // see inventory.Keys: "", doproxy, cluster, folder, …
		if len(parts) < 5 || parts[3] != "pools" && parts[3] != "droplets" {
			continue
		}
		pool := parts[4]
		if p.unreadPools == nil {
			p.unreadPools = map[string]bool{}
		}
		p.unreadPools[pool] = true
		if len(parts) > 5 {
			if p.unread == nil {
				p.unread = map[string]bool{}
			}
			p.unread[parts[5]] = true
		}
		p.note("unreadable "+key, "fleet.held", pool, "", "a record cannot be read, so nothing is created or adopted in its pool: "+why)
		if p.State.Pools[pool] != nil {
			p.pool(pool).unread = true
		}
	}
}

// at asks for another run at t.
func (p *planner) at(t time.Time) {
	if t.After(p.now) && (p.out.Next.IsZero() || t.Before(p.out.Next)) {
		p.out.Next = t
	}
}

// onHold says that the cloud wants no call now.
func (p *planner) onHold() bool {
	if p.now.Before(p.f.Hold) {
		p.at(p.f.Hold)
		p.note("throttled", "fleet.held", "", "", "DigitalOcean's limit on requests is reached: nothing is asked of it before "+p.f.Hold.UTC().Format(time.RFC3339))
		return true
	}
	return false
}

// get asks for one droplet, unless it was asked for since a moment.
func (p *planner) get(id int64, since time.Time) {
	g, known := p.f.got[id]
	if known && !g.at.Before(since) {
		if g.failures == 0 {
			return
		}
		if again := g.at.Add(p.Settings.backoff(g.failures)); p.now.Before(again) {
			p.at(again)
			return
		}
	}
	if p.f.calling[id] == 0 && !p.onHold() {
		p.out.Gets = append(p.out.Gets, id)
	}
}

// destroy asks for a droplet's end at the cloud, again and again with backoff.
func (p *planner) destroy(id int64) {
	a := p.f.deletes[id]
	if a.count > 0 {
		again := a.sent.Add(p.Settings.backoff(a.count))
		if !a.done.IsZero() { // it was accepted, and takes its time
			again = later(again, a.done.Add(p.Settings.RemoveDeadline))
		}
		if p.now.Before(again) {
			p.at(again)
			return
		}
	}
	if p.f.calling[id] == 0 && !p.paused() && !p.onHold() {
		p.out.Deletes = append(p.out.Deletes, id)
	}
}
