package raft

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/doproxy/doproxy/inventory"
)

// list reads what is below prefix, as of one revision.
func (m *machine) list(prefix string) inventory.Listing {
	m.mu.RLock()
	keys, rev := m.keys, m.revision
	m.mu.RUnlock()
	l := inventory.Listing{Revision: rev, KVs: []inventory.KV{}}
	keys.Root().WalkPrefix([]byte(prefix), func(_ []byte, kv inventory.KV) bool {
		kv.Value = slices.Clone(kv.Value)
		l.KVs = append(l.KVs, kv)
		return false
	})
	return l
}

// reached is closed when more entries are applied; done says whether index is.
func (m *machine) reached(index uint64) (done bool, more <-chan struct{}, broken error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.index >= index, m.moved, m.broken
}

// since is what happened after a revision below prefix, and a channel that is
// closed when more entries are applied.
func (m *machine) since(prefix string, after inventory.Revision) (inventory.Batch, <-chan struct{}, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	switch {
	case m.broken != nil:
		return inventory.Batch{}, nil, fmt.Errorf("%w: %w", inventory.ErrUnavailable, m.broken)
	case after > m.revision:
		return inventory.Batch{}, m.moved, errFuture
	case after < m.compacted:
		return inventory.Batch{}, nil, inventory.ErrCompacted
	}
	b := inventory.Batch{Revision: m.revision}
	from, _ := slices.BinarySearchFunc(m.history, after+1, byRevision)
	for _, h := range m.history[from:] {
		for _, c := range h.Changes {
			if strings.HasPrefix(c.Key, prefix) {
				c.Value = slices.Clone(c.Value)
				b.Changes = append(b.Changes, c)
			}
		}
	}
	return b, m.moved, nil
}

// watch calls each with what happens, until ctx, each or lost ends it.
func (m *machine) watch(ctx context.Context, prefix string, after inventory.Revision, each func(inventory.Batch) error, lost <-chan struct{}) error {
	for first := true; ; first = false {
		b, moved, err := m.since(prefix, after)
		if err != nil {
			return err
		}
		if first || b.Revision > after {
			if err := each(b); err != nil {
				return err
			}
			after = b.Revision
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-lost:
			return errNoLeader
		}
	}
}
