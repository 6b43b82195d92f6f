package inventory

import (
	"context"
	"errors"
	"time"
)

// Errors that every Store and Leaser translates its own into. Compare with
// errors.Is; the error that wraps one says which operation failed.
var (
	// ErrConflict: a guard of a transaction did not hold. Nothing was written.
	ErrConflict = errors.New("inventory changed meanwhile")
	// ErrCompacted: the revision to watch from is no longer kept. List again.
	ErrCompacted = errors.New("revision is compacted")
	// ErrUnavailable: the store gave no answer in time. A write may or may not
	// have happened.
	ErrUnavailable = errors.New("store is unavailable")
	// ErrLeaseLost: the lease expired or was revoked; its keys are gone.
	ErrLeaseLost = errors.New("lease is lost")
)

// Revision orders all changes of a store. Zero is before every change.
type Revision int64

// LeaseID names a lease. Zero is no lease.
type LeaseID int64

// KV is one key as it stood at some revision.
type KV struct {
	Key     string
	Value   []byte
	Created Revision // of the change that created the key
	Mod     Revision // of the change that wrote this value
	Lease   LeaseID
}

// Listing is every key below a prefix as all of them stood at one revision.
// KVs are in key order.
type Listing struct {
	Revision Revision
	KVs      []KV
}

// Change is one key written or deleted. Of a deletion only KV.Key and KV.Mod
// (the deletion's revision) are set.
type Change struct {
	KV
	Deleted bool
}

// Batch is what happened up to and including Revision since the batch before:
// whole transactions only, never a part of one. A batch without changes says
// that nothing happened up to Revision.
type Batch struct {
	Revision Revision
	Changes  []Change
}

// Guard is a condition on one key. Exactly one of its forms applies:
// Created non-zero asks that the key was created at that revision (and lives);
// otherwise Mod asks that it was last written at that revision, where zero asks
// that the key does not exist.
type Guard struct {
	Key     string
	Mod     Revision
	Created Revision
}

// Op writes a key, or deletes it. A key bound to a Lease goes when that ends.
type Op struct {
	Key    string
	Value  []byte
	Lease  LeaseID
	Delete bool
}

// Txn does all its operations at one revision if all its guards hold, else
// nothing. No key may be named by two operations. It has at most MaxOps
// operations, and as many guards.
type Txn struct {
	Guards []Guard
	Ops    []Op
}

// MaxOps bounds a transaction. It is etcd's default (--max-txn-ops).
const MaxOps = 128

// Add puts one guarded operation into the transaction:
// txn.Add(PutDroplet(keys, d)).
func (t *Txn) Add(guard Guard, op Op) {
	t.Guards = append(t.Guards, guard)
	t.Ops = append(t.Ops, op)
}

// Store keeps the inventory. Implementations are safe for concurrent use, obey
// their context on every call, and fail an unanswered call with ErrUnavailable
// rather than block for good.
type Store interface {
	// List reads every key below prefix, linearizably.
	List(ctx context.Context, prefix string) (Listing, error)

	// Commit runs txn and returns its revision; of one that changed nothing, a
	// revision at which its guards held. It fails with ErrConflict when a guard
	// does not hold, with ErrLeaseLost when an operation names an ended lease;
	// with ErrUnavailable, or an error of ctx, the outcome is unknown.
	Commit(ctx context.Context, txn Txn) (Revision, error)

	// Watch calls each, in order, with what happened below prefix after the
	// revision given, until ctx ends (it then returns ctx's error), each returns
	// an error (returned as it is), or the stream is lost (ErrUnavailable) or
	// asks for what is no longer kept (ErrCompacted). It ends rather than hang
	// on a store that lost its leader. The caller restarts it.
	//
	// The first batch comes as soon as the stream stands, without changes if
	// there are none. ErrCompacted is also what a store answers that has not come
	// as far as after, or that is another than the one listed last: it was
	// restored from an older copy, or lags.
	Watch(ctx context.Context, prefix string, after Revision, each func(Batch) error) error
}

// Get reads one key, linearizably. A key that does not exist has Mod zero.
func Get(ctx context.Context, store Store, key string) (KV, error) {
	l, err := store.List(ctx, key)
	if err != nil {
		return KV{}, err
	}
	// In key order, the key itself comes before those that it is a prefix of.
	if len(l.KVs) > 0 && l.KVs[0].Key == key {
		return l.KVs[0], nil
	}
	return KV{Key: key}, nil
}

// Leaser keeps leases: promises that keys bound to them vanish unless renewed.
type Leaser interface {
	// Grant makes a lease that lives at least ttl from now. Whole seconds.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)
	// Renew gives the lease its full life again, counted by the store from some
	// moment after the call was sent. ErrLeaseLost: it is gone for good.
	Renew(ctx context.Context, id LeaseID) error
	// Revoke ends the lease and deletes its keys at once.
	Revoke(ctx context.Context, id LeaseID) error
}
