package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

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

// freeze has every agent keep its hands off the source, in this run's name. Its
// leader key goes in the same transaction, so that nothing of its leader is done
// any more.
func (m *move) freeze(ctx context.Context) error {
	for m.meta.Moved == nil || m.meta.Moved.By != m.run {
		var txn inventory.Txn
		txn.Add(inventory.PutMoved(m.Keys, m.meta, &inventory.Move{From: m.FromName, To: m.ToName, At: time.Now(), By: m.run, Pending: true}))
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

// leave has the source say that the inventory is in the target. If that fails, it
// says that it is on its way, until the move is asked for again.
func (m *move) leave(ctx context.Context) {
	for range 3 {
		if m.readMeta(ctx) != nil || m.meta.Moved == nil || !m.meta.Moved.Pending {
			return
		}
		moved := *m.meta.Moved
		moved.Pending = false
		var txn inventory.Txn
		txn.Add(inventory.PutMoved(m.Keys, m.meta, &moved))
		_, _ = m.From.Commit(ctx, txn)
	}
}

// putBack ends what freeze began, unless the target is whole. First the target is
// claimed anew: a hand-over whose answer was lost must not come true after.
func (m *move) putBack(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	there, err := m.lookAtTarget(ctx)
	if err == nil && there.marker.Mod == m.claimed {
		if err = m.claim(ctx, m.claimed, there.metaKV.Mod); errors.Is(err, errTaken) {
			there, err = m.lookAtTarget(ctx)
		}
	}
	switch {
	case err != nil:
	case there.whole():
		return fmt.Errorf("the inventory is in %s now, though there was an error: %w", m.ToName, cause)
	case there.marker.Mod != 0 && there.begun.Run != m.run:
		return cause // another run goes on
	}
	if err == nil {
		err = m.thaw(ctx, m.run)
	}
	if err != nil {
		return fmt.Errorf("%w; changes are still held up (%w): run it again, or with --abort", cause, err)
	}
	return fmt.Errorf("%w; the inventory is in %s as before", cause, m.FromName)
}

// thaw puts the source back into use if it is frozen in the name of that run.
// Whoever froze it since goes on, or puts it back.
func (m *move) thaw(ctx context.Context, run string) error {
	for {
		if err := m.readMeta(ctx); err != nil {
			return err
		}
		if m.meta.Moved == nil || m.meta.Moved.By != run {
			return nil
		}
		var txn inventory.Txn
		txn.Add(inventory.PutMoved(m.Keys, m.meta, nil))
		if _, err := m.From.Commit(ctx, txn); err != nil && !errors.Is(err, inventory.ErrConflict) {
			return err
		}
	}
}

// Abort puts the source back into use and takes the copy away, if the target is
// not whole. With Lost and a target that does not answer, it is the caller who knows
// that it is not in use.
func Abort(ctx context.Context, o Options) error {
	m := newMove(o)
	// As it was before the claim: by whom it is frozen then can hand over no more.
	if err := m.readMeta(ctx); err != nil {
		return err
	}
	run := ""
	if m.meta.Moved != nil {
		run = m.meta.Moved.By
	}
	there, err := m.lookAtTarget(ctx)
	switch {
	case err != nil && m.meta.Moved != nil && !m.meta.Moved.Pending:
		return inventory.Refuse("the move is complete, and the inventory in %s, which does not answer: bring that back, or see docs/operations.md on a store that is lost for good", m.ToName)
	case err != nil && m.Lost && m.meta.Moved != nil:
		m.tell("%s does not answer: %s is put back into use without it", m.ToName, m.FromName)
		return m.thaw(ctx, run)
	case errors.Is(err, inventory.ErrUnavailable) && m.meta.Moved != nil:
		return fmt.Errorf("%w; if it is lost for good, --abort --force goes on without it", err)
	case err != nil:
		return err
	case there.whole():
		return inventory.Refuse("%s holds the whole inventory: move it back with --from %s --to %s", o.ToName, o.ToName, o.FromName)
	case there.marker.Mod == 0 && m.meta.Moved == nil:
		return inventory.Refuse("no move from %s to %s is under way", o.FromName, o.ToName)
	case there.marker.Mod != 0 && !there.ours(m):
		return inventory.Refuse("%s holds what was begun of another move, from %s: abort that one", o.ToName, there.begun.From)
	}
	if there.marker.Mod != 0 {
		if err := m.claim(ctx, there.marker.Mod, there.metaKV.Mod); err != nil {
			return err
		}
	}
	if err := m.thaw(ctx, run); err != nil || there.marker.Mod == 0 {
		return err
	}
	var ops []inventory.Op
	for _, kv := range there.KVs {
		if !there.known && kv.Key != m.marker { // a former home keeps what it had
			ops = append(ops, inventory.Op{Key: kv.Key, Delete: true})
		}
	}
	if err := m.write(ctx, ops); err != nil {
		return err
	}
	err = m.write(ctx, []inventory.Op{{Key: m.marker, Delete: true}})
	if errors.Is(err, errTaken) { // or its answer was lost at first
		if there, lookErr := m.lookAtTarget(ctx); lookErr == nil && there.marker.Mod == 0 {
			err = nil
		}
	}
	return err
}
