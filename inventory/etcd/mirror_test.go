package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/etcd"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

var (
	keys  = inventory.KeysOf("test")
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
)

// start runs a mirror until the test ends.
func start(t testing.TB, store inventory.Store) *inventory.Mirror {
	m := inventory.NewMirror(store, keys, quiet)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { m.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return m
}

func await(t testing.TB, m *inventory.Mirror, what string, ok func(*inventory.State) bool) *inventory.State {
	t.Helper()
	wake, cancel := m.Subscribe()
	defer cancel()
	timeout := time.After(time.Minute)
	for {
		select {
		case <-wake:
			if s := m.State(); ok(s) {
				return s
			}
		case <-timeout:
			t.Fatalf("the mirror did not come to: %s; it has %+v", what, m.State())
		}
	}
}

// put writes a droplet, again and again while etcd has no answer.
func put(t testing.TB, store inventory.Store, n int) inventory.Revision {
	t.Helper()
	d := &inventory.Droplet{Pool: "web", Name: fmt.Sprintf("web-%d", n), Created: time.Unix(int64(n), 0)}
	_, op := inventory.PutDroplet(keys, d)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		rev, err := store.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{op}})
		if err == nil {
			return rev
		}
		if !errors.Is(err, inventory.ErrUnavailable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func has(n int) func(*inventory.State) bool {
	return func(s *inventory.State) bool { return s.Err == nil && len(s.Droplets) == n }
}

func outOfTouch(s *inventory.State) bool { return s.Err != nil }

func TestMirrorSurvivesARestart(t *testing.T) {
	cluster := inventorytest.StartEtcd(t, 1)
	store := dial(t, cluster.Endpoints...)
	m := start(t, store)
	put(t, store, 1)
	await(t, m, "one droplet", has(1))

	cluster.Members[0].Kill()
	killed := time.Now()
	s := await(t, m, "out of touch", outOfTouch)
	t.Logf("out of touch was known after %s: %v", time.Since(killed), s.Err)
	if len(s.Droplets) != 1 || !errors.Is(s.Err, inventory.ErrUnavailable) {
		t.Errorf("state %+v", s)
	}
	cluster.Members[0].Start(t)
	cluster.Members[0].WaitHealthy(t)
	back := time.Now()
	await(t, m, "in step", has(1))
	t.Logf("in step %s after etcd was back", time.Since(back))
	put(t, store, 2)
	await(t, m, "two droplets", has(2))
}

func TestMirrorSurvivesCompaction(t *testing.T) {
	cluster := inventorytest.StartEtcd(t, 1)
	client, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	writer := etcd.New(client, 0)
	m := start(t, dial(t, cluster.Endpoints...))
	put(t, writer, 1)
	await(t, m, "one droplet", has(1))

	// Another one loses its stream, and much happens and is compacted before it
	// watches again.
	gate := &gated{Store: writer, stands: make(chan struct{}), end: make(chan struct{}), again: make(chan struct{})}
	late := start(t, gate)
	<-gate.stands
	close(gate.end)
	put(t, writer, 2)
	rev := put(t, writer, 3)
	if _, err := client.Compact(t.Context(), int64(rev), clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	close(gate.again)
	await(t, late, "three droplets after a listing", has(3))
	await(t, m, "three droplets", has(3))
	if gate.compacted.Load() == 0 {
		t.Error("the mirror did not meet the compaction")
	}
}

// gated is a store whose first watch is lost when end is closed, and whose
// second waits for again to be closed.
type gated struct {
	inventory.Store
	stands, end, again chan struct{}
	watches, compacted atomic.Int32
}

func (g *gated) Watch(ctx context.Context, prefix string, after inventory.Revision, each func(inventory.Batch) error) error {
	n := g.watches.Add(1)
	if n == 2 {
		<-g.again
	}
	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := g.Store.Watch(watchCtx, prefix, after, func(b inventory.Batch) error {
		err := each(b)
		if n == 1 {
			close(g.stands)
			<-g.end
			return inventory.ErrUnavailable
		}
		return err
	})
	if errors.Is(err, inventory.ErrCompacted) {
		g.compacted.Add(1)
	}
	return err
}

// One of three members dies, or freezes with its connections open: reads,
// writes, leases and the mirror go on.
func TestAMemberIsLost(t *testing.T) {
	for name, lose := range map[string]func(*inventorytest.Member){
		"killed": (*inventorytest.Member).Kill,
		"frozen": (*inventorytest.Member).Stop,
	} {
		t.Run(name, func(t *testing.T) {
			cluster := inventorytest.StartEtcd(t, 3)
			store := dial(t, cluster.Endpoints...)
			m := start(t, store)
			lease, err := inventory.KeepLease(t.Context(), store, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			put(t, store, 1)
			await(t, m, "one droplet", has(1))
			lose(cluster.Members[0])
			lost := time.Now()
			put(t, store, 2)
			wrote := time.Since(lost)
			await(t, m, "two droplets", has(2))
			t.Logf("written after %s, seen after %s", wrote, time.Since(lost))
			// A lease's life later it is still held.
			select {
			case <-lease.Context().Done():
				t.Errorf("the lease was lost: %v", context.Cause(lease.Context()))
			case <-time.After(12 * time.Second):
			}
			if err := lease.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Without a quorum every call fails in time, with words, and the mirror says
// that it is out of touch though its member still answers.
func TestNoQuorum(t *testing.T) {
	cluster := inventorytest.StartEtcd(t, 3)
	store := dial(t, cluster.Endpoints...)
	m := start(t, store)
	put(t, store, 1)
	await(t, m, "one droplet", has(1))
	cluster.Members[0].Kill()
	cluster.Members[1].Kill()
	lost := time.Now()
	// In this order, since the member that is left may take a moment to see that
	// it leads nobody, and answers for leases until then.
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"Commit", func() error {
			_, err := store.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: "/x"}}})
			return err
		}},
		{"List", func() error { _, err := store.List(t.Context(), "/"); return err }},
		{"Watch", func() error {
			return store.Watch(t.Context(), "/", 1, func(inventory.Batch) error { return nil })
		}},
		{"Grant", func() error { _, err := store.Grant(t.Context(), time.Second); return err }},
		{"Renew", func() error { return store.Renew(t.Context(), 1) }},
		{"Revoke", func() error { return store.Revoke(t.Context(), 1) }},
	} {
		before := time.Now()
		if err := call.do(); !errors.Is(err, inventory.ErrUnavailable) {
			t.Errorf("%s without a quorum = %v, want ErrUnavailable", call.name, err)
		}
		t.Logf("%s failed after %s", call.name, time.Since(before))
	}
	await(t, m, "out of touch", outOfTouch)
	t.Logf("all that took %s", time.Since(lost))
	cluster.Members[0].Start(t)
	cluster.Members[0].WaitHealthy(t)
	back := time.Now()
	put(t, store, 2)
	await(t, m, "two droplets", has(2))
	t.Logf("in step %s after the quorum was back", time.Since(back))
}

// An endpoint that nobody listens on is not an error of Dial.
func TestDialWithoutEtcd(t *testing.T) {
	s, err := etcd.Dial(etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}, Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.List(t.Context(), "/"); !errors.Is(err, inventory.ErrUnavailable) {
		t.Errorf("List = %v", err)
	}
	u, err := etcd.Dial(etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}, Timeout: 200 * time.Millisecond, Username: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, err := u.List(t.Context(), "/"); !errors.Is(err, inventory.ErrUnavailable) {
		t.Errorf("List = %v", err)
	}
	if _, err := etcd.Dial(etcd.Config{}); err == nil {
		t.Error("Dial without endpoints")
	}
}

// From the start of a commit until a subscriber has seen it, on one member.
func BenchmarkMirrorOnEtcd(b *testing.B) {
	cluster := inventorytest.StartEtcd(b, 1)
	store := dial(b, cluster.Endpoints...)
	for i := range 1000 {
		put(b, store, i)
	}
	m := start(b, store)
	await(b, m, "all", has(1000))
	for b.Loop() {
		if _, err := m.WaitRevision(b.Context(), put(b, store, 500)); err != nil {
			b.Fatal(err)
		}
	}
}
