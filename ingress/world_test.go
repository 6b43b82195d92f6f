package ingress

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

// world is a small simulation in which a leader that does what Plan says meets a
// cloud with faults, nodes that flap, an operator, others who meddle, and its own
// death.
type world struct {
	t     *rapid.T
	r     *rand.Rand // rapid's own draws favour small numbers, and so faults
	now   time.Time
	keys  inventory.Keys
	store *inventorytest.Memory
	set   Settings

	nodes     map[string]*simNode
	addresses []netip.Addr

	// The cloud.
	holders map[netip.Addr]int64
	records map[int64]cloud.DNSRecord
	foreign map[int64]cloud.DNSRecord // of others; they never change
	nextID  int64
	pending []pending
	faults  bool
	trouble int // percent of the faults named
	meddled time.Time
	ours    map[netip.Addr]bool        // was at no droplet or a node's, or was asked for
	moves   map[netip.Addr][]time.Time // that nobody asked for

	facts *Facts // nil while there is no leader
	epoch int
}

type simNode struct {
	name     string
	droplet  int64
	four     netip.Addr
	six      netip.Addr
	haproxy  string
	silent   bool
	drained  bool
	troubled time.Time // when it last was not fit
}

type pending struct {
	at time.Time
	do func()
}

func newWorld(t *rapid.T) *world {
	seed := rapid.Uint64().Draw(t, "seed")
	w := &world{
		t: t, r: rand.New(rand.NewPCG(seed, seed)), trouble: rapid.IntRange(0, 100).Draw(t, "trouble"), now: noon,
		keys: inventory.KeysOf("sim"), store: inventorytest.NewMemory(), set: Settings{}.withDefaults(),
		nodes: map[string]*simNode{}, addresses: []netip.Addr{ip7, ip8, ip6},
		holders: map[netip.Addr]int64{ip7: 0, ip8: 99, ip6: 12}, records: map[int64]cloud.DNSRecord{}, nextID: 100,
		faults: true, ours: map[netip.Addr]bool{ip7: true, ip6: true}, moves: map[netip.Addr][]time.Time{},
	}
	w.foreign = map[int64]cloud.DNSRecord{1: record(1, "198.51.100.1")}
	maps.Copy(w.records, w.foreign)
	w.records[2] = record(2, "192.0.2.3") // points at a node: it is taken over
	w.put(w.keys.Meta(), inventory.Meta{UID: "u1", Schema: 1})
	w.put(w.keys.Settings(), inventory.Settings{Ingress: inventory.Ingress{ReservedIPs: w.addresses, DNS: []inventory.DNSName{{Domain: "example.com", Name: "www"}}}})
	for i := range 3 {
		n := &simNode{name: fmt.Sprintf("lb-%d", i+1), droplet: int64(11 + i), haproxy: "running",
			four: netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}), six: netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1))}
		w.nodes[n.name] = n
		w.put(w.keys.Member(n.name), inventory.Member{Name: n.name})
		w.report(n)
	}
	return w
}

func (w *world) put(key string, v any) {
	w.write(inventory.Op{Key: key, Value: []byte(dump(v))})
}

func (w *world) write(op inventory.Op) {
	if _, err := w.store.Commit(context.Background(), inventory.Txn{Ops: []inventory.Op{op}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) report(n *simNode) {
	if n.silent {
		w.write(inventory.Op{Key: w.keys.Node(n.name), Delete: true})
		return
	}
	w.put(w.keys.Node(n.name), inventory.Node{Name: n.name, HAProxy: n.haproxy, Droplet: n.droplet, PublicIPv4: n.four, PublicIPv6: n.six})
}

func (w *world) state() *inventory.State {
	l, err := w.store.List(context.Background(), w.keys.Prefix())
	if err != nil {
		w.t.Fatal(err)
	}
	s := &inventory.State{Revision: l.Revision, Inventory: l.Revision, Listed: true, Settings: new(inventory.Settings),
		Nodes: map[string]*inventory.Node{}, Members: map[string]*inventory.Member{},
		Assignments: map[netip.Addr]*inventory.Assignment{}, DNS: map[string]*inventory.DNSRecords{}}
	for _, kv := range l.KVs {
		var err error
		switch rest := strings.TrimPrefix(kv.Key, w.keys.Prefix()); {
		case rest == "meta":
			s.Meta, err = inventory.DecodeMeta(kv)
		case rest == "settings":
			s.Settings, err = inventory.DecodeSettings(w.keys, kv)
		case rest == "pause":
			s.Pause = &inventory.Pause{Mod: kv.Mod}
		case strings.HasPrefix(rest, "nodes/"):
			var n *inventory.Node
			n, err = inventory.DecodeNode(w.keys, kv)
			s.Nodes[n.Name] = n
		case strings.HasPrefix(rest, "members/"):
			var m *inventory.Member
			m, err = inventory.DecodeMember(w.keys, kv)
			s.Members[m.Name] = m
		case strings.HasPrefix(rest, "ingress/ip/"):
			var a *inventory.Assignment
			a, err = inventory.DecodeAssignment(w.keys, kv)
			s.Assignments[a.Address] = a
		case strings.HasPrefix(rest, "ingress/dns/"):
			var d *inventory.DNSRecords
			d, err = inventory.DecodeDNS(w.keys, kv)
			s.DNS[d.FQDN] = d
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return s
}

func (w *world) chance(percent int) bool { return w.faults && w.r.IntN(10000) < percent*w.trouble }

func (w *world) delay(most time.Duration) time.Duration {
	return time.Duration(w.r.Int64N(int64(most) + 1))
}

func (w *world) after(d time.Duration, do func()) {
	w.pending = append(w.pending, pending{w.now.Add(d), do})
}

// back brings a result to the leader that asked, if it still leads.
func (w *world) back(d time.Duration, do func()) {
	epoch := w.epoch
	w.after(d, func() {
		if w.epoch == epoch && w.facts != nil {
			do()
		}
	})
}

// run lets time pass, in order of what is due; the leader looks whenever
// something came back, and when it wanted to.
func (w *world) run(until time.Time) {
	for {
		next := -1
		for i, p := range w.pending {
			if !p.at.After(until) && (next < 0 || p.at.Before(w.pending[next].at)) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		p := w.pending[next]
		w.pending = slices.Delete(w.pending, next, next+1)
		if p.at.After(w.now) {
			w.now = p.at
		}
		p.do()
	}
	w.now = until
}

// lead plans and does what it says, a few times in a row.
func (w *world) lead() {
	for range 4 {
		if w.facts == nil {
			if w.chance(30) {
				return
			}
			w.epoch++
			w.facts = NewFacts(w.now)
		}
		if !w.once() {
			return
		}
	}
}

func (w *world) once() (more bool) {
	state := w.state()
	w.facts.Prune(state)
	w.facts.See(state, w.now)
	in := Input{Now: w.now, Settings: w.set, UID: "u1", State: state, Facts: w.facts}
	before, facts := dump(state), fmt.Sprintf("%+v", *w.facts)
	d := Plan(in)
	if dump(state) != before || fmt.Sprintf("%+v", *w.facts) != facts {
		w.t.Fatalf("Plan changed its input")
	}
	if again := Plan(in); !reflect.DeepEqual(d, again) {
		w.t.Fatalf("Plan of the same input differs:\n%s\n%s", dump(d), dump(again))
	}
	if w.chance(2) {
		w.facts = nil
		return false
	}
	w.calls(d)
	for _, g := range d.Groups {
		if w.chance(2) {
			continue
		}
		var txn inventory.Txn
		for _, wr := range g.Writes {
			txn.Add(wr.op(w.keys))
		}
		_, err := w.store.Commit(context.Background(), txn)
		if errors.Is(err, inventory.ErrConflict) {
			continue
		}
		w.committed(state, g)
		if w.chance(2) {
			continue // the leader takes it for not done: no call
		}
		if w.chance(2) {
			w.facts = nil
			return false
		}
		for _, c := range g.Creates {
			w.create(c)
		}
	}
	return len(d.Groups) > 0
}

// committed checks the moves of a transaction.
func (w *world) committed(before *inventory.State, g Group) {
	for _, wr := range g.Writes {
		a := wr.Assignment
		if a == nil || wr.Delete {
			continue
		}
		was := before.Assignments[a.Address]
		if !w.ours[a.Address] {
			w.t.Fatalf("%s is somebody else's, and goes to %s: %s", a.Address, a.Node, a.Reason)
		}
		if was == nil || was.Node == a.Node || was.Want != "" {
			continue
		}
		if n := w.nodes[was.Node]; n != nil && !was.Verified.IsZero() && w.now.Sub(n.troubled) > time.Minute {
			w.t.Fatalf("%s moves from %s, which is fit, to %s: %s", a.Address, was.Node, a.Node, a.Reason)
		}
		if len(a.Moves) == 0 || !a.Moves[len(a.Moves)-1].Equal(w.now) {
			continue
		}
		recent := slices.DeleteFunc(w.moves[a.Address], func(t time.Time) bool { return w.now.Sub(t) > movesKept })
		w.moves[a.Address] = append(recent, w.now)
		if len(w.moves[a.Address]) > 10 {
			w.t.Fatalf("%s moved %d times in ten minutes", a.Address, len(w.moves[a.Address]))
		}
	}
	type place struct {
		node string
		four bool
	}
	taken := map[place]netip.Addr{}
	for _, a := range w.state().Assignments {
		at := place{a.Node, a.Address.Is4()}
		if other, ok := taken[at]; ok && a.Node != "" {
			w.t.Fatalf("%s and %s are both meant for %s", a.Address, other, a.Node)
		}
		taken[at] = a.Address
	}
}

func (w *world) calls(d Decision) {
	for _, a := range d.Assigns {
		w.assign(a)
	}
	for _, a := range d.Looks {
		w.facts.StartLook(a, w.now)
		sent, err := w.now, w.trip()
		got := cloud.ReservedIP{Address: a, Droplet: w.holders[a]}
		w.back(w.delay(time.Second), func() { w.facts.EndLook(a, sent, got, err) })
	}
	if d.List {
		w.facts.StartList(w.now)
		sent, err := w.now, w.trip()
		var all []cloud.ReservedIP
		for a, droplet := range w.holders {
			all = append(all, cloud.ReservedIP{Address: a, Droplet: droplet})
		}
		w.back(w.delay(time.Second), func() { w.facts.EndList(sent, w.now, all, err) })
	}
	for _, n := range d.Names {
		w.facts.StartRecords(n, w.now)
		sent, err := w.now, w.trip()
		all := slices.Collect(maps.Values(w.records))
		w.back(w.delay(time.Second), func() { w.facts.EndRecords(n, sent, w.now, all, err) })
	}
	for _, c := range d.Deletes {
		w.drop(c)
	}
	for _, c := range d.TTLs {
		w.facts.StartTTL(c, w.now)
		w.touch(c.Record.ID)
		err := w.trip()
		if r, ok := w.records[c.Record.ID]; ok && err == nil {
			r.TTL = c.Record.TTL
			w.records[r.ID] = r
		}
		w.back(w.delay(time.Second), func() { w.facts.EndTTL(c, w.now, err) })
	}
}

// trip is the fault of a call that changes nothing.
func (w *world) trip() error {
	switch {
	case w.chance(8):
		return cloud.ErrAmbiguous
	case w.chance(2):
		return &cloud.Throttled{Until: w.now.Add(10 * time.Second)}
	}
	return nil
}

func (w *world) assign(a Assign) {
	w.facts.StartAssign(a)
	err := w.trip()
	do := func() error {
		if n := w.nodes[a.Node]; n == nil || n.droplet != a.Droplet {
			return &cloud.Refused{Status: 422, Message: "no such droplet"}
		}
		for other, droplet := range w.holders {
			if other != a.Address && droplet == a.Droplet && sameFamily(other, a.Address) {
				return &cloud.Refused{Status: 422, Message: "the droplet has one already"}
			}
		}
		w.holders[a.Address] = a.Droplet
		return nil
	}
	switch {
	case errors.Is(err, cloud.ErrAmbiguous) && w.r.IntN(2) == 0: // done late, and no answer
		w.after(w.delay(w.set.CallTimeout), func() { _ = do() })
	case err == nil && w.chance(5):
		err = &cloud.Refused{Status: 422, Message: "pending event"}
	case err == nil:
		err = do()
	}
	took := w.delay(time.Second)
	if errors.Is(err, cloud.ErrAmbiguous) {
		took = w.set.CallTimeout
	}
	w.back(took, func() { w.facts.EndAssign(a, w.now, err) })
}

func (w *world) create(c Create) {
	w.facts.StartCreate(c)
	var made cloud.DNSRecord
	do := func() {
		made = c.wanted()
		w.nextID++
		made.ID = w.nextID
		w.records[made.ID] = made
	}
	err := w.trip()
	took := w.delay(time.Second)
	switch {
	case errors.Is(err, cloud.ErrAmbiguous):
		took = w.set.CallTimeout
		if w.r.IntN(2) == 0 {
			w.after(w.delay(took), do)
		}
	case err == nil && w.chance(5):
		err = &cloud.Refused{Status: 422, Message: "no"}
	case err == nil:
		w.after(took, do)
	}
	w.back(took, func() { w.facts.EndCreate(c, w.now, made, err) })
}

// touch fails when a record of others is about to be changed.
func (w *world) touch(id int64) {
	if _, ok := w.foreign[id]; ok {
		w.t.Fatalf("record %d is another's", id)
	}
}

func (w *world) drop(c Change) {
	w.facts.StartDelete(c, w.now)
	w.touch(c.Record.ID)
	if going, ok := w.records[c.Record.ID]; ok && w.now.Sub(w.meddled) > time.Minute && !w.another(going) {
		w.t.Fatalf("%s: %s is deleted, and no other %s record is of a fit node: %s", w.now, going.Data, going.Type, dump(w.state()))
	}
	err := w.trip()
	took := w.delay(time.Second)
	do := func() {
		r, ok := w.records[c.Record.ID]
		delete(w.records, c.Record.ID)
		if ok && w.now.Sub(w.meddled) > time.Minute && !slices.ContainsFunc(slices.Collect(maps.Values(w.records)), func(x cloud.DNSRecord) bool {
			return x.Type == r.Type && x.Data != "198.51.100.1"
		}) {
			w.t.Fatalf("%s was the last one of its family", r.Data)
		}
	}
	switch {
	case errors.Is(err, cloud.ErrAmbiguous):
		took = w.set.CallTimeout
		if w.r.IntN(2) == 0 {
			w.after(w.delay(took), do)
		}
	case err == nil:
		do()
	}
	w.back(took, func() { w.facts.EndDelete(c, w.now, err) })
}

// another says that some other record of this one's type is of a fit node.
func (w *world) another(r cloud.DNSRecord) bool {
	for id, x := range w.records {
		for _, n := range w.nodes {
			if id != r.ID && x.Type == r.Type && (x.Data == n.four.String() || x.Data == n.six.String()) && n.haproxy == "running" && !n.silent && !n.drained {
				return true
			}
		}
	}
	return false
}

// nodesChange lets nodes flap, fall silent, be drained, and recover.
func (w *world) nodesChange() {
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		n := w.nodes[name]
		switch {
		case w.chance(6):
			n.haproxy = []string{"failed", "starting", "stopped"}[w.r.IntN(3)]
		case w.chance(3):
			n.silent = true
		case w.chance(2):
			n.drained = true
		case w.r.IntN(3) == 0:
			n.haproxy, n.silent = "running", false
			if w.r.IntN(3) == 0 {
				n.drained = false
			}
		}
		w.tell(n)
	}
}

func (w *world) tell(n *simNode) {
	if n.haproxy != "running" || n.silent || n.drained {
		n.troubled = w.now
	}
	m := inventory.Member{Name: n.name}
	if n.drained {
		m.Drained = w.now
	}
	if was := w.state().Members[n.name]; was.Drained.IsZero() == n.drained {
		w.put(w.keys.Member(n.name), m)
	}
	w.report(n)
}

// meddle is what operators and others do.
func (w *world) meddle() {
	a := w.addresses[w.r.IntN(len(w.addresses))]
	switch w.r.IntN(5) {
	case 0:
		w.holders[a] = []int64{0, 99}[w.r.IntN(2)]
		w.ours[a] = w.ours[a] || w.holders[a] == 0
	case 1:
		for _, id := range slices.Sorted(maps.Keys(w.records)) {
			if _, ok := w.foreign[id]; !ok && w.r.IntN(2) == 0 {
				delete(w.records, id)
				w.meddled = w.now
				return
			}
		}
	case 2:
		for _, id := range slices.Sorted(maps.Keys(w.records)) {
			if r := w.records[id]; w.foreign[id].ID == 0 && w.r.IntN(2) == 0 {
				r.TTL = 600
				w.records[id] = r
				return
			}
		}
	default:
		w.ask(a, []string{inventory.AnyNode, "lb-1", "lb-2", "lb-3"}[w.r.IntN(4)])
	}
}

// ask is a failover by hand, in place of one that is not carried out yet.
func (w *world) ask(a netip.Addr, to string) {
	next := &inventory.Assignment{Address: a, Since: w.now, Reason: "no node holds it yet"}
	if as := w.state().Assignments[a]; as != nil {
		next = as
	}
	next.Want = to
	w.ours[a] = true
	w.put(w.keys.Assignment(a), next)
}
