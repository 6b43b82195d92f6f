package election_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/doproxy/doproxy/election"
	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/etcd"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	keys  = inventory.KeysOf("test")
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
)

type backend interface {
	inventory.Store
	inventory.Leaser
}

// stage has several candidates for one leadership, and watches that no two lead.
type stage struct {
	t       testing.TB
	mu      sync.Mutex
	leading map[string]leadership // lead calls that did not return yet
	terms   []inventory.Revision
	changed chan struct{}
	wg      sync.WaitGroup
}

type leadership struct {
	ctx  context.Context
	term election.Term
}

func newStage(t testing.TB) *stage {
	return &stage{t: t, leading: map[string]leadership{}, changed: make(chan struct{})}
}

// candidate runs an elector until its stop is called, which waits for it. lead
// may be nil.
func (s *stage) candidate(id string, store backend, ttl time.Duration, lead func(context.Context, election.Term) error) (stop func()) {
	e, err := election.New(election.Options{Store: store, Leaser: store, Keys: keys, ID: id, TTL: ttl, Logger: quiet})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s.wg.Go(func() {
		defer close(ended)
		err := e.Run(ctx, func(ctx context.Context, term election.Term) error {
			s.enter(id, ctx, term)
			defer s.leave(id)
			if lead != nil {
				return lead(ctx, term)
			}
			<-ctx.Done()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			s.t.Errorf("Run of %s = %v", id, err)
		}
	})
	return func() { cancel(); <-ended }
}

func (s *stage) enter(id string, ctx context.Context, term election.Term) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, l := range s.leading {
		if other == id {
			s.t.Errorf("%s leads twice", id)
		}
		if l.ctx.Err() == nil && ctx.Err() == nil {
			s.t.Errorf("%s leads while the term of %s lives", id, other)
		}
	}
	if n := len(s.terms); n > 0 && term.Created <= s.terms[n-1] && ctx.Err() == nil {
		s.t.Errorf("term %d after term %d", term.Created, s.terms[n-1])
	}
	s.terms = append(s.terms, term.Created)
	s.leading[id] = leadership{ctx, term}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stage) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leading, id)
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until someone whose term lives leads, other than not.
func (s *stage) await(not string, within time.Duration) (string, leadership) {
	s.t.Helper()
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		changed := s.changed
		for id, l := range s.leading {
			if l.ctx.Err() == nil && id != not {
				s.mu.Unlock()
				return id, l
			}
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-timeout.C:
			s.t.Fatalf("nobody but %q leads after %s", not, within)
		}
	}
}

func inBubble(t *testing.T, test func(t *testing.T, mem *inventorytest.Memory, s *stage)) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		test(t, inventorytest.NewMemory(), s)
		s.wg.Wait()
	})
}

func TestResignHandsOverAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, mem *inventorytest.Memory, s *stage) {
		stops := map[string]func(){}
		for _, id := range []string{"a", "b", "c"} {
			stops[id] = s.candidate(id, mem.Connect(), 10*time.Second, nil)
		}
		id := ""
		for range 2 {
			id, _ = s.await(id, time.Minute)
			time.Sleep(time.Hour) // a term has no end of its own
			if again, _ := s.await("", 0); again != id {
				t.Errorf("%s took over from %s, who renews", again, id)
			}
			before := time.Now()
			stops[id]()
			delete(stops, id)
			s.await(id, time.Minute)
			if took := time.Since(before); took > 10*time.Millisecond {
				t.Errorf("the handover from %s took %s", id, took)
			}
		}
		for _, stop := range stops {
			stop()
		}
		if kv, err := inventory.Get(t.Context(), mem, keys.Leader()); err != nil || kv.Mod != 0 {
			t.Errorf("all resigned, and the leader key is %+v, %v", kv, err)
		}
	})
}

func TestAKilledLeaderIsReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, mem *inventorytest.Memory, s *stage) {
		const ttl = 10 * time.Second
		conns := map[string]*inventorytest.Memory{}
		for _, id := range []string{"a", "b"} {
			conns[id] = mem.Connect()
			stop := s.candidate(id, conns[id], ttl, nil)
			defer stop()
		}
		id, l := s.await("", time.Minute)
		time.Sleep(time.Minute)
		killed := time.Now()
		conns[id].Partition() // for good: to others, that is what killing it is
		<-l.ctx.Done()
		if !errors.Is(context.Cause(l.ctx), inventory.ErrLeaseLost) {
			t.Errorf("the term ended for %v", context.Cause(l.ctx))
		}
		if after := time.Since(killed); after > ttl {
			t.Errorf("the term ended %s after the last word", after)
		}
		other, _ := s.await(id, ttl+time.Second)
		if other == id {
			t.Errorf("%s leads on", id)
		}
		if after := time.Since(killed); after < ttl/2 || after > ttl+time.Second {
			t.Errorf("another led after %s", after)
		}
		conns[id].Heal()
		time.Sleep(time.Minute)
		if now, _ := s.await("", 0); now != other {
			t.Errorf("%s took over from %s when it came back", now, other)
		}
	})
}

func TestDeposedCommitIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, mem *inventorytest.Memory, s *stage) {
		ctx := t.Context()
		stop := s.candidate("a", mem.Connect(), 10*time.Second, nil)
		defer stop()
		_, l := s.await("", time.Minute)
		put := func(value string, guards ...inventory.Guard) error {
			_, err := l.term.Commit(ctx, inventory.Txn{Guards: guards, Ops: []inventory.Op{{Key: "/x", Value: []byte(value)}}})
			return err
		}
		if err := put("1", inventory.Guard{Key: "/x"}); err != nil {
			t.Errorf("Commit = %v", err)
		}
		if err := put("2", inventory.Guard{Key: "/x"}); !errors.Is(err, inventory.ErrConflict) || errors.Is(err, election.ErrDeposed) {
			t.Errorf("Commit with a guard that fails = %v, want ErrConflict", err)
		}
		if l.ctx.Err() != nil {
			t.Error("an ordinary conflict ended the term")
		}
		// Someone deletes the leader key by hand.
		if _, err := mem.Commit(ctx, inventory.Txn{Ops: []inventory.Op{{Key: keys.Leader(), Delete: true}}}); err != nil {
			t.Fatal(err)
		}
		if err := put("3"); !errors.Is(err, election.ErrDeposed) || errors.Is(err, inventory.ErrConflict) {
			t.Errorf("Commit after the term = %v, want ErrDeposed", err)
		}
		<-l.ctx.Done()
		if !errors.Is(context.Cause(l.ctx), election.ErrDeposed) {
			t.Errorf("the term ended for %v", context.Cause(l.ctx))
		}
		if kv, _ := inventory.Get(ctx, mem, "/x"); string(kv.Value) != "1" {
			t.Errorf("x is %q", kv.Value)
		}
		// The next term is another, and the first one stays refused.
		for {
			if _, next := s.await("", time.Minute); next.term.Created != l.term.Created {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if err := put("4"); !errors.Is(err, election.ErrDeposed) {
			t.Errorf("Commit of an older term = %v, want ErrDeposed", err)
		}
	})
}

func TestADeletedKeyEndsTheTerm(t *testing.T) {
	inBubble(t, func(t *testing.T, mem *inventorytest.Memory, s *stage) {
		conn := mem.Connect()
		stop := s.candidate("a", conn, 10*time.Second, nil)
		defer stop()
		for _, disturb := range []func(){
			func() {},
			conn.BreakWatches,
			func() { // the guard has to list
				put, err := mem.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: "/y"}}})
				if err != nil {
					t.Fatal(err)
				}
				conn.BreakWatches()
				mem.Compact(put)
			},
		} {
			_, l := s.await("", time.Minute)
			time.Sleep(time.Second)
			before := time.Now()
			disturb()
			if _, err := mem.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: keys.Leader(), Value: []byte("other"), Delete: true}}}); err != nil {
				t.Fatal(err)
			}
			<-l.ctx.Done()
			if took := time.Since(before); took > time.Second {
				t.Errorf("the term ended %s after its key was deleted", took)
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestAnAmbiguousCreate(t *testing.T) {
	for _, how := range []inventorytest.Fault{inventorytest.Before, inventorytest.After} {
		inBubble(t, func(t *testing.T, mem *inventorytest.Memory, s *stage) {
			a, b := mem.Connect(), mem.Connect()
			a.FailCommits(1, how)
			defer s.candidate("a", a, 10*time.Second, nil)()
			id, _ := s.await("", 5*time.Second)
			if id != "a" {
				t.Errorf("%s leads", id)
			}
			defer s.candidate("b", b, 10*time.Second, nil)()
			time.Sleep(time.Hour)
			if id, _ := s.await("", 0); id != "a" || len(s.terms) != 1 {
				t.Errorf("%s leads after %d terms", id, len(s.terms))
			}
		})
	}
}

func TestALeadThatFailsGivesOthersTheirTurn(t *testing.T) {
	inBubble(t, func(t *testing.T, mem *inventorytest.Memory, s *stage) {
		var tries atomic.Int32
		defer s.candidate("a", mem.Connect(), 10*time.Second, func(context.Context, election.Term) error {
			tries.Add(1)
			return errors.New("no token")
		})()
		time.Sleep(time.Minute)
		if n := tries.Load(); n < 5 || n > 40 {
			t.Errorf("it led %d times in a minute alone", n)
		}
		defer s.candidate("b", mem.Connect(), 10*time.Second, nil)()
		if id, _ := s.await("a", time.Minute); id != "b" {
			t.Errorf("%s leads", id)
		}
		before := tries.Load()
		time.Sleep(time.Hour)
		if n := tries.Load() - before; n > 1 {
			t.Errorf("a led %d times while b leads", n)
		}
	})
}

func TestRunWaitsForLead(t *testing.T) {
	inBubble(t, func(t *testing.T, mem *inventorytest.Memory, s *stage) {
		stop := s.candidate("a", mem.Connect(), 10*time.Second, func(ctx context.Context, term election.Term) error {
			<-ctx.Done()
			time.Sleep(time.Second) // it puts its things away
			_, err := term.Commit(context.WithoutCancel(ctx), inventory.Txn{Ops: []inventory.Op{{Key: "/last"}}})
			return err
		})
		s.await("", time.Minute)
		defer s.candidate("b", mem.Connect(), 10*time.Second, nil)()
		time.Sleep(time.Minute)
		stop()
		if kv, err := inventory.Get(t.Context(), mem, "/last"); err != nil || kv.Mod == 0 {
			t.Errorf("the last commit of the term was refused: %v", err)
		}
		s.await("a", time.Second)
	})
}

// Whatever befalls the connections, no two terms live at one time, and when all
// is well again someone leads.
func TestNoTwoTermsLive(t *testing.T) {
	for range 100 {
		seed := rand.Uint64()
		inBubble(t, func(t *testing.T, mem *inventorytest.Memory, s *stage) {
			chance := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			latency := func() time.Duration {
				mu.Lock()
				defer mu.Unlock()
				if chance.IntN(20) == 0 {
					return time.Duration(chance.Int64N(int64(4 * time.Second)))
				}
				return time.Duration(chance.Int64N(int64(20 * time.Millisecond)))
			}
			draw := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return chance.IntN(n)
			}
			var conns []*inventorytest.Memory
			var stops []func()
			start := func(i int) func() {
				return s.candidate(fmt.Sprint("node-", i), conns[i], 5*time.Second, func(ctx context.Context, term election.Term) error {
					for n := 0; ctx.Err() == nil; n++ {
						// What a leader does: a write under its fence, now and then.
						_, err := term.Commit(ctx, inventory.Txn{Ops: []inventory.Op{{Key: "/work", Value: fmt.Append(nil, term.Created, n)}}})
						if errors.Is(err, election.ErrDeposed) {
							return err
						}
						select {
						case <-time.After(time.Duration(draw(1000)) * time.Millisecond):
						case <-ctx.Done():
						}
					}
					return nil
				})
			}
			for i := range 3 {
				conns = append(conns, mem.Connect())
				conns[i].SetLatency(latency)
				stops = append(stops, start(i))
			}
			ctx, cancel := context.WithCancel(t.Context())
			watched := make(chan struct{})
			go func() { // no write of an older term comes after one of a later term
				defer close(watched)
				var newest, length int
				_ = mem.Watch(ctx, "/work", 1, func(b inventory.Batch) error {
					for _, c := range b.Changes {
						var created, n int
						fmt.Sscan(string(c.Value), &created, &n)
						if created < newest {
							t.Errorf("a write of term %d after one of term %d", created, newest)
						}
						newest = created
						length++
					}
					return nil
				})
				_ = length
			}()
			for range 60 {
				i := draw(3)
				switch draw(7) {
				case 0, 1:
					conns[i].Partition()
				case 2, 3:
					conns[i].Heal()
				case 4:
					conns[i].BreakWatches()
				case 5:
					conns[i].FailCommits(1+draw(2), inventorytest.Fault(draw(2)))
				case 6:
					stops[i]()
					stops[i] = start(i)
				}
				time.Sleep(time.Duration(draw(6000)) * time.Millisecond)
			}
			for _, c := range conns {
				c.Heal()
				c.SetLatency(func() time.Duration { return 0 })
			}
			s.await("", time.Minute)
			for _, stop := range stops {
				stop()
			}
			cancel()
			<-watched
			if t.Failed() {
				t.Logf("the seed was %d", seed)
			}
		})
	}
}

func TestOnEtcd(t *testing.T) {
	cluster := inventorytest.StartEtcd(t, 1)
	s := newStage(t)
	stops := map[string]func(){}
	for _, id := range []string{"a", "b", "c"} {
		store, err := etcd.Dial(etcd.Config{Endpoints: cluster.Endpoints})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		stops[id] = s.candidate(id, store, 5*time.Second, nil)
	}
	store, err := etcd.Dial(etcd.Config{Endpoints: cluster.Endpoints})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()

	id := ""
	for range 2 { // planned handovers
		var l leadership
		id, l = s.await(id, time.Minute)
		if _, err := l.term.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: "/x"}}}); err != nil {
			t.Error(err)
		}
		time.Sleep(300 * time.Millisecond) // the others' watches stand; only the figure depends on it
		before := time.Now()
		stops[id]()
		delete(stops, id)
		s.await(id, time.Minute)
		t.Logf("handover from %s in %s", id, time.Since(before))
		if took := time.Since(before); took > 4*time.Second {
			t.Errorf("a planned handover took %s, a lease's life", took)
		}
		if _, err := l.term.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: "/x"}}}); !errors.Is(err, election.ErrDeposed) {
			t.Errorf("Commit after the term = %v", err)
		}
	}

	// etcd dies: the term ends. It comes back: someone leads.
	_, l := s.await("", time.Minute)
	cluster.Members[0].Kill()
	select {
	case <-l.ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("the term goes on without etcd")
	}
	cluster.Members[0].Start(t)
	cluster.Members[0].WaitHealthy(t)
	back := time.Now()
	s.await("", time.Minute)
	t.Logf("led again %s after etcd came back", time.Since(back))
	for _, stop := range stops {
		stop()
	}
	s.wg.Wait()
}
