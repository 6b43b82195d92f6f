package raft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

func (c *cluster) put(i int, key, value string) {
	c.Helper()
	c.eventually("a write", func() error {
		_, err := c.nodes[i].Commit(c.Context(), inventory.Txn{Ops: []inventory.Op{{Key: key, Value: []byte(value)}}})
		return err
	})
}

func (c *cluster) has(i int, key, value string) {
	c.Helper()
	c.eventually("a read", func() error {
		kv, err := inventory.Get(c.Context(), c.nodes[i], key)
		if err == nil && string(kv.Value) != value {
			c.Fatalf("%s is %q, want %q", key, kv.Value, value)
		}
		return err
	})
}

func refused(t *testing.T, what string, err error, words string) {
	t.Helper()
	if !errors.Is(err, inventory.ErrRefused) || !strings.Contains(err.Error(), words) {
		t.Errorf("%s: %v, want a refusal that says %q", what, err, words)
	}
}

// TestMembership forms a store with TLS, and tries what must be refused.
func TestMembership(t *testing.T) {
	c := &cluster{T: t, dir: t.TempDir(), cut: map[[2]string]bool{}, conns: map[net.Conn][2]string{}}
	for i := range 4 {
		c.add(i, func(o *Options) {
			if i == 3 {
				o.Name = "lb1" // the name of one that is there
			}
		})
	}
	ctx := t.Context()
	if _, err := c.nodes[0].List(ctx, ""); !errors.Is(err, inventory.ErrUnavailable) {
		t.Errorf("a node without a store: %v", err)
	}
	c.init(0)
	_, err := c.nodes[0].Init(ctx)
	refused(t, "a second init", err, "already")
	token := c.token()
	if err := c.nodes[1].Join(ctx, token, false, nil); err != nil {
		t.Fatal(err)
	}
	refused(t, "a token used twice", c.nodes[2].Join(ctx, token, false, nil), "not known")
	refused(t, "a token cut short", c.nodes[2].Join(ctx, token[:len(token)-3], false, nil), "cut short")
	refused(t, "a member that joins", c.nodes[1].Join(ctx, c.token(), false, nil), "already")
	c.join(2)
	refused(t, "a name that is taken", c.nodes[3].Join(ctx, c.token(), false, nil), "alive")
	if left, err := os.ReadDir(c.opts[3].Dir); len(left) > 0 {
		t.Errorf("a join that was refused left %v (%v)", left, err)
	}
	twice := c.opts[1]
	twice.Address, twice.Listen = freeAddress(t), ""
	if n, err := Open(twice); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second process on a member's directory: %v", err)
		n.Close()
	}
	if err := c.nodes[3].Close(); err != nil { // else it is let in once the other is gone
		t.Fatal(err)
	}
	refused(t, "a member that is not there", c.nodes[0].Remove(ctx, "lb9", false), "lb1, lb2, lb3")

	// The leader is removed: another leads, and it is let in no more.
	gone := c.leader()
	c.eventually("the others are healthy", func() error { // which a busy machine may not show
		return c.nodes[(gone+1)%3].Remove(ctx, fmt.Sprint("lb", gone+1), false)
	})
	c.put((gone+1)%3, "/a", "b")
	c.eventually("the removed member is told", func() error {
		if c.nodes[gone].expelled.Load() == nil {
			return errors.New("not yet")
		}
		return nil
	})
	c.voters(2)
	// It joins anew, with its former data set aside.
	var again string
	c.eventually("a token", func() error {
		again, _, err = c.nodes[(gone+1)%3].Token(ctx, time.Hour)
		return err
	})
	if err := c.nodes[gone].Join(ctx, again, false, nil); err != nil {
		t.Fatal(err)
	}
	c.voters(3)
	c.has(gone, "/a", "b")
}

// TestEmptiedDisk: a member that lost its directory joins as a replacement, and
// the quorum is kept; one that lost only its log is refused.
func TestEmptiedDisk(t *testing.T) {
	c := newCluster(t, 3, func(o *Options) { o.snapshotEntries = 20 })
	for i := range 60 {
		c.put(0, fmt.Sprint("/k", i%7), fmt.Sprint(i))
	}
	lost := (c.leader() + 1) % 3
	former := c.nodes[lost].member.Load().ID
	if err := c.nodes[lost].Close(); err != nil {
		t.Fatal(err)
	}
	// Neither with its snapshots, nor without.
	for _, gone := range []string{walDir, snapshotDir} {
		if err := os.RemoveAll(filepath.Join(c.opts[lost].Dir, gone)); err != nil {
			t.Fatal(err)
		}
		if n, err := Open(c.opts[lost]); err == nil || !strings.Contains(err.Error(), "gone") {
			t.Errorf("a member without its log: %v", err)
			n.Close()
		}
	}
	if err := os.RemoveAll(c.opts[lost].Dir); err != nil {
		t.Fatal(err)
	}
	c.put((lost+1)%3, "/meanwhile", "x")
	n, err := Open(c.opts[lost])
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[lost] = n
	var token string
	c.eventually("a token", func() error {
		token, _, err = c.nodes[(lost+1)%3].Token(t.Context(), time.Hour)
		return err
	})
	if err := n.Join(t.Context(), token, false, nil); err != nil {
		t.Fatal(err)
	}
	c.voters(3)
	c.has(lost, "/meanwhile", "x")
	all, err := c.nodes[lost].Members(t.Context())
	if err != nil || len(all.Members) != 3 {
		t.Errorf("members: %+v, %v", all, err)
	}
	for _, m := range all.Members {
		if m.ID == former {
			t.Errorf("%s is still a member", former)
		}
	}
}

// TestRecover: with two of three lost for good, the third goes on alone with all
// that it had, refuses the others, and takes new ones.
func TestRecover(t *testing.T) {
	c := newCluster(t, 3, func(o *Options) { o.Plain = false })
	c.put(0, "/a", "b")
	for i := range 3 {
		c.has(i, "/a", "b")
	}
	for i := range 3 {
		if err := c.nodes[i].Close(); err != nil {
			t.Fatal(err)
		}
	}
	before, err := Inspect(c.opts[0].Dir, c.logger("lb1"))
	if err != nil || len(before.Others) != 2 || before.Index == 0 || before.Term == 0 {
		t.Fatalf("inspecting: %+v, %v", before, err)
	}
	if _, err := Recover(c.opts[0].Dir, c.opts[0].Address, c.logger("lb1")); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		n, err := Open(c.opts[i])
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[i] = n
	}
	c.has(0, "/a", "b")
	c.put(0, "/a", "c")
	c.eventually("the member that was left out is told", func() error {
		if c.nodes[1].expelled.Load() == nil {
			return errors.New("not yet")
		}
		return nil
	})
	if err := c.nodes[1].Join(t.Context(), c.token(), false, nil); err != nil {
		t.Fatal(err)
	}
	c.voters(2)
	c.has(1, "/a", "c")
}

// TestTornLog: the end of a member's last log file is damaged. It comes up with
// all that was acknowledged, from the others if need be, or says why it does not.
func TestTornLog(t *testing.T) {
	c := newCluster(t, 3)
	for i := range 30 {
		c.put(0, fmt.Sprint("/k", i), "v")
	}
	torn := (c.leader() + 1) % 3
	if err := c.nodes[torn].Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(c.opts[torn].Dir, walDir, "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("no log files: %v", err)
	}
	file := segments[len(segments)-1]
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	end := len(data)
	for end > 0 && data[end-1] == 0 { // the rest is preallocated
		end--
	}
	for i := max(0, end-20); i < end; i++ {
		data[i] ^= 0xff
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := Open(c.opts[torn])
	if err != nil {
		if !strings.Contains(err.Error(), "join anew") {
			t.Errorf("the error does not say what to do: %v", err)
		}
		return
	}
	c.nodes[torn] = n
	for i := range 30 {
		c.has(torn, fmt.Sprint("/k", i), "v")
	}
	c.voters(3)
}

// TestDamagedSnapshot: the newest snapshot is damaged, and one that was being
// written was left behind.
func TestDamagedSnapshot(t *testing.T) {
	c := newCluster(t, 3, func(o *Options) { o.snapshotEntries = 20 })
	for i := range 120 {
		c.put(0, fmt.Sprint("/k", i%11), fmt.Sprint(i))
	}
	i := (c.leader() + 1) % 3
	snapshots := func() []string {
		all, _ := filepath.Glob(filepath.Join(c.opts[i].Dir, "snapshots", "*"))
		return all
	}
	c.eventually("snapshots", func() error {
		if len(snapshots()) == 0 {
			c.put(0, "/more", time.Now().String())
			return errors.New("none")
		}
		return nil
	})
	if err := c.nodes[i].Close(); err != nil {
		t.Fatal(err)
	}
	all := snapshots()
	if err := os.WriteFile(filepath.Join(all[len(all)-1], "state.bin"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(c.opts[i].Dir, "snapshots", "9-99999-1.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := Open(c.opts[i])
	if err != nil {
		if !strings.Contains(err.Error(), "snapshot") {
			t.Errorf("the error does not say what is wrong: %v", err)
		}
		return
	}
	c.nodes[i] = n
	c.put((i+1)%3, "/last", "x")
	c.has(i, "/last", "x")
	for k := range 11 {
		c.has(i, fmt.Sprint("/k", k), fmt.Sprint(110+(k+11-110%11)%11))
	}
}

// TestAnswerLost: the connection to the leader is cut after a write went out on
// it. It is sent again, and done once.
func TestAnswerLost(t *testing.T) {
	c := newCluster(t, 3)
	i := (c.leader() + 1) % 3
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(7 * time.Millisecond):
			}
			c.mu.Lock()
			for conn, pair := range c.conns {
				if pair[0] == c.opts[i].Address {
					conn.Close()
					delete(c.conns, conn)
				}
			}
			c.mu.Unlock()
		}
	}()
	var rev inventory.Revision
	applied := 0
	for n := range 150 {
		// Each is guarded by the one before: were one done twice, or lost, the next
		// would conflict.
		got, err := c.nodes[i].Commit(ctx, inventory.Txn{
			Guards: []inventory.Guard{{Key: "/chain", Mod: rev}},
			Ops:    []inventory.Op{{Key: "/chain", Value: []byte(fmt.Sprint(n))}},
		})
		switch {
		case errors.Is(err, inventory.ErrUnavailable):
			c.eventually("a read", func() error {
				kv, err := inventory.Get(ctx, c.nodes[i], "/chain")
				rev = kv.Mod
				return err
			})
		case err != nil:
			t.Fatalf("write %d: %v", n, err)
		default:
			rev = got
			applied++
		}
	}
	close(stop)
	<-done
	if applied < 100 {
		t.Errorf("only %d of 150 writes were answered", applied)
	}
}

// TestCloseUnderRequests: a member that leads closes while it is asked.
func TestCloseUnderRequests(t *testing.T) {
	c := newCluster(t, 1)
	for range 20 {
		c.leader()
		n := c.nodes[0]
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		for range 16 {
			asking.Go(func() {
				for ctx.Err() == nil {
					_, _ = n.List(ctx, "/x/")
				}
			})
		}
		time.Sleep(20 * time.Millisecond)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			c.restart(0)
		}()
		select {
		case <-closed:
		case <-time.After(patience):
			t.Fatal("it does not close")
		}
		cancel()
		asking.Wait()
	}
}

// TestRejectedEntries: a follower's disk fails while the leader has several
// messages to it under way, time and again. It has all entries soon after.
func TestRejectedEntries(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	i := (leader + 1) % 3
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_, _ = c.nodes[leader].Commit(ctx, inventory.Txn{Ops: []inventory.Op{{Key: fmt.Sprint("/w", w), Value: []byte(fmt.Sprint(n))}}})
			}
		})
	}
	full := errors.New("no space left on device")
	for range 10 {
		time.Sleep(100 * time.Millisecond)
		m := c.nodes[i].member.Load()
		if m == nil {
			continue
		}
		if m.log.failed.CompareAndSwap(nil, &full) {
			time.Sleep(20 * time.Millisecond) // in which it rejects what comes
			m.again.Go(func() { c.nodes[i].reopen(m, full) })
		}
		c.eventually("it is open again", func() error {
			if now := c.nodes[i].member.Load(); now == nil || now == m {
				return errors.New("it is not")
			}
			return nil
		})
	}
	cancel()
	writers.Wait()
	want, err := c.nodes[leader].List(t.Context(), "/w")
	if err != nil {
		t.Fatal(err)
	}
	// Without a write that would set it going again.
	c.eventually("it has all entries", func() error {
		got := c.nodes[i].member.Load().machine.list("/w")
		if len(got.KVs) != len(want.KVs) || got.Revision < want.Revision {
			return fmt.Errorf("revision %d, want %d", got.Revision, want.Revision)
		}
		return nil
	})
}
