package agent

import (
	"context"
	"fmt"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	"github.com/doproxy/doproxy/inventory/migrate"
	"github.com/doproxy/doproxy/server"
)

// migrator moves the inventory between this node's two stores.
type migrator struct{ *agent }

// Migrate implements server.Migrator.
func (m *migrator) Migrate(ctx context.Context, do server.Migration, progress func(string)) (server.MigrateResult, error) {
	by := map[string]migrate.Store{config.StoreEtcd: m.stores.etcd, config.StoreRaft: m.stores.raft}
	o := migrate.Options{From: by[do.From], To: by[do.To], FromName: do.From, ToName: do.To, Keys: m.keys, Progress: progress, Lost: do.Force}
	if do.Abort {
		return server.MigrateResult{}, migrate.Abort(ctx, o)
	}
	r, err := migrate.Run(ctx, o)
	if err != nil {
		return server.MigrateResult{}, err
	}
	return server.MigrateResult{
		Records: r.Records, Digest: r.Digest, Held: r.Held,
		Next: []string{
			fmt.Sprintf("On every node set `store: %s` in doproxy.yml and restart the agent; until then it serves what it has and changes nothing.", do.To),
			fmt.Sprintf("When all is well, take the %s block out of doproxy.yml.", do.From),
		},
	}, nil
}
