package agent

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"
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

// isOld says that what this ULID stands for was asked for before this node could
// have been meant: it is from before the agent started.
func (b *balancer) isOld(id string) bool {
	parsed, err := ulid.Parse(id)
	return err != nil || ulid.Time(parsed.Time()).Before(b.started)
}
