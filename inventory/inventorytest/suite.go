package inventorytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// watching starts a watch of all below the suite's prefix. next returns its
// batches; an error ends the test.
func (s *suite) watching(after inventory.Revision) (next func() inventory.Batch) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	batches := make(chan inventory.Batch, 1000)
	ended := make(chan error, 1)
	go func() {
		ended <- s.store.Watch(ctx, s.prefix, after, func(b inventory.Batch) error {
			batches <- b
			return nil
		})
	}()
	s.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			s.Errorf("Watch ended with %v, want its context's error", err)
		}
	})
	return func() inventory.Batch {
		s.Helper()
		select {
		case b := <-batches:
			return b
		case err := <-ended:
			ended <- err
			s.Fatalf("Watch ended: %v", err)
		case <-time.After(patience):
			s.Fatal("Watch says nothing")
		}
		return inventory.Batch{}
	}
}

// changes skips the batches without changes.
func changes(next func() inventory.Batch) inventory.Batch {
	for start := time.Now(); time.Since(start) < patience; {
		if b := next(); len(b.Changes) > 0 {
			return b
		}
	}
	return inventory.Batch{}
}

func (s *suite) show(b inventory.Batch) string {
	var out []string
	for _, c := range b.Changes {
		name := strings.TrimPrefix(c.Key, s.prefix)
		if c.Deleted {
			out = append(out, "-"+name)
		} else {
			out = append(out, name+"="+string(c.Value))
		}
	}
	return strings.Join(out, " ")
}

func testList(s *suite) {
	s.put("b/2", "x")
	s.put("a", "x")
	s.put("b/10", "x")
	last := s.put("b/1", "y")
	l, err := s.store.List(s.ctx, s.key("b/"))
	if err != nil {
		s.Fatal(err)
	}
	var keys []string
	for _, kv := range l.KVs {
		keys = append(keys, strings.TrimPrefix(kv.Key, s.prefix))
	}
	if want := []string{"b/1", "b/10", "b/2"}; !slices.Equal(keys, want) {
		s.Errorf("List has %v, want %v", keys, want)
	}
	if l.Revision < last {
		s.Errorf("List is as of %d, before %d that was committed", l.Revision, last)
	}
	if l, err = s.store.List(s.ctx, s.key("none")); err != nil || len(l.KVs) != 0 || l.Revision < last {
		s.Errorf("List of nothing = %+v, %v", l, err)
	}
}

func testGet(s *suite) {
	s.put("ab", "longer")
	if kv := s.get("a"); kv.Mod != 0 || kv.Key != s.key("a") {
		s.Errorf("Get of no key = %+v", kv)
	}
	rev := s.put("a", "x")
	if kv := s.get("a"); kv.Mod != rev || string(kv.Value) != "x" {
		s.Errorf("Get = %+v, want x of %d", kv, rev)
	}
}

func testGuards(s *suite) {
	put := s.write("other", "done")
	guard := func(name string, mod, created inventory.Revision) inventory.Txn {
		return inventory.Txn{Guards: []inventory.Guard{{Key: s.key(name), Mod: mod, Created: created}}, Ops: []inventory.Op{put}}
	}
	s.commit(guard("a", 0, 0))
	created := s.put("a", "1")
	s.refused(inventory.ErrConflict, guard("a", 0, 0))
	mod := s.put("a", "2")
	s.commit(guard("a", mod, 0))
	s.refused(inventory.ErrConflict, guard("a", created, 0))
	s.refused(inventory.ErrConflict, guard("a", mod+100, 0))
	s.commit(guard("a", 0, created))
	s.refused(inventory.ErrConflict, guard("a", 0, mod))
	s.refused(inventory.ErrConflict, guard("none", 0, created))
	s.refused(inventory.ErrConflict, guard("none", mod, 0))

	// Only Created counts where it is given.
	s.commit(guard("a", 12345678, created))

	// Deleted and made again, it is another key.
	s.del("a")
	s.refused(inventory.ErrConflict, guard("a", mod, 0))
	s.refused(inventory.ErrConflict, guard("a", 0, created))
	s.commit(guard("a", 0, 0))
	again := s.put("a", "3")
	s.refused(inventory.ErrConflict, guard("a", 0, created))
	s.commit(guard("a", 0, again))

	// All guards must hold.
	both := guard("a", again, 0)
	both.Guards = append(both.Guards, inventory.Guard{Key: s.key("a"), Created: created})
	s.refused(inventory.ErrConflict, both)
}

func testRevisions(s *suite) {
	before := s.put("x", "")
	first := s.put("a", "1")
	second := s.put("a", "2")
	if first <= before || second <= first {
		s.Fatalf("revisions %d, %d, %d do not grow", before, first, second)
	}
	if kv := s.get("a"); kv.Created != first || kv.Mod != second || string(kv.Value) != "2" || kv.Lease != 0 {
		s.Errorf("got %+v, want created %d, mod %d", kv, first, second)
	}
	s.del("a")
	third := s.put("a", "3")
	if kv := s.get("a"); kv.Created != third || kv.Mod != third {
		s.Errorf("got %+v, want created and mod %d", kv, third)
	}
	// Both keys of a transaction have its revision.
	rev := s.commit(inventory.Txn{Ops: []inventory.Op{s.write("p", ""), s.write("q", "")}})
	if p, q := s.get("p"), s.get("q"); p.Mod != rev || q.Mod != rev || p.Created != rev {
		s.Errorf("got %d and %d, want both %d", p.Mod, q.Mod, rev)
	}
}

func testRefused(s *suite) {
	rev := s.put("a", "1")
	s.refused(inventory.ErrConflict, inventory.Txn{
		Guards: []inventory.Guard{{Key: s.key("a"), Mod: rev}, {Key: s.key("b"), Mod: 1}},
		Ops:    []inventory.Op{s.write("a", "2"), s.write("b", "2")},
	})
	if kv := s.get("a"); string(kv.Value) != "1" || kv.Mod != rev {
		s.Errorf("a is %+v, want it as it was at %d", kv, rev)
	}
	if kv := s.get("b"); kv.Mod != 0 {
		s.Errorf("b is %+v, want none", kv)
	}
}

func testNothing(s *suite) {
	rev := s.put("a", "1")
	if got := s.commit(inventory.Txn{Guards: []inventory.Guard{{Key: s.key("a"), Mod: rev}}}); got < rev {
		s.Errorf("a transaction without operations is at %d, before %d", got, rev)
	}
	if got := s.del("none"); got < rev {
		s.Errorf("a deletion of nothing is at %d, before %d", got, rev)
	}
	next := s.watching(rev)
	s.put("b", "1")
	if got := s.show(changes(next)); got != "b=1" {
		s.Errorf("watched %q, want b=1", got)
	}
}

func testMaxOps(s *suite) {
	txn := func(n int) (txn inventory.Txn) {
		for i := range n {
			txn.Add(inventory.Guard{Key: s.key(strconv.Itoa(i))}, s.write(strconv.Itoa(i), "x"))
		}
		return txn
	}
	if _, err := s.store.Commit(s.ctx, txn(inventory.MaxOps+1)); err == nil {
		s.Error("a transaction of more than MaxOps was accepted")
	}
	s.commit(txn(inventory.MaxOps))
}

func testOdd(s *suite) {
	for _, ops := range [][]inventory.Op{
		{s.write("a", "1"), s.write("a", "2")},
		{{Key: "", Value: []byte("x")}},
	} {
		if _, err := s.store.Commit(s.ctx, inventory.Txn{Ops: ops}); err == nil || errors.Is(err, inventory.ErrUnavailable) {
			s.Errorf("Commit(%v) = %v, want a refusal", ops, err)
		}
	}
	if kv := s.get("a"); kv.Mod != 0 {
		s.Errorf("a refused transaction wrote %+v", kv)
	}
}

func testWatchOrder(s *suite) {
	start := s.put("start", "")
	next := s.watching(start)
	const n = 50
	for i := range n {
		s.commit(inventory.Txn{Ops: []inventory.Op{
			s.write("a", strconv.Itoa(i)), s.write("b", strconv.Itoa(i)), {Key: s.key("c" + strconv.Itoa(i-1)), Delete: true}, s.write("c"+strconv.Itoa(i), ""),
		}})
	}
	at := start
	for seen := 0; seen < n; {
		b := next()
		if b.Revision < at {
			s.Fatalf("a batch of %d after one of %d", b.Revision, at)
		}
		byRev := map[inventory.Revision][]inventory.Change{}
		last := at
		for _, c := range b.Changes {
			if c.Mod <= at || c.Mod < last || c.Mod > b.Revision {
				s.Fatalf("change of %d in the batch of (%d, %d] after %d", c.Mod, at, b.Revision, last)
			}
			last = c.Mod
			byRev[c.Mod] = append(byRev[c.Mod], c)
		}
		at = b.Revision
		for _, rev := range slices.Sorted(maps.Keys(byRev)) {
			want := 4
			if seen == 0 {
				want = 3 // c-1 was never there
			}
			if got := byRev[rev]; len(got) != want {
				s.Fatalf("transaction %d came with %d changes, want %d: %+v", seen, len(got), want, got)
			}
			for _, c := range byRev[rev] {
				if (c.Key == s.key("a") || c.Key == s.key("b")) && string(c.Value) != strconv.Itoa(seen) {
					s.Fatalf("transaction %d has %s=%s", seen, c.Key, c.Value)
				}
			}
			seen++
		}
	}
}

func testWatchFrom(s *suite) {
	s.put("a", "1")
	from := s.put("a", "2")
	third := s.put("a", "3")
	gone := s.del("a")
	next := s.watching(from)
	var got []inventory.Change
	for len(got) < 2 {
		got = append(got, changes(next).Changes...)
	}
	if c := got[0]; string(c.Value) != "3" || c.Mod != third || c.Deleted || c.Created == 0 || c.Created >= from {
		s.Errorf("first change %+v, want a=3 of %d", c, third)
	}
	if c := got[1]; !c.Deleted || c.Mod != gone || c.Key != s.key("a") {
		s.Errorf("second change %+v, want the deletion of %d", c, gone)
	}
	// What is not below the prefix is not told.
	other := *s
	other.prefix = s.prefix[:len(s.prefix)-1] + "-other/"
	other.put("z", "z")
	s.put("b", "1")
	if got := s.show(changes(next)); got != "b=1" {
		s.Errorf("watched %q, want b=1", got)
	}
}

func testWatchFirst(s *suite) {
	rev := s.put("a", "1")
	next := s.watching(rev)
	if b := next(); len(b.Changes) != 0 || b.Revision < rev {
		s.Errorf("first batch %+v, want none but the revision", b)
	}
}

func testWatchError(s *suite) {
	rev := s.put("a", "1")
	s.put("a", "2")
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	calls := 0
	err := s.store.Watch(ctx, s.prefix, rev, func(inventory.Batch) error {
		calls++
		return enough
	})
	if err != enough || calls != 1 {
		s.Errorf("Watch = %v after %d calls, want the error of each, as it is, after one", err, calls)
	}
}

func testCompaction(s *suite) {
	old := s.put("a", "1")
	s.put("a", "2")
	last := s.put("a", "3")
	if err := s.compacter.Compact(s.ctx, last); err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := s.store.Watch(ctx, s.prefix, old-1, func(b inventory.Batch) error { return fmt.Errorf("got %+v", b) })
	if !errors.Is(err, inventory.ErrCompacted) {
		s.Errorf("Watch from before the compaction: %v, want ErrCompacted", err)
	}
	// What came after is still to be had, and so are the keys.
	next := s.watching(last)
	s.put("a", "4")
	if got := s.show(changes(next)); got != "a=4" {
		s.Errorf("watched %q, want a=4", got)
	}
	if kv := s.get("a"); kv.Created != old {
		s.Errorf("created at %d, want %d as before the compaction", kv.Created, old)
	}
}

func testFuture(s *suite) {
	rev := s.put("a", "1")
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err := s.store.Watch(ctx, s.prefix, rev+1000, func(b inventory.Batch) error { return fmt.Errorf("got %+v", b) })
	if !errors.Is(err, inventory.ErrCompacted) {
		s.Errorf("Watch from what is yet to come: %v, want ErrCompacted", err)
	}
}

func (s *suite) grant(ttl time.Duration) inventory.LeaseID {
	s.Helper()
	id, err := s.store.Grant(s.ctx, ttl)
	if err != nil {
		s.Fatal(err)
	}
	if id == 0 {
		s.Fatal("Grant gave the lease that is none")
	}
	return id
}

func (s *suite) putLeased(lease inventory.LeaseID, names ...string) inventory.Revision {
	s.Helper()
	var txn inventory.Txn
	for _, name := range names {
		txn.Ops = append(txn.Ops, inventory.Op{Key: s.key(name), Value: []byte("x"), Lease: lease})
	}
	return s.commit(txn)
}

func testLeaseExpires(s *suite) {
	const ttl = 2 * time.Second
	sent := time.Now()
	lease := s.grant(ttl)
	rev := s.putLeased(lease, "a", "b")
	s.put("kept", "x")
	if kv := s.get("a"); kv.Lease != lease {
		s.Errorf("a has lease %x, want %x", kv.Lease, lease)
	}
	next := s.watching(rev)
	for left := map[string]bool{s.key("a"): true, s.key("b"): true}; len(left) > 0; {
		for _, c := range changes(next).Changes {
			if c.Deleted {
				if !left[c.Key] {
					s.Fatalf("%s was deleted", c.Key)
				}
				delete(left, c.Key)
			}
		}
	}
	if lived := time.Since(sent); lived < ttl {
		s.Errorf("a lease of %s lived %s", ttl, lived)
	}
	if kv := s.get("a"); kv.Mod != 0 {
		s.Errorf("a is still there: %+v", kv)
	}
	if kv := s.get("kept"); kv.Mod == 0 {
		s.Error("a key without a lease is gone")
	}
	if err := s.store.Renew(s.ctx, lease); !errors.Is(err, inventory.ErrLeaseLost) {
		s.Errorf("Renew of an expired lease: %v, want ErrLeaseLost", err)
	}
}

func testRenew(s *suite) {
	const ttl = 2 * time.Second
	lease := s.grant(ttl)
	s.putLeased(lease, "a")
	for end := time.Now().Add(2 * ttl); time.Now().Before(end); time.Sleep(ttl / 8) {
		if err := s.store.Renew(s.ctx, lease); err != nil {
			s.Fatal(err)
		}
	}
	if kv := s.get("a"); kv.Mod == 0 {
		s.Error("the key went though its lease was renewed")
	}
}

func testRevoke(s *suite) {
	lease := s.grant(time.Minute)
	rev := s.putLeased(lease, "a", "b")
	next := s.watching(rev)
	if err := s.store.Revoke(s.ctx, lease); err != nil {
		s.Fatal(err)
	}
	for gone := 0; gone < 2; {
		for _, c := range changes(next).Changes {
			if !c.Deleted {
				s.Fatalf("got %+v", c)
			}
			gone++
		}
	}
	if err := s.store.Revoke(s.ctx, lease); !errors.Is(err, inventory.ErrLeaseLost) {
		s.Errorf("a second Revoke: %v, want ErrLeaseLost", err)
	}
}

func testLostLease(s *suite) {
	lease := s.grant(time.Minute)
	if err := s.store.Revoke(s.ctx, lease); err != nil {
		s.Fatal(err)
	}
	if err := s.store.Renew(s.ctx, lease); !errors.Is(err, inventory.ErrLeaseLost) {
		s.Errorf("Renew: %v, want ErrLeaseLost", err)
	}
	op := inventory.Op{Key: s.key("leased"), Lease: lease}
	s.refused(inventory.ErrLeaseLost, inventory.Txn{Ops: []inventory.Op{s.write("a", "1"), op}})
	s.refused(inventory.ErrLeaseLost, inventory.Txn{Guards: []inventory.Guard{{Key: op.Key}}, Ops: []inventory.Op{op}})
	if kv := s.get("a"); kv.Mod != 0 {
		s.Errorf("a part of a refused transaction was done: %+v", kv)
	}
}

func testRewrite(s *suite) {
	lease := s.grant(time.Minute)
	s.putLeased(lease, "a", "b")
	s.put("a", "mine")
	if err := s.store.Revoke(s.ctx, lease); err != nil {
		s.Fatal(err)
	}
	if kv := s.get("a"); kv.Lease != 0 || string(kv.Value) != "mine" {
		s.Errorf("a is %+v, want it freed of its lease", kv)
	}
	if kv := s.get("b"); kv.Mod != 0 {
		s.Errorf("b is %+v, want none", kv)
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

func testCounters(s *suite) {
	const workers, each = 8, 25
	s.put("n", "0")
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				kv, err := inventory.Get(s.ctx, s.store, s.key("n"))
				if err != nil {
					s.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(kv.Value))
				_, err = s.store.Commit(s.ctx, inventory.Txn{
					Guards: []inventory.Guard{{Key: kv.Key, Mod: kv.Mod}},
					Ops:    []inventory.Op{s.write("n", strconv.Itoa(n+1))},
				})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, inventory.ErrConflict):
					s.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := string(s.get("n").Value); got != strconv.Itoa(workers*each) {
		s.Errorf("counted to %s, want %d", got, workers*each)
	}
}

func testValues(s *suite) {
	value := []byte("good")
	rev := s.commit(inventory.Txn{Ops: []inventory.Op{{Key: s.key("a"), Value: value}}})
	copy(value, "evil")
	kv := s.get("a")
	copy(kv.Value, "evil")
	if got := s.get("a").Value; !bytes.Equal(got, []byte("good")) {
		s.Errorf("the value became %q", got)
	}
	b := changes(s.watching(rev - 1))
	if got := s.show(b); got != "a=good" {
		s.Errorf("watched %q", got)
	}
}
