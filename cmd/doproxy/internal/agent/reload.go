package agent

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/doproxy/doproxy/inventory"
)

// reloadWithin bounds a reload that was asked of all nodes.
const reloadWithin = time.Minute

// reloadAsked does the reload with this id and then reports it done, whatever
// came of it: the error is in the node's status.
func (b *balancer) reloadAsked(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, reloadWithin)
	defer cancel()
	if err := b.sync.Reload(ctx); err != nil {
		b.agent.logger.Error("reload asked of all nodes", "id", id, "error", err)
	}
	b.reloadDone.Store(&id)
	b.tell()
}

func (b *balancer) reloaded() string {
	if id := b.reloadDone.Load(); id != nil {
		return *id
	}
	return ""
}

// reloadIsOld says that a reload was asked for before this node could have been
// meant: it is from before the agent started.
func (b *balancer) reloadIsOld(state *inventory.State) bool {
	id, err := ulid.Parse(state.Reload)
	return err != nil || ulid.Time(id.Time()).Before(b.started)
}
