package inventory_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doproxy/doproxy/inventory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	keys  = inventory.KeysOf("test")
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
)

func droplet(pool, name string, id int64) *inventory.Droplet {
	return &inventory.Droplet{Pool: pool, Name: name, ID: id, Phase: inventory.Serving, Created: time.Unix(1700000000+id, 0).UTC()}
}

func put(t testing.TB, store inventory.Store, ops ...inventory.Op) inventory.Revision {
	t.Helper()
	rev, err := store.Commit(t.Context(), inventory.Txn{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func raw(key, value string) inventory.Op { return inventory.Op{Key: key, Value: []byte(value)} }

// opOf drops the guard of a guarded operation.
func opOf(_ inventory.Guard, op inventory.Op) inventory.Op { return op }

// start runs a mirror until the test ends.
func start(t testing.TB, m *inventory.Mirror) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
	})
}

func await(t testing.TB, m *inventory.Mirror, rev inventory.Revision) *inventory.State {
	t.Helper()
	return awaitThat(t, m, "revision", func(s *inventory.State) bool { return s.Listed && s.Revision >= rev })
}

func awaitThat(t testing.TB, m *inventory.Mirror, what string, ok func(*inventory.State) bool) *inventory.State {
	t.Helper()
	wake, cancel := m.Subscribe()
	defer cancel()
	timeout := time.After(time.Minute)
	for {
		select {
		case <-wake:
			if s := m.State(); ok(s) {
				return s
			}
		case <-timeout:
			t.Fatalf("the mirror did not come to: %s; it has %+v", what, m.State())
		}
	}
}
