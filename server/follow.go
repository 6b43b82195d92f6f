package server

import (
	"context"
	"fmt"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// streamPause is the least time between two messages of a stream: what happens
// meanwhile goes into one.
const streamPause = 50 * time.Millisecond

// follow calls each with the state as it is and then as it changes, until each
// says that it is done or fails, ctx ends, or the node shuts down.
func (s *Server) follow(ctx context.Context, each func(*inventory.State) (done bool, err error)) error {
	return s.followUntil(ctx, func(st *inventory.State) (time.Time, bool, error) {
		done, err := each(st)
		return time.Time{}, done, err
	})
}

// followUntil calls each also at the moment that it named last, if it named one.
func (s *Server) followUntil(ctx context.Context, each func(*inventory.State) (next time.Time, done bool, err error)) error {
	wake, cancel := s.mirror.Subscribe()
	defer cancel()
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	alarm.Stop()
	for {
		select {
		case <-wake:
		case <-alarm.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stopping:
			return errShuttingDown
		}
		next, done, err := each(s.mirror.State())
		if done || err != nil {
			return err
		}
		alarm.Stop()
		if !next.IsZero() {
			alarm.Reset(time.Until(next))
		}
		rest := time.NewTimer(streamPause)
		select {
		case <-rest.C:
		case <-ctx.Done(): // the next round ends
		case <-s.stopping:
		}
		rest.Stop()
	}
}

// await is the state once it has come to a revision that was committed. Where
// that takes long it is the state as it is: what was committed stays so.
func (s *Server) await(ctx context.Context, rev inventory.Revision) (st *inventory.State, reached bool) {
	ctx, cancel := context.WithTimeout(ctx, s.callTimeout)
	defer cancel()
	st, err := s.mirror.WaitRevision(ctx, rev)
	return st, err == nil
}

// holdup says what keeps the pool from what is wanted of it, as far as the
// state tells; empty if nothing does.
func holdup(st *inventory.State, p *inventory.Pool) string {
	switch {
	case st.Err != nil:
		return "this node is out of touch with the store, and shows what it knew last: " + st.Err.Error()
	case st.Leader.Name == "":
		return "no node leads at the moment: an election takes some seconds"
	case st.Pause != nil:
		return pausedText(st.Pause) + ": it ends with doproxy resume"
	case p != nil && p.Reason != "":
		return p.Reason
	}
	return ""
}

// conditionOf is the first thing that the leader says holds the pool up.
func conditionOf(st *inventory.State, pool string) string {
	if st.Report != nil {
		for _, c := range st.Report.Conditions {
			if c.Pool == pool {
				return c.Message
			}
		}
	}
	return ""
}

// laggard says why a node does not come along; empty if all seem well.
func laggard(nodes []*inventory.Node) string {
	for _, n := range nodes {
		switch {
		case n.Error != "":
			return fmt.Sprintf("node %s: %s", n.Name, n.Error)
		case n.HAProxy != "running":
			return fmt.Sprintf("node %s: its HAProxy is %s", n.Name, n.HAProxy)
		}
	}
	return ""
}
