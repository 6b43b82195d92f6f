package server_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

func TestFailover(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := newCluster(t, 2)
	c.members()
	c.entry()
	c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Leader(), Value: []byte("lb2")}}})
	control := c.nodes[0].control
	s := must(control.Failover(ctx, &pb.FailoverRequest{Name: "203.0.113.7", To: "nodes/lb1"}))
	if m := must(s.Recv()); !m.Done || m.ReservedIp.Want != "" {
		t.Errorf("where it is already: %v", m)
	}
	ended(t, s)
	s = must(control.Failover(ctx, &pb.FailoverRequest{Name: "reservedIps/203.0.113.7"}))
	m := must(s.Recv())
	if m.Done || m.ReservedIp.Want != inventory.AnyNode || m.ReservedIp.Node != "lb1" {
		t.Errorf("first: %v", m)
	}
	c.tell(&inventory.Report{Node: "lb2", Conditions: []inventory.Condition{{Key: "ingress ip 203.0.113.7 want", Message: "no other node is fit"}}})
	recvUntil(t, s, func(m *pb.FailoverResponse) bool { return m.ReservedIp.Error == "no other node is fit" })
	c.assign(inventory.Assignment{Node: "lb2", Droplet: 12, From: "lb1", Since: time.Unix(50, 0).UTC()})
	m = recvUntil(t, s, func(m *pb.FailoverResponse) bool { return m.ReservedIp.Node == "lb2" })
	if m.Done {
		t.Error("done before DigitalOcean confirmed it")
	}
	c.assign(inventory.Assignment{Node: "lb2", Droplet: 12, From: "lb1", Since: time.Unix(50, 0).UTC(), Verified: time.Unix(51, 0).UTC()})
	recvUntil(t, s, func(m *pb.FailoverResponse) bool { return m.Done })
	ended(t, s)

	// Given up.
	s = must(control.Failover(ctx, &pb.FailoverRequest{Name: "203.0.113.7", To: "nodes/lb1"}))
	must(s.Recv())
	c.assign(inventory.Assignment{Node: "lb2", Droplet: 12, Error: "unprocessable", Verified: time.Unix(51, 0).UTC()})
	var err error
	for err == nil {
		_, err = s.Recv()
	}
	wantProblem(t, err, codes.Aborted, server.ReasonOverridden)
}

// An address without a record gets one. What was told of it before it was asked for
// does not hold the request up.
func TestFailoverOfWhatNobodyHolds(t *testing.T) {
	c := newCluster(t, 1)
	c.members()
	c.write(func(txn *inventory.Txn) {
		txn.Add(inventory.PutSettings(keys, &inventory.Settings{Ingress: inventory.Ingress{ReservedIPs: []netip.Addr{reserved}}}))
	})
	c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Leader(), Value: []byte("lb1")}}})
	c.tell(&inventory.Report{Node: "lb1", Conditions: []inventory.Condition{{Key: "ingress ip 203.0.113.7 foreign", Type: "ingress.foreign", Message: "203.0.113.7 is held by droplet 4711"}}})
	m := must(must(c.nodes[0].control.Failover(t.Context(), &pb.FailoverRequest{Name: "203.0.113.7", To: "nodes/lb1", NoWait: true})).Recv())
	if m.ReservedIp.Error != "" || m.ReservedIp.Want != "lb1" || m.ReservedIp.Node != "" || !strings.Contains(c.contents()[keys.Assignment(reserved)], `"want":"lb1"`) {
		t.Errorf("got %v", m)
	}
}

func TestFailoverRefuses(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	c.target = func(_ *inventory.State, _ netip.Addr, to string) (string, error) {
		if to == inventory.AnyNode {
			return "lb2", nil
		}
		return "", errors.New("its HAProxy is stopped")
	}
	c.nodes = append(c.nodes, c.start("lb3"))
	c.members()
	c.entry()
	other := netip.MustParseAddr("203.0.113.8")
	c.write(func(txn *inventory.Txn) {
		txn.Add(inventory.PutAssignment(keys, &inventory.Assignment{Address: other, Node: "lb2"}))
		txn.Add(inventory.PutMember(keys, &inventory.Member{Name: "lb4", Silent: time.Unix(9, 0).UTC()}))
	})
	call := func(req *pb.FailoverRequest) (*pb.FailoverResponse, error) {
		return must(c.nodes[2].control.Failover(ctx, req)).Recv()
	}
	try := func(code codes.Code, reason, tells string, req *pb.FailoverRequest) {
		t.Helper()
		before := c.contents()
		_, err := call(req)
		wantProblem(t, err, code, reason)
		if err != nil && !strings.Contains(err.Error(), tells) {
			t.Errorf("the error does not tell %q: %v", tells, err)
		}
		if len(before) != len(c.contents()) || before[keys.Assignment(reserved)] != c.contents()[keys.Assignment(reserved)] {
			t.Error("the store changed")
		}
	}
	const ip = "203.0.113.7"
	try(codes.InvalidArgument, server.ReasonInvalid, "name", &pb.FailoverRequest{Name: "www"})
	try(codes.NotFound, server.ReasonReservedIPUnknown, ip, &pb.FailoverRequest{Name: "203.0.113.9"})
	try(codes.NotFound, server.ReasonNodeNotFound, "lb9", &pb.FailoverRequest{Name: ip, To: "nodes/lb9"})
	try(codes.FailedPrecondition, server.ReasonNodeUnfit, "silent", &pb.FailoverRequest{Name: ip, To: "nodes/lb4"})
	try(codes.FailedPrecondition, server.ReasonNodeUnfit, "holds 203.0.113.8", &pb.FailoverRequest{Name: ip, To: "nodes/lb2"})
	if m, err := call(&pb.FailoverRequest{Name: ip, ValidateOnly: true}); err != nil || m.Target != "nodes/lb2" {
		t.Errorf("the dry run told %v, %v", m, err)
	}
	try(codes.FailedPrecondition, server.ReasonNodeUnfit, "HAProxy is stopped", &pb.FailoverRequest{Name: ip, To: "nodes/lb3", ValidateOnly: true})
	must(must(c.nodes[2].control.DrainNode(ctx, &pb.DrainNodeRequest{Name: "nodes/lb3", NoWait: true})).Recv())
	try(codes.FailedPrecondition, server.ReasonNodeUnfit, "drained", &pb.FailoverRequest{Name: ip, To: "nodes/lb3"})
	try(codes.FailedPrecondition, server.ReasonNodeUnfit, "no other node", &pb.FailoverRequest{Name: ip})
	c.sync(must(c.store.List(ctx, keys.Prefix())).Revision)
	must(c.nodes[0].cluster.Pause(ctx, &pb.PauseRequest{Reason: "move"}))
	c.sync(must(c.store.List(ctx, keys.Prefix())).Revision)
	try(codes.FailedPrecondition, server.ReasonPaused, "doproxy resume", &pb.FailoverRequest{Name: ip})
}
