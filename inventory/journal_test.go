package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

func events(t *testing.T, store inventory.Store) []inventory.Event {
	t.Helper()
	l, err := store.List(t.Context(), keys.Event(""))
	if err != nil {
		t.Fatal(err)
	}
	var out []inventory.Event
	for _, kv := range l.KVs {
		e, err := inventory.DecodeEvent(keys, kv)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func TestJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := inventorytest.NewMemory()
		conn := mem.Connect()
		j := inventory.NewJournal(conn, conn, keys, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- j.Run(ctx) }()

		// In the order in which they were recorded, though the outcome of a write
		// was not known.
		conn.FailCommits(2, inventorytest.After)
		for i := range 150 {
			j.Record(inventory.Event{Type: "test.one", Message: fmt.Sprint(i)})
		}
		time.Sleep(time.Minute)
		got := events(t, mem)
		if len(got) != 150 {
			t.Fatalf("%d events, want 150", len(got))
		}
		for i, e := range got {
			if e.Message != fmt.Sprint(i) || e.Time.IsZero() {
				t.Fatalf("event %d is %+v", i, e)
			}
		}

		// They expire a day later, not before, and new ones go on.
		time.Sleep(24*time.Hour - 2*time.Minute)
		if n := len(events(t, mem)); n != 150 {
			t.Errorf("%d events after a day", n)
		}
		j.Record(inventory.Event{Type: "test.two"})
		time.Sleep(2 * time.Hour)
		if got := events(t, mem); len(got) != 1 || got[0].Type != "test.two" {
			t.Errorf("after 26 hours: %v", got)
		}

		// Without the store, Record neither waits nor fails; what is too much is dropped.
		conn.Partition()
		before := time.Now()
		for range 10_000 {
			j.Record(inventory.Event{Type: "test.three"})
		}
		if time.Since(before) != 0 {
			t.Errorf("Record took %s", time.Since(before))
		}
		time.Sleep(time.Hour)
		conn.Heal()
		time.Sleep(time.Minute)
		if n := len(events(t, mem)); n < 250 || n > 400 {
			t.Errorf("%d events after the partition", n)
		}

		// On the way out the queue is written.
		j.Record(inventory.Event{Type: "test.last"})
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		got = events(t, mem)
		if last := got[len(got)-1]; last.Type != "test.last" {
			t.Errorf("the last event is %+v", last)
		}
	})
}

func TestEnsureMeta(t *testing.T) {
	mem := inventorytest.NewMemory()
	first, err := inventory.EnsureMeta(t.Context(), mem, keys)
	if err != nil || first.UID == "" || first.Schema != inventory.Schema {
		t.Fatalf("EnsureMeta = %+v, %v", first, err)
	}
	again, err := inventory.EnsureMeta(t.Context(), mem, keys)
	if err != nil || again != first {
		t.Errorf("EnsureMeta = %+v, %v, want %+v", again, err, first)
	}
	put(t, mem, raw(keys.Meta(), `{"uid":"u","schema":99}`))
	if _, err := inventory.EnsureMeta(t.Context(), mem, keys); err == nil || !strings.Contains(err.Error(), "newer doproxy") {
		t.Errorf("EnsureMeta of a newer schema: %v", err)
	}
	mem.FailCommits(1, inventorytest.After)
	other := inventory.KeysOf("other")
	if _, err := inventory.EnsureMeta(t.Context(), mem, other); !errors.Is(err, inventory.ErrUnavailable) {
		t.Errorf("EnsureMeta with an unknown outcome: %v", err)
	}
	if m, err := inventory.EnsureMeta(t.Context(), mem, other); err != nil || m.UID == first.UID {
		t.Errorf("EnsureMeta once more: %+v, %v", m, err)
	}
}
