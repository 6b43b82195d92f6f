package etcd_test

import (
	"context"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/etcd"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial returns a store on these members that ends with the test.
func dial(t testing.TB, endpoints ...string) *etcd.Store {
	t.Helper()
	s, err := etcd.Dial(etcd.Config{Endpoints: endpoints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

type compacter struct{ client *clientv3.Client }

func (c compacter) Compact(ctx context.Context, rev inventory.Revision) error {
	_, err := c.client.Compact(ctx, int64(rev), clientv3.WithCompactPhysical())
	return err
}

func TestStore(t *testing.T) {
	cluster := inventorytest.StartEtcd(t, 1)
	client, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	inventorytest.Run(t, func(t *testing.T) (inventorytest.Backend, inventorytest.Compacter) {
		return dial(t, cluster.Endpoints...), compacter{client}
	})
}
