package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/etcd"
	"github.com/doproxy/doproxy/inventory/inventorytest"
	"github.com/doproxy/doproxy/inventory/migrate"
)

var keys = inventory.KeysOf("test")

// flaky fails every call after the first left ones: before it is done, or after.
type flaky struct {
	migrate.Store
	mu   sync.Mutex
	left int
	done bool // the transaction at which it begins to fail comes true
}

func (f *flaky) spend() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left--
	return f.left
}

func (f *flaky) List(ctx context.Context, prefix string) (inventory.Listing, error) {
	if f.spend() < 0 {
		return inventory.Listing{}, inventory.ErrUnavailable
	}
	return f.Store.List(ctx, prefix)
}

func (f *flaky) Commit(ctx context.Context, txn inventory.Txn) (inventory.Revision, error) {
	left := f.spend()
	if left == -1 && f.done {
		_, _ = f.Store.Commit(ctx, txn)
	}
	if left < 0 {
		return 0, inventory.ErrUnavailable
	}
	return f.Store.Commit(ctx, txn)
}

func (f *flaky) Grant(ctx context.Context, ttl time.Duration) (inventory.LeaseID, error) {
	if f.spend() < 0 {
		return 0, inventory.ErrUnavailable
	}
	return f.Store.Grant(ctx, ttl)
}

// fill writes an inventory with records of each kind.
func fill(t *testing.T, store migrate.Store) {
	ctx := t.Context()
	if _, err := inventory.EnsureMeta(ctx, store, keys); err != nil {
		t.Fatal(err)
	}
	lease, err := store.Grant(ctx, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var ops []inventory.Op
	for i := range 300 {
		ops = append(ops, inventory.Op{Key: keys.Droplet("web", fmt.Sprint("web-", i)), Value: []byte(strings.Repeat("x", 3000))})
	}
	ops = append(ops,
		inventory.Op{Key: keys.Leader(), Value: []byte("lb-1"), Lease: lease},
		inventory.Op{Key: keys.Node("lb-1"), Value: []byte("{}"), Lease: lease},
		inventory.Op{Key: keys.Confirm("web"), Value: []byte("{}"), Lease: lease},
		inventory.Op{Key: keys.Event("01"), Value: []byte("{}"), Lease: lease})
	for len(ops) > 0 {
		n := min(len(ops), inventory.MaxOps)
		if _, err := store.Commit(ctx, inventory.Txn{Ops: ops[:n]}); err != nil {
			t.Fatal(err)
		}
		ops = ops[n:]
	}
}

// content is what a move must keep.
func content(t *testing.T, store migrate.Store) map[string]string {
	l, err := store.List(t.Context(), keys.Prefix())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, kv := range l.KVs {
		if kv.Key != keys.Leader() && kv.Key != keys.Node("lb-1") && kv.Key != keys.Confirm("web") {
			all[kv.Key] = fmt.Sprint(kv.Lease != 0, string(kv.Value))
		}
	}
	return all
}

func equal(t *testing.T, got, want map[string]string) {
	t.Helper()
	for key := range want {
		if got[key] != want[key] {
			t.Errorf("%s is %.60q, want %.60q", key, got[key], want[key])
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%s is there", key)
		}
	}
}

func options(from, to migrate.Store) migrate.Options {
	return migrate.Options{From: from, To: to, FromName: "etcd", ToName: "raft", Keys: keys, Settle: time.Millisecond}
}

func back(o migrate.Options) migrate.Options {
	o.From, o.To, o.FromName, o.ToName = o.To, o.From, o.ToName, o.FromName
	return o
}

// There and back, with a change in between; the store that was left refuses.
func TestThereAndBack(t *testing.T) {
	store, err := etcd.Dial(etcd.Config{Endpoints: inventorytest.StartEtcd(t, 1).Endpoints})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	here, there := migrate.Store(store), migrate.Store(inventorytest.NewMemory())
	fill(t, here)
	want := content(t, here)
	r, err := migrate.Run(t.Context(), options(here, there))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, content(t, there), want)
	if kv, err := inventory.Get(t.Context(), there, keys.Confirm("web")); err != nil || kv.Mod != 0 {
		t.Errorf("a confirmation lives on: %+v, %v", kv, err)
	}
	if r.Records != 301 || r.LeftOut != 3 || r.Digest == "" {
		t.Errorf("the result is %+v", r)
	}
	if _, err := inventory.EnsureMeta(t.Context(), here, keys); !errors.Is(err, inventory.ErrMoved) {
		t.Errorf("the store that was left says %v", err)
	}
	if _, err := inventory.EnsureMeta(t.Context(), there, keys); err != nil {
		t.Errorf("the other says %v", err)
	}
	if _, err := there.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{
		{Key: keys.Droplet("web", "web-0"), Delete: true}, {Key: keys.Droplet("web", "web-300"), Value: []byte("new")},
	}}); err != nil {
		t.Fatal(err)
	}
	want = content(t, there)
	if _, err := migrate.Run(t.Context(), back(options(here, there))); err != nil {
		t.Fatal(err)
	}
	equal(t, content(t, here), want)
}

// Whatever call is the last that works: either the source goes on or, after
// running it again, the target has all.
func TestInterrupted(t *testing.T) {
	for n := 0; ; n++ {
		for _, side := range []string{"from", "to", "to, and its last transaction came true"} {
			from, to := migrate.Store(inventorytest.NewMemory()), migrate.Store(inventorytest.NewMemory())
			fill(t, from)
			want := content(t, from)
			o := options(from, to)
			broken := &flaky{Store: o.To, left: n, done: strings.HasSuffix(side, "true")}
			if side == "from" {
				broken.Store = o.From
				o.From = broken
			} else {
				o.To = broken
			}
			_, err := migrate.Run(t.Context(), o)
			if err == nil && side != "from" && n > 12 {
				return
			}
			if _, err := migrate.Run(t.Context(), options(from, to)); err != nil {
				t.Fatalf("after %d calls of %s, again: %v", n, side, err)
			}
			equal(t, content(t, to), want)
			if t.Failed() {
				t.Fatalf("after %d calls of %s: %v", n, side, err)
			}
		}
	}
}

func TestAbort(t *testing.T) {
	from, to := migrate.Store(inventorytest.NewMemory()), migrate.Store(inventorytest.NewMemory())
	fill(t, from)
	want := content(t, from)
	ctx, cancel := context.WithCancel(t.Context())
	o := options(from, to)
	o.Settle = time.Hour
	o.Progress = func(line string) {
		if strings.Contains(line, "held up") {
			cancel()
		}
	}
	if _, err := migrate.Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	equal(t, content(t, from), want) // it was put back into use
	if err := migrate.Abort(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if left := content(t, to); len(left) > 0 {
		t.Errorf("%d records are left in the target", len(left))
	}
	if _, err := inventory.EnsureMeta(t.Context(), from, keys); err != nil {
		t.Error(err)
	}
}

// TestTargetLost: the target is gone for good while changes are held up.
func TestTargetLost(t *testing.T) {
	from, to := migrate.Store(inventorytest.NewMemory()), &flaky{Store: inventorytest.NewMemory(), left: 1 << 30}
	lost := func(lost bool) {
		to.mu.Lock()
		defer to.mu.Unlock()
		to.left = 1 << 30
		if lost {
			to.left = 0
		}
	}
	fill(t, from)
	o := options(from, to)
	o.Settle = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(line string) {
		if strings.Contains(line, "held up") {
			lost(true)
			cancel()
		}
	}
	if _, err := migrate.Run(ctx, o); err == nil {
		t.Fatal("the move ended well")
	}
	o.Progress = nil
	if err := migrate.Abort(t.Context(), o); !errors.Is(err, inventory.ErrUnavailable) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("without the target: %v", err)
	}
	if _, err := inventory.EnsureMeta(t.Context(), from, keys); !errors.Is(err, inventory.ErrMoved) {
		t.Errorf("the source is in use again: %v", err)
	}
	o.Lost = true
	if err := migrate.Abort(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := inventory.EnsureMeta(t.Context(), from, keys); err != nil {
		t.Errorf("the source says %v", err)
	}
	lost(false) // it was not lost: what was begun there is no inventory
	if err := migrate.Abort(t.Context(), o); err != nil {
		t.Errorf("what is left there is not taken away: %v", err)
	}
	o.Settle = time.Millisecond
	if _, err := migrate.Run(t.Context(), o); err != nil {
		t.Errorf("another move: %v", err)
	}
	lost(true) // after a move that is complete, what the source has is old
	if err := migrate.Abort(t.Context(), o); !errors.Is(err, inventory.ErrRefused) {
		t.Errorf("a complete move is given up: %v", err)
	}
	if _, err := inventory.EnsureMeta(t.Context(), from, keys); !errors.Is(err, inventory.ErrMoved) {
		t.Errorf("the source is in use again: %v", err)
	}
}

func TestRefused(t *testing.T) {
	from, to := migrate.Store(inventorytest.NewMemory()), migrate.Store(inventorytest.NewMemory())
	refused := func(what string, o migrate.Options) {
		t.Helper()
		if _, err := migrate.Run(t.Context(), o); !errors.Is(err, inventory.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("an empty source", options(from, to))
	fill(t, from)
	if _, err := to.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: keys.Prefix() + "x"}}}); err != nil {
		t.Fatal(err)
	}
	refused("a target with records", options(from, to))
	to = inventorytest.NewMemory()
	fill(t, to)
	refused("another cluster", options(from, to))
	if err := migrate.Abort(t.Context(), options(from, to)); !errors.Is(err, inventory.ErrRefused) {
		t.Errorf("abort with a whole target: %v", err)
	}
}

// While it is moved, and if that was interrupted, neither store is to be used, and
// each says what to do; in the end only the target is.
func TestUnderWay(t *testing.T) {
	from, to := migrate.Store(inventorytest.NewMemory()), migrate.Store(inventorytest.NewMemory())
	fill(t, from)
	says := func(store migrate.Store, words string) {
		t.Helper()
		if _, err := inventory.EnsureMeta(t.Context(), store, keys); !errors.Is(err, inventory.ErrMoved) || !strings.Contains(err.Error(), words) {
			t.Errorf("it says %v, want %q", err, words)
		}
	}
	o := options(from, to)
	o.Progress = func(line string) {
		if strings.Contains(line, "held up") {
			says(from, "is being moved to raft")
			says(to, "is not whole here yet")
		}
	}
	// An agent that tried the target too early left its report there.
	lease, err := to.Grant(t.Context(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := to.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: keys.Node("lb-2"), Value: []byte("{}"), Lease: lease}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := migrate.Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	says(from, "moved to raft at")
	if r, err := migrate.Run(t.Context(), options(from, to)); err != nil || r.Records == 0 {
		t.Errorf("again, at once: %+v, %v", r, err)
	}
	if _, err := to.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: keys.Pool("new"), Value: []byte("{}")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := migrate.Run(t.Context(), options(from, to)); !errors.Is(err, inventory.ErrRefused) {
		t.Errorf("again, when it was used: %v", err)
	}
	if err := migrate.Abort(t.Context(), options(to, inventorytest.NewMemory())); !errors.Is(err, inventory.ErrRefused) {
		t.Errorf("abort of no move: %v", err)
	}
}
