package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

func names(ds []*inventory.Droplet) string {
	var out []string
	for _, d := range ds {
		out = append(out, d.Name)
	}
	return strings.Join(out, " ")
}

func putDroplet(d *inventory.Droplet) inventory.Op { return opOf(inventory.PutDroplet(keys, d)) }

func deleted(key string) inventory.Op { return inventory.Op{Key: key, Delete: true} }

func TestMirrorFollows(t *testing.T) {
	mem := inventorytest.NewMemory()
	meta, err := inventory.EnsureMeta(t.Context(), mem, keys)
	if err != nil {
		t.Fatal(err)
	}
	put(t, mem, putDroplet(droplet("web", "web-2", 2)), opOf(inventory.PutPool(keys, &inventory.Pool{PoolSpec: inventory.PoolSpec{Name: "web"}})))
	m := inventory.NewMirror(mem, keys, quiet)
	if s := m.State(); s.Listed || s.Err == nil {
		t.Errorf("before Run: %+v", s)
	}
	start(t, m)
	lease, err := mem.Grant(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	put(t, mem, putDroplet(droplet("web", "web-10", 3)), putDroplet(droplet("api", "api-1", 9)), inventory.PutNode(keys, &inventory.Node{Name: "lb1"}, lease))
	leader := put(t, mem, raw(keys.Leader(), "lb1"))
	rev := put(t, mem, raw("/doproxy/other/pools/x", "{}"), raw(keys.Ordinal("web"), "11"), raw(keys.Prefix()+"later/thing", "?"))
	s := await(t, m, rev)
	if s.Err != nil || *s.Meta != meta || len(s.Pools) != 1 || len(s.Nodes) != 1 || s.Unreadable[keys.Prefix()+"later/thing"] == "" || len(s.Unreadable) != 1 ||
		s.Leader != (inventory.Leader{Name: "lb1", Created: leader}) {
		t.Errorf("state %+v", s)
	}
	if got := names(s.SortedDroplets()); got != "api-1 web-2 web-10" {
		t.Errorf("droplets %s", got)
	}
	if got := names(s.PoolDroplets("web")); got != "web-2 web-10" {
		t.Errorf("droplets of web %s", got)
	}
	if got := s.PoolDroplets("none"); len(got) != 0 {
		t.Errorf("droplets of none %v", got)
	}
	if d := s.Droplets["web-10"]; d.Mod != s.Nodes["lb1"].Mod || d.Mod >= leader || d.Mod == 0 {
		t.Errorf("web-10 has Mod %d, lb1 %d", d.Mod, s.Nodes["lb1"].Mod)
	}

	// A state that someone holds does not change.
	if err := mem.Revoke(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	later := await(t, m, put(t, mem, deleted(keys.Droplet("web", "web-2")), deleted(keys.Leader()), deleted(keys.Pool("web"))))
	if len(later.Nodes) != 0 || later.Leader.Name != "" || names(later.SortedDroplets()) != "api-1 web-10" || len(later.Pools) != 0 {
		t.Errorf("state after deletions %+v", later)
	}
	if len(s.Nodes) != 1 || names(s.SortedDroplets()) != "api-1 web-2 web-10" || len(s.Pools) != 1 || s.Leader.Name == "" {
		t.Errorf("an earlier state changed: %+v", s)
	}
}

func TestReportsDoNotCloneDroplets(t *testing.T) {
	mem := inventorytest.NewMemory()
	m := inventory.NewMirror(mem, keys, quiet)
	start(t, m)
	before := await(t, m, put(t, mem, putDroplet(droplet("web", "web-1", 1))))
	after := await(t, m, put(t, mem, inventory.PutNode(keys, &inventory.Node{Name: "lb1"}, 0)))
	if fmt.Sprintf("%p", before.Droplets) != fmt.Sprintf("%p", after.Droplets) {
		t.Error("a report cloned the map of droplets")
	}
	if &before.SortedDroplets()[0] != &after.SortedDroplets()[0] {
		t.Error("a report copied the order of droplets")
	}
}

func TestMirrorSetsCorruptRecordsAside(t *testing.T) {
	mem := inventorytest.NewMemory()
	m := inventory.NewMirror(mem, keys, quiet)
	start(t, m)
	good := droplet("web", "web-1", 1)
	key := keys.Droplet("web", "web-1")
	await(t, m, put(t, mem, putDroplet(good)))
	s := await(t, m, put(t, mem, raw(key, `{"name":"web-1",`), raw(keys.Pool("bad"), "nonsense")))
	check := func(s *inventory.State, when string) {
		t.Helper()
		if d := s.Droplets["web-1"]; d == nil || d.ID != 1 {
			t.Errorf("%s: the last good version is not in force: %+v", when, d)
		}
		if len(s.Unreadable) != 2 || !strings.Contains(s.Unreadable[key], key) {
			t.Errorf("%s: unreadable %v", when, s.Unreadable)
		}
	}
	check(s, "after the write")
	mem.Compact(s.Revision)
	rev := put(t, mem, raw("/elsewhere", "x"))
	mem.Compact(rev) // the watch is behind now, so that it lists
	mem.BreakWatches()
	check(await(t, m, put(t, mem, raw(keys.Ordinal("x"), "1"))), "after a listing")

	now := droplet("web", "web-1", 2)
	if s = await(t, m, put(t, mem, putDroplet(now))); s.Droplets["web-1"].ID != 2 || s.Unreadable[key] != "" {
		t.Errorf("mended record: %+v, %v", s.Droplets["web-1"], s.Unreadable)
	}
	put(t, mem, raw(key, "again"))
	if s = await(t, m, put(t, mem, deleted(key), deleted(keys.Pool("bad")))); len(s.Droplets) != 0 || len(s.Unreadable) != 0 {
		t.Errorf("deleted records: %+v", s)
	}
}

func TestMirrorKeepsNamesUnique(t *testing.T) {
	mem := inventorytest.NewMemory()
	m := inventory.NewMirror(mem, keys, quiet)
	start(t, m)
	await(t, m, put(t, mem, putDroplet(droplet("api", "n-1", 1))))
	s := await(t, m, put(t, mem, putDroplet(droplet("web", "n-1", 2))))
	if s.Droplets["n-1"].Pool != "api" || len(s.Unreadable) != 1 {
		t.Errorf("state %+v", s)
	}
	put(t, mem, deleted(keys.Droplet("api", "n-1")))
	awaitThat(t, m, "the other droplet takes its name", func(s *inventory.State) bool {
		d := s.Droplets["n-1"]
		return d != nil && d.Pool == "web" && len(s.Unreadable) == 0
	})
}

func TestMirrorSurvivesTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := inventorytest.NewMemory()
		conn := mem.Connect()
		if _, err := inventory.EnsureMeta(t.Context(), mem, keys); err != nil {
			t.Fatal(err)
		}
		m := inventory.NewMirror(conn, keys, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		go m.Run(ctx)
		defer synctest.Wait()
		defer cancel()

		await(t, m, put(t, mem, putDroplet(droplet("web", "web-1", 1))))

		// A lost stream: nothing is missed.
		conn.BreakWatches()
		s := await(t, m, put(t, mem, putDroplet(droplet("web", "web-2", 2))))
		if names(s.SortedDroplets()) != "web-1 web-2" {
			t.Errorf("after a lost stream: %s", names(s.SortedDroplets()))
		}

		// Out of reach for an hour, and compacted meanwhile.
		conn.Partition()
		s = awaitThat(t, m, "out of touch", func(s *inventory.State) bool { return s.Err != nil })
		if !errors.Is(s.Err, inventory.ErrUnavailable) || !s.Listed || len(s.Droplets) != 2 {
			t.Errorf("partitioned: %+v", s)
		}
		lost := s.Since
		rev := put(t, mem, putDroplet(droplet("web", "web-3", 3)), deleted(keys.Droplet("web", "web-1")))
		mem.Compact(rev)
		time.Sleep(time.Hour)
		if s = m.State(); s.Err == nil || !s.Since.Equal(lost) || names(s.SortedDroplets()) != "web-1 web-2" {
			t.Errorf("after an hour: %+v", s)
		}
		healed := time.Now()
		conn.Heal()
		s = awaitThat(t, m, "in step", func(s *inventory.State) bool { return s.Err == nil })
		if names(s.SortedDroplets()) != "web-2 web-3" || time.Since(healed) > 6*time.Second {
			t.Errorf("%s after the partition healed: %s", time.Since(healed), names(s.SortedDroplets()))
		}

		// Restored from an older copy: its revision runs backwards.
		snapshot := mem.Snapshot()
		late := await(t, m, put(t, mem, putDroplet(droplet("web", "web-4", 4))))
		mem.Restore(snapshot)
		s = awaitThat(t, m, "the restored store", func(s *inventory.State) bool { return s.Revision < late.Revision && s.Err == nil })
		if names(s.SortedDroplets()) != "web-2 web-3" {
			t.Errorf("after a restore: %s", names(s.SortedDroplets()))
		}
		if s.Restored != 1 {
			t.Errorf("restored %d times, want 1", s.Restored)
		}

		// Wiped: it keeps what it has, and says so.
		wiped := inventorytest.NewMemory().Snapshot()
		snapshot = mem.Snapshot()
		mem.Restore(wiped)
		s = awaitThat(t, m, "wiped", func(s *inventory.State) bool { return errors.Is(s.Err, inventory.ErrWiped) })
		if names(s.SortedDroplets()) != "web-2 web-3" {
			t.Errorf("after a wipe: %s", names(s.SortedDroplets()))
		}
		mem.Restore(snapshot)
		awaitThat(t, m, "in step again", func(s *inventory.State) bool { return s.Err == nil })

		// All deleted by hand, in one transaction.
		put(t, mem, deleted(keys.Meta()), deleted(keys.Droplet("web", "web-2")), deleted(keys.Droplet("web", "web-3")))
		s = awaitThat(t, m, "wiped by hand", func(s *inventory.State) bool { return errors.Is(s.Err, inventory.ErrWiped) })
		if names(s.SortedDroplets()) != "web-2 web-3" {
			t.Errorf("after a wipe by hand: %s", names(s.SortedDroplets()))
		}
		// However long that stood: mended, it is back at once.
		time.Sleep(time.Hour + time.Second)
		mended := time.Now()
		rev = put(t, mem, raw(keys.Meta(), `{"uid":"`+s.Meta.UID+`","schema":1}`))
		if await(t, m, rev); time.Since(mended) > 100*time.Millisecond {
			t.Errorf("in step %s after the mend", time.Since(mended))
		}
	})
}

func TestPresetState(t *testing.T) {
	mem := inventorytest.NewMemory()
	m := inventory.NewMirror(mem, keys, quiet)
	d := droplet("web", "web-1", 1)
	m.Preset(&inventory.State{Revision: 99, Meta: &inventory.Meta{UID: "known"}, Droplets: map[string]*inventory.Droplet{d.Name: d}})
	start(t, m)
	// The store is another one, or was wiped.
	s := awaitThat(t, m, "refused", func(s *inventory.State) bool { return errors.Is(s.Err, inventory.ErrWiped) })
	if s.Listed || names(s.SortedDroplets()) != "web-1" {
		t.Errorf("state %+v", s)
	}
	rev := put(t, mem, raw(keys.Meta(), `{"uid":"known","schema":1}`))
	if s = await(t, m, rev); len(s.Droplets) != 0 || s.Err != nil {
		t.Errorf("state %+v", s)
	}
}

func TestEventsOfAState(t *testing.T) {
	mem := inventorytest.NewMemory()
	event := func(i int) inventory.Op {
		return inventory.PutEvent(keys, inventory.Event{ID: fmt.Sprintf("E%05d", i)}, 0)
	}
	for i := range 250 {
		put(t, mem, event(i))
	}
	m := inventory.NewMirror(mem, keys, quiet)
	start(t, m)
	check := func(s *inventory.State, from, to int) {
		t.Helper()
		if len(s.Events) != 200 || s.Events[0].ID != fmt.Sprintf("E%05d", from) || s.Events[199].ID != fmt.Sprintf("E%05d", to) {
			t.Errorf("%d events, from %v", len(s.Events), s.Events[0])
		}
	}
	check(await(t, m, put(t, mem, raw(keys.Prefix()+"x", ""))), 50, 249)
	check(await(t, m, put(t, mem, event(250))), 51, 250)
	if s := await(t, m, put(t, mem, deleted(keys.Event("E00100")), deleted(keys.Event("E00001")))); len(s.Events) != 199 {
		t.Errorf("%d events, want 199", len(s.Events))
	}
}

// Whatever happens to the droplets, a state that was patched step by step is the
// same as one that was listed.
func TestPatchedOrderIsTheListedOne(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mem := inventorytest.NewMemory()
		m := inventory.NewMirror(mem, keys, quiet)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { m.Run(ctx); close(ended) }()
		defer func() { cancel(); <-ended }()
		await(t, m, put(t, mem, raw(keys.Prefix()+"x", "")))

		previous := m.State()
		for range rapid.IntRange(1, 20).Draw(rt, "batches") {
			ops := map[string]inventory.Op{}
			for range rapid.IntRange(1, 8).Draw(rt, "changes") {
				n := rapid.IntRange(0, 9).Draw(rt, "n")
				pool := []string{"a", "b"}[n%2]
				d := droplet(pool, fmt.Sprintf("%s-%d", pool, n), int64(rapid.IntRange(0, 2).Draw(rt, "id")))
				d.Phase = rapid.SampledFrom([]inventory.Phase{inventory.Booting, inventory.Serving}).Draw(rt, "phase")
				op := putDroplet(d)
				if rapid.Bool().Draw(rt, "gone") {
					op = deleted(op.Key)
				}
				ops[op.Key] = op
			}
			var list []inventory.Op
			for _, op := range ops {
				list = append(list, op)
			}
			rev := put(t, mem, list...)
			s := await(t, m, rev)
			plain := &inventory.State{Droplets: s.Droplets}
			if !slices.Equal(s.SortedDroplets(), plain.SortedDroplets()) || s.ETag() != plain.ETag() {
				rt.Fatalf("patched %s, listed %s", names(s.SortedDroplets()), names(plain.SortedDroplets()))
			}
			for _, pool := range []string{"a", "b"} {
				if !slices.Equal(s.PoolDroplets(pool), plain.PoolDroplets(pool)) {
					rt.Fatalf("pool %s: %s", pool, names(s.PoolDroplets(pool)))
				}
			}
			same := slices.EqualFunc(s.SortedDroplets(), previous.SortedDroplets(), func(a, b *inventory.Droplet) bool {
				return a.Name == b.Name && a.ID == b.ID
			})
			if same != (s.ETag() == previous.ETag()) {
				rt.Fatalf("same order: %v, but ETags %s and %s", same, s.ETag(), previous.ETag())
			}
			previous = s
		}
	})
}

func TestWaitRevisionObeysItsContext(t *testing.T) {
	m := inventory.NewMirror(inventorytest.NewMemory(), keys, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.WaitRevision(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitRevision = %v", err)
	}
}

func TestSubscriptionsAreLevelTriggered(t *testing.T) {
	mem := inventorytest.NewMemory()
	m := inventory.NewMirror(mem, keys, quiet)
	start(t, m)
	wake, cancel := m.Subscribe()
	defer cancel()
	var rev inventory.Revision
	for i := range 100 {
		rev = put(t, mem, putDroplet(droplet("web", "web-1", int64(i))))
	}
	await(t, m, rev)
	select {
	case <-wake: // all of them, as one
	case <-time.After(time.Minute):
		t.Fatal("no wake-up")
	}
	cancel()
	await(t, m, put(t, mem, raw(keys.Prefix()+"y", "")))
	select {
	case <-wake: // may be left of the above
	default:
	}
	await(t, m, put(t, mem, raw(keys.Prefix()+"z", "")))
	select {
	case <-wake:
		t.Error("a cancelled subscription was woken")
	default:
	}
}

func BenchmarkMirrorOneChange(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("droplets=%d", n), func(b *testing.B) {
			mem := inventorytest.NewMemory()
			for i := range n {
				put(b, mem, putDroplet(droplet("web", fmt.Sprintf("web-%d", i), int64(i))))
			}
			m := inventory.NewMirror(mem, keys, quiet)
			start(b, m)
			await(b, m, put(b, mem, raw(keys.Prefix()+"x", "")))
			d := *droplet("web", "web-5", 5)
			for i := 0; b.Loop(); i++ {
				if d.Phase = inventory.Serving; i%2 == 0 {
					d.Phase = inventory.Draining
				}
				rev := put(b, mem, putDroplet(&d))
				s, err := m.WaitRevision(b.Context(), rev)
				if err != nil || s.SortedDroplets()[5].Phase != d.Phase {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestMirrorRefusesNewerSchema(t *testing.T) {
	mem := inventorytest.NewMemory()
	if _, err := inventory.EnsureMeta(t.Context(), mem, keys); err != nil {
		t.Fatal(err)
	}
	m := inventory.NewMirror(mem, keys, quiet)
	start(t, m)
	await(t, m, put(t, mem, putDroplet(droplet("web", "web-1", 1))))
	meta := m.State().Meta
	put(t, mem, raw(keys.Meta(), `{"uid":"`+meta.UID+`","schema":99}`), raw(keys.Droplet("web", "web-1"), `{"name":"web-1","pool":"web","phase":"unheard-of"}`))
	late := inventory.NewMirror(mem, keys, quiet)
	start(t, late)
	for _, m := range []*inventory.Mirror{m, late} {
		wake, cancel := m.Subscribe()
		defer cancel()
		for !errors.Is(m.State().Err, inventory.ErrSchema) {
			select {
			case <-wake:
			case <-t.Context().Done():
				t.Fatal(m.State().Err)
			}
		}
		if err := m.State().Err.Error(); !strings.Contains(err, "schema 99") || !strings.Contains(err, "install a newer doproxy") {
			t.Error(err)
		}
	}
	if d := m.State().Droplets["web-1"]; d == nil || d.Phase == "unheard-of" || len(late.State().Droplets) != 0 {
		t.Errorf("records of a newer schema were taken: %+v", d)
	}
	rev := put(t, mem, raw(keys.Meta(), `{"uid":"`+meta.UID+`","schema":1}`))
	await(t, m, rev)
	await(t, late, rev)
}

func TestMirrorRemembersSettings(t *testing.T) {
	mem := inventorytest.NewMemory()
	m := inventory.NewMirror(mem, keys, quiet)
	start(t, m)
	s := await(t, m, put(t, mem, opOf(inventory.PutSettings(keys, &inventory.Settings{Limits: inventory.Limits{Droplets: 5}}))))
	if s.Settings.Limits.Droplets != 5 || s.Settings.Mod == 0 {
		t.Fatalf("%+v", s.Settings)
	}
	s = await(t, m, put(t, mem, deleted(keys.Settings())))
	if s.Settings.Limits.Droplets != 5 || s.Settings.Mod != 0 {
		t.Errorf("after its record went: %+v", s.Settings)
	}
	mem.Compact(put(t, mem, raw("/elsewhere", "x")))
	mem.BreakWatches() // so that it lists
	s = await(t, m, put(t, mem, raw(keys.Ordinal("x"), "1")))
	if s.Settings.Limits.Droplets != 5 || s.Settings.Mod != 0 {
		t.Errorf("after a listing: %+v", s.Settings)
	}
	// What is remembered may be written again.
	put(t, mem, opOf(inventory.PutSettings(keys, s.Settings)))
}
