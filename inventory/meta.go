package inventory

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// EnsureMeta reads the cluster's own record, or writes it where there is none.
// It refuses records of a schema newer than this program's. Whoever knows the
// cluster from before must compare the UID: a store that was wiped gets a new
// one here.
func EnsureMeta(ctx context.Context, store Store, keys Keys) (Meta, error) {
	for {
		kv, err := Get(ctx, store, keys.Meta())
		if err != nil {
			return Meta{}, err
		}
		if kv.Mod != 0 {
			m, err := DecodeMeta(kv)
			if err != nil {
				return Meta{}, err
			}
			if m.Moved != nil {
				return Meta{}, m.moved()
			}
			if m.Schema > Schema {
				return Meta{}, fmt.Errorf("%s: the inventory has schema %d and this doproxy knows %d: install a newer doproxy on this node",
					kv.Key, m.Schema, Schema)
			}
			return *m, nil
		}
		if marker, err := Get(ctx, store, keys.Migration()); err != nil || marker.Mod != 0 {
			return Meta{}, cmp.Or(err, errArriving)
		}
		m := Meta{UID: newUID(), Schema: Schema, Created: time.Now().UTC().Truncate(time.Second)}
		var txn Txn
		txn.Add(put(keys.Meta(), 0, m))
		txn.Guards = append(txn.Guards, Guard{Key: keys.Migration()})
		if rev, err := store.Commit(ctx, txn); err == nil {
			m.Mod = rev
			return m, nil
		} else if !errors.Is(err, ErrConflict) {
			return Meta{}, err
		}
	}
}

// movedSchema is added to the schema of an inventory that moved.
const movedSchema = 1_000_000

// PutMoved marks the cluster's record, as read, as moved to another store; or, with
// nil, as back.
func PutMoved(keys Keys, m Meta, to *Move) (Guard, Op) {
	if m.Moved != nil {
		m.Moved, m.Schema = nil, m.Schema-movedSchema
	}
	if to != nil {
		move := *to
		move.At = move.At.UTC().Truncate(time.Millisecond)
		m.Moved, m.Schema = &move, m.Schema+movedSchema
	}
	return put(keys.Meta(), m.Mod, m)
}

func (m *Meta) moved() error {
	to, at := m.Moved.To, m.Moved.At.Format(time.DateTime)
	if m.Moved.Pending {
		return movedError{fmt.Sprintf("the inventory is being moved to %s since %s, and no change is taken: "+
			"if nobody moves it now, `doproxy store migrate --from %s --to %[1]s` goes on with it, and with --abort gives it up", to, at, m.Moved.From)}
	}
	return movedError{fmt.Sprintf("the inventory moved to %s at %s: set `store: %[1]s` in doproxy.yml and restart the agent", to, at)}
}

// newUID is short, since it is part of every droplet's tag.
func newUID() string {
	var b [6]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
