package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/doproxy/doproxy/inventory"
)

// retain is the picture that HAProxy is brought to: state, but for what no
// decision of doproxy can have led to. A droplet that serves stops serving by way
// of Draining or Deleting. One whose record vanished, or came back as Booting
// because the leader found it at the cloud again, or whose pool's record
// vanished, says that the store was wiped or meddled with: it serves on for as
// long as HAProxy finds it up. kept names such droplets, sorted.
//
// last is the picture before. Neither is changed; state itself is returned when
// there is nothing to keep.
func retain(last, state *inventory.State, up func(*inventory.Droplet) bool) (_ *inventory.State, kept []string) {
	if last == nil {
		return state, nil
	}
	var droplets map[string]*inventory.Droplet
	var pools map[string]*inventory.Pool
	keep := func(name string, d *inventory.Droplet) {
		if droplets == nil {
			droplets = maps.Clone(state.Droplets)
		}
		droplets[name] = d
		kept = append(kept, name)
	}
	// What both begin and end with is the same record: the cost follows the change.
	before, after := last.SortedDroplets(), state.SortedDroplets()
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] {
		before, after = before[1:], after[1:]
	}
	for len(before) > 0 && len(after) > 0 && before[len(before)-1] == after[len(after)-1] {
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	for _, old := range before {
		name := old.Name
		now := state.Droplets[name]
		if old == now || old.Phase != inventory.Serving {
			continue
		}
		switch {
		case now == nil:
			if up(old) {
				keep(name, old)
			}
		case now.ID == old.ID && now.Phase == inventory.Booting:
			if up(old) {
				serving := *now
				serving.Phase = inventory.Serving
				keep(name, &serving)
			}
		}
	}
	all := droplets
	if all == nil {
		all = state.Droplets
	}
	lost := false
	for name := range last.Pools {
		lost = lost || state.Pools[name] == nil
	}
	for _, d := range all {
		if !lost {
			break
		}
		if p := last.Pools[d.Pool]; state.Pools[d.Pool] == nil && p != nil {
			if pools == nil {
				pools = maps.Clone(state.Pools)
			}
			pools[d.Pool] = p
			if !slices.Contains(kept, d.Name) {
				kept = append(kept, d.Name)
			}
		}
	}
	if droplets == nil && pools == nil {
		return state, nil
	}
	picture := &inventory.State{Revision: state.Revision, Inventory: state.Inventory, Meta: state.Meta, Pools: state.Pools, Droplets: all}
	if pools != nil {
		picture.Pools = pools
	}
	slices.Sort(kept)
	return picture, kept
}

// keptError tells an operator of what retain keeps.
func keptError(kept []string) string {
	if len(kept) == 0 {
		return ""
	}
	shown := kept[:min(len(kept), 5)]
	return fmt.Sprintf("%d servers stay though their records, or their pool's, are not what they were: %s; was the store wiped?",
		len(kept), strings.Join(shown, ", "))
}
