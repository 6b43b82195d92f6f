package raft

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/doproxy/doproxy/inventory"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// machine is what the log makes: the keys, the leases, and what was answered to
// whom. Every member makes the same of the same log; only history, compacted and
// the times of leases are a member's own. Entries are applied one at a time;
// readers come from anywhere.
type machine struct {
	mu       sync.RWMutex
	keys     *iradix.Tree[inventory.KV] // its values are never changed
	revision inventory.Revision
	index    uint64 // of the last entry applied
	term     uint64 // of the last entry applied
	leases   map[inventory.LeaseID]*lease
	sessions map[uint64]*session
	// contested: who led in a former term may not have noticed its end. Nobody has
	// bound a key to a term since, which is not done before it must have.
	contested bool

	// broken is why no entry can be applied any more.
	broken error

	// history is what the last transactions changed, for watches, oldest first;
	// compacted is the revision before the oldest.
	history   []inventory.Batch
	compacted inventory.Revision

	moved chan struct{} // closed, and replaced, when index grows
}

// lease is a promise that its keys vanish unless it is renewed. A lease with a
// term, and no TTL, ends with the first entry of a later term.
type lease struct {
	ttl     time.Duration
	renewed uint64    // index of the entry that granted or renewed it
	since   time.Time // when that was applied here: never before it was sent
	keys    map[string]struct{}
}

// TermLease is the lease of the keys that live as long as a term of leadership.
func TermLease(term uint64) inventory.LeaseID { return -inventory.LeaseID(term) }

// session is one client's: its requests are done once, however often they come.
type session struct {
	used    uint64 // index of its last entry: the one longest unused is dropped first
	floor   uint64 // requests below are answered for good
	answers map[uint64]*storev1.Answer
}

const (
	maxSessions = 1000
	maxHistory  = 10_000 // transactions
)

func newMachine() *machine {
	return &machine{
		keys: iradix.New[inventory.KV](), leases: map[inventory.LeaseID]*lease{}, sessions: map[uint64]*session{},
		moved: make(chan struct{}),
	}
}

var (
	errUnknownCommand = errors.New("the log has an entry of a kind that this doproxy does not know: install a newer doproxy on this node")
	errOtherLog       = errors.New("this member had what another log says: stop its agent, move the directory of its data away, start it and join anew")
)

// apply does one entry. The term is that under which it was put into the log.
func (m *machine) apply(index, term uint64, c *storev1.Command, now time.Time) *storev1.Answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index <= m.index && m.broken == nil {
		m.broken = fmt.Errorf("%w: entry %d came after %d", errOtherLog, index, m.index)
	}
	if m.broken != nil {
		return &storev1.Answer{}
	}
	m.index = index
	if term > m.term {
		m.endTerm(term)
	}
	a := m.once(c, now)
	if c.GetBegin() != nil {
		a.Contested, a.Term = m.contested, term
	}
	m.wake()
	return a
}

func (m *machine) wake() {
	close(m.moved)
	m.moved = make(chan struct{})
}

// endTerm deletes what lived as long as an earlier term. It comes before the
// first entry of the later one: an ended leader's entry finds its fence gone.
func (m *machine) endTerm(term uint64) {
	m.term = term
	for id, l := range m.leases {
		if id < 0 {
			m.contested = m.contested || len(l.keys) > 0
			m.end(id)
		}
	}
	m.leases[TermLease(term)] = &lease{keys: map[string]struct{}{}}
}

func (m *machine) once(c *storev1.Command, now time.Time) *storev1.Answer {
	if c.Session == 0 {
		return m.do(c, now)
	}
	s := m.sessions[c.Session]
	if s == nil {
		return failed(storev1.Failure_FAILURE_NO_SESSION)
	}
	s.used = m.index
	if c.Floor > s.floor {
		s.floor = c.Floor
		maps.DeleteFunc(s.answers, func(seq uint64, _ *storev1.Answer) bool { return seq < s.floor })
	}
	if c.Seq < s.floor {
		return failed(storev1.Failure_FAILURE_STALE)
	}
	if a, ok := s.answers[c.Seq]; ok {
		return a
	}
	a := m.do(c, now)
	s.answers[c.Seq] = a
	return a
}

func failed(why storev1.Failure) *storev1.Answer { return &storev1.Answer{Failure: why} }

func (m *machine) do(c *storev1.Command, now time.Time) *storev1.Answer {
	switch kind := c.Kind.(type) {
	case *storev1.Command_Begin:
	case *storev1.Command_Branch:
		m.revision += inventory.Revision(max(0, kind.Branch.Revisions))
		m.history, m.compacted = nil, m.revision
	case *storev1.Command_Open:
		m.open(cmp.Or(kind.Open.Id, m.index)) // no id: an old entry
	case *storev1.Command_Txn:
		return m.commit(kind.Txn)
	case *storev1.Command_Grant:
		id := inventory.LeaseID(cmp.Or(kind.Grant.Id, int64(m.index))) // no id: an old entry
		if id <= 0 || m.leases[id] != nil {
			return failed(storev1.Failure_FAILURE_LEASE_LOST)
		}
		m.leases[id] = &lease{
			ttl: time.Duration(kind.Grant.TtlMs) * time.Millisecond, renewed: m.index, since: now,
			keys: map[string]struct{}{},
		}
	case *storev1.Command_Renew:
		// Several holders' renewals come in one entry; each asks whether its lives.
		for _, id := range kind.Renew.Leases {
			if l := m.leases[inventory.LeaseID(id)]; l != nil {
				l.renewed, l.since = m.index, now
			}
		}
	case *storev1.Command_Revoke:
		id := inventory.LeaseID(kind.Revoke.Lease)
		if m.leases[id] == nil {
			return failed(storev1.Failure_FAILURE_LEASE_LOST)
		}
		m.end(id)
	case *storev1.Command_Expire:
		for _, due := range kind.Expire.Leases {
			id := inventory.LeaseID(due.Lease)
			if l := m.leases[id]; l != nil && l.renewed <= due.Renewed {
				m.end(id)
			}
		}
	default:
		m.broken = errUnknownCommand
	}
	return &storev1.Answer{Revision: int64(m.revision)}
}

func (m *machine) open(id uint64) {
	if m.sessions[id] != nil {
		return
	}
	if len(m.sessions) >= maxSessions {
		var oldest uint64
		for id, s := range m.sessions {
			if oldest == 0 || s.used < m.sessions[oldest].used {
				oldest = id
			}
		}
		delete(m.sessions, oldest)
	}
	m.sessions[id] = &session{used: m.index, answers: map[uint64]*storev1.Answer{}}
}

func (m *machine) commit(txn *storev1.Txn) *storev1.Answer {
	for _, g := range txn.Guards {
		kv, _ := m.keys.Get([]byte(g.Key))
		if g.Created != 0 && int64(kv.Created) != g.Created || g.Created == 0 && int64(kv.Mod) != g.Mod {
			return failed(storev1.Failure_FAILURE_CONFLICT)
		}
	}
	ops := make([]inventory.Op, len(txn.Ops))
	for i, op := range txn.Ops {
		ops[i] = inventory.Op{Key: op.Key, Value: op.Value, Lease: inventory.LeaseID(op.Lease), Delete: op.Delete}
		if op.Lease != 0 && !op.Delete && m.leases[ops[i].Lease] == nil {
			return failed(storev1.Failure_FAILURE_LEASE_LOST)
		}
	}
	m.change(ops)
	return &storev1.Answer{Revision: int64(m.revision)}
}

// end deletes a lease and its keys.
func (m *machine) end(id inventory.LeaseID) {
	l := m.leases[id]
	delete(m.leases, id)
	var ops []inventory.Op
	for _, key := range slices.Sorted(maps.Keys(l.keys)) {
		ops = append(ops, inventory.Op{Key: key, Delete: true})
	}
	m.change(ops)
}

// change does operations at the next revision, if they change anything.
func (m *machine) change(ops []inventory.Op) {
	next := m.revision + 1
	keys := m.keys.Txn()
	var changes []inventory.Change
	for _, op := range ops {
		key := []byte(op.Key)
		old, existed := keys.Get(key)
		if !existed && op.Delete {
			continue
		}
		if l := m.leases[old.Lease]; existed && l != nil {
			delete(l.keys, op.Key)
		}
		if op.Delete {
			keys.Delete(key)
			changes = append(changes, inventory.Change{KV: inventory.KV{Key: op.Key, Mod: next}, Deleted: true})
			continue
		}
		kv := inventory.KV{Key: op.Key, Value: op.Value, Created: old.Created, Mod: next, Lease: op.Lease}
		if !existed {
			kv.Created = next
		}
		if op.Lease != 0 {
			m.leases[op.Lease].keys[op.Key] = struct{}{}
			m.contested = m.contested && op.Lease > 0
		}
		keys.Insert(key, kv)
		changes = append(changes, inventory.Change{KV: kv})
	}
	if len(changes) == 0 {
		return
	}
	m.keys = keys.Commit()
	m.revision = next
	m.history = append(m.history, inventory.Batch{Revision: next, Changes: changes})
	if n := len(m.history) - maxHistory; n > maxHistory/4 { // in larger steps, so that it costs little
		m.compact(m.history[n-1].Revision)
	}
}

// compact forgets the history up to a revision.
func (m *machine) compact(rev inventory.Revision) {
	n, _ := slices.BinarySearchFunc(m.history, rev+1, byRevision)
	m.history = slices.Clone(m.history[n:])
	m.compacted = max(m.compacted, rev)
}

func byRevision(b inventory.Batch, rev inventory.Revision) int { return int(b.Revision - rev) }

var errFuture = fmt.Errorf("%w: the store has not come as far", inventory.ErrCompacted)

// lives says whether a lease is there.
func (m *machine) lives(id inventory.LeaseID) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.leases[id] != nil
}

// due are the leases whose time is over, none of them before grace.
func (m *machine) due(now, grace time.Time) []*storev1.Expire_Due {
	if now.Before(grace) {
		return nil
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var due []*storev1.Expire_Due
	for id, l := range m.leases {
		if l.ttl > 0 && now.Sub(l.since) > l.ttl {
			due = append(due, &storev1.Expire_Due{Lease: int64(id), Renewed: l.renewed})
		}
	}
	return due
}

// last is the index of the last entry that was applied.
func (m *machine) last() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.index
}

func (m *machine) at() inventory.Revision {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.revision
}
