// Package inventorytest has what tests of the inventory, and of those who use
// it, need: the suite that every store passes, a store in memory, and real etcd
// members to start and kill.
package inventorytest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// CallTimeout is how long a call on a partitioned connection takes to fail.
const CallTimeout = 3 * time.Second

// Memory is one connection to a store in memory. It implements inventory.Store
// and inventory.Leaser, takes its time from package time and starts no
// goroutine, so that it works in simulated time (testing/synctest). Faults are
// of the connection, data is shared.
type Memory struct {
	data *data

	// All below is guarded by data.mu.
	failing    int // commits to fail
	how        Fault
	partition  chan struct{} // closed when the partition heals; nil when there is none
	watchesEnd chan struct{} // closed to end the watches of this connection
	latency    func() time.Duration
}

// Fault says how a commit fails.
type Fault int

const (
	// Before: it fails and was not done.
	Before Fault = iota
	// After: it was done, and fails all the same.
	After
)

type data struct {
	mu        sync.Mutex
	rev       inventory.Revision
	compacted inventory.Revision
	keys      map[string]inventory.KV
	log       []inventory.Batch // in order; none at or before compacted
	leases    map[inventory.LeaseID]*lease
	nextLease inventory.LeaseID
	changed   chan struct{} // closed and replaced by every change
}

type lease struct {
	ttl   time.Duration
	ends  time.Time
	timer *time.Timer
}

var (
	_ inventory.Store  = (*Memory)(nil)
	_ inventory.Leaser = (*Memory)(nil)
)

// NewMemory returns a connection to a new, empty store.
func NewMemory() *Memory {
	// Like etcd's, the first revision is 1 before any change.
	d := &data{rev: 1, keys: map[string]inventory.KV{}, leases: map[inventory.LeaseID]*lease{}, changed: make(chan struct{})}
	return (&Memory{data: d}).Connect()
}

// Connect returns another connection to the same store, without faults.
func (m *Memory) Connect() *Memory {
	return &Memory{data: m.data, watchesEnd: make(chan struct{}), latency: func() time.Duration { return 0 }}
}

// FailCommits lets the next n commits fail with ErrUnavailable.
func (m *Memory) FailCommits(n int, how Fault) {
	m.data.mu.Lock()
	defer m.data.mu.Unlock()
	m.failing, m.how = n, how
}

// SetLatency lets every call take latency() on the way in, and once more on the
// way back. latency must be safe for concurrent use.
func (m *Memory) SetLatency(latency func() time.Duration) {
	m.data.mu.Lock()
	defer m.data.mu.Unlock()
	m.latency = latency
}

// Partition cuts the connection until Heal: every call fails with
// ErrUnavailable after CallTimeout, and so do the watches that stand.
func (m *Memory) Partition() {
	m.data.mu.Lock()
	defer m.data.mu.Unlock()
	if m.partition == nil {
		m.partition = make(chan struct{})
		m.data.wake() // watches look again
	}
}

// Heal ends a partition. Calls that hang meanwhile go through.
func (m *Memory) Heal() {
	m.data.mu.Lock()
	defer m.data.mu.Unlock()
	if m.partition != nil {
		close(m.partition)
		m.partition = nil
		m.data.wake() // watches look again
	}
}

// BreakWatches ends every watch of this connection with ErrUnavailable.
func (m *Memory) BreakWatches() {
	m.data.mu.Lock()
	defer m.data.mu.Unlock()
	close(m.watchesEnd)
	m.watchesEnd = make(chan struct{})
}

// Compact forgets all that happened up to and including rev, but not the keys.
func (m *Memory) Compact(rev inventory.Revision) {
	d := m.data
	d.mu.Lock()
	defer d.mu.Unlock()
	d.compacted = max(d.compacted, min(rev, d.rev))
	d.log = slices.DeleteFunc(slices.Clone(d.log), func(b inventory.Batch) bool { return b.Revision <= d.compacted })
}

// Snapshot copies the store for Restore.
func (m *Memory) Snapshot() *Snapshot {
	d := m.data
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Snapshot{rev: d.rev, keys: maps.Clone(d.keys)}
}

// Snapshot is a store as it was.
type Snapshot struct {
	rev  inventory.Revision
	keys map[string]inventory.KV
}

// Restore puts the store back to a snapshot: its revision runs backwards, its
// leases and its past are gone, and every watch ends.
func (m *Memory) Restore(s *Snapshot) {
	d := m.data
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.leases {
		l.timer.Stop()
	}
	clear(d.leases)
	d.rev, d.compacted, d.log = s.rev, s.rev, nil
	d.keys = maps.Clone(s.keys)
	d.wake()
}

// enter waits for the call's way in. With a nil error the caller holds data.mu.
func (m *Memory) enter(ctx context.Context) error {
	m.data.mu.Lock()
	pause := m.latency()
	m.data.mu.Unlock()
	if err := sleep(ctx, pause); err != nil {
		return err
	}
	return m.cross(ctx)
}

// cross locks data.mu, unless the connection is cut for too long.
func (m *Memory) cross(ctx context.Context) error {
	m.data.mu.Lock()
	healed := m.partition
	if healed == nil {
		return nil
	}
	m.data.mu.Unlock()
	timeout := time.NewTimer(CallTimeout)
	defer timeout.Stop()
	select {
	case <-healed:
		return m.cross(ctx)
	case <-timeout.C:
		return fmt.Errorf("partitioned: %w", inventory.ErrUnavailable)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave unlocks and waits for the answer's way back. What was done is done, even
// if the connection was cut meanwhile.
func (m *Memory) leave(ctx context.Context) error {
	pause := m.latency()
	m.data.mu.Unlock()
	if pause == 0 {
		return nil
	}
	if err := sleep(ctx, pause); err != nil {
		return err
	}
	if err := m.cross(ctx); err != nil {
		return err
	}
	m.data.mu.Unlock()
	return nil
}

func sleep(ctx context.Context, pause time.Duration) error {
	if err := ctx.Err(); err != nil || pause == 0 {
		return err
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// List implements inventory.Store.
func (m *Memory) List(ctx context.Context, prefix string) (inventory.Listing, error) {
	if err := m.enter(ctx); err != nil {
		return inventory.Listing{}, err
	}
	l := inventory.Listing{Revision: m.data.rev}
	for key, kv := range m.data.keys {
		if strings.HasPrefix(key, prefix) {
			kv.Value = slices.Clone(kv.Value)
			l.KVs = append(l.KVs, kv)
		}
	}
	slices.SortFunc(l.KVs, func(a, b inventory.KV) int { return strings.Compare(a.Key, b.Key) })
	if err := m.leave(ctx); err != nil {
		return inventory.Listing{}, err
	}
	return l, nil
}

// Commit implements inventory.Store.
func (m *Memory) Commit(ctx context.Context, txn inventory.Txn) (inventory.Revision, error) {
	if err := m.enter(ctx); err != nil {
		return 0, err
	}
	fail := m.failing > 0
	if fail {
		m.failing--
	}
	var rev inventory.Revision
	var err error
	if !fail || m.how == After {
		rev, err = m.data.commit(txn)
	}
	if fail {
		rev, err = 0, fmt.Errorf("a fault was asked for: %w", inventory.ErrUnavailable)
	}
	if lost := m.leave(ctx); lost != nil {
		return 0, lost
	}
	return rev, err
}

func (d *data) commit(txn inventory.Txn) (inventory.Revision, error) {
	if len(txn.Ops) > inventory.MaxOps || len(txn.Guards) > inventory.MaxOps {
		return 0, fmt.Errorf("a transaction of %d operations and %d guards: at most %d of each", len(txn.Ops), len(txn.Guards), inventory.MaxOps)
	}
	for _, g := range txn.Guards {
		kv := d.keys[g.Key]
		if g.Created != 0 && kv.Created != g.Created || g.Created == 0 && kv.Mod != g.Mod {
			return 0, fmt.Errorf("%s: %w", g.Key, inventory.ErrConflict)
		}
	}
	named := map[string]bool{}
	for _, op := range txn.Ops {
		if op.Key == "" || named[op.Key] {
			return 0, fmt.Errorf("key %q is empty or named twice", op.Key)
		}
		named[op.Key] = true
		if op.Lease != 0 && !op.Delete && d.leases[op.Lease] == nil {
			return 0, fmt.Errorf("%s: %w", op.Key, inventory.ErrLeaseLost)
		}
	}
	var changes []inventory.Change
	for _, op := range txn.Ops {
		old, exists := d.keys[op.Key]
		if op.Delete && !exists {
			continue
		}
		kv := inventory.KV{Key: op.Key, Mod: d.rev + 1}
		if op.Delete {
			delete(d.keys, op.Key)
		} else {
			kv.Value, kv.Lease, kv.Created = slices.Clone(op.Value), op.Lease, kv.Mod
			if exists {
				kv.Created = old.Created
			}
			d.keys[op.Key] = kv
		}
		changes = append(changes, inventory.Change{KV: kv, Deleted: op.Delete})
	}
	if len(changes) > 0 {
		d.rev++
		d.log = append(d.log, inventory.Batch{Revision: d.rev, Changes: changes})
		d.wake()
	}
	return d.rev, nil
}

func (d *data) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// Watch implements inventory.Store.
func (m *Memory) Watch(ctx context.Context, prefix string, after inventory.Revision, each func(inventory.Batch) error) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	d := m.data
	end := m.watchesEnd
	for at, first := after, true; ; first = false {
		// Here data.mu is held.
		switch {
		case at < d.compacted || at > d.rev:
			d.mu.Unlock()
			return fmt.Errorf("watching after %d: %w", at, inventory.ErrCompacted)
		case m.partition != nil:
			d.mu.Unlock()
			if err := m.cross(ctx); err != nil {
				return err
			}
			continue
		}
		start, _ := slices.BinarySearchFunc(d.log, at, func(b inventory.Batch, at inventory.Revision) int {
			if b.Revision <= at {
				return -1
			}
			return 1
		})
		news, changed, rev := d.log[start:], d.changed, d.rev
		d.mu.Unlock()

		var err error
		delivered := false
		for _, b := range news {
			if b, ok := below(b, prefix); ok && err == nil {
				err = each(b)
				delivered = true
			}
		}
		if err == nil && (first && !delivered) {
			err = each(inventory.Batch{Revision: rev})
		}
		if err != nil {
			return err
		}
		at = rev

		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return fmt.Errorf("the watch was broken: %w", inventory.ErrUnavailable)
		case <-changed:
		}
		d.mu.Lock()
	}
}

// below is the part of a batch that has to do with prefix. Values are the
// receiver's own.
func below(b inventory.Batch, prefix string) (inventory.Batch, bool) {
	var changes []inventory.Change
	for _, c := range b.Changes {
		if strings.HasPrefix(c.Key, prefix) {
			c.Value = slices.Clone(c.Value)
			changes = append(changes, c)
		}
	}
	b.Changes = changes
	return b, len(changes) > 0
}

// Grant implements inventory.Leaser.
func (m *Memory) Grant(ctx context.Context, ttl time.Duration) (inventory.LeaseID, error) {
	if ttl <= 0 {
		return 0, errors.New("a lease must live")
	}
	if err := m.enter(ctx); err != nil {
		return 0, err
	}
	d := m.data
	d.nextLease++
	id := d.nextLease
	l := &lease{ttl: (ttl + time.Second - 1).Truncate(time.Second)}
	l.ends = time.Now().Add(l.ttl)
	l.timer = time.AfterFunc(l.ttl, func() { d.expire(id, l) })
	d.leases[id] = l
	if err := m.leave(ctx); err != nil {
		return 0, err
	}
	return id, nil
}

// Renew implements inventory.Leaser.
func (m *Memory) Renew(ctx context.Context, id inventory.LeaseID) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	l := m.data.leases[id]
	if l != nil {
		l.ends = time.Now().Add(l.ttl)
		l.timer.Reset(l.ttl)
	}
	if err := m.leave(ctx); err != nil {
		return err
	}
	if l == nil {
		return fmt.Errorf("renewing: %w", inventory.ErrLeaseLost)
	}
	return nil
}

// Revoke implements inventory.Leaser.
func (m *Memory) Revoke(ctx context.Context, id inventory.LeaseID) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	l := m.data.leases[id]
	if l != nil {
		m.data.end(id, l)
	}
	if err := m.leave(ctx); err != nil {
		return err
	}
	if l == nil {
		return fmt.Errorf("revoking: %w", inventory.ErrLeaseLost)
	}
	return nil
}

// expire ends a lease unless it was renewed or revoked while its timer fired.
func (d *data) expire(id inventory.LeaseID, l *lease) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leases[id] == l && !time.Now().Before(l.ends) {
		d.end(id, l)
	}
}

func (d *data) end(id inventory.LeaseID, l *lease) {
	l.timer.Stop()
	delete(d.leases, id)
	var gone []string
	for key, kv := range d.keys {
		if kv.Lease == id {
			gone = append(gone, key)
		}
	}
	if len(gone) == 0 {
		return
	}
	slices.Sort(gone)
	d.rev++
	b := inventory.Batch{Revision: d.rev}
	for _, key := range gone {
		delete(d.keys, key)
		b.Changes = append(b.Changes, inventory.Change{KV: inventory.KV{Key: key, Mod: d.rev}, Deleted: true})
	}
	d.log = append(d.log, b)
	d.wake()
}
