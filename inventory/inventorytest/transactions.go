package inventorytest

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/doproxy/doproxy/inventory"
)

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
