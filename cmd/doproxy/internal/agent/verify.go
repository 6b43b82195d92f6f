package agent

import (
	"context"
	"time"

	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
)

const (
	// verifyWithin bounds one look at the node's own HAProxy.
	verifyWithin = 20 * time.Second
	// maxDifferences bounds what a report carries.
	maxDifferences = 50
)

// verified is what came of the last look that was asked for.
type verified struct {
	id          string
	differences []inventory.Difference
}

// verify compares this node's HAProxy with what it was left with and with the
// inventory, and tells.
func (b *balancer) verify(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, verifyWithin)
	defer cancel()
	v := &verified{id: id}
	differ := func(kind, subject, message string) {
		if len(v.differences) < maxDifferences {
			v.differences = append(v.differences, inventory.Difference{Kind: kind, Subject: subject, Node: b.agent.cfg.Node, Message: message})
		}
	}
	drift, err := b.sync.Audit(ctx)
	if err != nil {
		differ("haproxy.silent", b.agent.cfg.Node, err.Error())
	}
	for _, d := range drift {
		differ("haproxy.drift", d.Subject, d.Message+"; mended")
	}
	// What was being applied when the look began is no difference.
	want := int64(b.agent.mirror.State().Inventory)
	status, err := b.sync.Wait(ctx, func(s haproxy.Status) bool { return s.Applied >= want || s.State == haproxy.Failed })
	if err != nil || status.State == haproxy.Failed {
		differ("haproxy.behind", b.agent.cfg.Node, "it does not run what the inventory says: "+status.Error)
	}
	for _, c := range b.holds() {
		differ("haproxy.held", c.Pool, c.Message)
	}
	b.verified.Store(v)
	b.tell()
}
