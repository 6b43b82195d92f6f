package raft

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/doproxy/doproxy/inventory"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// client is this process to the machine: a session that it opened, and which of
// its requests wait for an answer. What is sent again under the same number is
// not done again.
type client struct {
	mu      sync.Mutex
	opening chan struct{} // closed when the opening under way has ended; nil if none is
	session uint64        // 0: none
	next    uint64        // number of the last request
	waiting map[uint64]struct{}
}

// begin numbers a request, in a session that open makes if there is none.
func (c *client) begin(ctx context.Context, open func(context.Context) (uint64, error)) (session, seq uint64, err error) {
	for {
		c.mu.Lock()
		if c.session != 0 {
			c.next++
			c.waiting[c.next] = struct{}{}
			session, seq = c.session, c.next
			c.mu.Unlock()
			return session, seq, nil
		}
		opening := c.opening
		if opening == nil {
			opening = make(chan struct{})
			c.opening = opening
			c.mu.Unlock()
			session, err = open(ctx)
			c.mu.Lock()
			if err == nil {
				c.session, c.next, c.waiting = session, 0, map[uint64]struct{}{}
			}
			c.opening = nil
			c.mu.Unlock()
			close(opening)
			if err != nil {
				return 0, 0, err
			}
			continue
		}
		c.mu.Unlock()
		select {
		case <-opening:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
}

// floor is the lowest number that waits.
func (c *client) floor(session, seq uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	floor := seq
	if session == c.session {
		for other := range c.waiting {
			floor = min(floor, other)
		}
	}
	return floor
}

// end is for a request that waits no longer.
func (c *client) end(session, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if session == c.session {
		delete(c.waiting, seq)
	}
}

// drop forgets a session that the machine does not know.
func (c *client) drop(session uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if session == c.session {
		c.session = 0
	}
}

// once has a command done, at most once, over changes of leader. Without an
// answer in time, with inventory.ErrUnavailable, it may come true yet.
func (n *Node) once(ctx context.Context, op string, c *storev1.Command) (*storev1.Answer, error) {
	var a *storev1.Answer
	var sent bool
	defer func() { n.client.end(c.Session, c.Seq) }()
	err := n.retry(ctx, op, func(ctx context.Context, m *member) error {
		if c.Session == 0 {
			var err error
			c.Session, c.Seq, err = n.client.begin(ctx, func(ctx context.Context) (uint64, error) {
				id := rand.Uint64() | 1 // not 0
				_, _, err := m.submit(ctx, &storev1.Command{Kind: &storev1.Command_Open{Open: &storev1.Open{Id: id}}})
				return id, err
			})
			if err != nil {
				return err
			}
		}
		c.Floor = n.client.floor(c.Session, c.Seq)
		var maybe bool
		var err error
		a, maybe, err = m.submit(ctx, c)
		if err != nil {
			sent = sent || maybe
			return err
		}
		switch a.Failure {
		case storev1.Failure_FAILURE_UNSPECIFIED:
			return nil
		case storev1.Failure_FAILURE_CONFLICT:
			return inventory.ErrConflict
		case storev1.Failure_FAILURE_LEASE_LOST:
			return inventory.ErrLeaseLost
		case storev1.Failure_FAILURE_NO_SESSION, storev1.Failure_FAILURE_STALE:
			n.client.drop(c.Session)
			if a.Failure == storev1.Failure_FAILURE_NO_SESSION && !sent {
				c.Session = 0
				return fmt.Errorf("%w: the session was dropped", inventory.ErrUnavailable)
			}
		}
		return fmt.Errorf("%w, in the end: %s", errUnknown, a.Failure)
	})
	return a, err
}
