package inventorytest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// Backend is a store to test.
type Backend interface {
	inventory.Store
	inventory.Leaser
}

// Compacter is what the suite needs to test compaction.
type Compacter interface {
	Compact(ctx context.Context, rev inventory.Revision) error
}

// patience bounds what should happen at once.
const patience = 30 * time.Second

// Run runs the suite. open returns an empty store for one test, or one whose
// keys below /suite/ the test may use alone; it is also asked for a Compacter.
func Run(t *testing.T, open func(t *testing.T) (Backend, Compacter)) {
	tests := []struct {
		name string
		test func(*suite)
	}{
		{"ListIsOrderedAndBelowPrefix", testList},
		{"GetReadsOneKey", testGet},
		{"GuardsInAllForms", testGuards},
		{"CreateAndModRevisions", testRevisions},
		{"RefusedTransactionWritesNothing", testRefused},
		{"TransactionThatChangesNothing", testNothing},
		{"TransactionOfMaxOps", testMaxOps},
		{"OddTransactions", testOdd},
		{"WatchSeesWholeTransactionsInOrder", testWatchOrder},
		{"WatchFromARevision", testWatchFrom},
		{"WatchBeginsWithABatch", testWatchFirst},
		{"WatchReturnsTheErrorOfEach", testWatchError},
		{"WatchAfterCompaction", testCompaction},
		{"WatchFromTheFuture", testFuture},
		{"LeasedKeysVanish", testLeaseExpires},
		{"RenewKeepsKeys", testRenew},
		{"RevokeDeletesKeys", testRevoke},
		{"LostLease", testLostLease},
		{"RewriteWithoutLeaseFreesTheKey", testRewrite},
		{"CancelledContexts", testCancelled},
		{"CountersLoseNothing", testCounters},
		{"ValuesAreNotShared", testValues},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			backend, compacter := open(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			test.test(&suite{T: t, ctx: ctx, store: backend, compacter: compacter, prefix: "/suite/" + test.name + "/"})
		})
	}
}

type suite struct {
	*testing.T
	ctx       context.Context
	store     Backend
	compacter Compacter
	prefix    string
}

func (s *suite) key(name string) string { return s.prefix + name }

func (s *suite) commit(txn inventory.Txn) inventory.Revision {
	s.Helper()
	rev, err := s.store.Commit(s.ctx, txn)
	if err != nil {
		s.Fatalf("Commit(%+v): %v", txn, err)
	}
	return rev
}

func (s *suite) put(name, value string) inventory.Revision {
	s.Helper()
	return s.commit(inventory.Txn{Ops: []inventory.Op{s.write(name, value)}})
}

func (s *suite) write(name, value string) inventory.Op {
	return inventory.Op{Key: s.key(name), Value: []byte(value)}
}

func (s *suite) del(name string) inventory.Revision {
	s.Helper()
	return s.commit(inventory.Txn{Ops: []inventory.Op{{Key: s.key(name), Delete: true}}})
}

func (s *suite) get(name string) inventory.KV {
	s.Helper()
	kv, err := inventory.Get(s.ctx, s.store, s.key(name))
	if err != nil {
		s.Fatal(err)
	}
	return kv
}

func (s *suite) refused(want error, txn inventory.Txn) {
	s.Helper()
	if _, err := s.store.Commit(s.ctx, txn); !errors.Is(err, want) {
		s.Fatalf("Commit(%+v) = %v, want %v", txn, err, want)
	}
}

func testCancelled(s *suite) {
	rev := s.put("a", "1")
	lease := s.grant(time.Minute)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	calls := map[string]func() error{
		"List": func() error { _, err := s.store.List(ctx, s.prefix); return err },
		"Commit": func() error {
			_, err := s.store.Commit(ctx, inventory.Txn{Ops: []inventory.Op{s.write("a", "2")}})
			return err
		},
		"Watch":  func() error { return s.store.Watch(ctx, s.prefix, rev, func(inventory.Batch) error { return nil }) },
		"Grant":  func() error { _, err := s.store.Grant(ctx, time.Second); return err },
		"Renew":  func() error { return s.store.Renew(ctx, lease) },
		"Revoke": func() error { return s.store.Revoke(ctx, lease) },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) || errors.Is(err, inventory.ErrUnavailable) {
			s.Errorf("%s with a cancelled context: %v", name, err)
		}
	}
	if kv := s.get("a"); string(kv.Value) != "1" {
		s.Errorf("a cancelled Commit wrote %q", kv.Value)
	}

	// A watch that stands ends at once.
	ctx, cancel = context.WithCancel(s.ctx)
	stands, ended := make(chan struct{}, 10), make(chan error, 1)
	go func() {
		ended <- s.store.Watch(ctx, s.prefix, rev, func(inventory.Batch) error { stands <- struct{}{}; return nil })
	}()
	<-stands
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			s.Errorf("Watch ended with %v", err)
		}
	case <-time.After(patience):
		s.Error("a cancelled Watch goes on")
	}
}
