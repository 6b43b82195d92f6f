package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
)

// balancer brings this node's HAProxy to what the mirror says.
type balancer struct {
	agent   *agent
	sync    *haproxy.Sync
	base    haproxy.Config // all but the backends
	process haproxy.Process
	path    string // of the rendered file

	// news wakes the report: HAProxy's status or sample has changed.
	news chan struct{}

	started    time.Time
	reloadDone atomic.Pointer[string]                // id of the last one asked of all nodes
	held       atomic.Pointer[[]inventory.Condition] // by the wipe guard
	verified   atomic.Pointer[verified]
	oldWorkers atomic.Int64 // of HAProxy, as drain last saw; counted while drained
}

func newBalancer(a *agent) (*balancer, error) {
	cfg := a.cfg.HAProxy
	b := &balancer{
		agent:   a,
		base:    haproxy.Config{Global: cfg.Global, Binds: cfg.Binds, Timeouts: cfg.Timeouts},
		path:    cfg.ConfigFile,
		news:    make(chan struct{}, 1),
		started: time.Now(),
	}
	var process haproxy.Process = haproxy.NewExternal(cfg.MasterSocket)
	if cfg.Mode == config.Managed {
		managed, err := haproxy.NewManaged(haproxy.ManagedOptions{
			Binary: cfg.Binary, ConfigFile: cfg.ConfigFile, MasterSocket: cfg.MasterSocket,
			PIDFile: cfg.PIDFile, LogFile: filepath.Join(a.cfg.StateDir, "haproxy.log"), Logger: a.logger,
		})
		if err != nil {
			return nil, err
		}
		process = managed
	}
	b.process = process
	options := haproxy.Options{
		Process: process, Runtime: haproxy.NewRuntime(cfg.Global.AdminSocket),
		Binary: cfg.Binary, ConfigFile: cfg.ConfigFile, Logger: a.logger,
		AuditInterval: cfg.AuditInterval,
		OnStatus:      func(haproxy.Status) { b.tell() },
		OnSample:      func(haproxy.Sample) { b.tell() },
	}
	if cfg.TemplateFile != "" {
		options.Template = haproxy.TemplateFile(cfg.TemplateFile)
	}
	var err error
	b.sync, err = haproxy.New(options)
	return b, err
}

func (b *balancer) tell() {
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// saveAfter is how long the copy on disk may be behind.
const saveAfter = 5 * time.Second

// run applies each change of pools and droplets, and keeps the copy on disk.
func (b *balancer) run(ctx context.Context) error {
	wake, cancel := b.agent.mirror.Subscribe()
	defer cancel()
	wants := haproxy.NewTracker(b.base)
	var save, recheck <-chan time.Time
	var picture *inventory.State // as HAProxy was last brought to
	var applied inventory.Revision
	closing := false
	var reloaded, verified string
	if preset := b.agent.mirror.State(); preset.Meta != nil {
		picture = preset
	}
	for {
		state := b.agent.mirror.State()
		drained := b.agent.drained(state)
		if b.trusted(state) && (applied == 0 || state.Inventory != applied || drained != closing || recheck == nil && len(b.holds()) > 0) {
			next, held := retain(picture, state, b.up)
			if len(held) > 0 {
				recheck = time.After(keepCheck)
			}
			b.keeps(held)
			cfg := wants.Wanted(next)
			cfg.Closing = drained
			b.sync.Apply(cfg, int64(state.Inventory))
			picture, applied, closing = next, state.Inventory, drained
			if save == nil && state.Listed {
				save = time.After(saveAfter)
			}
		}
		if state.Listed && state.Reload != "" && state.Reload != reloaded {
			if reloaded = state.Reload; !b.isOld(state.Reload) {
				go b.reloadAsked(ctx, state.Reload)
			}
		}
		if v := state.Verify; state.Listed && v != nil && v.ID != verified {
			if verified = v.ID; !b.isOld(v.ID) {
				go b.verify(ctx, v.ID)
			}
		}
		select {
		case <-ctx.Done():
			if save != nil {
				b.save(picture)
			}
			return nil
		case <-wake:
		case <-recheck:
			recheck = nil
		case <-save:
			save = nil
			b.save(picture)
		}
	}
}

const (
	// keepCheck is how often kept servers are looked at.
	keepCheck = 2 * time.Second
	// lookFirst is how long an agent that starts waits to see what its HAProxy
	// serves before it believes that records vanished.
	lookFirst = 3 * time.Second
)

// up says whether HAProxy finds a droplet up. While it was not asked yet, what
// served is taken for up.
func (b *balancer) up(d *inventory.Droplet) bool {
	sample := b.sync.Sample()
	if sample.At.IsZero() {
		return time.Since(b.started) < lookFirst
	}
	return sample.Servers[d.Pool+"/"+haproxy.ServerName(d.ID)].Up
}

// keeps notes and tells what the wipe guard holds.
func (b *balancer) keeps(held []hold) {
	before := b.holds()
	now := make([]inventory.Condition, 0, len(held))
	for _, h := range held {
		c := inventory.Condition{
			Key: "guard " + h.pool, Type: "node.held", Pool: h.pool, Node: b.agent.cfg.Node,
			Message: h.message(), Since: nowMS(), Names: h.names,
		}
		if i := slices.IndexFunc(before, func(old inventory.Condition) bool { return old.Key == c.Key }); i >= 0 {
			c.Since = before[i].Since
			if c.Message == before[i].Message && slices.Equal(c.Names, before[i].Names) {
				now = append(now, before[i])
				continue
			}
		}
		now = append(now, c)
		b.agent.logger.Error("the wipe guard holds servers", "message", c.Message)
		b.agent.journal.Record(inventory.Event{Type: c.Type, Pool: c.Pool, Node: c.Node, Message: c.Message})
	}
	if len(now) == 0 && len(before) == 0 {
		return
	}
	if len(now) == 0 {
		b.agent.logger.Info("the wipe guard holds nothing any more")
		b.agent.journal.Record(inventory.Event{Type: "node.released", Node: b.agent.cfg.Node, Message: "the wipe guard holds no server any more"})
	}
	b.held.Store(&now)
	b.tell()
}

func (b *balancer) holds() []inventory.Condition {
	if held := b.held.Load(); held != nil {
		return *held
	}
	return nil
}

func (b *balancer) save(state *inventory.State) {
	if err := inventory.SaveState(b.agent.savedPath(), state); err != nil {
		b.agent.logger.Error("cannot keep the inventory on disk", "error", err)
	}
}

// trusted says that the state may be brought to HAProxy. Without its meta
// record there is no cluster, only an empty store. A state from disk is older
// than what HAProxy runs, and than its file: it counts only where there is
// neither.
func (b *balancer) trusted(state *inventory.State) bool {
	if state.Meta == nil || state.Listed {
		return state.Meta != nil
	}
	_, err := os.Stat(b.path)
	return errors.Is(err, fs.ErrNotExist)
}

// Reload implements server.Local.
func (b *balancer) Reload(ctx context.Context) error { return b.sync.Reload(ctx) }

// Reloads implements server.Local.
func (b *balancer) Reloads() int64 { return int64(b.sync.Status().Reloads) }

// Render implements server.Local.
func (b *balancer) Render(context.Context) ([]byte, string, error) {
	state := b.agent.mirror.State()
	if state.Meta == nil {
		return nil, "", fmt.Errorf("no configuration yet: %w", errors.Join(state.Err, errNoCluster))
	}
	template, err := haproxy.ParseTemplate(haproxy.DefaultTemplate())
	if file := b.agent.cfg.HAProxy.TemplateFile; file != "" {
		template, err = haproxy.TemplateFile(file)()
	}
	if err != nil {
		return nil, "", err
	}
	rendered, err := haproxy.Render(template, haproxy.Wanted(b.base, state.Pools, state.Droplets))
	return rendered, b.path, err
}

var errNoCluster = errors.New("this node has not read the cluster's records yet")
