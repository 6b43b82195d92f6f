package raft

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/doproxy/doproxy/inventory"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// await waits until an entry is applied here.
func (m *member) await(ctx context.Context, index uint64) error {
	for {
		done, more, err := m.machine.reached(index)
		if err != nil {
			return fmt.Errorf("%w: %w", inventory.ErrUnavailable, err)
		}
		if done {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		case <-m.ctx.Done():
			return errClosed
		}
	}
}

// retry asks do until it succeeds or time is up, when the error of the last try
// counts: of ctx only if that has ended, else it is inventory.ErrUnavailable.
// An error that is neither ErrUnavailable nor of the context is final.
func (n *Node) retry(ctx context.Context, op string, do func(context.Context, *member) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	callCtx, cancel := context.WithTimeout(ctx, n.opts.Timeout)
	defer cancel()
	var last error
	pause := 2 * time.Millisecond
	for {
		m, err := n.running()
		if err != nil {
			return fmt.Errorf("%s: %w", op, err) // no use to wait
		}
		changed := n.changes()
		err = do(callCtx, m)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", op, ctx.Err())
		case callCtx.Err() != nil:
			if last == nil || errors.Is(last, context.DeadlineExceeded) {
				last = fmt.Errorf("%w: no answer within %s", inventory.ErrUnavailable, n.opts.Timeout)
			}
			return fmt.Errorf("%s: %w", op, last)
		case !errors.Is(err, inventory.ErrUnavailable), errors.Is(err, errUnknown):
			return fmt.Errorf("%s: %w", op, err)
		}
		last = err
		select {
		case <-callCtx.Done():
		case <-changed:
		case <-time.After(pause):
		}
		pause = min(2*pause, 50*time.Millisecond)
	}
}

// List implements inventory.Store.
func (n *Node) List(ctx context.Context, prefix string) (inventory.Listing, error) {
	var l inventory.Listing
	err := n.retry(ctx, "listing "+prefix, func(ctx context.Context, m *member) error {
		if ctx.Value(staleKey{}) == nil {
			if err := m.catchUp(ctx); err != nil {
				return err
			}
		}
		l = m.machine.list(prefix)
		return nil
	})
	return l, err
}

type staleKey struct{}

// Stale asks a List for what this member has, without asking the others: it is
// of one revision, but others may have seen a later one.
func Stale(ctx context.Context) context.Context { return context.WithValue(ctx, staleKey{}, true) }

// catchUp returns when every write is applied here that was answered before the
// call. The error is inventory.ErrUnavailable or ctx's.
func (m *member) catchUp(ctx context.Context) error {
	index, err := m.readIndex(ctx)
	if err != nil {
		return err
	}
	return m.await(ctx, index)
}

// Watch implements inventory.Store.
func (n *Node) Watch(ctx context.Context, prefix string, after inventory.Revision, each func(inventory.Batch) error) error {
	m, err := n.running()
	if err != nil {
		return err
	}
	lost := m.contact.isLost()
	select {
	case <-lost:
		return errNoLeader
	default:
	}
	if after > m.machine.at() {
		if err := n.retry(ctx, "watching "+prefix, func(ctx context.Context, m *member) error { return m.catchUp(ctx) }); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(m.ctx, func() { cancel(errClosed) })
	defer stop()
	err = m.machine.watch(ctx, prefix, after, each, lost)
	if errors.Is(err, context.Canceled) && m.ctx.Err() != nil {
		return errClosed
	}
	return err
}

// Commit implements inventory.Store.
func (n *Node) Commit(ctx context.Context, txn inventory.Txn) (inventory.Revision, error) {
	if err := check(txn); err != nil {
		return 0, err
	}
	c := &storev1.Txn{Guards: make([]*storev1.Guard, len(txn.Guards)), Ops: make([]*storev1.Op, len(txn.Ops))}
	for i, g := range txn.Guards {
		c.Guards[i] = &storev1.Guard{Key: g.Key, Mod: int64(g.Mod), Created: int64(g.Created)}
	}
	for i, op := range txn.Ops {
		c.Ops[i] = &storev1.Op{Key: op.Key, Value: op.Value, Lease: int64(op.Lease), Delete: op.Delete}
	}
	a, err := n.once(ctx, "committing", &storev1.Command{Kind: &storev1.Command_Txn{Txn: c}})
	return inventory.Revision(a.GetRevision()), err
}

func check(txn inventory.Txn) error {
	if len(txn.Ops) > inventory.MaxOps || len(txn.Guards) > inventory.MaxOps {
		return fmt.Errorf("a transaction of %d operations and %d guards: at most %d of each", len(txn.Ops), len(txn.Guards), inventory.MaxOps)
	}
	seen := make(map[string]bool, len(txn.Ops))
	size := 0
	for _, op := range txn.Ops {
		if op.Key == "" || seen[op.Key] {
			return fmt.Errorf("a transaction names the key %q twice, or it is empty", op.Key)
		}
		seen[op.Key] = true
		size += len(op.Key) + len(op.Value)
	}
	if size > maxTxn {
		return fmt.Errorf("a transaction of %d bytes: at most %d", size, maxTxn)
	}
	return nil
}

// maxTxn is what etcd takes too, by default (--max-request-bytes).
const maxTxn = 1536 << 10

// Grant implements inventory.Leaser.
func (n *Node) Grant(ctx context.Context, ttl time.Duration) (inventory.LeaseID, error) {
	ttl = max(time.Second, (ttl + time.Second - 1).Truncate(time.Second))
	id := 1 + rand.Int64N(math.MaxInt64)
	_, err := n.once(ctx, "granting a lease", &storev1.Command{Kind: &storev1.Command_Grant{Grant: &storev1.Grant{TtlMs: ttl.Milliseconds(), Id: id}}})
	return inventory.LeaseID(id), err
}

// Renew implements inventory.Leaser. Renewals are entries of the log, so that a
// new leader knows since when a holder is silent.
func (n *Node) Renew(ctx context.Context, id inventory.LeaseID) error {
	return n.retry(ctx, "renewing a lease", func(ctx context.Context, m *member) error {
		lost, err := m.renew(ctx, id)
		if err == nil && lost {
			return inventory.ErrLeaseLost
		}
		return err
	})
}

// Revoke implements inventory.Leaser.
func (n *Node) Revoke(ctx context.Context, id inventory.LeaseID) error {
	_, err := n.once(ctx, "revoking a lease", &storev1.Command{Kind: &storev1.Command_Revoke{Revoke: &storev1.Revoke{Lease: int64(id)}}})
	return err
}
