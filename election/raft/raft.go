// Package raft elects the agent whose member leads the integrated store: the
// leader key is bound to the store's own term.
package raft

import (
	"context"
	"time"

	"github.com/doproxy/doproxy/election"
	"github.com/doproxy/doproxy/inventory/raft"
)

// Mandate is for election.Options of an agent whose store is node.
func Mandate(node *raft.Node) func(context.Context) (election.Mandate, error) {
	return func(ctx context.Context) (election.Mandate, error) {
		l, err := node.Lead(ctx)
		if err != nil {
			return election.Mandate{}, err
		}
		return election.Mandate{Context: l.Context, Lease: l.Lease, After: l.After, Resign: node.Yield}, nil
	}
}

// Abstain hands the store's leadership on whenever this node has it, until ctx
// ends: for an agent that must not lead. It keeps it if there is nobody else.
func Abstain(ctx context.Context, node *raft.Node) error {
	for {
		if _, err := node.Lead(ctx); err != nil {
			return err
		}
		_ = node.Yield() // refused without another; the next look may find one
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
