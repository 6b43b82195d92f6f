package migrate_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
	"github.com/doproxy/doproxy/inventory/migrate"
)

func inUse(t *testing.T, s migrate.Store) bool {
	t.Helper()
	kv, err := inventory.Get(t.Context(), s, keys.Meta())
	if err != nil {
		t.Fatal(err)
	}
	if kv.Mod == 0 {
		return false
	}
	m, err := inventory.DecodeMeta(kv)
	if err != nil {
		t.Fatal(err)
	}
	return m.Moved == nil
}

// one fails unless just one of the stores is in use.
func one(t *testing.T, from, to migrate.Store) {
	t.Helper()
	if a, b := inUse(t, from), inUse(t, to); a == b {
		t.Errorf("in use: the source %t, the target %t", a, b)
	}
}

// late answers the transaction that writes the meta record with ErrUnavailable,
// and does it afterwards.
type late struct {
	migrate.Store
	do chan func() error
}

func (l *late) Commit(ctx context.Context, txn inventory.Txn) (inventory.Revision, error) {
	for _, op := range txn.Ops {
		if op.Key == keys.Meta() {
			l.do <- func() error {
				_, err := l.Store.Commit(context.WithoutCancel(ctx), txn)
				return err
			}
			return 0, inventory.ErrUnavailable
		}
	}
	return l.Store.Commit(ctx, txn)
}

// The hand-over's answer is lost, and it comes true when the source is in use again.
func TestLateHandOver(t *testing.T) {
	from, to := inventorytest.NewMemory(), inventorytest.NewMemory()
	fill(t, from)
	want := content(t, from)
	l := &late{to, make(chan func() error, 1)}
	if _, err := migrate.Run(t.Context(), options(from, l)); err == nil {
		t.Fatal("it says that it is done")
	}
	if err := (<-l.do)(); err == nil {
		t.Error("the hand-over came true late")
	}
	one(t, from, to)
	if _, err := migrate.Run(t.Context(), options(from, to)); err != nil {
		t.Fatal(err)
	}
	one(t, from, to)
	equal(t, content(t, to), want)
}

// held stops before one of its calls until it may go on.
type held struct {
	migrate.Store
	calls, at int32
	here, on  chan struct{}
}

func hold(s migrate.Store, at int32) *held {
	return &held{Store: s, at: at, here: make(chan struct{}), on: make(chan struct{})}
}

func (h *held) stop() {
	if atomic.AddInt32(&h.calls, 1) == h.at {
		close(h.here)
		<-h.on
	}
}

func (h *held) Commit(ctx context.Context, txn inventory.Txn) (inventory.Revision, error) {
	h.stop()
	return h.Store.Commit(ctx, txn)
}

func (h *held) List(ctx context.Context, prefix string) (inventory.Listing, error) {
	l, err := h.Store.List(ctx, prefix)
	h.stop()
	return l, err
}

// A run, or an abort, is held up at any of its calls while another run moves the
// inventory, which is then used where it is.
func TestTwoRuns(t *testing.T) {
	for _, slow := range []struct {
		name string
		do   func(migrate.Options) error
	}{
		{"run", func(o migrate.Options) error { _, err := migrate.Run(context.Background(), o); return err }},
		{"abort", func(o migrate.Options) error { return migrate.Abort(context.Background(), o) }},
	} {
		for _, side := range []string{"from", "to"} {
			for at := int32(1); ; at++ {
				from, to := inventorytest.NewMemory(), inventorytest.NewMemory()
				fill(t, from)
				begun(t, from, to)
				o := options(from, to)
				var h *held
				if side == "from" {
					h = hold(from, at)
					o.From = h
				} else {
					h = hold(to, at)
					o.To = h
				}
				end := make(chan error, 1)
				go func() { end <- slow.do(o) }()
				select {
				case <-h.here:
				case <-end: // it has no so many calls
					at = -1
				}
				if at < 0 {
					break
				}
				_, err := migrate.Run(t.Context(), options(from, to))
				used := migrate.Store(to)
				if err != nil || !inUse(t, to) {
					used = from // it came in between too late
				}
				before := content(t, used)
				close(h.on)
				slowErr := <-end
				one(t, from, to)
				if used == migrate.Store(to) {
					equal(t, content(t, to), before)
				}
				if t.Failed() {
					t.Fatalf("%s, stopped at call %d of %s: %v; the other: %v", slow.name, at, side, slowErr, err)
				}
			}
		}
	}
}

// begun leaves a move that was interrupted when most was copied.
func begun(t *testing.T, from, to migrate.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := options(from, to)
	o.Settle = time.Hour
	o.Progress = func(s string) {
		if s == "changes are held up; traffic is not affected" {
			cancel()
		}
	}
	if _, err := migrate.Run(ctx, o); err == nil {
		t.Fatal("it was not interrupted")
	}
}
