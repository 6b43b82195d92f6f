package raft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/raft/pki"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

func secured(o *Options) { o.Plain = false }

// told waits until a node's membership is ended by the others.
func (c *cluster) told(i int) {
	c.Helper()
	c.eventually("it is told that it is no member", func() error {
		if c.nodes[i].expelled.Load() == nil {
			return errors.New("not yet")
		}
		return nil
	})
}

// TestAnothersID: a token is good for a member of its own, and for no certificate
// of one that is there, or was; and a certificate for nobody else's address.
func TestAnothersID(t *testing.T) {
	c := newCluster(t, 3, secured)
	leader := c.leader()
	victim := c.nodes[(leader+1)%3].member.Load()
	token, err := pki.ParseToken(c.token())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{victim.ID, "evil", "evil-", "evil-x", victim.ID + "-00000000"} {
		_, csr, err := pki.NewRequest(id)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.nodes[leader].askToJoin(t.Context(), token, &storev1.JoinRequest{TokenId: token.ID, Secret: token.Secret, Node: "evil", Address: freeAddress(t), Id: id, Csr: csr})
		refused(t, id, err, "not one of a new member")
	}
	peer, err := victim.peer(c.opts[leader].Address)
	if err != nil {
		t.Fatal(err)
	}
	other := c.nodes[leader].member.Load().ID
	if _, err := peer.Register(t.Context(), &storev1.RegisterRequest{Id: other, Node: c.opts[leader].Name, Address: freeAddress(t), Cluster: victim.Cluster}); err == nil {
		t.Error("a member gave another's address")
	}
}

// TestRemovedIsCutOff: a member that was removed does nothing more by the
// connections that it has.
func TestRemovedIsCutOff(t *testing.T) {
	c := newCluster(t, 4, secured)
	leader := c.leader()
	gone := (leader + 1) % 4
	m := c.nodes[gone].member.Load()
	peer, err := m.peer(c.opts[leader].Address)
	if err != nil {
		t.Fatal(err)
	}
	write := func(key string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := peer.Submit(ctx, &storev1.SubmitRequest{Command: &storev1.Command{Kind: &storev1.Command_Txn{Txn: &storev1.Txn{
			Ops: []*storev1.Op{{Key: key, Value: []byte("x")}},
		}}}})
		return err
	}
	if err := write(removedPrefix + "lb9"); err == nil {
		t.Error("a member wrote who is removed")
	}
	if err := write("/a"); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[leader].Remove(t.Context(), c.opts[gone].Name, false); err != nil {
		t.Fatal(err)
	}
	c.eventually("it is cut off", func() error {
		if write("/b") == nil {
			return errors.New("it still writes")
		}
		return nil
	})
	c.told(gone)
}

// TestRemovedWhileAway: a member that was cut off when it was removed is told when
// it is back, and can join anew.
func TestRemovedWhileAway(t *testing.T) {
	c := newCluster(t, 3, secured)
	leader := c.leader()
	away := (leader + 1) % 3
	c.isolate(away, true)
	if err := c.nodes[leader].Remove(t.Context(), c.opts[away].Name, false); err != nil {
		t.Fatal(err)
	}
	c.isolate(away, false)
	c.told(away)
	var token string
	c.eventually("a token", func() (err error) {
		token, _, err = c.nodes[leader].Token(t.Context(), time.Hour)
		return err
	})
	if err := c.nodes[away].Join(t.Context(), token, false, nil); err != nil {
		t.Fatal(err)
	}
	c.voters(3)
}

// TestUnknownForwarded: a change of a kind that the leader does not know is not
// put into the log, where it would stop every member of its version.
func TestUnknownForwarded(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	follower := c.nodes[(leader+1)%3].member.Load()
	peer, err := follower.peer(c.opts[leader].Address)
	if err != nil {
		t.Fatal(err)
	}
	later := &storev1.Command{Kind: &storev1.Command_Txn{Txn: &storev1.Txn{Ops: []*storev1.Op{{Key: "/a"}}}}}
	later.GetTxn().Ops[0].ProtoReflect().SetUnknown([]byte{0x82, 0x7d, 0x00}) // field 2000, empty
	for _, c := range []*storev1.Command{nil, {}, later} {
		if _, err := peer.Submit(t.Context(), &storev1.SubmitRequest{Command: c}); err == nil {
			t.Errorf("%v was taken", c)
		}
	}
	for i := range 3 {
		c.put(i, "/a", "b")
	}
}

// TestSessionOfAnotherStore: a process that joins another store brings nothing of
// its session with the former one.
func TestSessionOfAnotherStore(t *testing.T) {
	x, y := newCluster(t, 2), newCluster(t, 1)
	move := x.add(2)
	x.join(2)
	// Both stores have sessions, and are about as far.
	for i := range 20 {
		x.put(2, "/x", fmt.Sprint(i))
		y.put(0, "/y", fmt.Sprint(i))
	}
	if err := x.nodes[0].Remove(t.Context(), "lb3", false); err != nil {
		t.Fatal(err)
	}
	x.told(2)
	if err := move.Join(t.Context(), y.token(), false, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		for _, n := range []*Node{move, y.nodes[0]} {
			key := fmt.Sprintf("/%p/%d", n, i)
			if _, err := n.Commit(t.Context(), inventory.Txn{Ops: []inventory.Op{{Key: key, Value: []byte("v")}}}); err != nil {
				t.Fatal(err)
			}
			if kv, err := inventory.Get(t.Context(), n, key); err != nil || string(kv.Value) != "v" {
				t.Fatalf("a write that was acknowledged is not there: %q, %v", kv.Value, err)
			}
		}
	}
}

// TestAddressOfAnotherStore: a member finds one of another store where a peer was.
// That one does not know it, which is no reason to leave its own.
func TestAddressOfAnotherStore(t *testing.T) {
	x, y := newCluster(t, 1), newCluster(t, 1)
	if err := x.nodes[0].savePeers([]string{y.opts[0].Address}); err != nil {
		t.Fatal(err)
	}
	x.restart(0)
	x.put(0, "/a", "b")
	if why := x.nodes[0].expelled.Load(); why != nil {
		t.Error(why)
	}
}

// TestStrangers: connections that say nothing, as many as there may be, do not keep
// a member out.
func TestStrangers(t *testing.T) {
	c := newCluster(t, 3, secured)
	a := c.leader()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for i := range 2 * maxStrangers {
		all.Go(func() {
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%8))}}
			for ctx.Err() == nil {
				if conn, err := from.DialContext(ctx, "tcp", c.opts[a].Address); err == nil {
					end := context.AfterFunc(ctx, func() { conn.Close() })
					_, _ = conn.Read(make([]byte, 1))
					end()
					conn.Close()
				}
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	b := (a + 1) % 3
	c.eventually("they are there", func() error {
		n := c.nodes[a].member.Load().network
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.strangers) < maxStrangers*9/10 {
			return fmt.Errorf("%d are", len(n.strangers))
		}
		return nil
	})
	c.restart(b)
	c.put(b, "/a", "1")
}
