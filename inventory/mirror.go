package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// ErrWiped: the store does not hold the cluster that it held before: its meta
// record is gone or has another uid. A mirror keeps what it has, and waits for
// the cluster to come back.
var ErrWiped = errors.New("the store no longer holds this cluster: was it wiped, or is it another one?")

// ErrSchema: a newer doproxy wrote the records in a form that this one does not
// know. A mirror keeps what it has.
var ErrSchema = errors.New("the inventory is of a newer doproxy")

// Untrusted says that a mirror's error is about what the store holds, not about
// reaching it.
func Untrusted(err error) bool {
	return errors.Is(err, ErrWiped) || errors.Is(err, ErrSchema) || errors.Is(err, ErrMoved)
}

// ErrMoved: the inventory is in another store, or on its way, and what is here is
// not to be acted upon.
var ErrMoved = errors.New("the inventory is not in this store")

// movedError is an ErrMoved with words of its own.
type movedError struct{ text string }

func (e movedError) Error() string        { return e.text }
func (e movedError) Is(target error) bool { return target == ErrMoved }

var errArriving error = movedError{"the inventory is being moved into this store, and is not whole here yet: " +
	"leave `store` in doproxy.yml as it was until `doproxy store migrate`, given again, says that it is done"}

// foreign says why the records of a draft are not this cluster's to act upon, as
// far as the meta record tells.
func (d *draft) foreign(before *Meta) error {
	if d.arriving && (d.Meta == nil || d.Meta.Moved != nil) {
		return errArriving
	}
	return Foreign(before, d.Meta)
}

// Foreign says why records beside the meta record now are not to be acted upon by
// who knows the cluster by the one before. Either may be nil.
func Foreign(before, now *Meta) error {
	switch {
	case before != nil && (now == nil || now.UID != before.UID):
		return ErrWiped
	case now != nil && now.Moved != nil:
		return now.moved()
	case now != nil && now.Schema > Schema:
		return fmt.Errorf("%w: it has schema %d and this one knows %d: install a newer doproxy on this node", ErrSchema, now.Schema, Schema)
	}
	return nil
}

var (
	errNotRead = errors.New("the inventory was not read from the store yet")
	errRelist  = errors.New("the records must be listed again")
)

// Mirror is a node's own copy of the cluster's records, kept in step by a watch.
// Its methods are safe for concurrent use.
type Mirror struct {
	store  Store
	keys   Keys
	logger *slog.Logger

	state atomic.Pointer[State]

	mu          sync.Mutex
	subscribers map[chan struct{}]struct{}

	newCluster atomic.Bool
	kicked     chan struct{} // has room for one

	// Run's own.
	relist  bool
	fresh   bool     // listed, and no batch came since
	read    Revision // as of which the records were read last, whether taken or not
	backoff Backoff
}

// NewMirror returns a mirror that knows nothing until Run has listed the store.
func NewMirror(store Store, keys Keys, logger *slog.Logger) *Mirror {
	m := &Mirror{
		store:       store,
		keys:        keys,
		logger:      logger,
		subscribers: map[chan struct{}]struct{}{},
		kicked:      make(chan struct{}, 1),
		relist:      true,
		backoff:     Backoff{Min: 50 * time.Millisecond, Max: 5 * time.Second},
	}
	s := emptyState()
	s.Err, s.Since = errNotRead, time.Now()
	m.state.Store(s)
	return m
}

// Preset gives the mirror what LoadState read, to show until the store can be
// listed, and to know the cluster by. Call it before Run.
func (m *Mirror) Preset(s *State) {
	preset := *s
	preset.Listed, preset.Err, preset.Since = false, errNotRead, time.Now()
	m.publish(&preset)
}

// Expect has the mirror take whatever cluster the store holds, though it knew
// another: for a node that an operator had join that store. It looks at once.
func (m *Mirror) Expect() {
	m.newCluster.Store(true)
	select {
	case m.kicked <- struct{}{}:
	default:
	}
}

// State is what the mirror knows now. It is never nil.
func (m *Mirror) State() *State { return m.state.Load() }

// Subscribe returns a channel that gets a value when the state has changed since
// the last value was taken; it starts with one. Take the value first, then read
// State. The channel is never closed; cancel ends the subscription.
func (m *Mirror) Subscribe() (wake <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	c <- struct{}{}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subscribers[c] = struct{}{}
	return c, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.subscribers, c)
	}
}

// WaitRevision waits until the state has come to a revision that Commit
// returned, and returns that state. Its only error is ctx's.
func (m *Mirror) WaitRevision(ctx context.Context, rev Revision) (*State, error) {
	wake, cancel := m.Subscribe()
	defer cancel()
	for {
		if s := m.State(); s.Listed && s.Revision >= rev {
			return s, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return m.State(), ctx.Err()
		}
	}
}

// Run keeps the mirror in step until ctx ends, and returns ctx's error. It
// survives whatever happens to the store: a lost stream is watched again from
// where it stopped; compaction, or a store that was restored from an older copy,
// makes it list again.
func (m *Mirror) Run(ctx context.Context) error {
	for {
		err := m.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, ErrCompacted) || Untrusted(err) || errors.Is(err, errRelist) {
			m.relist = true
		}
		// A new listing mends these at once; if it was just made, it did not.
		if !m.fresh && (errors.Is(err, ErrCompacted) || errors.Is(err, errRelist)) {
			continue
		}
		m.lost(err)
		if Untrusted(err) && m.awaitMeta(ctx) {
			continue
		}
		if err := m.rest(ctx); err != nil {
			return err
		}
	}
}

// rest waits before the next try, until Expect at most.
func (m *Mirror) rest(ctx context.Context) error {
	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = m.backoff.Wait(waitCtx)
	}()
	select {
	case <-over:
	case <-m.kicked:
		cancel()
		<-over
		m.backoff.Reset()
	}
	return ctx.Err()
}

// awaitMeta waits for the meta record to change, so that a node is back at once
// when an untrusted store was mended; not for long, since the next listing tells
// too. It is false if the store cannot be watched.
func (m *Mirror) awaitMeta(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, m.backoff.Max)
	defer cancel()
	err := m.store.Watch(ctx, m.keys.Meta(), m.read, func(b Batch) error {
		if len(b.Changes) > 0 {
			return errRelist
		}
		return nil
	})
	return errors.Is(err, errRelist) || ctx.Err() != nil
}

func (m *Mirror) follow(ctx context.Context) error {
	if m.newCluster.Load() {
		m.relist = true // a revision of the former store says nothing of this one
	}
	if m.relist {
		l, err := m.store.List(ctx, m.keys.Prefix())
		if err != nil {
			return err
		}
		m.read = l.Revision
		if err := m.takeListing(l); err != nil {
			return err
		}
		m.relist, m.fresh = false, true
	}
	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.kicked:
			cancel()
		case <-watchCtx.Done():
		}
	}()
	err := m.store.Watch(watchCtx, m.keys.Prefix(), m.State().Revision, m.takeBatch)
	if ctx.Err() == nil && m.newCluster.Load() {
		return errRelist
	}
	return err
}

func (m *Mirror) takeListing(l Listing) error {
	old := m.State()
	if m.newCluster.Load() && errors.Is(Foreign(old.Meta, metaOf(m.keys, l)), ErrWiped) {
		if metaOf(m.keys, l) == nil {
			return ErrWiped // it is to come
		}
		m.logger.Warn("the store that this node joined has another cluster than it knew: that counts from now on")
		old = emptyState()
	}
	m.newCluster.Store(false)
	restored := old.Restored
	if old.Listed && l.Revision < old.Revision {
		restored++
		m.logger.Warn("the store's revision ran backwards: it was restored from an older copy",
			"revision", l.Revision, "before", old.Revision)
	}
	d := newDraft(m.keys, emptyState())
	for i, kv := range l.KVs {
		if m.keys.isEvent(kv.Key) && i+maxEvents < len(l.KVs) && m.keys.isEvent(l.KVs[i+maxEvents].Key) {
			continue // not among the last: spare the decoding
		}
		d.put(kv)
	}
	d.keepGood(old)
	if d.Settings.Mod == 0 {
		d.Settings = old.Settings.remembered()
	}
	if err := d.foreign(old.Meta); err != nil {
		return err
	}
	d.Listed, d.Restored = true, restored
	d.Floor = old.Floor
	d.Inventory = l.Revision
	d.Since = old.Since
	d.Err = old.Err
	m.accept(d, l.Revision)
	return nil
}

func (m *Mirror) takeBatch(b Batch) error {
	m.backoff.Reset() // the stream stands
	m.fresh = false
	m.read = b.Revision
	old := m.State()
	d := newDraft(m.keys, old)
	for _, c := range b.Changes {
		if c.Deleted {
			d.remove(c.Key)
		} else {
			d.put(c.KV)
		}
	}
	if err := d.foreign(old.Meta); err != nil {
		return err
	}
	if len(b.Changes) == 0 && b.Revision == old.Revision && old.Err == nil {
		return nil
	}
	m.accept(d, b.Revision)
	if d.relist {
		return errRelist
	}
	return nil
}

// accept makes the draft the state, as read from the store just now.
func (m *Mirror) accept(d *draft, rev Revision) {
	s := d.done()
	s.Revision = rev
	if d.ownPools || d.ownDroplets {
		s.Inventory = rev
	}
	if d.ownPools {
		s.Floor = raised(s.Floor, s.Pools)
	}
	if s.Err != nil {
		m.logger.Info("in step with the store", "revision", rev, "after", time.Since(s.Since))
		s.Err, s.Since = nil, time.Now()
	}
	for key, reason := range d.reported {
		m.logger.Warn("a record was set aside", "key", key, "reason", reason)
	}
	m.publish(s)
}

// raised is floor, or a higher copy of it if a pool has come further.
func raised(floor map[string]int64, pools map[string]*Pool) map[string]int64 {
	cloned := false
	for _, p := range pools {
		if p.NextOrdinal > floor[p.HostnamePrefix] {
			own(&cloned, &floor)
			floor[p.HostnamePrefix] = p.NextOrdinal
		}
	}
	return floor
}

// lost notes why the mirror is out of touch.
func (m *Mirror) lost(err error) {
	old := m.State()
	s := *old
	s.Err = err
	if old.Err != nil && old.Err.Error() == err.Error() {
		return
	}
	m.logger.Warn("out of touch with the store", "error", err)
	if old.Err == nil {
		s.Since = time.Now()
	}
	m.publish(&s)
}

func (m *Mirror) publish(s *State) {
	m.state.Store(s)
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.subscribers {
		select {
		case c <- struct{}{}:
		default: // it has a value that it did not take yet
		}
	}
}

// metaOf is the cluster's own record of a listing, if there is one that can be read.
func metaOf(keys Keys, l Listing) *Meta {
	for _, kv := range l.KVs {
		if kv.Key == keys.Meta() {
			if meta, err := DecodeMeta(kv); err == nil {
				return meta
			}
		}
	}
	return nil
}
