package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// Render implements pb.NodeServiceServer.
func (s *Server) Render(ctx context.Context, _ *pb.RenderRequest) (*pb.RenderResponse, error) {
	config, path, err := s.local.Render(ctx)
	if err != nil {
		return nil, &problem{code: codes.FailedPrecondition, reason: ReasonRenderFailed, subject: NodeName(s.node), cause: err,
			message: "there is no valid configuration to show: " + err.Error()}
	}
	return &pb.RenderResponse{Config: string(config), Path: path}, nil
}

// Reload implements pb.NodeServiceServer.
func (s *Server) Reload(ctx context.Context, req *pb.ReloadRequest) (*pb.ReloadResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.reloadTimeout)
	defer cancel()
	if req.GetAll() {
		return s.reloadAll(ctx)
	}
	result := &pb.ReloadResult{Node: s.node}
	if err := s.local.Reload(ctx); err != nil {
		result.Error = err.Error()
	}
	result.Reloads = s.local.Reloads()
	return &pb.ReloadResponse{Results: []*pb.ReloadResult{result}}, nil
}

// reloadAll orders a reload and waits until each node that lives now has
// reported it, or is gone, or ctx ends.
func (s *Server) reloadAll(ctx context.Context) (*pb.ReloadResponse, error) {
	var asked []string
	for _, n := range s.mirror.State().SortedNodes() {
		asked = append(asked, n.Name)
	}
	id, rev, err := s.orderReload(ctx)
	if err != nil {
		return nil, err
	}
	s.journal.Record(inventory.Event{Type: "reload.requested", Node: s.node, Message: "reload of all nodes asked for"})
	st, _ := s.await(ctx, rev)
	err = s.follow(ctx, func(now *inventory.State) (bool, error) {
		st = now
		for _, name := range asked {
			if n := st.Nodes[name]; n != nil && n.Reloaded < id {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	resp := &pb.ReloadResponse{}
	for _, name := range asked {
		result := &pb.ReloadResult{Node: name}
		switch n := st.Nodes[name]; {
		case n == nil:
			result.Error = "the node went away meanwhile"
		case n.Reloaded < id:
			result.Error = "the node has not told how its reload went"
			if n.Error != "" {
				result.Error += ": " + n.Error
			}
			result.Reloads = n.Reloads
		default:
			result.Error, result.Reloads = n.Error, n.Reloads
		}
		resp.Results = append(resp.Results, result)
	}
	return resp, nil
}

// orderReload asks all nodes for a reload.
func (s *Server) orderReload(ctx context.Context) (id string, rev inventory.Revision, err error) {
	return s.order(ctx, s.keys.Reload(), "ordering a reload", func(_ inventory.KV, id string, now time.Time) inventory.Op {
		return inventory.PutReload(s.keys, id, now)
	})
}

// order writes a record with an id that sorts after all before it, so that who
// reports a later one has seen to this one too. put makes it; before is the one
// that it replaces.
func (s *Server) order(ctx context.Context, key, what string, put func(before inventory.KV, id string, now time.Time) inventory.Op) (id string, rev inventory.Revision, err error) {
	if st := s.mirror.State(); inventory.Untrusted(st.Err) {
		return "", 0, untrusted(st.Err)
	}
	for range maxTries {
		kv, err := s.get(ctx, key)
		if err != nil {
			return "", 0, err
		}
		var before struct{ ID string }
		if kv.Mod != 0 {
			// One that cannot be read orders nothing: it is replaced.
			_ = json.Unmarshal(kv.Value, &before)
		}
		now := time.Now().UTC().Truncate(time.Millisecond)
		id := laterID(before.ID, now)
		var txn inventory.Txn
		txn.Add(inventory.Guard{Key: kv.Key, Mod: kv.Mod}, put(kv, id, now))
		rev, err := s.commit(ctx, txn)
		if err == nil {
			return id, rev, nil
		} else if !errors.Is(err, inventory.ErrConflict) {
			return "", 0, uncommitted(err, "")
		}
	}
	return "", 0, fmt.Errorf("%s: %w", what, inventory.ErrConflict)
}

// laterID is a ULID of now, or of just after the one before where the clock of
// whoever wrote that runs ahead.
func laterID(before string, now time.Time) string {
	ms := ulid.Timestamp(now)
	if old, err := ulid.ParseStrict(before); err == nil && old.Time() >= ms {
		ms = old.Time() + 1
	}
	return ulid.MustNew(ms, ulid.DefaultEntropy()).String()
}
