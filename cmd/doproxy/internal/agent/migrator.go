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
func (m *migrator) Migrate(ctx context.Context, from, to string, abort bool, progress func(string)) (server.MigrateResult, error) {
	by := map[string]migrate.Store{config.StoreEtcd: m.stores.etcd, config.StoreRaft: m.stores.raft}
	o := migrate.Options{From: by[from], To: by[to], FromName: from, ToName: to, Keys: m.keys, Progress: progress}
	if abort {
		return server.MigrateResult{}, migrate.Abort(ctx, o)
	}
	r, err := migrate.Run(ctx, o)
	if err != nil {
		return server.MigrateResult{}, err
	}
	return server.MigrateResult{
		Records: r.Records, Digest: r.Digest, Held: r.Held,
		Next: []string{
			fmt.Sprintf("On every node set `store: %s` in doproxy.yml and restart the agent; until then it serves what it has and changes nothing.", to),
			fmt.Sprintf("When all is well, take the %s block out of doproxy.yml.", from),
		},
	}, nil
}
