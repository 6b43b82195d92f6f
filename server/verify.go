package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// Verify implements pb.ClusterServiceServer. It waits until the leader and each
// node that lives now have looked, or are gone, or ReloadTimeout passes.
func (s *Server) Verify(ctx context.Context, req *pb.VerifyRequest) (*pb.VerifyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.reloadTimeout)
	defer cancel()
	if st := s.mirror.State(); inventory.Untrusted(st.Err) {
		return nil, untrusted(st.Err)
	}
	asked := nodeNames(s.mirror.State())
	id, rev, err := s.orderVerify(ctx, req.GetRepair())
	if err != nil {
		return nil, err
	}
	event := inventory.Event{Type: "verify.requested", Node: s.node, Message: "a comparison of store, cloud and every HAProxy asked for"}
	if req.GetRepair() {
		event.Message += ", and to mend now what differs"
	}
	s.journal.Record(event)
	st, _ := s.await(ctx, rev)
	err = s.follow(ctx, func(now *inventory.State) (bool, error) {
		st = now
		if st.Revision < rev || !leaderVerified(st, id) {
			return false, nil
		}
		for _, name := range asked {
			if n := st.Nodes[name]; n != nil && n.Verified < id {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	return s.verified(st, id, asked), nil
}

func leaderVerified(st *inventory.State, id string) bool {
	return st.Report != nil && st.Report.Verified >= id
}

// verified gathers what was found, and who did not tell.
func (s *Server) verified(st *inventory.State, id string, asked []string) *pb.VerifyResponse {
	resp := &pb.VerifyResponse{Droplets: int32(len(st.Droplets))}
	missing := func(who, format string, args ...any) {
		resp.Unanswered = append(resp.Unanswered, &pb.Unanswered{Who: who, Reason: fmt.Sprintf(format, args...)})
	}
	add := func(differences []inventory.Difference, node string) {
		for _, d := range differences {
			resp.Differences = append(resp.Differences, DifferenceToProto(d, node))
		}
	}
	switch {
	case leaderVerified(st, id):
		add(st.Report.Differences, "")
	case st.Leader.Name == "":
		missing("leader", "no node leads")
	default:
		missing("leader", "%s, which leads, has not answered within %s", st.Leader.Name, s.reloadTimeout)
	}
	for _, name := range asked {
		member := st.Members[name]
		switch n := st.Nodes[name]; {
		case n != nil && n.Verified >= id:
			resp.Nodes++
			add(n.Differences, name)
		case n != nil:
			missing(name, "%s has not answered within %s", name, s.reloadTimeout)
		case member != nil && !member.Silent.IsZero():
			missing(name, "%s is silent since %s", name, member.Silent.UTC().Format(time.RFC3339))
		default:
			missing(name, "%s is silent", name)
		}
	}
	return resp
}

// orderVerify asks the leader and all nodes for a look. A repair that was asked
// for just now and is not answered yet is asked for on.
func (s *Server) orderVerify(ctx context.Context, repair bool) (id string, rev inventory.Revision, err error) {
	return s.order(ctx, s.keys.Verify(), "ordering a verify", func(kv inventory.KV, id string, now time.Time) inventory.Op {
		v := &inventory.Verify{ID: id, Time: now, Repair: repair}
		var before inventory.Verify
		if kv.Mod != 0 && json.Unmarshal(kv.Value, &before) == nil && now.Sub(before.Time) < s.reloadTimeout && !leaderVerified(s.mirror.State(), before.ID) {
			v.Repair = v.Repair || before.Repair
		}
		_, op := inventory.PutVerify(s.keys, v)
		return op
	})
}
