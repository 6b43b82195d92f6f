package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/doproxy/doproxy/inventory"
)

// copied says whether a record is taken along, and whether it is bound to a lease
// in the target too. Who leads and what nodes report is written anew; a confirmation
// holds for an hour, which its copy would begin again, and is asked for again.
func (m *move) copied(kv inventory.KV) (leased, ok bool) {
	rest := strings.TrimPrefix(kv.Key, m.Keys.Prefix())
	switch {
	case kv.Key == m.Keys.Meta(), kv.Key == m.Keys.Leader(), kv.Key == m.marker:
		return false, false
	case kv.Lease == 0:
		return false, true
	case strings.HasPrefix(rest, "nodes/"), strings.HasPrefix(rest, "confirms/"):
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
			if _, err = m.To.Commit(ctx, inventory.Txn{Guards: []inventory.Guard{m.claimGuard()}, Ops: ops[:n]}); !errors.Is(err, inventory.ErrUnavailable) {
				break
			}
		}
		if errors.Is(err, inventory.ErrConflict) {
			return errTaken
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
