package raft

import (
	"context"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// contact knows whether there is a leader. lost is closed when there was none
// for lostAfter, and replaced when there is one again.
type contact struct {
	mu   sync.Mutex
	last time.Time
	lost chan struct{}
	gone bool
}

const lostAfter = 3 * time.Second

func (c *contact) isLost() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

func (m *member) watchContact() {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var led hraft.ServerID
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		}
		_, leader := m.raft.LeaderWithID()
		if leader != "" && leader != led {
			led = leader
			m.notify()
		}
		c := &m.contact
		c.mu.Lock()
		switch {
		case leader != "":
			c.last = time.Now()
			if c.gone {
				c.gone, c.lost = false, make(chan struct{})
			}
		case !c.gone && time.Since(c.last) > lostAfter:
			c.gone = true
			close(c.lost)
		}
		c.mu.Unlock()
	}
}

// whileLed is ctx until another member than id leads: the one asked may hang, or be
// cut off, and whoever leads now answers.
func (m *member) whileLed(ctx context.Context, id hraft.ServerID) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancel(ctx)
	go func() {
		for {
			changed := m.changes()
			if _, now := m.raft.LeaderWithID(); now != id && now != "" {
				end()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, end
}

// rank is how many of the voters that follow come before this member.
func (m *member) rank() (rank int) {
	_, leader := m.raft.LeaderWithID()
	for _, s := range m.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == hraft.Voter && s.ID != leader && string(s.ID) < m.ID {
			rank++
		}
	}
	return rank
}

// noticeSilence has the library look whether the leader is silent when it may
// be. By itself it looks at times of its own, which on average is as long again
// as heartbeatTimeout; and it takes two that have noticed to elect another.
func (m *member) noticeSilence() {
	var last time.Time
	wait, limit := standAfter, standAfter
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(wait):
		}
		if at := m.raft.LastContact(); at != last {
			last, limit = at, standAfter+time.Duration(m.rank())*standApart
		}
		if wait = limit - time.Since(last); wait > 0 {
			continue
		}
		wait = standAfter
		if last.IsZero() || m.raft.State() != hraft.Follower {
			continue
		}
		// A follower looks at once when its heartbeatTimeout is made shorter.
		c := m.raft.ReloadableConfig()
		for _, change := range []time.Duration{-1, 1} {
			c.HeartbeatTimeout += change
			if err := m.raft.ReloadConfig(c); err != nil {
				m.logger.Debug("the store's clocks stay as they are", "error", err)
			}
		}
	}
}
