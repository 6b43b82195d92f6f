package raft

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/doproxy/doproxy/inventory"
)

// Request is one client's, on one key: a read, or a write of value under a guard
// on the version that the client saw last; without guard it is a plain write.
type Request struct {
	Key     int
	Read    bool
	Guarded bool
	Mod     inventory.Revision
	Value   string
}

// Outcome is what came of it. Unknown: it may come true at any time, once.
type Outcome struct {
	Unknown, Conflict bool
	Value             string
	Mod               inventory.Revision
}

// register is one key to porcupine.
type register struct {
	value string
	mod   inventory.Revision // 0: none; -1: of a write whose revision nobody was told
}

// model of the store, a key at a time. Revisions grow, and are the identity of a
// write that was answered.
var model = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[int][]porcupine.Operation{}
		for _, op := range history {
			k := op.Input.(Request).Key
			byKey[k] = append(byKey[k], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() []any { return []any{register{}} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(register), input.(Request), output.(Outcome)
		fits := s.mod == in.Mod || s.mod == -1
		switch {
		case in.Read && (s.value != out.Value || s.mod != -1 && s.mod != out.Mod):
			return nil
		case in.Read:
			return []any{register{out.Value, out.Mod}}
		case out.Conflict && s.mod == in.Mod:
			return nil
		case out.Conflict:
			return []any{s}
		case out.Unknown && in.Guarded && !fits:
			return []any{s}
		case out.Unknown:
			return []any{s, register{in.Value, -1}}
		case in.Guarded && !fits:
			return nil
		}
		return []any{register{in.Value, out.Mod}}
	},
}

// workload has clients of every node do requests until ctx ends, and watchers
// follow; check tells what was not as it must be.
type workload struct {
	*cluster
	ask     func(node int, in Request) (Outcome, error)
	mu      sync.Mutex
	history []porcupine.Operation
	acked   int
	clients sync.WaitGroup
	began   time.Time
}

const historyKeys = 4

func historyKey(k int) string { return fmt.Sprint("/history/", k) }

func (c *cluster) work(ctx context.Context) *workload {
	w := &workload{cluster: c}
	w.ask = func(node int, in Request) (Outcome, error) {
		w.mu.Lock()
		n := w.nodes[node]
		w.mu.Unlock()
		return do(n, in)
	}
	w.run(ctx, len(c.nodes))
	return w
}

// run has two clients of each node at work.
func (w *workload) run(ctx context.Context, nodes int) {
	w.began = time.Now()
	for id := range 2 * nodes {
		w.clients.Go(func() { w.client(ctx, id/2, id) })
	}
}

func (w *workload) client(ctx context.Context, node, id int) {
	seen := map[int]inventory.Revision{}
	for n := 0; ctx.Err() == nil && n < 400; n++ {
		in := Request{Key: rand.IntN(historyKeys), Read: rand.IntN(3) == 0, Guarded: rand.IntN(4) > 0, Value: fmt.Sprint(id, "-", n)}
		in.Mod = seen[in.Key]
		call := time.Since(w.began)
		out, err := w.ask(node, in)
		back := int64(time.Since(w.began))
		if err != nil {
			w.Errorf("%+v: %v", in, err)
			return
		}
		if out.Unknown {
			// A history of many is hard to decide.
			time.Sleep(100 * time.Millisecond)
			if in.Read {
				continue
			}
			back = 1 << 60
		} else if !out.Conflict {
			seen[in.Key] = out.Mod
		}
		w.mu.Lock()
		w.history = append(w.history, porcupine.Operation{ClientId: id, Input: in, Output: out, Call: int64(call), Return: back})
		if !out.Unknown && !out.Conflict && !in.Read {
			w.acked++
		}
		w.mu.Unlock()
		if out.Unknown {
			// To porcupine a client has one request at a time.
			id += 1000
		}
		if out.Conflict {
			delete(seen, in.Key)
			if out, err := w.ask(node, Request{Key: in.Key, Read: true}); err == nil {
				seen[in.Key] = out.Mod
			}
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
	}
}

func do(n *Node, in Request) (Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var out Outcome
	var err error
	if in.Read {
		var kv inventory.KV
		kv, err = inventory.Get(ctx, n, historyKey(in.Key))
		out.Value, out.Mod = string(kv.Value), kv.Mod
	} else {
		txn := inventory.Txn{Ops: []inventory.Op{{Key: historyKey(in.Key), Value: []byte(in.Value)}}}
		if in.Guarded {
			txn.Guards = []inventory.Guard{{Key: historyKey(in.Key), Mod: in.Mod}}
		}
		out.Mod, err = n.Commit(ctx, txn)
	}
	switch {
	case errors.Is(err, inventory.ErrConflict):
		return Outcome{Conflict: true}, nil
	case errors.Is(err, inventory.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return Outcome{Unknown: true}, nil
	}
	return out, err
}

// restarted is restart while clients go on.
func (w *workload) restarted(i int, during func()) {
	w.Helper()
	w.mu.Lock()
	old := w.nodes[i]
	w.mu.Unlock()
	if err := old.Close(); err != nil {
		w.Error(err)
	}
	during()
	n, err := Open(w.opts[i])
	if err != nil {
		w.Fatal(err)
	}
	w.mu.Lock()
	w.nodes[i] = n
	w.mu.Unlock()
}

func (w *workload) check() {
	w.Helper()
	w.clients.Wait()
	if w.acked < 50 {
		w.Errorf("only %d writes were acknowledged", w.acked)
	}
	switch m := model.ToModel(); porcupine.CheckOperationsTimeout(m, w.history, 60*time.Second) {
	case porcupine.Illegal:
		w.Errorf("a history of %d operations is not linearizable", len(w.history))
	case porcupine.Unknown:
		w.Errorf("a history of %d operations was not decided in time", len(w.history))
	}
}

// follower folds what a watch tells, and holds it to the store's revisions.
type follower struct {
	mu    sync.Mutex
	state map[string]inventory.KV
	at    inventory.Revision
}

func (c *cluster) follow(ctx context.Context, node func() *Node) *follower {
	f := &follower{state: map[string]inventory.KV{}}
	go func() {
		for ctx.Err() == nil {
			n := node()
			l, err := n.List(ctx, "/history/")
			if err == nil {
				f.mu.Lock()
				if l.Revision < f.at {
					c.Errorf("a list is of revision %d after %d", l.Revision, f.at)
				}
				f.at, f.state = l.Revision, map[string]inventory.KV{}
				for _, kv := range l.KVs {
					f.state[kv.Key] = kv
				}
				f.mu.Unlock()
				err = n.Watch(ctx, "/history/", l.Revision, f.take(c))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return f
}

func (f *follower) take(c *cluster) func(inventory.Batch) error {
	return func(b inventory.Batch) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if b.Revision < f.at {
			c.Errorf("a batch is of revision %d after %d", b.Revision, f.at)
		}
		for _, change := range b.Changes {
			if change.Mod <= f.at || change.Mod > b.Revision {
				c.Errorf("a change of revision %d came after %d in a batch up to %d", change.Mod, f.at, b.Revision)
			}
			f.state[change.Key] = change.KV
			if change.Deleted {
				delete(f.state, change.Key)
			}
		}
		f.at = b.Revision
		return nil
	}
}

func (f *follower) agrees(l inventory.Listing) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at < l.Revision {
		return fmt.Errorf("it is at revision %d of %d", f.at, l.Revision)
	}
	if len(f.state) != len(l.KVs) {
		return fmt.Errorf("it has %d keys of %d", len(f.state), len(l.KVs))
	}
	for _, kv := range l.KVs {
		if got := f.state[kv.Key]; got.Mod != kv.Mod || string(got.Value) != string(kv.Value) {
			return fmt.Errorf("it has %+v, not %+v", got, kv)
		}
	}
	return nil
}

// TestHistories: whatever happens to members, what clients saw is what one store
// could have shown them, and every watch folds to what is there in the end.
func TestHistories(t *testing.T) {
	days := map[string]func(*workload, int){
		"members stop and come back": func(w *workload, round int) {
			w.restarted(round%3, func() { time.Sleep(300 * time.Millisecond) })
		},
		"the leader is cut off while clients write to it": func(w *workload, _ int) {
			i := w.leader()
			w.isolate(i, true)
			time.Sleep(1500 * time.Millisecond)
			w.isolate(i, false)
		},
		"the leadership is handed on": func(w *workload, _ int) {
			_ = w.nodes[w.leader()].StepDown(w.Context())
		},
		"two of three stop and come back": func(w *workload, round int) {
			w.restarted(round%3, func() {
				w.restarted((round+1)%3, func() { time.Sleep(500 * time.Millisecond) })
			})
		},
		"snapshots are made, sent and read": func(w *workload, round int) {
			w.restarted(round%3, func() { time.Sleep(time.Second) })
		},
	}
	for name, day := range days {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3, func(o *Options) {
				if name[0] == 's' {
					o.snapshotEntries = 20
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
			defer cancel()
			w := c.work(ctx)
			var followers []*follower
			followCtx, stop := context.WithCancel(t.Context())
			defer stop()
			for i := range c.nodes {
				followers = append(followers, c.follow(followCtx, func() *Node {
					w.mu.Lock()
					defer w.mu.Unlock()
					return c.nodes[i]
				}))
			}
			for round := 0; ctx.Err() == nil; round++ {
				day(w, round)
				time.Sleep(700 * time.Millisecond)
			}
			w.check()
			var l inventory.Listing
			c.eventually("a list", func() (err error) {
				l, err = c.nodes[0].List(t.Context(), "/history/")
				return err
			})
			for i, f := range followers {
				c.eventually(fmt.Sprint("the watch of node ", i+1), func() error { return f.agrees(l) })
			}
		})
	}
}

// TestTermsDoNotOverlap: whatever happens, at most one node may act at a time,
// and a fence of an earlier term never holds in a later one.
func TestTermsDoNotOverlap(t *testing.T) {
	c := newCluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	type period struct {
		node       int
		begin, end time.Time
	}
	var mu sync.Mutex
	var periods []period
	var actors sync.WaitGroup
	for i, n := range c.nodes {
		actors.Go(func() {
			for ctx.Err() == nil {
				l, err := n.Lead(ctx)
				if err != nil {
					return
				}
				select {
				case <-time.After(time.Until(l.After)):
				case <-l.Context.Done():
					continue
				}
				const key = "/election/leader"
				kv, err := inventory.Get(l.Context, n, key)
				if err != nil {
					continue
				}
				if kv.Mod != 0 {
					_, _ = n.Commit(l.Context, inventory.Txn{Guards: []inventory.Guard{{Key: key, Created: kv.Created}}, Ops: []inventory.Op{{Key: key, Delete: true}}})
				}
				created, err := n.Commit(l.Context, inventory.Txn{Guards: []inventory.Guard{{Key: key}}, Ops: []inventory.Op{{Key: key, Value: []byte{byte(i)}, Lease: l.Lease}}})
				if err != nil {
					continue
				}
				begin := time.Now()
				<-l.Context.Done()
				end := time.Now()
				mu.Lock()
				periods = append(periods, period{i, begin, end})
				mu.Unlock()
				// An ended leader tries all the same.
				for range 3 {
					now, err := inventory.Get(ctx, n, key)
					if err != nil || now.Created == created {
						continue // its own term goes on, or nobody knows
					}
					if _, err := n.Commit(ctx, inventory.Txn{Guards: []inventory.Guard{{Key: key, Created: created}}, Ops: []inventory.Op{{Key: "/harm", Value: []byte("x")}}}); err == nil {
						t.Errorf("a fence of revision %d held after one of %d", created, now.Created)
					}
				}
			}
		})
	}
	for round := 0; ctx.Err() == nil; round++ {
		i := c.leader()
		if round%2 == 0 {
			c.isolate(i, true)
			time.Sleep(1200 * time.Millisecond)
			c.isolate(i, false)
		} else {
			_ = c.nodes[i].StepDown(ctx)
		}
		time.Sleep(800 * time.Millisecond)
	}
	actors.Wait()
	slices.SortFunc(periods, func(a, b period) int { return a.begin.Compare(b.begin) })
	if len(periods) < 4 {
		t.Errorf("only %d terms", len(periods))
	}
	for i := 1; i < len(periods); i++ {
		if a, b := periods[i-1], periods[i]; a.end.After(b.begin) {
			t.Errorf("node %d acted for %s after node %d began", a.node+1, a.end.Sub(b.begin), b.node+1)
		}
	}
}
