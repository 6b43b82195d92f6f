package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// rebuildTime is how long after a rebuild a pool's record may lag behind what
// nodes remember without being from an old copy of the store.
const rebuildTime = time.Hour

// membership keeps what the cluster must know of this node beyond the life of
// its report: that it belongs to the cluster, and how far names had come that it
// saw in use.
func (a *agent) membership(ctx context.Context) error {
	wake, cancel := a.mirror.Subscribe()
	defer cancel()
	backoff := inventory.Backoff{Min: minRetry, Max: maxRetry}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
		for ctx.Err() == nil {
			err := a.enroll(ctx)
			if err == nil {
				backoff.Reset()
				break
			}
			if !errors.Is(err, inventory.ErrConflict) {
				a.logger.Warn("cannot write this node's membership", "error", err)
			}
			_ = backoff.Wait(ctx)
		}
	}
}

// enroll writes what is missing, if anything is.
func (a *agent) enroll(ctx context.Context) error {
	state := a.mirror.State()
	if !state.Listed || state.Err != nil || state.Meta == nil {
		return nil
	}
	var txn inventory.Txn
	if state.Members[a.cfg.Node] == nil {
		txn.Add(inventory.PutMember(a.keys, &inventory.Member{Name: a.cfg.Node, Joined: nowMS()}))
	}
	var events []inventory.Event
	for _, p := range state.Pools {
		floor := state.Floor[p.HostnamePrefix]
		if p.NextOrdinal >= floor || len(txn.Ops) >= inventory.MaxOps/2 {
			continue
		}
		next := *p
		next.NextOrdinal = floor
		if next.Rewound.IsZero() && time.Since(state.Meta.Rebuilt) > rebuildTime {
			next.Rewound, next.Release = nowMS(), 0
		}
		txn.Add(inventory.PutPool(a.keys, &next))
		events = append(events, inventory.Event{
			Type: "pool.rewound", Pool: p.Name, Node: a.cfg.Node,
			Message: fmt.Sprintf("the store had the next name at %s: this node saw names up to %s in use, so they go on from there",
				inventory.DropletName(p.HostnamePrefix, p.NextOrdinal), inventory.DropletName(p.HostnamePrefix, floor-1)),
		})
	}
	if len(txn.Ops) == 0 {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, maxRetry)
	defer stop()
	rev, err := a.store.Commit(ctx, txn)
	if err != nil {
		return err
	}
	for _, e := range events {
		a.journal.Record(e)
	}
	// The next look must see this.
	if _, err := a.mirror.WaitRevision(ctx, rev); err != nil {
		time.Sleep(minRetry)
	}
	return nil
}
