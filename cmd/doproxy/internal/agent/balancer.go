package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
)

// balancer brings this node's HAProxy to what the mirror says.
type balancer struct {
	agent *agent
	sync  *haproxy.Sync
	base  haproxy.Config // all but the backends
	path  string         // of the rendered file

	// news wakes the report: HAProxy's status or sample has changed.
	news chan struct{}

	started    time.Time
	reloadDone atomic.Pointer[string] // id of the last one asked of all nodes
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
	var save <-chan time.Time
	var applied *inventory.State
	var reloaded string
	for {
		state := b.agent.mirror.State()
		if b.trusted(state) && (applied == nil || state.Inventory != applied.Inventory) {
			b.sync.Apply(wants.Wanted(state), int64(state.Inventory))
			applied = state
			if save == nil && state.Listed {
				save = time.After(saveAfter)
			}
		}
		if state.Listed && state.Reload != "" && state.Reload != reloaded {
			if reloaded = state.Reload; !b.reloadIsOld(state) {
				go b.reloadAsked(ctx, state.Reload)
			}
		}
		select {
		case <-ctx.Done():
			if save != nil {
				b.save(applied)
			}
			return nil
		case <-wake:
		case <-save:
			save = nil
			b.save(applied)
		}
	}
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
