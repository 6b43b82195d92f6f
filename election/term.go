package election

import (
	"context"
	"errors"
	"fmt"

	"github.com/doproxy/doproxy/inventory"
)

// ErrDeposed: the term is over. The transaction was not done, and none of this
// term ever will be.
var ErrDeposed = errors.New("another term of leadership has begun")

// Term is one period of leadership: the life of one leader key.
type Term struct {
	Key     string             // the leader key
	Created inventory.Revision // of the key: the fence; later terms have a greater one

	store inventory.Store
	end   context.CancelCauseFunc
}

// Fence is the guard that holds for as long as this is the term.
func (t Term) Fence() inventory.Guard {
	return inventory.Guard{Key: t.Key, Created: t.Created}
}

// Commit runs txn under the term's fence. It fails with ErrDeposed, which is not
// an inventory.ErrConflict, once the term is over, and ends the term's context
// then; with inventory.ErrConflict when a guard of txn's own did not hold. Its
// other errors are those of Store.Commit.
//
// A store does not say which guard failed, so a conflict is told apart by
// reading the leader key: a create revision never comes back, so if the key
// still has this term's, then the fence held when the transaction was refused.
// If it cannot be read, the answer is ErrConflict, which is true of both.
func (t Term) Commit(ctx context.Context, txn inventory.Txn) (inventory.Revision, error) {
	guards := make([]inventory.Guard, 0, len(txn.Guards)+1)
	txn.Guards = append(append(guards, t.Fence()), txn.Guards...)
	rev, err := t.store.Commit(ctx, txn)
	if !errors.Is(err, inventory.ErrConflict) {
		return rev, err
	}
	kv, readErr := inventory.Get(ctx, t.store, t.Key)
	if readErr == nil && kv.Created != t.Created {
		t.end(ErrDeposed)
		return 0, fmt.Errorf("committing for the term of revision %d: %w", t.Created, ErrDeposed)
	}
	return 0, err
}
