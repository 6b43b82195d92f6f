// Package migrate moves the inventory of a cluster from one store to another
// while its HAProxies serve.
package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// Store is one that can be moved from and to.
type Store interface {
	inventory.Store
	inventory.Leaser
}

// Options of a move. All are needed but Settle and Progress.
type Options struct {
	From, To         Store
	FromName, ToName string // "etcd", "raft"
	Keys             inventory.Keys
	// Settle is how long after the source refuses changes one may still come
	// true: longer than any call to a store takes. Default DefaultSettle.
	Settle   time.Duration
	Progress func(string) // may be nil
}

// DefaultSettle is more than the stores' own timeout of a call.
const DefaultSettle = 5 * time.Second

// Result of a move.
type Result struct {
	Records  int           // that both stores hold alike
	Digest   string        // of these records, the same in both
	LeftOut  int           // reports and such, which the agents write anew
	Held     time.Duration // how long changes were held up
	Revision inventory.Revision
}

// eventLife is what is left at most to records that are bound to a lease.
const eventLife = 24 * time.Hour

type move struct {
	Options
	marker string
	meta   inventory.Meta // the source's, as read last
	lease  inventory.LeaseID
}

// mark is the marker's value, in a target that is not whole yet.
type mark struct {
	UID  string `json:"uid"`
	From string `json:"from"`
}

// Run moves the inventory. What was interrupted is gone on with when it is run
// again. If it fails before the target is whole, the source is put back into use.
func Run(ctx context.Context, o Options) (Result, error) {
	m, done, err := begin(ctx, o)
	if err != nil {
		return Result{}, err
	}
	if done {
		m.tell("the inventory is in %s already", o.ToName)
		r, err := m.verify(ctx)
		if errors.Is(err, errDiffer) { // it was used since
			err = nil
		}
		return r, err
	}
	m.tell("copying the records of cluster %s", m.meta.UID)
	if err := m.copy(ctx); err != nil { // most of it while changes are still taken
		return Result{}, err
	}
	result, err := m.finish(ctx)
	if err != nil {
		err = m.putBack(ctx, err)
	}
	return result, err
}

// finish holds changes up, copies the rest and hands over.
func (m *move) finish(ctx context.Context) (Result, error) {
	if err := m.freeze(ctx); err != nil {
		return Result{}, err
	}
	frozen := m.meta.Moved.At
	m.tell("changes are held up; traffic is not affected")
	select {
	case <-time.After(time.Until(frozen.Add(m.Settle))):
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	var result Result
	for {
		if err := m.copy(ctx); err != nil {
			return Result{}, err
		}
		var err error
		if result, err = m.verify(ctx); err == nil {
			break
		} else if !errors.Is(err, errDiffer) {
			return Result{}, err
		}
	}
	m.tell("%d records are the same in both stores", result.Records)
	var err error
	result.Revision, err = m.handOver(ctx)
	result.Held = time.Since(frozen)
	return result, err
}

// begin looks at both stores, and marks the target.
func begin(ctx context.Context, o Options) (m *move, done bool, err error) {
	if o.Settle == 0 {
		o.Settle = DefaultSettle
	}
	m = &move{Options: o, marker: o.Keys.Prefix() + "migration"}
	if err := m.readMeta(ctx); err != nil {
		return nil, false, err
	}
	switch {
	case m.meta.Moved != nil && m.meta.Moved.To != o.ToName:
		return nil, false, inventory.Refuse("the inventory moved from %s to %s before", o.FromName, m.meta.Moved.To)
	case m.meta.Moved == nil && m.meta.Schema > inventory.Schema:
		return nil, false, inventory.Refuse("the inventory has schema %d and this doproxy knows %d: use a newer doproxy", m.meta.Schema, inventory.Schema)
	}
	there, err := o.To.List(ctx, o.Keys.Prefix())
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", o.ToName, err)
	}
	meta, known := m.targetMeta(there)
	var begun mark
	for _, kv := range there.KVs {
		if kv.Key == m.marker {
			_ = json.Unmarshal(kv.Value, &begun)
		}
	}
	switch {
	case known && meta.UID != m.meta.UID:
		return nil, false, inventory.Refuse("%s holds another cluster of this name, with uid %s and not %s", o.ToName, meta.UID, m.meta.UID)
	case known && meta.Moved == nil && m.meta.Moved != nil:
		return m, true, nil
	case known && meta.Moved == nil:
		return nil, false, inventory.Refuse("%s and %s both hold this inventory as theirs: compare them with `doproxy print` before you delete the records of one", o.FromName, o.ToName)
	case known: // a former home: its records are replaced
		return m, false, nil
	case begun.UID == m.meta.UID && begun.From == o.FromName:
		m.tell("going on with a move that was interrupted")
		return m, false, nil
	case len(there.KVs) > 0:
		return nil, false, inventory.Refuse("%s has %d records below %s that are of no inventory known here, such as %s: delete them first", o.ToName, len(there.KVs), o.Keys.Prefix(), there.KVs[0].Key)
	}
	value, err := json.Marshal(mark{UID: m.meta.UID, From: o.FromName})
	if err != nil {
		return nil, false, err
	}
	_, err = o.To.Commit(ctx, inventory.Txn{
		Guards: []inventory.Guard{{Key: m.marker}, {Key: o.Keys.Meta()}},
		Ops:    []inventory.Op{{Key: m.marker, Value: value}},
	})
	return m, false, err
}

func (m *move) targetMeta(l inventory.Listing) (inventory.Meta, bool) {
	for _, kv := range l.KVs {
		if kv.Key == m.Keys.Meta() {
			if meta, err := inventory.DecodeMeta(kv); err == nil {
				return *meta, true
			}
		}
	}
	return inventory.Meta{}, false
}

func (m *move) readMeta(ctx context.Context) error {
	kv, err := inventory.Get(ctx, m.From, m.Keys.Meta())
	if err != nil {
		return fmt.Errorf("%s: %w", m.FromName, err)
	}
	if kv.Mod == 0 {
		return inventory.Refuse("%s holds no inventory of this cluster", m.FromName)
	}
	meta, err := inventory.DecodeMeta(kv)
	if err != nil {
		return err
	}
	m.meta = *meta
	return nil
}

// freeze has every agent keep its hands off the source. Its leader key goes in
// the same transaction, so that nothing of its leader is done any more.
func (m *move) freeze(ctx context.Context) error {
	for m.meta.Moved == nil {
		var txn inventory.Txn
		txn.Add(inventory.PutMoved(m.Keys, m.meta, m.ToName, time.Now()))
		txn.Ops = append(txn.Ops, inventory.Op{Key: m.Keys.Leader(), Delete: true})
		if _, err := m.From.Commit(ctx, txn); err != nil && !errors.Is(err, inventory.ErrConflict) {
			return err
		}
		if err := m.readMeta(ctx); err != nil {
			return err
		}
	}
	return nil
}

// putBack ends what freeze began, unless the target is whole.
func (m *move) putBack(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	there, err := m.To.List(ctx, m.Keys.Prefix())
	if err == nil {
		if meta, known := m.targetMeta(there); known && meta.Moved == nil {
			return fmt.Errorf("the inventory is in %s now, though there was an error: %w", m.ToName, cause)
		}
		err = m.thaw(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w; changes are still held up (%w): run it again, or with --abort", cause, err)
	}
	return fmt.Errorf("%w; the inventory is in %s as before", cause, m.FromName)
}

func (m *move) thaw(ctx context.Context) error {
	for {
		if err := m.readMeta(ctx); err != nil {
			return err
		}
		if m.meta.Moved == nil {
			return nil
		}
		var txn inventory.Txn
		txn.Add(inventory.PutMoved(m.Keys, m.meta, "", time.Time{}))
		if _, err := m.From.Commit(ctx, txn); err != nil && !errors.Is(err, inventory.ErrConflict) {
			return err
		}
	}
}

// Abort puts the source back into use and takes the copy away, if the target is
// not whole.
func Abort(ctx context.Context, o Options) error {
	m := &move{Options: o, marker: o.Keys.Prefix() + "migration"}
	there, err := o.To.List(ctx, o.Keys.Prefix())
	if err != nil {
		return fmt.Errorf("%s: %w", o.ToName, err)
	}
	meta, known := m.targetMeta(there)
	if known && meta.Moved == nil {
		return inventory.Refuse("%s holds the whole inventory: move it back with --from %s --to %s", o.ToName, o.ToName, o.FromName)
	}
	if err := m.thaw(ctx); err != nil {
		return err
	}
	if known {
		return nil // a former home keeps what it had
	}
	var ops []inventory.Op
	for _, kv := range there.KVs {
		ops = append(ops, inventory.Op{Key: kv.Key, Delete: true})
	}
	return m.write(ctx, ops)
}

// copied says whether a record is taken along, and whether it is bound to a lease
// in the target too. Who leads and what nodes report is written anew.
func (m *move) copied(kv inventory.KV) (leased, ok bool) {
	rest := strings.TrimPrefix(kv.Key, m.Keys.Prefix())
	switch {
	case kv.Key == m.Keys.Meta(), kv.Key == m.Keys.Leader(), kv.Key == m.marker:
		return false, false
	case kv.Lease == 0:
		return false, true
	case strings.HasPrefix(rest, "nodes/"):
		return false, false
	}
	return true, true
}

// copy makes the target's records those of the source, as far as they differ.
func (m *move) copy(ctx context.Context) error {
	here, there, err := m.both(ctx)
	if err != nil {
		return err
	}
	var ops []inventory.Op
	wanted := map[string]bool{}
	old := map[string]inventory.KV{}
	for _, kv := range there.KVs {
		old[kv.Key] = kv
	}
	for _, kv := range here.KVs {
		leased, ok := m.copied(kv)
		if !ok {
			continue
		}
		wanted[kv.Key] = true
		if same(old[kv.Key], kv, leased) {
			continue
		}
		op := inventory.Op{Key: kv.Key, Value: kv.Value}
		if leased {
			if m.lease == 0 {
				if m.lease, err = m.To.Grant(ctx, eventLife); err != nil {
					return err
				}
			}
			op.Lease = m.lease
		}
		ops = append(ops, op)
	}
	for _, kv := range there.KVs {
		if !wanted[kv.Key] && kv.Key != m.Keys.Meta() && kv.Key != m.marker {
			ops = append(ops, inventory.Op{Key: kv.Key, Delete: true})
		}
	}
	return m.write(ctx, ops)
}

func same(old, kv inventory.KV, leased bool) bool {
	return old.Mod != 0 && string(old.Value) == string(kv.Value) && (old.Lease != 0) == leased
}

func (m *move) both(ctx context.Context) (here, there inventory.Listing, err error) {
	if here, err = m.From.List(ctx, m.Keys.Prefix()); err != nil {
		return here, there, fmt.Errorf("%s: %w", m.FromName, err)
	}
	if there, err = m.To.List(ctx, m.Keys.Prefix()); err != nil {
		return here, there, fmt.Errorf("%s: %w", m.ToName, err)
	}
	return here, there, nil
}

// maxBytes of the values of one transaction.
const maxBytes = 512 << 10

// write does operations in the target, many at a time. One whose outcome is not
// known is done again: each says how the record is to be.
func (m *move) write(ctx context.Context, ops []inventory.Op) error {
	total := len(ops)
	for told := 0; len(ops) > 0; {
		n, size := 0, 0
		for n < len(ops) && n < inventory.MaxOps && (n == 0 || size+len(ops[n].Value) <= maxBytes) {
			size += len(ops[n].Value)
			n++
		}
		var err error
		for try := 0; try < 5; try++ {
			if _, err = m.To.Commit(ctx, inventory.Txn{Ops: ops[:n]}); !errors.Is(err, inventory.ErrUnavailable) {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.ToName, err)
		}
		ops = ops[n:]
		if done := total - len(ops); done-told >= 1000 {
			m.tell("%d of %d records", done, total)
			told = done
		}
	}
	return nil
}

var errDiffer = errors.New("the stores differ")

// verify compares what both hold.
func (m *move) verify(ctx context.Context) (Result, error) {
	here, there, err := m.both(ctx)
	if err != nil {
		return Result{}, err
	}
	old := map[string]inventory.KV{}
	for _, kv := range there.KVs {
		old[kv.Key] = kv
	}
	r := Result{Revision: there.Revision}
	digest := sha256.New()
	for _, kv := range here.KVs {
		leased, ok := m.copied(kv)
		if !ok {
			r.LeftOut++
			continue
		}
		if !same(old[kv.Key], kv, leased) {
			return Result{}, fmt.Errorf("%w: %s", errDiffer, kv.Key)
		}
		delete(old, kv.Key)
		fmt.Fprintf(digest, "%d %s %d %s", len(kv.Key), kv.Key, len(kv.Value), kv.Value)
		r.Records++
	}
	for key, kv := range old {
		if _, ok := m.copied(kv); ok {
			return Result{}, fmt.Errorf("%w: %s", errDiffer, key)
		}
	}
	r.Digest = hex.EncodeToString(digest.Sum(nil)[:8])
	return r, nil
}

// handOver gives the target its meta record: from now on it is the inventory.
func (m *move) handOver(ctx context.Context) (inventory.Revision, error) {
	kv, err := inventory.Get(ctx, m.To, m.Keys.Meta())
	if err != nil {
		return 0, err
	}
	_, op := inventory.PutMoved(m.Keys, m.meta, "", time.Time{})
	return m.To.Commit(ctx, inventory.Txn{
		Guards: []inventory.Guard{{Key: m.Keys.Meta(), Mod: kv.Mod}},
		Ops:    []inventory.Op{op, {Key: m.marker, Delete: true}},
	})
}

func (m *move) tell(format string, args ...any) {
	if m.Progress != nil {
		m.Progress(fmt.Sprintf(format, args...))
	}
}
