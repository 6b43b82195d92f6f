package raft

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/doproxy/doproxy/inventory"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// leading is a member's time as leader: one term, once its first entry is applied.
type leading struct {
	*member
	term      uint64
	contested bool
	ctx       context.Context
	renewals  chan renewal
	announce  announcer

	admitting sync.Mutex // one at a time
	seen      sync.Map   // by server id
	health    sync.Map   // by server id

	mu     sync.Mutex
	acting context.Context // nil before the first proof that nobody else can lead
	began  time.Time
}

// leadWhenElected leads each time that the member is elected.
func (m *member) leadWhenElected() {
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case <-m.ctx.Done():
			return
		case leads := <-m.raft.LeaderCh():
			stop() // a loss that came between two others was not told
			stop = func() {}
			if leads {
				stop = m.leadBeside()
			}
		}
	}
}

// leadBeside leads until stop, which waits for the end of it.
func (m *member) leadBeside() (stop func()) {
	ctx, cancel := context.WithCancel(m.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.lead(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (m *member) lead(ctx context.Context) {
	began := time.Now()
	a, err := m.beginTerm(ctx)
	if err != nil {
		return // it was another's term before it began
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &leading{member: m, term: a.Term, contested: a.Contested, ctx: ctx, renewals: make(chan renewal), began: began}
	m.logger.Info("this member leads the store", "term", l.term)
	var work sync.WaitGroup
	for _, do := range []func(){l.prove, l.expire, l.renewAll, l.announceAll, l.administer} {
		work.Go(do)
	}
	m.leading.Store(l)
	m.notify()
	<-ctx.Done()
	m.leading.Store(nil)
	m.notify()
	work.Wait()
	m.logger.Info("this member no longer leads the store", "term", l.term)
}

// beginTerm enters the first entry of this member's term. Only the end of ctx, with
// the term, keeps it from that: what the library was busy with passes.
func (m *member) beginTerm(ctx context.Context) (*storev1.Answer, error) {
	for {
		a, _, err := m.enter(ctx, &storev1.Command{Kind: &storev1.Command_Begin{Begin: &storev1.Begin{}}})
		if err == nil {
			return a, nil
		}
		pause := 10 * time.Millisecond
		if _, _, broken := m.machine.reached(0); broken != nil {
			// It cannot lead: another may.
			_ = settled(ctx, m.raft.LeadershipTransfer())
			pause = time.Second
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// enter puts a command into the log and waits until it is applied. sent says
// whether it may come true although there was an error.
func (m *member) enter(ctx context.Context, c *storev1.Command) (a *storev1.Answer, sent bool, err error) {
	data, err := proto.Marshal(c)
	if err != nil {
		return nil, false, err
	}
	future := m.raft.Apply(data, time.Second)
	err = settled(ctx, future)
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil, true, err
	case err == nil:
		a, ok := future.Response().(*storev1.Answer)
		if _, _, broken := m.machine.reached(0); broken != nil || !ok {
			return nil, true, fmt.Errorf("%w: %w", inventory.ErrUnavailable, broken)
		}
		return a, true, nil
	case errors.Is(err, hraft.ErrNotLeader), errors.Is(err, hraft.ErrLeadershipTransferInProgress), errors.Is(err, hraft.ErrEnqueueTimeout):
		return nil, false, fmt.Errorf("%w: %w", inventory.ErrUnavailable, err)
	}
	return nil, true, fmt.Errorf("%w: %w", inventory.ErrUnavailable, err)
}

// settled waits for what came of a request to the library, which answers none
// that it still had before it when it was shut down (raft 1.8.0, Raft.Shutdown).
func settled(ctx context.Context, future hraft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// propose is enter where this member leads.
func (m *member) propose(ctx context.Context, c *storev1.Command) (*storev1.Answer, bool, error) {
	if m.leading.Load() == nil {
		return nil, false, errNoLeader
	}
	if unknown(c.ProtoReflect()) || c.GetKind() == nil {
		return nil, false, inventory.Refuse("the member that leads does not know such a change: it has an older doproxy")
	}
	return m.enter(ctx, c)
}

// unknown says whether a message has fields that this program does not know.
func unknown(m protoreflect.Message) bool {
	found := len(m.GetUnknown()) > 0
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case found || fd.Message() == nil || fd.IsMap():
		case fd.IsList():
			for i := range v.List().Len() {
				found = found || unknown(v.List().Get(i).Message())
			}
		default:
			found = unknown(v.Message())
		}
		return !found
	})
	return found
}

// applied is called after each entry that was applied here.
func (m *member) applied(index, term uint64) {
	if l := m.leading.Load(); l != nil && l.term == term {
		l.announce.tell(index)
	}
}

// expireEvery is how soon after its time a lease is ended.
const expireEvery = 50 * time.Millisecond

// expire ends leases whose time is over. That counts from when a renewal was
// applied here, as member or leader; but their holders could renew none while
// there was no leader, so all get some time at first.
func (l *leading) expire() {
	grace := time.Now().Add(heartbeatTimeout + electionTimeout)
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		if due := l.machine.due(time.Now(), grace); len(due) > 0 {
			c := &storev1.Command{Kind: &storev1.Command_Expire{Expire: &storev1.Expire{Leases: due}}}
			_, _, _ = l.enter(l.ctx, c) // the next look tries again
		}
	}
}

// renewal is one holder's.
type renewal struct {
	lease inventory.LeaseID
	done  chan error // has room for one
}

// renewEvery is the time over which renewals are gathered into one entry.
const renewEvery = 25 * time.Millisecond

func (l *leading) renew(ctx context.Context, id inventory.LeaseID) (lost bool, err error) {
	r := renewal{lease: id, done: make(chan error, 1)}
	select {
	case l.renewals <- r:
	case <-ctx.Done():
		return false, ctx.Err()
	case <-l.ctx.Done():
		return false, errNoLeader
	}
	select {
	case err = <-r.done:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return err == nil && !l.machine.lives(id), err
}

func (l *leading) renewAll() {
	for {
		var batch []renewal
		select {
		case <-l.ctx.Done():
			return
		case r := <-l.renewals:
			batch = append(batch, r)
		}
		for full := time.After(renewEvery); full != nil; {
			select {
			case r := <-l.renewals:
				batch = append(batch, r)
			case <-full:
				full = nil
			}
		}
		renew := &storev1.Renew{}
		for _, r := range batch {
			renew.Leases = append(renew.Leases, int64(r.lease))
		}
		_, _, err := l.enter(l.ctx, &storev1.Command{Kind: &storev1.Command_Renew{Renew: renew}})
		if l.ctx.Err() != nil {
			err = errNoLeader
		}
		for _, r := range batch {
			r.done <- err
		}
	}
}

// actFor is how long after a question that a quorum answered this member may act
// on what is no entry of the log, such as a call to the cloud. Whoever answered
// votes for nobody else for heartbeatTimeout; a fifth is for clocks that run apart.
const actFor = heartbeatTimeout * 4 / 5

var errUnproved = errors.New("no quorum confirmed the leadership in time")

// prove asks a quorum time and again whether this member leads, and lets it act
// for as long as that holds.
func (l *leading) prove() {
	var end context.CancelCauseFunc = func(error) {}
	var over *time.Timer
	defer func() { end(context.Canceled) }()
	for {
		sent := time.Now()
		_, err := l.verifiedIndex(l.ctx)
		switch {
		case l.ctx.Err() != nil:
			return
		case err == nil && time.Since(sent) < actFor:
			l.mu.Lock()
			if l.acting == nil || l.acting.Err() != nil || !over.Reset(time.Until(sent.Add(actFor))) {
				if over != nil {
					over.Stop()
				}
				end(errUnproved)
				l.acting, end = context.WithCancelCause(l.ctx)
				end := end
				over = time.AfterFunc(time.Until(sent.Add(actFor)), func() { end(errUnproved) })
				l.mu.Unlock()
				l.notify()
			} else {
				l.mu.Unlock()
			}
		}
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(heartbeatTimeout / 5):
		}
	}
}

// Leadership is this node's to act upon until Context ends, which is before
// another can have one.
type Leadership struct {
	Context context.Context
	// Lease ends with the term: a key bound to it is gone before anything of a
	// later term is done.
	Lease inventory.LeaseID
	// After is when to begin: whoever led before may not have noticed until then.
	After time.Time
}

// Lead waits until this node leads the store.
func (n *Node) Lead(ctx context.Context) (*Leadership, error) {
	for {
		changed := n.changes()
		if m := n.member.Load(); m != nil {
			if l := m.leading.Load(); l != nil {
				l.mu.Lock()
				acting := l.acting
				l.mu.Unlock()
				if acting != nil && acting.Err() == nil {
					lead := &Leadership{Context: acting, Lease: TermLease(l.term), After: l.began}
					if l.contested {
						lead.After = l.began.Add(heartbeatTimeout)
					}
					return lead, nil
				}
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-n.open.Done():
			return nil, errClosed
		}
	}
}

// lastTerm is of the last entry, as raft.Stats tells it: the library offers it in
// no other way. After a snapshot from the leader its log is still the former one.
func lastTerm(stats map[string]string) uint64 {
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(stats[name], 10, 64)
		return n
	}
	if number("last_snapshot_index") > number("last_log_index") {
		return number("last_snapshot_term")
	}
	return number("last_log_term")
}
