package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

const (
	// A change is decided anew this often when others get in between.
	maxTries = 40
	// requestLife is how long a request id counts once.
	requestLife = time.Hour
)

// wish is one request to change something.
type wish struct {
	requestID string // empty: none
	target    string // what is asked, for people and to compare with: "scale web desired=5"
	dry       bool   // validate_only
}

// decision is what a state makes of a wish. A transaction with guards and no
// operations is committed too: it proves that nothing needs doing.
type decision[A any] struct {
	txn    inventory.Txn
	answer A // JSON; what a repeated request gets
	event  *inventory.Event
	// replaces says that the transaction may replace records that cannot be read.
	replaces bool
}

// outcome is the answer, and the revision at which the wish was on record (zero
// if it was dry).
type outcome[A any] struct {
	answer   A
	revision inventory.Revision
}

// change puts a wish on record: decide makes a guarded transaction of the newest
// state, and is asked again on a newer one when others got in between. An error
// of decide counts only if the state was no older than the request.
func change[A any](ctx context.Context, s *Server, w wish, decide func(*inventory.State) (decision[A], error)) (outcome[A], error) {
	var none outcome[A]
	if w.requestID != "" && !requestIDPattern.MatchString(w.requestID) {
		return none, invalid("request_id", w.requestID, `must be 1 to 64 letters, digits, "-", "_" and "."; a UUID serves`)
	}
	remember := w.requestID != "" && !w.dry
	lease := leased{s: s, life: requestLife}
	defer lease.drop()
	for try := range maxTries {
		st := s.mirror.State()
		fresh := try > 0 || st.Err != nil || !st.Listed
		if fresh {
			if try > 1 {
				if err := rest(ctx, time.Duration(rand.Int64N(int64(5*time.Millisecond)*int64(min(try, 10))))); err != nil {
					return none, err
				}
			}
			var err error
			if st, err = s.catchUp(ctx); err != nil {
				return none, err
			}
		}
		if remember {
			if first, found, err := recall[A](ctx, s, w); found || err != nil {
				return first, err
			}
		}
		d, err := decide(st)
		if err == nil && !d.replaces {
			err = readableAll(st, d.txn.Guards)
		}
		switch {
		case err != nil && fresh:
			return none, err
		case err != nil:
			continue
		case w.dry:
			return outcome[A]{answer: d.answer}, nil
		}
		// A store that the inventory left takes no wish, however late this node learns of that.
		if _, bad := st.Unreadable[s.keys.Meta()]; st.Meta != nil && !bad {
			d.txn.Guards = append(d.txn.Guards, inventory.Guard{Key: s.keys.Meta(), Mod: st.Meta.Mod})
		}
		if remember {
			if err := lease.grant(ctx); err != nil {
				return none, err
			}
			value, err := json.Marshal(request[A]{Target: w.target, Node: s.node, Time: time.Now().UTC(), Answer: d.answer})
			if err != nil {
				return none, fmt.Errorf("encoding the request's record: %w", err)
			}
			key := s.keys.Request(w.requestID)
			d.txn.Add(inventory.Guard{Key: key}, inventory.Op{Key: key, Value: value, Lease: lease.id})
		}
		rev, err := s.commit(ctx, d.txn)
		switch {
		case err == nil:
			lease.keep()
			if d.event != nil && len(d.txn.Ops) > 0 {
				d.event.Node = or(d.event.Node, s.node)
				s.journal.Record(*d.event)
			}
			s.seen(ctx, rev)
			return outcome[A]{d.answer, rev}, nil
		case errors.Is(err, inventory.ErrConflict):
		case errors.Is(err, inventory.ErrLeaseLost):
			lease.keep() // it is gone
		default:
			lease.keep() // the record that hangs on it may be there
			return none, uncommitted(err, w.requestID)
		}
	}
	return none, fmt.Errorf("%s: %w", w.target, inventory.ErrConflict)
}

// readableAll refuses a change to what was set aside: no guard on its last good
// version can hold.
func readableAll(st *inventory.State, guards []inventory.Guard) error {
	for _, g := range guards {
		if why, bad := st.Unreadable[g.Key]; bad {
			return unreadable(g.Key, why)
		}
	}
	return nil
}

// seen waits until this node's copy has a change that is on record, so that who
// asks next sees it. The change stands whether or not that takes too long.
func (s *Server) seen(ctx context.Context, rev inventory.Revision) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, _ = s.mirror.WaitRevision(ctx, rev)
}

// catchUp returns a state that is no older than this call.
func (s *Server) catchUp(ctx context.Context) (*inventory.State, error) {
	before := s.mirror.State()
	var meta inventory.KV
	var now inventory.Revision
	err := s.call(ctx, func(ctx context.Context) error {
		l, err := s.store.List(ctx, s.keys.Meta())
		if now = l.Revision; err == nil && len(l.KVs) > 0 && l.KVs[0].Key == s.keys.Meta() {
			meta = l.KVs[0]
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	waitCtx, cancel := context.WithTimeout(ctx, s.callTimeout)
	defer cancel()
	if inventory.Untrusted(before.Err) {
		if err := s.mended(waitCtx, before, meta); err != nil {
			return nil, err
		}
	}
	st, err := s.mirror.WaitRevision(waitCtx, now)
	if err != nil && ctx.Err() == nil {
		return nil, behind(err)
	}
	return st, err
}

// mended waits for the mirror to trust the store again if the meta record says
// that it may: the store was mended a moment ago.
func (s *Server) mended(ctx context.Context, before *inventory.State, kv inventory.KV) error {
	var meta *inventory.Meta
	if kv.Mod != 0 {
		meta, _ = inventory.DecodeMeta(kv)
	}
	if inventory.Foreign(before.Meta, meta) != nil {
		return untrusted(before.Err)
	}
	wake, cancel := s.mirror.Subscribe()
	defer cancel()
	for inventory.Untrusted(s.mirror.State().Err) {
		select {
		case <-wake:
		case <-ctx.Done():
			return untrusted(before.Err)
		}
	}
	return nil
}

func (s *Server) commit(ctx context.Context, txn inventory.Txn) (rev inventory.Revision, err error) {
	err = s.call(ctx, func(ctx context.Context) (err error) {
		rev, err = s.store.Commit(ctx, txn)
		return err
	})
	return rev, err
}

func (s *Server) get(ctx context.Context, key string) (kv inventory.KV, err error) {
	err = s.call(ctx, func(ctx context.Context) (err error) {
		kv, err = inventory.Get(ctx, s.store, key)
		return err
	})
	return kv, err
}

// call bounds a call to the store. A bound of ours that passes is ErrUnavailable,
// the end of the caller's own context is not.
func (s *Server) call(ctx context.Context, do func(context.Context) error) error {
	callCtx, cancel := context.WithTimeout(ctx, s.callTimeout)
	defer cancel()
	err := do(callCtx)
	if err != nil && ctx.Err() == nil && callCtx.Err() != nil {
		return fmt.Errorf("%w: %w", inventory.ErrUnavailable, err)
	}
	return err
}

var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// request is the record of a request id. Its Mod is when the wish was put on record.
type request[A any] struct {
	Target string    `json:"target"`
	Node   string    `json:"node"`
	Time   time.Time `json:"time"`
	Answer A         `json:"answer"`
}

// recall finds the answer that a request id got before.
func recall[A any](ctx context.Context, s *Server, w wish) (o outcome[A], found bool, err error) {
	kv, err := s.get(ctx, s.keys.Request(w.requestID))
	if err != nil || kv.Mod == 0 {
		return o, false, err
	}
	var head struct{ Target string }
	if err := json.Unmarshal(kv.Value, &head); err != nil {
		return o, false, fmt.Errorf("%s: %w", kv.Key, err)
	}
	if head.Target != w.target {
		return o, false, requestIDReused(w.requestID, head.Target)
	}
	var first request[A]
	if err := json.Unmarshal(kv.Value, &first); err != nil {
		return o, false, fmt.Errorf("%s: %w", kv.Key, err)
	}
	return outcome[A]{first.Answer, kv.Mod}, true, nil
}

// leased is the lease of a record that a change writes, revoked unless it came
// to be used.
type leased struct {
	s    *Server
	life time.Duration
	id   inventory.LeaseID
}

func (l *leased) grant(ctx context.Context) error {
	if l.id != 0 {
		return nil
	}
	return l.s.call(ctx, func(ctx context.Context) (err error) {
		l.id, err = l.s.leaser.Grant(ctx, l.life)
		return err
	})
}

func (l *leased) keep() { l.id = 0 }

// drop gives a lease back. It would end by itself within the hour.
func (l *leased) drop() {
	if l.id == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := l.s.leaser.Revoke(ctx, l.id); err != nil {
		l.s.logger.Debug("a lease was not revoked", "error", err)
	}
}

func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
