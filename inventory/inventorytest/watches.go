package inventorytest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

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
