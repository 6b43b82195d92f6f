package agent

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/doproxy/doproxy/cloud/digitalocean"
	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/raft"
)

// joiner is the integrated store to a node that may begin or join one.
type joiner struct {
	*raft.Node
	agent *agent
}

// Init implements server.StoreAdmin. A node that lost its disk knows no cluster; it
// is asked to join, rather than begin another that competes with its own.
func (j joiner) Init(ctx context.Context, force bool) (string, error) {
	a := j.agent
	if !force && len(a.cfg.Token) > 0 {
		uid := "none"
		if meta := a.mirror.State().Meta; meta != nil {
			uid = meta.UID
		}
		cloud, err := digitalocean.New(digitalocean.Options{
			Token: digitalocean.StaticToken(string(a.cfg.Token)), BaseURL: a.cfg.DigitalOcean.URL,
			Cluster: uid, UserAgent: "doproxy/" + a.version, Budget: &a.budget,
		})
		if err != nil {
			return "", err
		}
		others, err := cloud.Others(ctx)
		if err != nil {
			return "", inventory.Refuse("DigitalOcean does not say whether there is a cluster already (%v): try again, or use --force", err)
		}
		if len(others) > 0 {
			uid := slices.Sorted(maps.Keys(others))[0]
			return "", inventory.Refuse("DigitalOcean has %d droplets of cluster %s: if this is a node of it, `doproxy cluster join`; if it is another one, or its store is lost for good, use --force", others[uid], uid)
		}
	}
	return j.Node.Init(ctx)
}

// Join implements server.StoreAdmin. The cluster of the store that it joins is the
// node's from then on, whatever it knew and whether or not the join comes to its end.
func (j joiner) Join(ctx context.Context, token string, abandon bool) error {
	return j.Node.Join(ctx, token, abandon, func() {
		if j.agent.cfg.Store != config.StoreRaft {
			return // the inventory is not in it yet
		}
		j.agent.mirror.Expect()
		// For an agent that ends before it has read the new one.
		if err := os.Rename(j.agent.savedPath(), j.agent.savedPath()+".former"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			j.agent.logger.Error("cannot set the former inventory aside", "error", err)
		}
	})
}
