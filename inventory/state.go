package inventory

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// State is the inventory as one node knows it. It never changes: whoever holds
// one must not write to it, nor to anything that it points at.
type State struct {
	Revision Revision
	// Inventory is the revision of the last change to a pool or a droplet, or
	// of the listing if there was none since.
	Inventory Revision
	// Reload is the id (a ULID) of the last reload asked of all nodes, if any.
	Reload string

	Meta     *Meta // nil when there is none
	Pools    map[string]*Pool
	Droplets map[string]*Droplet // by name
	Nodes    map[string]*Node    // the live ones
	Leader   Leader
	// Settings are never nil.
	Settings *Settings
	Members  map[string]*Member // the nodes known, alive or not
	Pause    *Pause             // nil when there is none
	Confirms map[string]*Confirm
	Verify   *Verify // the last one asked for, or nil
	Report   *Report // the leader's last, or nil; it may be of the one before

	// Floor is, by hostname prefix, the highest next ordinal that this node ever
	// saw: names below it may have been used, whatever the store says now.
	Floor map[string]int64

	Assignments map[netip.Addr]*Assignment
	DNS         map[string]*DNSRecords // by FQDN

	Events []Event // the last ones, at most 200, oldest first

	// Unreadable says by key what is wrong with records that were set aside. The
	// last good version of such a record, if there is one, is still above.
	Unreadable map[string]string

	// Restored counts how often this mirror saw the store's revision run backwards:
	// revisions from before mean nothing after.
	Restored int

	// Listed: all this was read from the store, if not just now. Else it is
	// empty, or comes from disk.
	Listed bool
	// Err says why the mirror is out of touch with the store; nil when it is in
	// step. Since is when that began, or when it got in step.
	Err   error
	Since time.Time

	arriving bool // a move into the store is under way

	order *order      // of Droplets; nil in a State that Mirror did not make
	sorts *nodeSorter // of Nodes; likewise
}

// Leader is who holds the leader key. The zero Leader is nobody.
type Leader struct {
	Name    string
	Created Revision // of the key: the fence of its term
}

// order is Droplets in the order of `print`.
type order struct {
	sorted []*Droplet
	etag   *etag // shared with later orders of the same names and ids
}

type etag struct {
	once  sync.Once
	value string
}

type nodeSorter struct {
	once   sync.Once
	sorted []*Node
}

func newOrder(droplets map[string]*Droplet) *order {
	sorted := slices.Collect(maps.Values(droplets))
	SortDroplets(sorted)
	return &order{sorted: sorted, etag: new(etag)}
}

func (s *State) ordered() *order {
	if s.order != nil {
		return s.order
	}
	return newOrder(s.Droplets)
}

// With is the state with other pools and droplets, which it must not share with
// anybody who changes them.
func (s *State) With(pools map[string]*Pool, droplets map[string]*Droplet) *State {
	next := *s
	next.Pools, next.Droplets, next.order = pools, droplets, nil
	return &next
}

// SortedDroplets are all droplets in the order of `print`. The slice is shared.
func (s *State) SortedDroplets() []*Droplet { return slices.Clip(s.ordered().sorted) }

// PoolDroplets are the droplets of one pool in the order of `print`. The slice
// is shared.
func (s *State) PoolDroplets(pool string) []*Droplet {
	all := s.ordered().sorted
	from, _ := slices.BinarySearchFunc(all, pool, func(d *Droplet, pool string) int { return strings.Compare(d.Pool, pool) })
	to := from
	for to < len(all) && all[to].Pool == pool {
		to++
	}
	return slices.Clip(all[from:to])
}

// SortedPools are the pools by name.
func (s *State) SortedPools() []*Pool {
	return slices.SortedFunc(maps.Values(s.Pools), func(a, b *Pool) int { return strings.Compare(a.Name, b.Name) })
}

// SortedNodes are the live nodes by name. The slice is shared.
func (s *State) SortedNodes() []*Node {
	sorts := s.sorts
	if sorts == nil {
		sorts = new(nodeSorter)
	}
	sorts.once.Do(func() {
		sorts.sorted = slices.SortedFunc(maps.Values(s.Nodes), func(a, b *Node) int { return strings.Compare(a.Name, b.Name) })
	})
	return slices.Clip(sorts.sorted)
}

// ETag changes exactly when an index in SortedDroplets could mean another
// droplet than before: with their names, ids and order, not with their phases.
func (s *State) ETag() string {
	o := s.ordered()
	o.etag.once.Do(func() {
		hash := sha256.New()
		for _, d := range o.sorted {
			fmt.Fprintf(hash, "%s/%s %d\n", d.Pool, d.Name, d.ID)
		}
		o.etag.value = hex.EncodeToString(hash.Sum(nil)[:8])
	})
	return o.etag.value
}

// patch is the order after some droplets were replaced: in old and in now, nil
// stands for none. It costs a copy of the slice, not a sort.
func (o *order) patch(changed []replaced) *order {
	next := &order{sorted: slices.Clone(o.sorted), etag: o.etag}
	for _, c := range changed {
		if c.old != nil && c.now != nil && compareDroplets(c.old, c.now) == 0 {
			i, ok := slices.BinarySearchFunc(next.sorted, c.old, compareDroplets)
			if ok {
				next.sorted[i] = c.now
			}
			if c.old.ID != c.now.ID {
				next.etag = new(etag)
			}
			continue
		}
		next.etag = new(etag)
		if c.old != nil {
			if i, ok := slices.BinarySearchFunc(next.sorted, c.old, compareDroplets); ok {
				next.sorted = slices.Delete(next.sorted, i, i+1)
			}
		}
		if c.now != nil {
			i, _ := slices.BinarySearchFunc(next.sorted, c.now, compareDroplets)
			next.sorted = slices.Insert(next.sorted, i, c.now)
		}
	}
	return next
}

type replaced struct{ old, now *Droplet }
