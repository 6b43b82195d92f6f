package agent

import (
	"context"
	"errors"

	"github.com/doproxy/doproxy/server"
)

// migrator moves the inventory between this node's two stores.
type migrator struct{ *agent }

// Migrate implements server.Migrator.
func (m *migrator) Migrate(ctx context.Context, from, to string, abort bool, progress func(string)) (server.MigrateResult, error) {
	return server.MigrateResult{}, errors.ErrUnsupported
}
