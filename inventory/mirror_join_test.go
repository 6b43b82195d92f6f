package inventory_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

// swapped is a store of which a node may get another.
type swapped struct {
	now atomic.Pointer[inventorytest.Memory]
}

func (s *swapped) List(ctx context.Context, prefix string) (inventory.Listing, error) {
	return s.now.Load().List(ctx, prefix)
}

func (s *swapped) Commit(ctx context.Context, txn inventory.Txn) (inventory.Revision, error) {
	return s.now.Load().Commit(ctx, txn)
}

func (s *swapped) Watch(ctx context.Context, prefix string, after inventory.Revision, each func(inventory.Batch) error) error {
	return s.now.Load().Watch(ctx, prefix, after, each)
}

// TestMirrorExpect: the node joins another store, whose revisions are about the
// same: of the same cluster, with another past, and then of another cluster.
func TestMirrorExpect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stores []*inventorytest.Memory
		for _, droplet := range []*inventory.Droplet{droplet("web", "web-1", 1), droplet("web", "web-2", 2), droplet("web", "web-3", 3)} {
			mem := inventorytest.NewMemory()
			if _, err := inventory.EnsureMeta(t.Context(), mem, keys); err != nil {
				t.Fatal(err)
			}
			put(t, mem, putDroplet(droplet))
			stores = append(stores, mem)
		}
		meta, err := inventory.Get(t.Context(), stores[0], keys.Meta())
		if err != nil {
			t.Fatal(err)
		}
		put(t, stores[1], raw(keys.Meta(), string(meta.Value)))
		put(t, stores[0], raw(keys.Ordinal("web"), "3"))

		s := new(swapped)
		s.now.Store(stores[0])
		m := inventory.NewMirror(s, keys, quiet)
		start(t, m)
		synctest.Wait()
		for i, want := range []string{"web-1", "web-2", "web-3"} {
			if i > 0 {
				s.now.Store(stores[i])
				if i == 1 { // else it is broken by Expect itself
					stores[i-1].BreakWatches()
				}
				m.Expect()
				synctest.Wait()
			}
			if st := m.State(); st.Err != nil || names(st.SortedDroplets()) != want {
				t.Errorf("store %d: %v, %s", i+1, st.Err, names(st.SortedDroplets()))
			}
		}
	})
}
