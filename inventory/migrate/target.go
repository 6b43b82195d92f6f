package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/doproxy/doproxy/inventory"
)

// mark is the marker's value, in a target that is not whole yet. Whoever wrote it
// last has the target: every other's transactions there fail.
type mark struct {
	UID  string `json:"uid"`
	From string `json:"from"`
	Run  string `json:"run"`
}

// errTaken: another run, or an abort, has the target now.
var errTaken = errors.New("another run of the move, or its abort, has taken over")

// target is what the store moved to holds.
type target struct {
	inventory.Listing
	marker, metaKV inventory.KV
	begun          mark
	meta           inventory.Meta
	known          bool // there is a meta record that can be read
}

func (m *move) lookAtTarget(ctx context.Context) (t target, err error) {
	if t.Listing, err = m.To.List(ctx, m.Keys.Prefix()); err != nil {
		return t, fmt.Errorf("%s: %w", m.ToName, err)
	}
	for _, kv := range t.KVs {
		switch kv.Key {
		case m.marker:
			t.marker = kv
			_ = json.Unmarshal(kv.Value, &t.begun)
		case m.Keys.Meta():
			t.metaKV = kv
			if meta, err := inventory.DecodeMeta(kv); err == nil {
				t.meta, t.known = *meta, true
			}
		}
	}
	return t, nil
}

// whole says whether the target has the inventory, and has it in use.
func (t target) whole() bool { return t.known && t.meta.Moved == nil }

// ours says whether a move of this inventory has begun there.
func (t target) ours(m *move) bool { return t.begun.UID == m.meta.UID && t.begun.From == m.FromName }

// claim makes the target this run's, if marker and meta record are as they were
// seen: what any other has under way there fails from then on.
func (m *move) claim(ctx context.Context, marker, meta inventory.Revision) error {
	value, err := json.Marshal(mark{UID: m.meta.UID, From: m.FromName, Run: m.run})
	if err != nil {
		return err
	}
	rev, err := m.To.Commit(ctx, inventory.Txn{
		Guards: []inventory.Guard{{Key: m.marker, Mod: marker}, {Key: m.Keys.Meta(), Mod: meta}},
		Ops:    []inventory.Op{{Key: m.marker, Value: value}},
	})
	if errors.Is(err, inventory.ErrConflict) {
		return errTaken
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.ToName, err)
	}
	m.claimed = rev
	return nil
}

func (m *move) claimGuard() inventory.Guard {
	return inventory.Guard{Key: m.marker, Mod: m.claimed}
}

// handOver gives the target its meta record: from now on it is the inventory.
func (m *move) handOver(ctx context.Context) (inventory.Revision, error) {
	kv, err := inventory.Get(ctx, m.To, m.Keys.Meta())
	if err != nil {
		return 0, err
	}
	_, op := inventory.PutMoved(m.Keys, m.meta, nil)
	rev, err := m.To.Commit(ctx, inventory.Txn{
		Guards: []inventory.Guard{{Key: m.Keys.Meta(), Mod: kv.Mod}, m.claimGuard()},
		Ops:    []inventory.Op{op, {Key: m.marker, Delete: true}},
	})
	if errors.Is(err, inventory.ErrConflict) {
		err = errTaken
	}
	return rev, err
}
