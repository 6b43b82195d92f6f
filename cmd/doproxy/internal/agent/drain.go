package agent

import (
	"context"
	"time"
)

// drainLook is how often a drained node looks for its HAProxy's old workers.
const drainLook = 500 * time.Millisecond

// watchDrain counts, while this node is drained, the workers of HAProxy that a
// reload replaced and that still have sessions. Each counts as one.
func (a *agent) watchDrain(ctx context.Context) error {
	wake, cancel := a.mirror.Subscribe()
	defer cancel()
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for {
		look := tick.C
		if !a.drained(a.mirror.State()) {
			look = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			continue
		case <-look:
		}
		proc, err := a.balancer.process.Proc(ctx)
		if err != nil {
			continue // the report says that HAProxy does not run
		}
		if n := int64(len(proc.OldWorkers)); a.balancer.oldWorkers.Swap(n) != n {
			a.balancer.tell()
		}
	}
}
