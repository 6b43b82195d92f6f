package dev

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// formStore has the first node begin a store and the others join it, as a person
// would with `doproxy cluster init` and `doproxy cluster join`. It returns when
// all take part in the quorum that can.
func formStore(ctx context.Context, nodes []Node, s *supervisor) error {
	var first pb.StoreServiceClient
	for i := range nodes {
		n := &nodes[i]
		conn, err := grpc.NewClient("unix://"+n.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer conn.Close()
		c := pb.NewStoreServiceClient(conn)
		if err := n.answers(ctx, s); err != nil {
			return err
		}
		if i == 0 {
			first = c
			if _, err := c.InitStore(ctx, &pb.InitStoreRequest{}); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			continue
		}
		token, err := first.CreateJoinToken(ctx, &pb.CreateJoinTokenRequest{Ttl: durationpb.New(time.Hour)})
		if err != nil {
			return err
		}
		if _, err := c.JoinStore(ctx, &pb.JoinStoreRequest{Token: token.GetToken()}); err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
	}
	return allVote(ctx, first, min(len(nodes), maxVoters))
}

// maxVoters of a store; package raft's.
const maxVoters = 5

// allVote waits until so many healthy members make the quorum.
func allVote(ctx context.Context, c pb.StoreServiceClient, want int) error {
	for {
		r, err := c.GetStore(ctx, &pb.GetStoreRequest{})
		voters := 0
		for _, m := range r.GetMembership().GetMembers() {
			if m.GetVoter() && m.GetHealthy() {
				voters++
			}
		}
		if err == nil && voters == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d members take part: %s %w", voters, want, r.GetError(), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
