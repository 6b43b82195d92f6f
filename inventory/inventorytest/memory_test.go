package inventorytest_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type memoryCompacter struct{ *inventorytest.Memory }

func (m memoryCompacter) Compact(_ context.Context, rev inventory.Revision) error {
	m.Memory.Compact(rev)
	return nil
}

func TestMemory(t *testing.T) {
	inventorytest.Run(t, func(t *testing.T) (inventorytest.Backend, inventorytest.Compacter) {
		m := inventorytest.NewMemory()
		return m, memoryCompacter{m}
	})
}
