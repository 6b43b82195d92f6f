package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// Migrator moves the inventory between the stores while it is used.
type Migrator interface {
	// Migrate moves it from one store to the other, and tells for people what it
	// does. When ctx ends it stops where it is, and from stays whole: called again it
	// goes on. Errors are as those of StoreAdmin. progress may be called by several
	// goroutines, and not after the return.
	Migrate(ctx context.Context, m Migration, progress func(string)) (MigrateResult, error)
}

// Migration is what is to be done.
type Migration struct {
	From, To string // each "etcd" or "raft"
	Abort    bool   // give up one that was begun
	Force    bool   // with Abort: without To, if that does not answer
}

// MigrateResult is what came of a migration.
type MigrateResult struct {
	Records int           // that both stores hold alike
	Digest  string        // over all of them, the same in both
	Held    time.Duration // how long changes were held up
	Next    []string      // what is left to do, a sentence each
}

// MigrateStore implements pb.StoreServiceServer.
func (s *Server) MigrateStore(req *pb.MigrateStoreRequest, stream grpc.ServerStreamingServer[pb.MigrateStoreResponse]) error {
	if s.migrator == nil && s.storeAdmin != nil {
		return storeRefused(s.node, fmt.Sprintf("node %s has no etcd beside the integrated store: set etcd.endpoints in its doproxy.yml and restart its agent, or ask a node that has both", s.node))
	}
	if s.migrator == nil {
		return errNoRaft
	}
	from, to := req.GetFrom(), req.GetTo()
	var v violations
	v.check(storeKind(from), "from", from, "must be the store that has the inventory: "+storeKinds)
	v.check(storeKind(to), "to", to, "must be the other store: "+storeKinds)
	v.check(req.GetAbort() || !req.GetForce(), "force", true, "is for abort alone: leave it out")
	v.check(from != to || !storeKind(to), "to", to, "must be the other store: it is that of from")
	if err := v.err(); err != nil {
		return err
	}
	// A node that ends must not wait for a migration.
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-s.stopping:
			cancel(errShuttingDown)
		case <-ended:
		}
	}()
	var sending sync.Mutex
	tell := func(line string) {
		sending.Lock()
		defer sending.Unlock()
		// If the caller is gone, ctx tells.
		_ = stream.Send(&pb.MigrateStoreResponse{Step: &pb.MigrateStoreResponse_Progress{Progress: line}})
	}
	begin := "moving the inventory from " + from + " to " + to
	if req.GetAbort() {
		begin = "giving up the move from " + from + " to " + to
	}
	tell(begin) // at once: who waits for the first answer knows that it began
	res, err := s.migrator.Migrate(ctx, Migration{From: from, To: to, Abort: req.GetAbort(), Force: req.GetForce()}, tell)
	switch {
	case err != nil && errors.Is(context.Cause(ctx), errShuttingDown):
		return stopped(from, to)
	case err != nil:
		return storeError("store", err)
	}
	sending.Lock()
	defer sending.Unlock()
	return stream.Send(&pb.MigrateStoreResponse{Step: &pb.MigrateStoreResponse_Result{Result: &pb.Migration{
		From: from, To: to, Aborted: req.GetAbort(), Records: int64(res.Records), Digest: res.Digest,
		Held: durationpb.New(res.Held), Next: res.Next,
	}}})
}

// stopped is for a migration at a node that ends, which nobody goes on with.
func stopped(from, to string) error {
	p := *errShuttingDown
	p.message = "this node is shutting down, and the move from " + from + " to " + to + " stops where it is: ask again and it goes on"
	return &p
}
