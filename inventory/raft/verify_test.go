package raft

import (
	"context"
	"errors"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/doproxy/doproxy/inventory"
)

// reads says whether a node answers a linearizable read soon. A leader that
// reaches no majority gives up within leaderLease.
func (c *cluster) reads(i int) error {
	ctx, cancel := context.WithTimeout(c.Context(), 3*leaderLease)
	defer cancel()
	_, err := c.nodes[i].List(ctx, "/")
	return err
}

// TestVoteless: what a member without a vote answers is no proof of leadership.
func TestVoteless(t *testing.T) {
	c := newCluster(t, 5)
	c.add(5)
	if err := c.nodes[5].Join(t.Context(), c.token(), false, nil); err != nil {
		t.Fatal(err)
	}
	c.members(0, 5, 1)
	leader := c.leader()
	for i := range 5 {
		if i != leader {
			c.separate(leader, i)
		}
	}
	if err := c.reads(leader); err == nil {
		t.Error("a leader that reaches no other voter answered a read")
	}
}

// TestLateAnswer: what was answered before a question, and comes in after it, is
// no proof of leadership then.
func TestLateAnswer(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	release := c.hold(leader)
	time.Sleep(heartbeatTimeout / 4) // each heartbeat waits for its answer
	answer := make(chan error, 1)
	go func() { answer <- c.reads(leader) }()
	time.Sleep(20 * time.Millisecond)
	release()
	if <-answer == nil {
		t.Fatal("a read was answered though the others were asked nothing after it")
	}
}

// TestTermBetween: a leader that lost the leadership and won it again does not
// answer reads by what it knew in its former term.
func TestTermBetween(t *testing.T) {
	c := newCluster(t, 3)
	l := c.nodes[c.leader()].member.Load().leading.Load()
	before := &leading{member: l.member, term: l.term}
	for l == c.nodes[c.leader()].member.Load().leading.Load() {
		_ = l.raft.LeadershipTransfer().Error()
	}
	c.eventually("it leads again", func() error {
		if l.raft.State() != hraft.Leader {
			_ = c.nodes[c.leader()].StepDown(t.Context())
			return errNoLeader
		}
		return nil
	})
	if _, err := before.verifiedIndex(t.Context()); !errors.Is(err, errNoLeader) {
		t.Error("a read of the former term is answered:", err)
	}
}

// TestReadWhenClosed: a question that is open when the member ends, or that comes
// after, has the store's error, not that of a context which the asker never had.
func TestReadWhenClosed(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	m := c.nodes[leader].member.Load()
	l := m.leading.Load()
	ctx, cancel := context.WithCancel(t.Context())
	v := newVerifier(ctx, m.raft, m.verify.trans)
	open := make(chan error, 1)
	go func() {
		_, err := v.lead(time.Now().Add(time.Hour)) // none hears of this one
		open <- err
	}()
	time.Sleep(20 * time.Millisecond)
	cancel()
	if err := <-open; !errors.Is(err, inventory.ErrUnavailable) {
		t.Error("while it ends:", err)
	}
	if err := c.nodes[leader].Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := l.verifiedIndex(ctx); !errors.Is(err, inventory.ErrUnavailable) {
		t.Error("after its end:", err)
	}
}
