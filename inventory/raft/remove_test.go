package raft

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/doproxy/doproxy/inventory"
)

// works fails unless the store takes a write, through each of these nodes.
func (c *cluster) works(through ...int) {
	c.Helper()
	for _, i := range through {
		c.put(i, "/works", "x")
	}
}

// TestRemoveAfterDeath: what autopilot knows is up to some seconds old; a removal
// does not count on a member that has just died.
func TestRemoveAfterDeath(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	dead, other := (leader+1)%3, (leader+2)%3
	if err := c.nodes[dead].Close(); err != nil {
		t.Fatal(err)
	}
	refused(t, "removing one of two that are left", c.nodes[leader].Remove(t.Context(), c.opts[other].Name, false), "no quorum")
	c.works(leader, other)
}

// TestTwoRemoves: of two removals at a time, each of which alone keeps the quorum,
// one is refused if both do not.
func TestTwoRemoves(t *testing.T) {
	c := newCluster(t, 4)
	leader := c.leader()
	dead, b, d := (leader+1)%4, (leader+2)%4, (leader+3)%4
	if err := c.nodes[dead].Close(); err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	errs := make([]error, 2)
	for k, i := range []int{b, d} {
		work.Go(func() { errs[k] = c.nodes[leader].Remove(t.Context(), c.opts[i].Name, false) })
	}
	work.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Error("removed: ", errs)
	}
	c.works(leader)
}

// TestRemovedStaysOut: a member that was promoted a moment ago, which autopilot
// still takes for one to promote, is removed and not brought back.
func TestRemovedStaysOut(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	if err := c.nodes[leader].Remove(t.Context(), c.opts[(leader+2)%3].Name, false); err != nil {
		t.Fatal(err)
	}
	c.told((leader + 2) % 3)
	c.members(leader, 2, 0)
}

// TestRemoveLeader: a leader that is well is removed like any other; and one that
// was elected just now knows who is well, when it is to hand on.
func TestRemoveLeader(t *testing.T) {
	c := newCluster(t, 4)
	for range 3 {
		leader := c.leader()
		if err := c.nodes[leader].StepDown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	gone := c.leader()
	if err := c.nodes[(gone+1)%4].Remove(t.Context(), c.opts[gone].Name, false); err != nil {
		t.Fatal(err)
	}
	c.told(gone)
	c.works((gone+1)%4, (gone+2)%4, (gone+3)%4)
}

// TestElectedAgain: a member that is elected while its former term's hand-over
// still hangs, which the library takes for a reason to do nothing, leads when that
// is over.
func TestElectedAgain(t *testing.T) {
	c := newCluster(t, 3)
	a := c.leader()
	b, d := (a+1)%3, (a+2)%3
	frozen, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	m := func(i int) *member { return c.nodes[i].member.Load() }
	hand := func(from, to int) {
		_ = m(from).trans.TimeoutNow(hraft.ServerID(m(to).ID), hraft.ServerAddress(c.opts[to].Address),
			&hraft.TimeoutNowRequest{RPCHeader: hraft.RPCHeader{ProtocolVersion: 3, ID: []byte(m(from).ID), Addr: []byte(c.opts[from].Address)}}, &hraft.TimeoutNowResponse{})
	}
	m(a).raft.LeadershipTransferToServer(hraft.ServerID(m(b).ID), hraft.ServerAddress(frozen.Addr().String()))
	time.Sleep(20 * time.Millisecond)
	hand(a, d)
	c.eventually("the second leads", func() error {
		if m(d).leading.Load() == nil {
			return errors.New("it does not")
		}
		return nil
	})
	hand(d, a)
	c.works(a, b, d)
}

// TestRecoverUnknown: a store is recovered with a member that had been cut off when
// another joined. That other one has what the recovered store has not, and is not
// let in when it comes back.
func TestRecoverUnknown(t *testing.T) {
	c := newCluster(t, 3)
	c.put(0, "/a", "1")
	c.isolate(0, true)
	c.eventually("the rest has a leader", func() error {
		_, err := inventory.Get(t.Context(), c.nodes[1], "/a")
		return err
	})
	late := c.add(3)
	c.isolate(0, true) // from that one too
	var token string
	c.eventually("a token", func() (err error) {
		token, _, err = c.nodes[1].Token(t.Context(), time.Hour)
		return err
	})
	if err := late.Join(t.Context(), token, false, nil); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		c.put(3, "/lost", "x")
	}
	for i := range 3 {
		if err := c.nodes[i].Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Recover(c.opts[0].Dir, c.opts[0].Address, c.logger("lb1")); err != nil {
		t.Fatal(err)
	}
	n, err := Open(c.opts[0])
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[0] = n
	c.isolate(0, false)
	c.put(0, "/b", "2")
	c.restart(3)
	// Its own log says where the others were; here it is told where this one is.
	if err := c.nodes[3].savePeers([]string{c.opts[0].Address}); err != nil {
		t.Fatal(err)
	}
	c.told(3)
	for range 60 {
		c.put(0, "/c", "3")
	}
	if l, err := c.nodes[3].List(t.Context(), "/lost"); err == nil {
		t.Errorf("a member that was not let in reads linearizably: %v", l.KVs)
	}
}

// TestRecoveredAlone: a store is recovered with one member, and the two others,
// which together are most of the former store, come back: at once, or one that was
// only cut off. They are told, and make no store of their own.
func TestRecoveredAlone(t *testing.T) {
	for _, back := range []string{"started", "cut off"} {
		t.Run(back, func(t *testing.T) {
			c := newCluster(t, 3, secured)
			c.put(0, "/a", "1")
			c.isolate(0, true)
			c.eventually("the rest has a leader", func() error {
				_, err := inventory.Get(t.Context(), c.nodes[1], "/a")
				return err
			})
			c.put(1, "/lost", "x")
			seen, err := c.nodes[1].List(t.Context(), "/")
			if err != nil {
				t.Fatal(err)
			}
			reopen := func(i int) {
				n, err := Open(c.opts[i])
				if err != nil {
					t.Fatal(err)
				}
				c.nodes[i] = n
			}
			if err := c.nodes[0].Close(); err != nil {
				t.Fatal(err)
			}
			if back == "started" {
				c.nodes[1].Close()
				c.nodes[2].Close()
			}
			if _, err := Recover(c.opts[0].Dir, c.opts[0].Address, c.logger("lb1")); err != nil {
				t.Fatal(err)
			}
			reopen(0)
			c.put(0, "/b", "2")
			c.isolate(0, false)
			if back == "started" {
				reopen(1)
				reopen(2)
			}
			c.told(1)
			c.told(2)
			for _, i := range []int{1, 2} {
				if _, err := c.nodes[i].List(t.Context(), "/"); !errors.Is(err, inventory.ErrNotMember) {
					t.Errorf("a member that is out answers a read: %v", err)
				}
				c.restart(i) // it stays so
				c.told(i)
			}
			if err := c.nodes[1].Join(t.Context(), c.token(), false, nil); err != nil {
				t.Fatal(err)
			}
			c.voters(2)
			c.has(1, "/b", "2")
			// Who watched goes on from what is no past of this store.
			err = c.nodes[1].Watch(t.Context(), "/", seen.Revision, func(inventory.Batch) error { return errors.New("it goes on") })
			if !errors.Is(err, inventory.ErrCompacted) {
				t.Errorf("a watch from a revision of the lost past: %v", err)
			}
		})
	}
}
