package fleet

import (
	"context"
	"encoding/json"
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
// cloud with faults, nodes that lag, an operator, and its own death.
type world struct {
	t     *rapid.T
	r     *rand.Rand // rapid's own draws favour small numbers, and so faults
	now   time.Time
	keys  inventory.Keys
	store *inventorytest.Memory
	set   Settings

	// The cloud.
	droplets map[int64]*simDroplet
	nextID   int64
	made     map[string]int // by name, ever
	pending  []pending      // what happens at the cloud or comes back from it
	faults   bool
	trouble  int  // percent of the faults named
	doubles  bool // droplets of one name were put there on purpose

	// The leader; nil while there is none.
	facts *Facts
	epoch int // of the leader: results for an earlier one are lost

	// What nodes do: sessions by node and droplet.
	nodes    []string
	sessions map[string]map[string]int
	drained  map[string]time.Time // when a droplet's drain was first on record
	served   map[int64]bool       // ids that some node gave sessions

	heldNames []string // that the wipe guard holds now

	// After an older copy of the store was restored.
	floor     map[string]int64 // what nodes remember, by hostname prefix
	quiet     bool             // nobody asks for anything
	protected map[int64]bool   // ids of what served
	released  int              // that may go all the same
	excused   map[string]bool  // names that the copy has without a droplet

	settings *inventory.Settings
	prices   map[string]float64
	watch    func(*inventory.State, Decision) // sees every decision; may be nil
}

type simDroplet struct {
	cloud.Droplet
	born, activeAt, healthyAt time.Time
	goneAt                    time.Time // zero: it lives
	sick                      bool      // never healthy
}

type pending struct {
	at time.Time
	do func()
}

func newWorld(t *rapid.T) *world {
	seed := rapid.Uint64().Draw(t, "seed")
	w := &world{
		t: t, r: rand.New(rand.NewPCG(seed, seed)), trouble: rapid.IntRange(0, 100).Draw(t, "trouble"), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), keys: inventory.KeysOf("sim"),
		store: inventorytest.NewMemory(), set: Settings{}.withDefaults(),
		droplets: map[int64]*simDroplet{}, nextID: 100, made: map[string]int{}, faults: true,
		nodes: []string{"lb-1", "lb-2", "lb-3"}, sessions: map[string]map[string]int{},
		drained: map[string]time.Time{}, floor: map[string]int64{}, excused: map[string]bool{}, served: map[int64]bool{},
	}
	w.put(w.keys.Meta(), inventory.Meta{UID: "u1", Schema: 1})
	pool := inventory.Pool{PoolSpec: inventory.PoolSpec{
		Name: "web", HostnamePrefix: "web", Max: 30,
		Policy: inventory.Policy{BootDeadline: inventory.Duration(5 * time.Minute), DrainDeadline: inventory.Duration(2 * time.Minute)},
	}}
	w.put(w.keys.Pool("web"), pool)
	for _, n := range w.nodes {
		w.sessions[n] = map[string]int{}
		w.report(n)
	}
	return w
}

func (w *world) put(key string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.Commit(context.Background(), inventory.Txn{Ops: []inventory.Op{{Key: key, Value: data}}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) state() *inventory.State {
	l, err := w.store.List(context.Background(), w.keys.Prefix())
	if err != nil {
		w.t.Fatal(err)
	}
	s := &inventory.State{Revision: l.Revision, Listed: true, Settings: w.settings,
		Pools: map[string]*inventory.Pool{}, Droplets: map[string]*inventory.Droplet{}, Nodes: map[string]*inventory.Node{},
		Confirms: map[string]*inventory.Confirm{}}
	for _, kv := range l.KVs {
		var err error
		switch rest := strings.TrimPrefix(kv.Key, w.keys.Prefix()); {
		case rest == "meta":
			s.Meta, err = inventory.DecodeMeta(kv)
		case strings.HasPrefix(rest, "pools/"):
			var p *inventory.Pool
			p, err = inventory.DecodePool(w.keys, kv)
			s.Pools[p.Name] = p
		case strings.HasPrefix(rest, "droplets/"):
			var d *inventory.Droplet
			d, err = inventory.DecodeDroplet(w.keys, kv)
			s.Droplets[d.Name] = d
		case strings.HasPrefix(rest, "nodes/"):
			var n *inventory.Node
			n, err = inventory.DecodeNode(w.keys, kv)
			s.Nodes[n.Name] = n
		case strings.HasPrefix(rest, "confirms/"):
			c := &inventory.Confirm{}
			err = json.Unmarshal(kv.Value, c)
			s.Confirms[c.Pool] = c
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return s
}

func (w *world) chance(percent int) bool {
	return w.faults && w.r.IntN(10000) < percent*w.trouble
}

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

// run lets time pass up to until, in order of what is due.
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

// lead plans once and does what it says.
func (w *world) lead() {
	if w.facts == nil {
		if w.chance(30) {
			return
		}
		w.epoch++
		w.facts = NewFacts(w.now)
	}
	state := w.state()
	w.facts.Prune(state)
	w.facts.See(state, w.now)
	in := Input{Now: w.now, Settings: w.set, UID: "u1", State: state, Facts: w.facts, Floor: w.floor}
	before := dump(state)
	facts := w.facts.clone()
	d := Plan(in)
	if dump(state) != before || !reflect.DeepEqual(facts, w.facts) {
		w.t.Fatalf("Plan changed its input")
	}
	if again := Plan(in); !reflect.DeepEqual(d, again) {
		w.t.Fatalf("Plan of the same input differs:\n%s\n%s", dump(d), dump(again))
	}
	w.heldNames = nil
	for _, n := range d.Notes {
		w.heldNames = append(w.heldNames, n.Names...)
	}
	slices.Sort(w.heldNames)
	if w.watch != nil {
		w.watch(state, d)
	}
	if w.chance(3) {
		w.facts = nil
		return
	}
	for _, id := range d.Deletes {
		w.delete(id, state)
	}
	for _, id := range d.Gets {
		w.get(id)
	}
	for _, a := range d.Adopts {
		w.adopt(a)
	}
	if d.List {
		w.list()
	}
	if d.Prices && w.prices != nil {
		w.facts.StartPrices(w.now)
		w.back(w.delay(3*time.Second), func() { w.facts.EndPrices(w.now, w.prices, nil) })
	}
	for _, g := range d.Groups {
		if w.chance(3) {
			w.operator()
		}
		if w.chance(2) {
			continue
		}
		err := w.commit(g)
		if errors.Is(err, inventory.ErrConflict) {
			continue
		}
		if w.chance(2) {
			continue // the leader takes it for not done: no call
		}
		if w.chance(3) {
			w.facts = nil
			return
		}
		for _, c := range g.Creates {
			w.create(c)
		}
	}
}

func (w *world) commit(g Group) error {
	var txn inventory.Txn
	for _, wr := range g.Writes {
		switch {
		case wr.Pool != nil:
			txn.Add(inventory.PutPool(w.keys, wr.Pool))
		case wr.Delete:
			txn.Add(inventory.DeleteDroplet(w.keys, wr.Droplet))
		default:
			txn.Add(inventory.PutDroplet(w.keys, wr.Droplet))
		}
	}
	if len(txn.Ops) > 100 {
		w.t.Fatalf("%d operations in a transaction", len(txn.Ops))
	}
	_, err := w.store.Commit(context.Background(), txn)
	for _, wr := range g.Writes {
		if err == nil && wr.Pool != nil {
			w.floor[wr.Pool.HostnamePrefix] = max(w.floor[wr.Pool.HostnamePrefix], wr.Pool.NextOrdinal)
		}
		if err == nil && wr.Droplet != nil && wr.Droplet.Phase == inventory.Draining {
			if _, ok := w.drained[wr.Droplet.Name]; !ok {
				w.drained[wr.Droplet.Name] = w.now
			}
		}
	}
	return err
}

func (w *world) create(c Create) {
	w.facts.StartCreate(c)
	if len(c.Names) > cloud.MaxCreate {
		w.t.Fatalf("%d names in one call", len(c.Names))
	}
	end := func(d time.Duration, made []cloud.Droplet, err error) {
		w.back(d, func() { w.facts.EndCreate(c, w.now, made, err) })
	}
	kind := 0
	if w.faults {
		kind = w.r.IntN(10)
		if !w.chance(100) {
			kind = 0
		}
	}
	within := w.delay(5 * time.Second)
	switch kind {
	case 6:
		end(within, nil, &cloud.Refused{Status: 422, ID: "unprocessable_entity", Message: "no capacity"})
	case 7:
		end(within, nil, &cloud.Throttled{Until: w.now.Add(20 * time.Second)})
	case 8: // lost on the way there
		end(w.set.CreateTimeout, nil, cloud.ErrAmbiguous)
	case 9: // lost on the way back; perhaps only a part was made, and late
		part := c.Names[:w.r.IntN(len(c.Names)+1)]
		w.after(w.delay(w.set.CreateTimeout), func() { w.make(c.Pool, part) })
		end(w.set.CreateTimeout, nil, cloud.ErrAmbiguous)
	default:
		var made []cloud.Droplet
		effect := w.delay(within)
		w.after(effect, func() { made = w.make(c.Pool, c.Names) })
		w.back(within, func() { w.facts.EndCreate(c, w.now, made, nil) })
	}
}

func (w *world) make(pool string, names []string) (all []cloud.Droplet) {
	for _, name := range names {
		w.nextID++
		id := w.nextID
		d := &simDroplet{born: w.now, activeAt: w.now.Add(20 * time.Second), sick: w.chance(5)}
		d.healthyAt = d.activeAt.Add(10 * time.Second)
		d.Name, d.Pool, d.ID, d.Status, d.Created = name, pool, id, "new", w.now
		w.droplets[id] = d
		w.made[name]++
		all = append(all, w.as(d))
	}
	w.check()
	return all
}

// as the cloud tells it now.
func (w *world) as(d *simDroplet) cloud.Droplet {
	c := d.Droplet
	if !w.now.Before(d.activeAt) {
		c.Status = "active"
		c.PrivateIPv4 = netip.AddrFrom4([4]byte{10, 0, byte(d.ID >> 8), byte(d.ID)})
	}
	return c
}

func (d *simDroplet) lives(at time.Time) bool {
	return !d.born.After(at) && (d.goneAt.IsZero() || d.goneAt.After(at))
}

func (w *world) list() {
	sent := w.now
	w.facts.StartList(sent)
	if w.chance(10) {
		w.back(w.delay(w.set.CallTimeout), func() { w.facts.EndList(sent, w.now, nil, cloud.ErrAmbiguous) })
		return
	}
	asOf := sent
	if w.faults {
		asOf = sent.Add(-w.delay(15 * time.Second))
	}
	var all []cloud.Droplet
	for _, id := range slices.Sorted(maps.Keys(w.droplets)) {
		if d := w.droplets[id]; d.lives(asOf) && d.Pool != "" {
			all = append(all, w.as(d))
		}
	}
	w.back(w.delay(3*time.Second), func() { w.facts.EndList(sent, w.now, all, nil) })
}

func (w *world) get(id int64) {
	sent := w.now
	w.facts.StartGet(id)
	var err error
	var c cloud.Droplet
	if d := w.droplets[id]; d == nil || !d.lives(sent) {
		err = cloud.ErrNotFound
	} else if c = w.as(d); c.Pool == "" {
		err = &cloud.Refused{ID: cloud.NotOurs}
	}
	if w.chance(10) {
		err = cloud.ErrAmbiguous
	}
	w.back(w.delay(2*time.Second), func() { w.facts.EndGet(id, sent, w.now, c, err) })
}

func (w *world) delete(id int64, state *inventory.State) {
	w.facts.StartDelete(id, w.now)
	d := w.droplets[id]
	if d != nil && d.lives(w.now) {
		rec := state.Droplets[d.Name]
		switch {
		case rec == nil || rec.ID != id:
			if w.made[d.Name] < 2 {
				w.t.Fatalf("%s: delete of %d, which is neither on record nor a duplicate", w.now, id)
			}
		case rec.Phase != inventory.Deleting:
			w.t.Fatalf("delete of %s, which is %s", d.Name, rec.Phase)
		case w.served[id]:
			deadline, ok := w.drained[d.Name]
			if !ok {
				w.t.Fatalf("delete of %s, which served and never drained", d.Name)
			}
			for n := range state.Nodes {
				if s := w.sessions[n][d.Name]; s > 0 && w.now.Before(deadline.Add(2*time.Minute)) {
					w.t.Fatalf("delete of %s, which has %d sessions on %s", d.Name, s, n)
				}
			}
		}
	}
	err := error(nil)
	switch {
	case d == nil || !d.lives(w.now):
		err = cloud.ErrNotFound
	case w.chance(10):
		err = cloud.ErrAmbiguous
	case w.chance(5):
		err = &cloud.Refused{Status: 422, ID: "unprocessable_entity", Message: "pending event"}
	default:
		w.after(w.delay(8*time.Second), func() {
			if d.goneAt.IsZero() {
				d.goneAt = w.now
			}
		})
	}
	w.back(w.delay(2*time.Second), func() { w.facts.EndDelete(id, w.now, err) })
}

func (w *world) adopt(a Adopt) {
	w.facts.StartAdopt(a.ID, w.now)
	var err error
	switch d := w.droplets[a.ID]; {
	case d == nil || !d.lives(w.now):
		err = cloud.ErrNotFound
	case w.chance(10):
		err = cloud.ErrAmbiguous
	default:
		d.Pool = a.Pool
	}
	w.back(w.delay(2*time.Second), func() { w.facts.EndAdopt(a.ID, w.now, err) })
}

// report is one node looking at the inventory, applying it and reporting.
func (w *world) report(name string) {
	s := w.state()
	n := inventory.Node{Name: name, HAProxy: "running", Applied: s.Revision, Seen: s.Revision, Servers: map[string]inventory.ServerState{}}
	have := w.sessions[name]
	for _, key := range slices.Sorted(maps.Keys(s.Droplets)) { // in order, so that a seed tells all
		d := s.Droplets[key]
		sim := w.droplets[d.ID]
		up := d.ID != 0 && sim != nil && sim.lives(w.now) && !sim.sick && !w.now.Before(sim.healthyAt) && d.PrivateIPv4.IsValid()
		switch {
		case d.Phase == inventory.Serving && up:
			have[d.Name] = 1
			w.served[d.ID] = true
		case d.Phase == inventory.Deleting:
			if have[d.Name] > 0 && up && w.now.Before(w.drained[d.Name].Add(2*time.Minute)) {
				w.t.Fatalf("%s is cut off on %s with %d sessions before its drain deadline", d.Name, name, have[d.Name])
			}
			delete(have, d.Name)
		case !up || w.r.IntN(100) < 40:
			delete(have, d.Name)
		}
		st := inventory.ServerState{Health: inventory.Down, Sessions: have[d.Name]}
		if up {
			st.Health = inventory.Up
		}
		switch d.Phase {
		case inventory.Booting, inventory.Draining:
			if d.PrivateIPv4.IsValid() {
				n.Servers[d.Name] = st
			}
		case inventory.Serving:
			if !up {
				n.Servers[d.Name] = st
			}
		}
	}
	for d := range have {
		if s.Droplets[d] == nil {
			delete(have, d)
		}
	}
	w.put(w.keys.Node(name), n)
}

func (w *world) operator() {
	if w.quiet {
		return
	}
	s := w.state()
	p := s.Pools["web"]
	switch w.r.IntN(4) {
	case 0, 1, 2:
		p.Desired, p.Rewound = w.r.IntN(26), time.Time{}
	case 3:
		for _, name := range slices.Sorted(maps.Keys(s.Droplets)) {
			if !s.Droplets[name].Phase.Leaving() && !slices.Contains(p.Remove, name) && p.Desired > 0 {
				p.Remove = append(p.Remove, name)
				slices.Sort(p.Remove)
				p.Desired--
				break
			}
		}
	}
	w.request(s, p)
}

// request writes what an operator wants, as a server does.
func (w *world) request(s *inventory.State, p *inventory.Pool) {
	staying := 0
	for _, d := range s.Droplets {
		if d.Pool == p.Name && !d.Phase.Leaving() && !slices.Contains(p.Remove, d.Name) {
			staying++
		}
	}
	p.Release = max(0, staying-p.Desired)
	w.put(w.keys.Pool(p.Name), p)
}

// check what must hold at every moment.
func (w *world) check() {
	live := 0
	names := map[string]int64{}
	for id, d := range w.droplets {
		if !d.lives(w.now) {
			continue
		}
		if d.Pool == "web" {
			live++
		}
		if other, ok := names[d.Name]; ok && !w.doubles {
			w.t.Fatalf("%s is at the cloud twice, as %d and %d", d.Name, id, other)
		}
		names[d.Name] = id
	}
	if live > 30 && !w.doubles {
		w.t.Fatalf("%d droplets of pool web at the cloud, its max is 30", live)
	}
}

func dump(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(data)
}

func (f *Facts) clone() *Facts {
	c := *f
	c.creating, c.creates, c.outcomes = maps.Clone(f.creating), maps.Clone(f.creates), maps.Clone(f.outcomes)
	c.calling, c.got, c.deletes, c.imports = maps.Clone(f.calling), maps.Clone(f.got), maps.Clone(f.deletes), maps.Clone(f.imports)
	return &c
}
