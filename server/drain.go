package server

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// memberToChange finds a node that the cluster knows.
func (s *Server) memberToChange(st *inventory.State, name string) (*inventory.Member, error) {
	if m := st.Members[name]; m != nil {
		return m, nil
	}
	if why, bad := st.Unreadable[s.keys.Member(name)]; bad {
		return nil, unreadable(s.keys.Member(name), why)
	}
	return nil, nodeNotFound(name, sortedKeys(st.Members))
}

// inService says that clients are served by a node, as far as an operator wants it.
func inService(st *inventory.State, n *inventory.Node) bool {
	m := st.Members[n.Name]
	return n.HAProxy == "running" && (m == nil || m.Drained.IsZero())
}

// putMember writes next in place of m, if it differs.
func (s *Server) putMember(txn *inventory.Txn, m, next *inventory.Member) {
	guard, op := inventory.PutMember(s.keys, next)
	txn.Guards = append(txn.Guards, guard)
	if *m != *next {
		txn.Ops = append(txn.Ops, op)
	}
}

// DrainNode implements pb.NodeServiceServer.
func (s *Server) DrainNode(req *pb.DrainNodeRequest, stream grpc.ServerStreamingServer[pb.DrainNodeResponse]) error {
	ctx := stream.Context()
	name, err := parseNode("name", req.GetName())
	if err != nil {
		return err
	}
	var v violations
	v.reason(req.GetReason())
	if err := v.err(); err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	f := drainFollower{name: name, records: map[string]time.Duration{}}
	w := wish{target: "drain " + name, dry: req.GetValidateOnly()}
	out, err := change(ctx, s, w, func(st *inventory.State) (d decision[*pb.Node], err error) {
		m, err := s.memberToChange(st, name)
		if err != nil {
			return d, err
		}
		next := *m
		next.Reason = or(req.GetReason(), m.Reason)
		f.expire, f.asked = time.Time{}, m.Drained.IsZero()
		if f.asked {
			next.Drained, next.Reason = now, req.GetReason()
			if err := s.guardOthers(&d.txn, st, name); err != nil {
				return d, err
			}
			d.event = &inventory.Event{Type: "node.drained", Node: name, Message: "the node goes out of service, by request" + because(next.Reason)}
			f.note(st, now)
		} else {
			// Its records may have gone before this stream began.
			f.expire = m.Drained.Add(longestTTL(st))
		}
		s.putMember(&d.txn, m, &next)
		d.answer = NodeToProto(st, name)
		d.answer.DrainTime, d.answer.DrainReason = timestamp(next.Drained), next.Reason
		return d, nil
	})
	if err != nil {
		return err
	}
	st, reached := s.await(ctx, out.revision)
	if !reached || w.dry {
		first := f.picture(st, now)
		first.Node, first.Reason = out.answer, holdup(st, nil)
		for _, ip := range first.ReservedIps {
			if address, err := netip.ParseAddr(ip.Address); err == nil && w.dry && s.target != nil {
				if _, err := s.target(st, address, ""); err != nil {
					ip.Error = err.Error()
				}
			}
		}
		if err := stream.Send(first); err != nil || w.dry {
			return err
		}
	}
	once := req.GetNoWait()
	if once && !reached {
		return nil
	}
	var last *pb.DrainNodeResponse
	return s.followUntil(ctx, func(st *inventory.State) (next time.Time, done bool, err error) {
		if st.Revision < out.revision {
			return next, false, nil
		}
		now := time.Now()
		m, next, err := f.progress(st, now)
		if err != nil {
			return next, true, err
		}
		if !proto.Equal(m, last) {
			last = m
			if err := stream.Send(m); err != nil {
				return next, true, err
			}
		}
		return next, m.GetDone() || once, nil
	})
}

// guardOthers refuses to take out the last node that serves, also if two that
// were left are asked out at once.
func (s *Server) guardOthers(txn *inventory.Txn, st *inventory.State, name string) error {
	others := 0
	for _, n := range st.SortedNodes() {
		if n.Name == name || !inService(st, n) {
			continue
		}
		if others++; others <= inventory.MaxOps/2 {
			guard := inventory.Guard{Key: s.keys.Member(n.Name)}
			if m := st.Members[n.Name]; m != nil {
				guard.Mod = m.Mod
			}
			txn.Guards = append(txn.Guards, guard)
		}
	}
	if n := st.Nodes[name]; others == 0 && n != nil && inService(st, n) {
		return lastNode(name)
	}
	return nil
}

// UndrainNode implements pb.NodeServiceServer.
func (s *Server) UndrainNode(ctx context.Context, req *pb.UndrainNodeRequest) (*pb.UndrainNodeResponse, error) {
	name, err := parseNode("name", req.GetName())
	if err != nil {
		return nil, err
	}
	w := wish{target: "undrain " + name, dry: req.GetValidateOnly()}
	out, err := change(ctx, s, w, func(st *inventory.State) (d decision[*pb.UndrainNodeResponse], err error) {
		m, err := s.memberToChange(st, name)
		if err != nil {
			return d, err
		}
		next := *m
		next.Drained, next.Reason = time.Time{}, ""
		s.putMember(&d.txn, m, &next)
		d.event = &inventory.Event{Type: "node.undrained", Node: name, Message: "the node is back in service, by request"}
		d.answer = &pb.UndrainNodeResponse{Node: NodeToProto(st, name)}
		d.answer.Node.DrainTime, d.answer.Node.DrainReason = nil, ""
		return d, nil
	})
	return out.answer, err
}

// ForgetNode implements pb.NodeServiceServer.
func (s *Server) ForgetNode(ctx context.Context, req *pb.ForgetNodeRequest) (*pb.ForgetNodeResponse, error) {
	name, err := parseNode("name", req.GetName())
	if err != nil {
		return nil, err
	}
	w := wish{target: "forget " + name, dry: req.GetValidateOnly()}
	_, err = change(ctx, s, w, func(st *inventory.State) (d decision[struct{}], err error) {
		if st.Nodes[name] != nil {
			return d, nodeAlive(name)
		}
		m, err := s.memberToChange(st, name)
		if err != nil {
			return d, err
		}
		d.txn.Add(inventory.DeleteMember(s.keys, m))
		d.txn.Guards = append(d.txn.Guards, inventory.Guard{Key: s.keys.Node(name)}) // it is still silent
		d.event = &inventory.Event{Type: "node.forgotten", Node: name, Message: "the node is forgotten, by request"}
		return d, nil
	})
	if err != nil {
		return nil, err
	}
	return &pb.ForgetNodeResponse{}, nil
}
