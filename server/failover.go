package server

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// failover is what a request put on record.
type failover struct {
	address netip.Addr
	to      string // a node, or inventory.AnyNode
	before  string // who held it
	ip      *pb.ReservedIp
	target  string // of a dry run
}

// Failover implements pb.NodeServiceServer.
func (s *Server) Failover(req *pb.FailoverRequest, stream grpc.ServerStreamingServer[pb.FailoverResponse]) error {
	ctx := stream.Context()
	address, err := parseReservedIP("name", req.GetName())
	if err != nil {
		return err
	}
	to := inventory.AnyNode
	if req.GetTo() != "" {
		if to, err = parseNode("to", req.GetTo()); err != nil {
			return err
		}
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	w := wish{target: fmt.Sprintf("failover %s to %s", address, to), dry: req.GetValidateOnly()}
	out, err := change(ctx, s, w, func(st *inventory.State) (d decision[failover], err error) {
		if d.answer, err = decideFailover(st, address, to); err != nil {
			return d, err
		}
		next := inventory.Assignment{Address: address, Since: now, Reason: "no node holds it yet"}
		if a := st.Assignments[address]; a != nil {
			next = *a
		}
		if next.Node != to || next.Want != "" { // else it is there, or on its way
			next.Want = to
		}
		d.answer.ip = reservedIPToProto(address, &next)
		if w.dry {
			d.answer.target, err = s.failoverTarget(st, d.answer)
			return d, err
		}
		guard, op := inventory.PutAssignment(s.keys, &next)
		d.txn.Guards = append(d.txn.Guards, guard)
		if a := st.Assignments[address]; a == nil || a.Want != next.Want {
			d.txn.Ops = append(d.txn.Ops, op)
		}
		d.event = &inventory.Event{Type: "reserved_ip.failover_requested", Message: fmt.Sprintf("reserved IP %s is to go to %s, by request", address, nodeOrAny(to))}
		return d, nil
	})
	if err != nil {
		return err
	}
	if w.dry {
		return stream.Send(&pb.FailoverResponse{ReservedIp: out.answer.ip, Target: out.answer.target})
	}
	st, reached := s.await(ctx, out.revision)
	if !reached {
		out.answer.ip.Error = or(out.answer.ip.Error, holdup(st, nil))
		if err := stream.Send(&pb.FailoverResponse{ReservedIp: out.answer.ip}); err != nil || req.GetNoWait() {
			return err
		}
	}
	var last *pb.FailoverResponse
	return s.follow(ctx, func(st *inventory.State) (bool, error) {
		if st.Revision < out.revision {
			return false, nil
		}
		m, err := out.answer.progress(st)
		if err != nil {
			return true, err
		}
		if !proto.Equal(m, last) {
			last = m
			if err := stream.Send(m); err != nil {
				return true, err
			}
		}
		return m.GetDone() || req.GetNoWait(), nil
	})
}

func nodeOrAny(to string) string {
	if to == inventory.AnyNode {
		return "another node"
	}
	return to
}

// decideFailover says what keeps an address from going to a node.
func decideFailover(st *inventory.State, address netip.Addr, to string) (failover, error) {
	f := failover{address: address, to: to}
	if !slices.Contains(st.Settings.Ingress.ReservedIPs, address) {
		var known []string
		for _, a := range st.Settings.Ingress.ReservedIPs {
			known = append(known, a.String())
		}
		return f, reservedIPUnknown(address.String(), known)
	}
	if st.Pause != nil {
		return f, paused(st.Pause)
	}
	if a := st.Assignments[address]; a != nil {
		f.before = a.Node
	}
	if to != inventory.AnyNode {
		if st.Nodes[to] == nil && st.Members[to] == nil {
			return f, nodeNotFound(to, nodeNames(st))
		}
		if f.before == to {
			return f, nil
		}
		if why := unfit(st, address, to); why != "" {
			return f, nodeUnfit(to, why)
		}
		return f, nil
	}
	var reasons []string
	for _, name := range nodeNames(st) {
		if name == f.before {
			continue
		}
		why := unfit(st, address, name)
		if why == "" {
			return f, nil
		}
		reasons = append(reasons, why)
	}
	return f, nodeUnfit("", fmt.Sprintf("no other node can hold %s: %s", address, or(strings.Join(reasons, "; "), "there is none")))
}

// unfit says why a node cannot hold an address; empty if nothing is known to
// stand against it.
func unfit(st *inventory.State, address netip.Addr, name string) string {
	n, m := st.Nodes[name], st.Members[name]
	switch {
	case n == nil:
		return fmt.Sprintf("node %s is silent", name)
	case m != nil && !m.Drained.IsZero():
		return fmt.Sprintf("node %s is drained: put it back first (doproxy node undrain %s)", name, name)
	case n.Droplet == 0:
		return fmt.Sprintf("node %s does not know its own droplet id: set it in its doproxy.yml", name)
	}
	for _, other := range sortedAddresses(st.Assignments) {
		if other != address && other.Is4() == address.Is4() && st.Assignments[other].Node == name {
			return fmt.Sprintf("node %s holds %s, and a droplet has one reserved IP of a family: move that first", name, other)
		}
	}
	return ""
}

// failoverTarget is the node that the leader would choose; empty if that is not
// known.
func (s *Server) failoverTarget(st *inventory.State, f failover) (string, error) {
	switch {
	case f.to != inventory.AnyNode && (s.target == nil || f.to == f.before):
		return NodeName(f.to), nil
	case s.target == nil:
		return "", nil
	}
	node, err := s.target(st, f.address, f.to)
	if err != nil {
		return "", nodeUnfit(strings.TrimSuffix(f.to, inventory.AnyNode), err.Error())
	}
	return NodeName(node), nil
}

// progress is how far it has come, or why it will not.
func (f failover) progress(st *inventory.State) (*pb.FailoverResponse, error) {
	a := st.Assignments[f.address]
	if a == nil {
		return nil, reservedIPUnknown(f.address.String(), nil)
	}
	m := &pb.FailoverResponse{ReservedIp: reservedIPToProto(f.address, a)}
	there := a.Node == f.to || f.to == inventory.AnyNode && a.Node != "" && a.Node != f.before
	switch {
	case a.Want == "" && there && !a.Verified.IsZero():
		m.Done = true
	case a.Want == "" && !there:
		return nil, notMoved(f.address.String(), nodeOrAny(f.to), a)
	case a.Want != "" && a.Want != f.to:
		return nil, notMoved(f.address.String(), nodeOrAny(f.to), a)
	case a.Error == "":
		m.ReservedIp.Error = or(holdup(st, nil), addressCondition(st, f.address.String()))
	}
	return m, nil
}

// addressCondition is what the leader says of an address that is on record; empty
// for nothing. That it is held by a droplet of somebody else was told before it was
// asked for, and no longer keeps it there.
func addressCondition(st *inventory.State, address string) string {
	if st.Report != nil {
		for _, c := range st.Report.Conditions {
			if c.Type != "ingress.foreign" && slices.Contains(strings.FieldsFunc(c.Key+" "+c.Message, func(r rune) bool { return strings.ContainsRune(" ,;/()", r) }), address) {
				return c.Message
			}
		}
	}
	return ""
}
