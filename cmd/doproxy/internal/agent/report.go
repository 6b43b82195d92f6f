package agent

import (
	"bytes"
	"context"
	"net/url"
	"time"

	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
)

const (
	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second

	// reportEvery is the least time between two reports.
	reportEvery = 50 * time.Millisecond
	// reportAfter lets the nodes apply a change before they all tell of it, and
	// what one change brings go into one report.
	reportAfter = 10 * time.Millisecond
)

func nowMS() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// report keeps this node's record in the store, on a lease. The lease is left
// to expire when the agent ends: its HAProxy runs on, and a restart that takes
// less than the lease should look like none.
func (a *agent) report(ctx context.Context) error {
	backoff := inventory.Backoff{Min: minRetry, Max: maxRetry}
	started := nowMS()
	for ctx.Err() == nil {
		err := a.reportOnLease(ctx, started, backoff.Reset)
		if ctx.Err() == nil {
			a.logger.Warn("cannot report to the store", "error", err)
			_ = backoff.Wait(ctx)
		}
	}
	return nil
}

func (a *agent) reportOnLease(ctx context.Context, started time.Time, succeeded func()) error {
	lease, err := inventory.KeepLease(ctx, a.store, a.cfg.NodeTTL)
	if err != nil {
		return err
	}
	ctx = lease.Context()
	wake, cancel := a.mirror.Subscribe()
	defer cancel()
	var last []byte
	var seen watched
	var told facts
	for {
		if now := a.facts(); now != told {
			told = now
			op := inventory.PutNode(a.keys, a.node(started, &seen), lease.ID)
			if now.missing || !bytes.Equal(op.Value, last) {
				if _, err := a.store.Commit(ctx, inventory.Txn{Ops: []inventory.Op{op}}); err != nil {
					return err
				}
				succeeded()
				last = op.Value
				if pause(ctx, reportEvery) != nil {
					return context.Cause(ctx)
				}
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.balancer.news:
		case <-wake:
		}
		if pause(ctx, reportAfter) != nil {
			return context.Cause(ctx)
		}
	}
}

// facts are what a report is made of: whether one is due is seen at no cost.
type facts struct {
	inventory inventory.Revision
	status    haproxy.Status
	sample    time.Time
	reloaded  string
	held      *[]inventory.Condition
	verified  *verified
	drained   bool
	old       int64 // workers
	missing   bool  // the store has no report of this node
}

func (a *agent) facts() facts {
	state := a.mirror.State()
	return facts{
		state.Inventory, a.balancer.sync.Status(), a.balancer.sync.Sample().At, a.balancer.reloaded(),
		a.balancer.held.Load(), a.balancer.verified.Load(), a.drained(state),
		a.balancer.oldWorkers.Load(), state.Nodes[a.cfg.Node] == nil,
	}
}

// drained says that an operator wants this node without clients.
func (a *agent) drained(state *inventory.State) bool {
	m := state.Members[a.cfg.Node]
	return m != nil && !m.Drained.IsZero()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// watched is what was unusual when it was last looked for.
type watched struct {
	inventory inventory.Revision
	at        time.Time // of the sample
	servers   map[string]inventory.ServerState
}

func (w *watched) look(state *inventory.State, sample haproxy.Sample) map[string]inventory.ServerState {
	if w.inventory != state.Inventory || !w.at.Equal(sample.At) {
		w.inventory, w.at, w.servers = state.Inventory, sample.At, unusual(state.Droplets, sample)
	}
	return w.servers
}

// node is what this node has to report now.
func (a *agent) node(started time.Time, seen *watched) *inventory.Node {
	state, status, sample := a.mirror.State(), a.balancer.sync.Status(), a.balancer.sync.Sample()
	n := &inventory.Node{
		Name: a.cfg.Node, Version: a.version, Started: started,
		PublicIPv4: a.cfg.Advertise.PublicIPv4, PublicIPv6: a.cfg.Advertise.PublicIPv6, PrivateIPv4: a.cfg.Advertise.PrivateIPv4,
		Droplet:        a.cfg.Advertise.Droplet,
		Applied:        inventory.Revision(status.Applied),
		HAProxy:        string(status.State),
		HAProxyVersion: status.Version, HAProxyPID: status.PID, HAProxySince: status.Since.UTC().Truncate(time.Millisecond),
		Reloads:    int64(status.Reloads),
		Reloaded:   a.balancer.reloaded(),
		Error:      status.Error,
		Seen:       inventory.Revision(sample.Revision),
		Servers:    seen.look(state, sample),
		Conditions: a.balancer.holds(),
	}
	if a.drained(state) {
		n.Drained = true
		n.Sessions = sample.Sessions + int(a.balancer.oldWorkers.Load())
	}
	if v := a.balancer.verified.Load(); v != nil {
		n.Verified, n.Differences = v.id, v.differences
	}
	for _, bind := range a.cfg.HAProxy.Binds {
		scheme := "http"
		if bind.Certificate != "" {
			scheme = "https"
		}
		n.HTTP = append(n.HTTP, (&url.URL{Scheme: scheme, Host: bind.Address}).String())
	}
	return n
}

// unusual has the droplets that are booting or draining, and those serving that
// are not up. See Node.Servers.
func unusual(droplets map[string]*inventory.Droplet, sample haproxy.Sample) map[string]inventory.ServerState {
	var out map[string]inventory.ServerState
	key := make([]byte, 0, 80)
	for _, d := range droplets {
		if d.ID == 0 || d.Phase == inventory.Requested || d.Phase == inventory.Deleting {
			continue
		}
		key = append(append(append(key[:0], d.Pool...), '/'), haproxy.ServerName(d.ID)...)
		h, seen := sample.Servers[string(key)]
		state := inventory.ServerState{Health: inventory.Unchecked, Sessions: h.Sessions + h.Queue, Check: h.Check}
		switch {
		case !seen:
			state.Check = ""
		case h.Up && h.Checked:
			state.Health = inventory.Up
		case h.Checked:
			state.Health = inventory.Down
		}
		if d.Phase == inventory.Serving && state.Health == inventory.Up {
			continue
		}
		if out == nil {
			out = map[string]inventory.ServerState{}
		}
		out[d.Name] = state
	}
	return out
}
