package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/election"
	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCloud lives in the simulated time of a synctest bubble.
type fakeCloud struct {
	mu       sync.Mutex
	droplets map[int64]*cloud.Droplet
	nextID   int64
	calls    map[string]int
	names    []string                                                 // created, in order
	create   func(ctx context.Context, req cloud.CreateRequest) error // nil error: goes on
	lost     func(req cloud.CreateRequest) bool                       // done, and no answer
	boot     time.Duration
	latency  time.Duration
}

func newFakeCloud() *fakeCloud {
	return &fakeCloud{droplets: map[int64]*cloud.Droplet{}, nextID: 1, calls: map[string]int{}, boot: 20 * time.Second, latency: 200 * time.Millisecond}
}

func (c *fakeCloud) wait(ctx context.Context, call string) error {
	c.mu.Lock()
	c.calls[call]++
	c.mu.Unlock()
	select {
	case <-time.After(c.latency):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", cloud.ErrAmbiguous, ctx.Err())
	}
}

func (c *fakeCloud) Create(ctx context.Context, req cloud.CreateRequest) ([]cloud.Droplet, error) {
	if err := c.wait(ctx, "create"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	create := c.create
	c.mu.Unlock()
	if create != nil {
		if err := create(ctx, req); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var made []cloud.Droplet
	for _, name := range req.Names {
		id := c.nextID
		c.nextID++
		d := &cloud.Droplet{Droplet: inventory.Droplet{Name: name, Pool: req.Pool, ID: id, Status: "new", Created: time.Now()}}
		c.droplets[id] = d
		c.names = append(c.names, name)
		made = append(made, *d)
	}
	if c.lost != nil && c.lost(req) {
		return nil, cloud.ErrAmbiguous
	}
	return made, nil
}

// see is a droplet as of now. Call it with mu held.
func (c *fakeCloud) see(d *cloud.Droplet) cloud.Droplet {
	if time.Since(d.Created) >= c.boot {
		d.Status = "active"
		d.PrivateIPv4 = netip.AddrFrom4([4]byte{10, 1, byte(d.ID >> 8), byte(d.ID)})
	}
	return *d
}

func (c *fakeCloud) List(ctx context.Context) ([]cloud.Droplet, error) {
	if err := c.wait(ctx, "list"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []cloud.Droplet
	for _, d := range c.droplets {
		all = append(all, c.see(d))
	}
	return all, nil
}

func (c *fakeCloud) Get(ctx context.Context, id int64) (cloud.Droplet, error) {
	if err := c.wait(ctx, "get"); err != nil {
		return cloud.Droplet{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.droplets[id]; d != nil {
		return c.see(d), nil
	}
	return cloud.Droplet{}, cloud.ErrNotFound
}

func (c *fakeCloud) Adopt(ctx context.Context, id int64, pool string) error {
	return c.wait(ctx, "adopt")
}

func (c *fakeCloud) Delete(ctx context.Context, id int64) error {
	if err := c.wait(ctx, "delete"); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.droplets[id] == nil {
		return cloud.ErrNotFound
	}
	delete(c.droplets, id)
	return nil
}

// heal lets creates go through again.
func (c *fakeCloud) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.create = nil
}

func (c *fakeCloud) count(call string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[call]
}

func (c *fakeCloud) has() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.droplets)
}

// rig is a store, its mirror, a fake node that finds everything healthy that has
// an address, and a cloud.
type rig struct {
	t      *testing.T
	ctx    context.Context
	store  *inventorytest.Memory
	keys   inventory.Keys
	mirror *inventory.Mirror
	cloud  *fakeCloud
	log    *slog.Logger
	stop   func()
}

func newRig(t *testing.T, pools ...inventory.Pool) *rig {
	ctx, cancel := context.WithCancel(t.Context())
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if os.Getenv("FLEET_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	r := &rig{t: t, ctx: ctx, store: inventorytest.NewMemory(), keys: inventory.KeysOf("test"), cloud: newFakeCloud(), log: log}
	meta := inventory.Meta{UID: "u1", Schema: 1}
	put(t, r.store, r.keys.Meta(), meta)
	for i := range pools {
		r.commit(inventory.PutPool(r.keys, &pools[i]))
	}
	r.mirror = inventory.NewMirror(r.store, r.keys, log)
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.mirror.Run(ctx) })
	wg.Go(func() { r.node(ctx, "lb-1") })
	r.stop = func() { cancel(); wg.Wait() }
	return r
}

func put(t *testing.T, store inventory.Store, key string, v any) {
	t.Helper()
	if _, err := store.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: key, Value: []byte(dump(v))}}}); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) commit(g inventory.Guard, op inventory.Op) {
	r.t.Helper()
	var txn inventory.Txn
	txn.Add(g, op)
	if _, err := r.store.Commit(r.ctx, txn); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) node(ctx context.Context, name string) {
	wake, cancel := r.mirror.Subscribe()
	defer cancel()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		s := r.mirror.State()
		n := inventory.Node{Name: name, HAProxy: "running", Servers: map[string]inventory.ServerState{}}
		for _, d := range s.Droplets {
			n.Applied = max(n.Applied, d.Mod)
			if d.PrivateIPv4.IsValid() && (d.Phase == inventory.Booting || d.Phase == inventory.Draining) {
				n.Servers[d.Name] = inventory.ServerState{Health: inventory.Up}
			}
		}
		n.Seen = n.Applied
		if report := dump(n); report != last {
			last = report
			if _, err := r.store.Commit(ctx, inventory.Txn{Ops: []inventory.Op{{Key: r.keys.Node(name), Value: []byte(report)}}}); err != nil {
				last = ""
			}
		}
	}
}

// lead runs a loop under an election until the returned function is called.
func (r *rig) lead(id string, store *inventorytest.Memory, set Settings) (stop func()) {
	return r.leadWith(id, store, func(o *Options) { o.Settings = set })
}

func (r *rig) leadWith(id string, store *inventorytest.Memory, set func(*Options)) (stop func()) {
	o := Options{Keys: r.keys, UID: "u1", Mirror: r.mirror, Cloud: r.cloud, Log: r.log}
	set(&o)
	loop, err := New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	elector, err := election.New(election.Options{Store: store, Leaser: store, Keys: r.keys, ID: id, Logger: r.log})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = elector.Run(ctx, func(ctx context.Context, term election.Term) error { return loop.Run(ctx, term, term.Created) })
	}()
	return func() { cancel(); <-done }
}

func (r *rig) scale(pool string, n int) {
	r.t.Helper()
	for {
		p := *r.mirror.State().Pools[pool]
		p.Desired, p.Rewound = n, time.Time{}
		p.Release = max(0, len(r.mirror.State().PoolDroplets(pool))-n)
		var txn inventory.Txn
		txn.Add(inventory.PutPool(r.keys, &p))
		_, err := r.store.Commit(r.ctx, txn)
		if err == nil {
			return
		}
		if !errors.Is(err, inventory.ErrConflict) {
			r.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (r *rig) count(pool string, phase inventory.Phase) (n int) {
	for _, d := range r.mirror.State().Droplets {
		if d.Pool == pool && d.Phase == phase {
			n++
		}
	}
	return n
}

// until waits in simulated time.
func (r *rig) until(most time.Duration, what string, ok func() bool) time.Duration {
	r.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > most {
			r.t.Fatalf("not %s within %s: %s", what, most, dump(r.mirror.State()))
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

func pool(name string, most int) inventory.Pool {
	return inventory.Pool{PoolSpec: inventory.PoolSpec{Name: name, HostnamePrefix: name, Max: most}}
}

func TestLoopScalesOutAndIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, pool("web", 200))
		defer r.stop()
		defer r.lead("a", r.store, Settings{})()
		time.Sleep(time.Minute)
		r.scale("web", 100)
		took := r.until(time.Minute, "serving", func() bool { return r.count("web", inventory.Serving) == 100 })
		t.Logf("100 droplets serve after %s: %v", took, r.cloud.calls)
		if n := r.cloud.count("create"); n != 10 {
			t.Errorf("%d create calls for 100 droplets, want 10", n)
		}
		if n := r.cloud.count("list"); n > 25 {
			t.Errorf("%d list calls", n)
		}
		if n := r.cloud.count("get"); n != 0 {
			t.Errorf("%d get calls", n)
		}
		lists := r.cloud.count("list")
		time.Sleep(time.Hour)
		if n := r.cloud.count("list") - lists; n < 55 || n > 62 {
			t.Errorf("%d list calls in an hour at rest", n)
		}
		r.scale("web", 3)
		took = r.until(5*time.Minute, "gone", func() bool { return r.cloud.has() == 3 && len(r.mirror.State().Droplets) == 3 })
		t.Logf("97 are gone after %s: %v", took, r.cloud.calls)
		if n := r.cloud.count("delete"); n != 97 {
			t.Errorf("%d delete calls for 97 droplets", n)
		}
	})
}

func TestLoopHungCreateHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, pool("web", 20), pool("api", 20))
		defer r.stop()
		r.cloud.create = func(ctx context.Context, req cloud.CreateRequest) error {
			if req.Pool != "web" {
				return nil
			}
			<-ctx.Done()
			return fmt.Errorf("%w: %w", cloud.ErrAmbiguous, ctx.Err())
		}
		defer r.lead("a", r.store, Settings{})()
		time.Sleep(time.Second)
		r.scale("web", 2)
		time.Sleep(time.Second)
		r.scale("api", 3)
		took := r.until(29*time.Second, "serving", func() bool { return r.count("api", inventory.Serving) == 3 })
		t.Logf("api serves after %s", took)
		r.scale("api", 1)
		r.until(10*time.Second, "gone", func() bool { return r.cloud.has() == 1 })
		// The names that hung are asked for again only after they had time to settle.
		if n := r.cloud.count("create"); n != 2 {
			t.Errorf("%d create calls, want 2", n)
		}
		r.cloud.heal()
		r.until(2*time.Minute, "serving", func() bool { return r.count("web", inventory.Serving) == 2 })
		if want := []string{"api-0", "api-1", "api-2", "web-0", "web-1"}; !slices.Equal(slices.Sorted(slices.Values(r.cloud.names)), want) {
			t.Errorf("created %v", r.cloud.names)
		}
	})
}

func TestLoopTakesUpWhatGotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, pool("web", 30))
		defer r.stop()
		r.cloud.lost = func(cloud.CreateRequest) bool { return true }
		defer r.lead("a", r.store, Settings{})()
		time.Sleep(time.Second)
		r.scale("web", 20)
		r.until(time.Minute, "serving", func() bool { return r.count("web", inventory.Serving) == 20 })
		if n := r.cloud.count("create"); n != 2 || r.cloud.has() != 20 {
			t.Errorf("%d create calls, %d droplets", n, r.cloud.has())
		}
	})
}

func TestLoopRefusedBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, pool("web", 30))
		defer r.stop()
		r.cloud.create = func(context.Context, cloud.CreateRequest) error {
			return &cloud.Refused{Status: 422, ID: "unprocessable_entity", Message: "creating this/these droplet(s) will exceed your droplet limit"}
		}
		defer r.lead("a", r.store, Settings{StopAfter: -1})()
		time.Sleep(time.Second)
		r.scale("web", 5)
		time.Sleep(time.Hour)
		// 5 s, 10 s, … 5 min: seven in the first ten minutes, then one every five.
		if n := r.cloud.count("create"); n < 12 || n > 20 {
			t.Errorf("%d create calls in an hour of refusals", n)
		}
		p := r.mirror.State().Pools["web"]
		d := r.mirror.State().Droplets["web-0"]
		if want := "creating this/these droplet(s) will exceed your droplet limit"; p.Reason != want || d.Reason != want || p.NextOrdinal != 5 {
			t.Errorf("pool %s, droplet %s", dump(p), dump(d))
		}
		r.cloud.heal()
		r.until(8*time.Minute, "serving", func() bool { return r.count("web", inventory.Serving) == 5 })
		if p := r.mirror.State().Pools["web"]; p.Failures != 0 || p.Reason != "" || !p.RetryAt.IsZero() {
			t.Errorf("pool %s", dump(p))
		}
	})
}

func TestLoopHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, pool("web", 30))
		defer r.stop()
		r.cloud.latency = 2 * time.Second
		stop := r.lead("a", r.store, Settings{})
		time.Sleep(10 * time.Second)
		r.scale("web", 20)
		time.Sleep(time.Second) // two creates are under way
		stop()
		synctest.Wait() // the mirror has it
		if r.count("web", inventory.Booting) != 20 {
			t.Errorf("a planned end left creates without their outcome: %s", dump(r.mirror.State().Droplets))
		}
		defer r.lead("b", r.store, Settings{})()
		r.until(time.Minute, "serving", func() bool { return r.count("web", inventory.Serving) == 20 })
		if n := r.cloud.count("create"); n != 2 {
			t.Errorf("%d create calls", n)
		}
	})
}

func TestLoopDeposedCreatesNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, pool("web", 30))
		defer r.stop()
		r.cloud.latency = 3 * time.Second
		first := r.store.Connect()
		defer r.lead("a", first, Settings{})()
		time.Sleep(20 * time.Second)
		defer r.lead("b", r.store, Settings{})()
		r.scale("web", 20)
		time.Sleep(time.Second)
		first.Partition() // the leader is cut off while its creates are under way
		r.until(5*time.Minute, "serving", func() bool { return r.count("web", inventory.Serving) == 20 })
		time.Sleep(10 * time.Minute)
		if n := r.cloud.has(); n != 20 {
			t.Errorf("%d droplets", n)
		}
	})
}
