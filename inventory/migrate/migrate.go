// Package migrate moves the inventory of a cluster from one store to another
// while its HAProxies serve.
package migrate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
	// Lost has Abort not need the target.
	Lost bool
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
	marker  string
	meta    inventory.Meta // the source's, as read last
	run     string         // of this run alone
	claimed inventory.Revision
	lease   inventory.LeaseID
}

func newMove(o Options) *move {
	return &move{Options: o, marker: o.Keys.Migration(), run: rand.Text()}
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
		m.leave(ctx)
		r, err := m.verify(ctx)
		if errors.Is(err, errDiffer) {
			err = inventory.Refuse("the inventory moved from %s to %s before, and was used since: there is nothing to move", o.FromName, o.ToName)
		}
		return r, err
	}
	m.tell("copying the records of cluster %s", m.meta.UID)
	if err := m.copy(ctx); err != nil { // most of it while changes are still taken
		if m.meta.Moved != nil {
			err = fmt.Errorf("%w; changes are held up since an earlier run: run it again, or with --abort", err)
		}
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
	if result.Revision, err = m.handOver(ctx); err == nil {
		m.leave(ctx)
	}
	result.Held = time.Since(frozen)
	return result, err
}

// begin looks at both stores, and marks the target.
func begin(ctx context.Context, o Options) (m *move, done bool, err error) {
	if o.Settle == 0 {
		o.Settle = DefaultSettle
	}
	m = newMove(o)
	if err := m.readMeta(ctx); err != nil {
		return nil, false, err
	}
	switch {
	case m.meta.Moved != nil && m.meta.Moved.To != o.ToName:
		return nil, false, inventory.Refuse("the inventory moved from %s to %s before", o.FromName, m.meta.Moved.To)
	case m.meta.Moved == nil && m.meta.Schema > inventory.Schema:
		return nil, false, inventory.Refuse("the inventory has schema %d and this doproxy knows %d: use a newer doproxy", m.meta.Schema, inventory.Schema)
	}
	there, err := m.lookAtTarget(ctx)
	if err != nil {
		return nil, false, err
	}
	meta, known := there.meta, there.known
	switch {
	case known && meta.UID != m.meta.UID:
		return nil, false, inventory.Refuse("%s holds another cluster of this name, with uid %s and not %s", o.ToName, meta.UID, m.meta.UID)
	case known && meta.Moved == nil && m.meta.Moved != nil:
		return m, true, nil
	case known && meta.Moved == nil:
		return nil, false, inventory.Refuse("%s and %s both hold this inventory as theirs: compare them with `doproxy print` before you delete the records of one", o.FromName, o.ToName)
	case known: // a former home: its records are replaced
	case there.ours(m):
		m.tell("going on with a move that was interrupted")
	default:
		for _, kv := range there.KVs {
			if kv.Lease == 0 { // what is bound to a lease is an agent's that tried this store, and no loss
				return nil, false, inventory.Refuse("%s has records below %s that are of no inventory known here, such as %s: delete them first", o.ToName, o.Keys.Prefix(), kv.Key)
			}
		}
	}
	return m, false, m.claim(ctx, there.marker.Mod, there.metaKV.Mod)
}

func (m *move) tell(format string, args ...any) {
	if m.Progress != nil {
		m.Progress(fmt.Sprintf(format, args...))
	}
}
