// Package agent puts a node together: the inventory's mirror, HAProxy, the
// node's report, the election and what its winner does, and the API.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	"github.com/doproxy/doproxy/election"
	electionraft "github.com/doproxy/doproxy/election/raft"
	"github.com/doproxy/doproxy/ingress"
	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/server"
)

// Run is one agent's life: until ctx ends, or until a part fails that the agent
// cannot be without. HAProxy runs on after it.
func Run(ctx context.Context, cfg *config.Config, version string, logger *slog.Logger) error {
	logger = logger.With("node", cfg.Node)
	for _, warning := range cfg.Warnings {
		logger.Warn(warning)
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return err
	}
	stores, err := openStores(cfg, version, logger)
	if err != nil {
		return err
	}
	defer stores.close()
	store := stores.used

	a := &agent{
		cfg: cfg, version: version, logger: logger,
		store:   store,
		stores:  stores,
		keys:    inventory.KeysOf(cfg.Cluster),
		metrics: newMetrics(),
	}
	a.mirror = inventory.NewMirror(store, a.keys, logger)
	a.journal = inventory.NewJournal(store, store, a.keys, logger)
	if err := a.preset(); err != nil {
		return err
	}
	a.known = a.mirror.State()
	if a.balancer, err = newBalancer(a); err != nil {
		return err
	}
	candidate := election.Options{
		Store: store, Leaser: store, Keys: a.keys, ID: cfg.Node, TTL: cfg.LeaseTTL,
		Logger: logger, OnChange: a.metrics.leading,
	}
	if cfg.Store == config.StoreRaft {
		candidate.Mandate = electionraft.Mandate(stores.raft)
	}
	elector, err := election.New(candidate)
	if err != nil {
		return err
	}
	service := server.Options{
		Cluster: cfg.Cluster, Node: cfg.Node, Store: store, Leaser: store, Keys: a.keys,
		Mirror: a.mirror, Journal: a.journal, Local: a.balancer, Logger: logger, Target: ingress.Target,
		StoreName: cfg.Store,
	}
	if stores.raft != nil {
		service.StoreAdmin = joiner{stores.raft, a}
	}
	if stores.raft != nil && stores.etcd != nil {
		service.Migrator = &migrator{agent: a}
	}
	api, err := server.New(service)
	if err != nil {
		return err
	}
	listeners, err := a.listen(ctx)
	if err != nil {
		return err
	}
	a.metrics.watch(a)

	return runParts(ctx, logger, []part{
		{"mirror", a.mirror.Run},
		{"haproxy", a.balancer.sync.Run},
		{"balancer", a.balancer.run},
		{"journal", a.journal.Run},
		{"bootstrap", a.bootstrap},
		{"membership", a.membership},
		{"drain", a.watchDrain},
		{"report", a.report},
		{"http", a.serveHTTP},
		{"election", func(ctx context.Context) error {
			if cfg.NeverLead {
				return a.abstain(ctx)
			}
			return a.campaign(ctx, elector)
		}},
		{"abstention", func(ctx context.Context) error {
			if stores.raft == nil || cfg.Store == config.StoreRaft {
				return nil
			}
			// Who leads the other store is to lead an agent that uses it already.
			return electionraft.Abstain(ctx, stores.raft)
		}},
		{"api", func(ctx context.Context) error { return api.Serve(ctx, listeners...) }},
	})
}

type agent struct {
	cfg     *config.Config
	version string
	logger  *slog.Logger

	store    backend
	stores   *stores
	keys     inventory.Keys
	mirror   *inventory.Mirror
	journal  *inventory.Journal
	balancer *balancer
	metrics  *metrics
	budget   cloud.Budget // of calls that this process made

	known        *inventory.State // from disk, before the store was read
	bootstrapped atomic.Bool
}

// savedPath is the node's last inventory on disk.
func (a *agent) savedPath() string { return filepath.Join(a.cfg.StateDir, "inventory.json") }

// preset gives the mirror the inventory of the last run, so that this node
// serves before, and without, the store.
func (a *agent) preset() error {
	saved, err := inventory.LoadState(a.savedPath())
	switch {
	case err == nil:
		a.mirror.Preset(saved)
	case errors.Is(err, fs.ErrNotExist):
	default:
		return fmt.Errorf("%w: move the file away to start from the store alone", err)
	}
	return nil
}

// bootstrap writes what only the first agent of a cluster writes: its meta
// record, and the pools that the configuration defines.
func (a *agent) bootstrap(ctx context.Context) error {
	backoff := inventory.Backoff{Min: minRetry, Max: maxRetry}
	for {
		err := a.tryBootstrap(ctx, a.known)
		if err == nil {
			a.bootstrapped.Store(true)
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		a.logger.Warn("cannot prepare the cluster's records yet", "error", err)
		if backoff.Wait(ctx) != nil {
			return nil
		}
	}
}

// tryBootstrap: a node that knew the cluster before writes nothing into a store
// that has lost it: that would give a wiped store a new identity, or pools that
// want no droplets.
func (a *agent) tryBootstrap(ctx context.Context, known *inventory.State) error {
	if known.Meta == nil {
		if _, err := inventory.EnsureMeta(ctx, a.store, a.keys); err != nil {
			return err
		}
	}
	meta, err := inventory.Get(ctx, a.store, a.keys.Meta())
	if err != nil {
		return err
	}
	waitCtx, cancel := context.WithTimeout(ctx, maxRetry)
	defer cancel()
	state, err := a.mirror.WaitRevision(waitCtx, meta.Mod)
	if err != nil || state.Err != nil || state.Meta == nil {
		return errors.Join(errNoCluster, state.Err)
	}
	if s := a.cfg.Settings; s != nil && state.Settings.Mod == 0 && known.Settings.Mod == 0 {
		if err := a.createSettings(ctx, *s, meta.Mod); err != nil {
			return fmt.Errorf("limits and ingress of %s: %w", a.cfg.File, err)
		}
	} else if s != nil && !sameSettings(s, state.Settings) {
		a.logger.Warn("limits or ingress differ from the cluster's, which count: change those with `doproxy apply`", "file", a.cfg.File)
	}
	for _, p := range a.cfg.Pools {
		// A pool that was, or whose droplets are there, is not new: its record
		// was deleted, by a request or by accident.
		if known.Pools[p.Name] != nil || state.Pools[p.Name] != nil || len(state.PoolDroplets(p.Name)) > 0 {
			continue
		}
		if err := a.createPool(ctx, p, meta.Mod); err != nil {
			return fmt.Errorf("pool %s of %s: %w", p.Name, a.cfg.File, err)
		}
	}
	return nil
}

// createPool creates a pool that never was: not one whose deletion left its
// ordinal behind, nor one in a store that has lost its meta record.
func (a *agent) createPool(ctx context.Context, p config.Pool, meta inventory.Revision) error {
	pool := &inventory.Pool{PoolSpec: p.PoolSpec, Desired: p.Desired, Created: nowMS()}
	var txn inventory.Txn
	txn.Add(inventory.PutPool(a.keys, pool))
	txn.Guards = append(txn.Guards,
		inventory.Guard{Key: a.keys.Ordinal(p.HostnamePrefix)},
		inventory.Guard{Key: a.keys.Meta(), Mod: meta})
	_, err := a.store.Commit(ctx, txn)
	if errors.Is(err, inventory.ErrConflict) {
		return nil
	}
	if err == nil {
		a.journal.Record(inventory.Event{Type: "pool.created", Pool: p.Name, Message: "pool " + p.Name + " created from " + a.cfg.File})
	}
	return err
}

// createSettings writes the cluster's first settings.
func (a *agent) createSettings(ctx context.Context, s inventory.Settings, meta inventory.Revision) error {
	var txn inventory.Txn
	txn.Add(inventory.PutSettings(a.keys, &s))
	txn.Guards = append(txn.Guards, inventory.Guard{Key: a.keys.Meta(), Mod: meta})
	_, err := a.store.Commit(ctx, txn)
	if errors.Is(err, inventory.ErrConflict) {
		return nil
	}
	if err == nil {
		a.journal.Record(inventory.Event{Type: "settings.changed", Message: "limits and ingress taken from " + a.cfg.File})
	}
	return err
}

func sameSettings(a, b *inventory.Settings) bool {
	return reflect.DeepEqual(a.Limits, b.Limits) && reflect.DeepEqual(a.Ingress, b.Ingress)
}
