package raft

import (
	"errors"
	"sync"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/doproxy/doproxy/inventory"
)

// hanging is a cluster of three whose disks can be made to hang.
func hanging(t *testing.T, change func(i int, o *Options)) (c *cluster, hang func(i int) (release func())) {
	disks := make([]sync.Mutex, 3)
	i := 0
	c = newCluster(t, 3, func(o *Options) {
		disk := &disks[i]
		o.write = func() { disk.Lock(); disk.Unlock() }
		change(i, o)
		i++
	})
	return c, func(i int) func() {
		disks[i].Lock()
		release := sync.OnceFunc(disks[i].Unlock)
		t.Cleanup(release)
		return release
	}
}

func same(int, *Options) {}

func (c *cluster) write(i int) error {
	_, err := c.nodes[i].Commit(c.Context(), inventory.Txn{Ops: []inventory.Op{{Key: "/a", Value: []byte("x")}}})
	return err
}

// TestHungLeader: a leader whose disk hangs, with no error, is one no more. The
// others go on, and it follows once its disk works.
func TestHungLeader(t *testing.T) {
	c, hang := hanging(t, same)
	a := c.leader()
	release := hang(a)
	for _, i := range []int{(a + 1) % 3, (a + 2) % 3} {
		c.eventually("a write through another", func() error { return c.write(i) })
	}
	release()
	c.eventually("a write through it", func() error { return c.write(a) })
	c.voters(3)
}

// TestHungFollower: the leadership is not handed to a member whose disk hangs, and
// those who try do not keep the leader from taking writes.
func TestHungFollower(t *testing.T) {
	c, hang := hanging(t, same)
	for range 3 {
		a := c.leader()
		b := (a + 1) % 3
		release := hang(b)
		if err := c.write(a); err != nil {
			t.Fatal(err)
		}
		time.Sleep(electionTimeout)
		if err := c.nodes[a].StepDown(t.Context()); err != nil {
			t.Error("the third can lead:", err)
		}
		if now := c.leader(); now == a || now == b {
			t.Errorf("node %d leads after node %d, and the disk of %d hangs", now, a, b)
		}
		if err := c.write(a); err != nil {
			t.Error(err)
		}
		release()
		c.voters(3)
	}
}

// TestYieldToHung: a node that must not lead asks again and again to be relieved.
func TestYieldToHung(t *testing.T) {
	c, hang := hanging(t, func(i int, o *Options) { o.NeverLead = i != 1 })
	c.eventually("the first leads", func() error {
		if c.nodes[0].member.Load().leading.Load() == nil {
			_ = c.nodes[c.leader()].StepDown(t.Context())
			return errNoLeader
		}
		return nil
	})
	release := hang(1)
	if err := c.write(0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(electionTimeout)
	for range 3 {
		if err := c.nodes[0].Yield(); !errors.Is(err, inventory.ErrUnavailable) {
			t.Error("it yields to one that hangs:", err)
		}
		if err := c.write(2); err != nil {
			t.Error(err)
		}
	}
	release()
	c.eventually("it yields", func() error { return c.nodes[0].Yield() })
}

// TestContested: the leadership is handed on twice before anybody has acted, and
// the first leader is cut off meanwhile. The last waits until that cannot act.
func TestContested(t *testing.T) {
	c := newCluster(t, 3)
	a := c.leader()
	b, d := (a+1)%3, (a+2)%3
	m := func(i int) *member { return c.nodes[i].member.Load() }
	first, err := c.nodes[a].Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(first.After))
	if _, err := c.nodes[a].Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: "/leader", Value: []byte("a"), Lease: first.Lease}}}); err != nil {
		t.Fatal(err)
	}
	hand := func(from, to int) {
		_ = m(from).trans.TimeoutNow(hraft.ServerID(m(to).ID), hraft.ServerAddress(c.opts[to].Address),
			&hraft.TimeoutNowRequest{RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(m(from).ID), Addr: []byte(c.opts[from].Address)}}, &hraft.TimeoutNowResponse{})
	}
	c.isolate(a, true)
	hand(d, b)
	c.eventually("the second leads", func() error {
		if m(b).leading.Load() == nil {
			return errNoLeader
		}
		return nil
	})
	hand(b, d)
	last, err := c.nodes[d].Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if time.Until(last.After) <= 0 && first.Context.Err() == nil {
		t.Error("both may act")
	}
	time.Sleep(time.Until(last.After))
	if first.Context.Err() == nil {
		t.Error("both may act, in the end")
	}
}
