package ingress

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
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
	mu      sync.Mutex
	holders map[netip.Addr]int64
	records map[int64]cloud.DNSRecord
	nextID  int64
	calls   map[string]int
	latency time.Duration
	assign  func(ctx context.Context, a netip.Addr, droplet int64) error // nil error: goes on
	lost    bool                                                         // creates are done, and not answered
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

func (c *fakeCloud) ReservedIPs(ctx context.Context) (all []cloud.ReservedIP, err error) {
	if err := c.wait(ctx, "list"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for a, d := range c.holders {
		all = append(all, cloud.ReservedIP{Address: a, Droplet: d})
	}
	return all, nil
}

func (c *fakeCloud) ReservedIP(ctx context.Context, a netip.Addr) (cloud.ReservedIP, error) {
	if err := c.wait(ctx, "get"); err != nil {
		return cloud.ReservedIP{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.holders[a]
	if !ok {
		return cloud.ReservedIP{}, cloud.ErrNotFound
	}
	return cloud.ReservedIP{Address: a, Droplet: d}, nil
}

func (c *fakeCloud) Assign(ctx context.Context, a netip.Addr, droplet int64) error {
	if err := c.wait(ctx, "assign"); err != nil {
		return err
	}
	c.mu.Lock()
	assign := c.assign
	c.mu.Unlock()
	if assign != nil {
		if err := assign(ctx, a, droplet); err != nil {
			return err
		}
	}
	c.set(a, droplet)
	return nil
}

func (c *fakeCloud) set(a netip.Addr, droplet int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holders[a] = droplet
}

func (c *fakeCloud) at(a netip.Addr) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holders[a]
}

func (c *fakeCloud) count(call string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[call]
}

func (c *fakeCloud) Records(ctx context.Context, domain, name string) ([]cloud.DNSRecord, error) {
	if err := c.wait(ctx, "records"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.records)), nil
}

func (c *fakeCloud) CreateRecord(ctx context.Context, domain string, r cloud.DNSRecord) (cloud.DNSRecord, error) {
	if err := c.wait(ctx, "create"); err != nil {
		return r, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	r.ID = c.nextID
	c.records[r.ID] = r
	if c.lost {
		return cloud.DNSRecord{}, cloud.ErrAmbiguous
	}
	return r, nil
}

func (c *fakeCloud) SetTTL(ctx context.Context, domain string, r cloud.DNSRecord) error {
	return c.wait(ctx, "ttl")
}

func (c *fakeCloud) DeleteRecord(ctx context.Context, domain string, id int64) error {
	if err := c.wait(ctx, "delete"); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.records[id]; !ok {
		return cloud.ErrNotFound
	}
	delete(c.records, id)
	return nil
}

func (c *fakeCloud) data() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, r := range c.records {
		all = append(all, r.Data)
	}
	slices.Sort(all)
	return all
}

// rig is a store, its mirror, three nodes' reports, and a cloud.
type rig struct {
	t      *testing.T
	ctx    context.Context
	store  *inventorytest.Memory
	keys   inventory.Keys
	mirror *inventory.Mirror
	cloud  *fakeCloud
	log    *slog.Logger
	stop   func()

	mu   sync.Mutex
	news News
}

func newRig(t *testing.T, settings inventory.Ingress) *rig {
	ctx, cancel := context.WithCancel(t.Context())
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if os.Getenv("INGRESS_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	r := &rig{t: t, ctx: ctx, store: inventorytest.NewMemory(), keys: inventory.KeysOf("test"), log: log,
		cloud: &fakeCloud{holders: map[netip.Addr]int64{}, records: map[int64]cloud.DNSRecord{}, calls: map[string]int{}, latency: 200 * time.Millisecond}}
	r.put(r.keys.Meta(), inventory.Meta{UID: "u1", Schema: 1})
	r.put(r.keys.Settings(), inventory.Settings{Ingress: settings})
	for i := range 3 {
		name := fmt.Sprintf("lb-%d", i+1)
		r.put(r.keys.Member(name), inventory.Member{Name: name})
		r.report(name, "running")
	}
	for _, a := range settings.ReservedIPs {
		r.cloud.holders[a] = 0
	}
	r.mirror = inventory.NewMirror(r.store, r.keys, log)
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.mirror.Run(ctx) })
	r.stop = func() { cancel(); wg.Wait() }
	return r
}

func (r *rig) put(key string, v any) {
	r.t.Helper()
	if _, err := r.store.Commit(r.ctx, inventory.Txn{Ops: []inventory.Op{{Key: key, Value: []byte(dump(v))}}}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) report(name, haproxy string) {
	i := name[len(name)-1] - '0'
	r.put(r.keys.Node(name), inventory.Node{Name: name, HAProxy: haproxy, Droplet: 10 + int64(i), PublicIPv4: netip.AddrFrom4([4]byte{192, 0, 2, i})})
}

func (r *rig) vanish(name string) {
	if _, err := r.store.Commit(r.ctx, inventory.Txn{Ops: []inventory.Op{{Key: r.keys.Node(name), Delete: true}}}); err != nil {
		r.t.Fatal(err)
	}
}

// lead runs a loop under an election until the returned function is called.
func (r *rig) lead(id string, store *inventorytest.Memory) (stop func()) {
	loop, err := New(Options{Keys: r.keys, UID: "u1", Mirror: r.mirror, Reserved: r.cloud, DNS: r.cloud, Budget: new(cloud.Budget), Log: r.log,
		Tell: func(n News) { r.mu.Lock(); defer r.mu.Unlock(); r.news = n }})
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

// until waits in simulated time.
func (r *rig) until(most time.Duration, what string, ok func() bool) time.Duration {
	r.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > most {
			r.t.Fatalf("not %s within %s: %s %v", what, most, dump(r.mirror.State().Assignments), r.cloud.data())
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

func (r *rig) verified(a netip.Addr, node string) func() bool {
	return func() bool {
		as := r.mirror.State().Assignments[a]
		return as != nil && as.Node == node && !as.Verified.IsZero()
	}
}

var twoIPs = inventory.Ingress{ReservedIPs: []netip.Addr{ip7, ip8}}

func TestLoopAssignsAndFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoIPs)
		defer r.stop()
		defer r.lead("a", r.store)()
		r.until(5*time.Second, "assigned", func() bool { return r.verified(ip7, "lb-1")() && r.verified(ip8, "lb-2")() })
		time.Sleep(time.Minute)
		assigns := r.cloud.count("assign")
		r.report("lb-1", "failed")
		// 300 ms of hysteresis, and the call's own 200 ms.
		took := r.until(600*time.Millisecond, "moved", func() bool { return r.cloud.at(ip7) == 13 })
		t.Logf("HAProxy failed: moved after %s", took)
		r.until(time.Second, "verified", r.verified(ip7, "lb-3"))
		r.report("lb-1", "running")
		time.Sleep(10 * time.Minute)
		if n := r.cloud.count("assign") - assigns; n != 1 || r.cloud.at(ip7) != 13 {
			t.Errorf("%d assigns, it is at %d", n, r.cloud.at(ip7))
		}
		r.vanish("lb-3")
		took = r.until(300*time.Millisecond, "moved", func() bool { return r.cloud.at(ip7) == 11 })
		t.Logf("a report gone: moved after %s", took)
		lists := r.cloud.count("list")
		time.Sleep(time.Hour)
		if n := r.cloud.count("list") - lists; n < 115 || n > 125 {
			t.Errorf("%d lists in an hour at rest", n)
		}
	})
}

func TestLoopNewLeaderMovesWhatTheLastHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoIPs)
		defer r.stop()
		stop := r.lead("a", r.store)
		r.until(5*time.Second, "assigned", r.verified(ip7, "lb-1"))
		stop()
		r.vanish("lb-1")
		time.Sleep(time.Second)
		began := time.Now()
		defer r.lead("b", r.store)()
		r.until(600*time.Millisecond, "moved", func() bool { return r.cloud.at(ip7) == 13 })
		t.Logf("moved %s after the term began", time.Since(began))
	})
}

func TestLoopHungAssignHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoIPs)
		defer r.stop()
		r.cloud.assign = func(ctx context.Context, a netip.Addr, _ int64) error {
			if a != ip7 {
				return nil
			}
			<-ctx.Done()
			return fmt.Errorf("%w: %w", cloud.ErrAmbiguous, ctx.Err())
		}
		defer r.lead("a", r.store)()
		r.until(2*time.Second, "assigned", r.verified(ip8, "lb-2"))
		r.cloud.mu.Lock()
		r.cloud.assign = nil
		r.cloud.mu.Unlock()
		r.until(12*time.Second, "assigned", r.verified(ip7, "lb-1"))
	})
}

func TestLoopRefusedGoesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoIPs)
		defer r.stop()
		r.cloud.assign = func(_ context.Context, _ netip.Addr, droplet int64) error {
			if droplet == 11 {
				return &cloud.Refused{Status: 422, ID: "unprocessable_entity", Message: "must be in the same region"}
			}
			return nil
		}
		defer r.lead("a", r.store)()
		r.until(3*time.Second, "assigned", r.verified(ip7, "lb-3"))
		time.Sleep(time.Minute)
		if n := r.cloud.count("assign"); n != 3 {
			t.Errorf("%d assigns", n)
		}
	})
}

func TestLoopRepairsAndVerifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoIPs)
		defer r.stop()
		defer r.lead("a", r.store)()
		r.until(5*time.Second, "assigned", r.verified(ip7, "lb-1"))
		time.Sleep(3 * time.Second)
		r.cloud.set(ip7, 99)
		r.put(r.keys.Verify(), inventory.Verify{ID: "v1", Time: time.Now()})
		r.until(time.Second, "told", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.news.Verified == "v1" && len(r.news.Differences) == 1
		})
		r.until(2*time.Second, "repaired", func() bool { return r.cloud.at(ip7) == 11 })
		r.put(r.keys.Pause(), inventory.Pause{Since: time.Now()})
		time.Sleep(time.Second)
		r.cloud.set(ip7, 99)
		time.Sleep(5 * time.Minute)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.cloud.at(ip7) != 99 || len(r.news.Conditions) != 1 || time.Since(r.news.Conditions[0].Since) < 4*time.Minute {
			t.Errorf("while paused: at %d, %s", r.cloud.at(ip7), dump(r.news))
		}
	})
}

// A cluster that was made by mistake beside the one whose address it is, with the
// same configuration.
func TestLoopLeavesAnothersAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inventory.Ingress{ReservedIPs: []netip.Addr{ip7}})
		defer r.stop()
		r.cloud.set(ip7, 99)
		defer r.lead("a", r.store)()
		time.Sleep(10 * time.Minute)
		r.mu.Lock()
		told := r.news.Conditions
		r.mu.Unlock()
		if r.cloud.at(ip7) != 99 || r.cloud.count("assign") != 0 || len(told) != 1 || told[0].Type != "ingress.foreign" {
			t.Fatalf("at %d after %d assigns, told %s", r.cloud.at(ip7), r.cloud.count("assign"), dump(told))
		}
		r.put(r.keys.Assignment(ip7), inventory.Assignment{Address: ip7, Since: time.Now(), Reason: "no node holds it yet", Want: inventory.AnyNode})
		r.until(2*time.Second, "taken", r.verified(ip7, "lb-1"))
		r.cloud.set(ip7, 99)
		r.until(time.Minute, "repaired, now that it is ours", func() bool { return r.cloud.at(ip7) == 11 })
	})
}

func TestLoopDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inventory.Ingress{DNS: []inventory.DNSName{{Domain: "example.com", Name: "www"}}})
		defer r.stop()
		r.cloud.records[1] = record(1, "198.51.100.1")
		r.cloud.nextID = 1
		r.cloud.lost = true
		stop := r.lead("a", r.store)
		has := func(want ...string) func() bool { return func() bool { return slices.Equal(r.cloud.data(), want) } }
		r.until(3*time.Second, "there", has("192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1"))
		r.cloud.lost = false
		time.Sleep(time.Minute)
		r.report("lb-2", "failed")
		took := r.until(2*time.Second, "gone", has("192.0.2.1", "192.0.2.3", "198.51.100.1"))
		t.Logf("gone after %s", took)
		r.vanish("lb-1")
		r.until(2*time.Second, "gone", has("192.0.2.3", "198.51.100.1"))
		r.vanish("lb-3")
		time.Sleep(time.Hour)
		if !has("192.0.2.3", "198.51.100.1")() {
			t.Errorf("the last one went: %v", r.cloud.data())
		}
		stop()
		for _, name := range []string{"lb-1", "lb-2", "lb-3"} {
			r.report(name, "running")
		}
		defer r.lead("b", r.store)()
		r.until(3*time.Second, "there", has("192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1"))
		time.Sleep(time.Hour)
		if n := r.cloud.count("create"); n != 5 {
			t.Errorf("%d creates", n)
		}
	})
}

func TestValidate(t *testing.T) {
	for _, s := range []Settings{{Settle: -1}, {RetryMin: time.Hour}} {
		if s.Validate() == nil {
			t.Errorf("%+v: no error", s)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("empty options: no error")
	}
}
