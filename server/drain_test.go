package server_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

var reserved = netip.MustParseAddr("203.0.113.7")

// members makes the cluster know its nodes, with droplet ids from 11 on.
func (c *cluster) members() {
	c.write(func(txn *inventory.Txn) {
		for i, n := range c.nodes {
			txn.Add(inventory.PutMember(keys, &inventory.Member{Name: n.name, Joined: time.Unix(1, 0).UTC()}))
			txn.Ops = append(txn.Ops, inventory.PutNode(keys, &inventory.Node{Name: n.name, HAProxy: "running", Droplet: int64(11 + i)}, 0))
		}
	})
}

// entry sets an entry point: an address that lb1 holds, and a record of it.
func (c *cluster) entry() {
	c.write(func(txn *inventory.Txn) {
		txn.Add(inventory.PutSettings(keys, &inventory.Settings{Ingress: inventory.Ingress{ReservedIPs: []netip.Addr{reserved},
			DNS: []inventory.DNSName{{Domain: "example.com", Name: "www", TTL: 1}}}}))
		txn.Add(inventory.PutAssignment(keys, &inventory.Assignment{Address: reserved, Node: "lb1", Droplet: 11, Since: time.Unix(5, 0).UTC(), Verified: time.Unix(6, 0).UTC()}))
		txn.Add(inventory.PutDNS(keys, &inventory.DNSRecords{FQDN: "www.example.com", Domain: "example.com",
			Records: []inventory.DNSRecord{{Address: netip.MustParseAddr("198.51.100.1"), Node: "lb1", ID: 5}, {Address: netip.MustParseAddr("198.51.100.2"), Node: "lb2", ID: 6}}}))
	})
}

func (c *cluster) assign(a inventory.Assignment) {
	a.Address = reserved
	c.write(func(txn *inventory.Txn) { txn.Add(inventory.PutAssignment(keys, &a)) })
}

func recvUntil[M any](t tb, s grpc.ServerStreamingClient[M], ok func(*M) bool) *M {
	t.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		if ok(m) {
			return m
		}
	}
}

func ended[M any](t tb, s grpc.ServerStreamingClient[M]) {
	t.Helper()
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream goes on: %v", err)
	}
}

func TestDrainFollowsEverything(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := newCluster(t, 2)
	c.members()
	c.entry()
	c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Leader(), Value: []byte("lb2")}}})
	dry := must(must(c.nodes[1].control.DrainNode(ctx, &pb.DrainNodeRequest{Name: "nodes/lb1", ValidateOnly: true})).Recv())
	if dry.Node.DrainTime == nil || len(dry.ReservedIps) != 1 || len(dry.DnsRecords) != 1 || dry.Done {
		t.Errorf("the dry run told %v", dry)
	}
	s := must(c.nodes[1].control.DrainNode(ctx, &pb.DrainNodeRequest{Name: "nodes/lb1", Reason: "new kernel"}))
	m := recvUntil(t, s, func(m *pb.DrainNodeResponse) bool { return strings.Contains(m.Reason, "203.0.113.7 is to move") })
	if m.Node.DrainReason != "new kernel" || m.Node.Holds[0] != "203.0.113.7" || m.Done {
		t.Errorf("first: %v", m)
	}
	waitEvent(t, c.nodes[0], "node.drained")
	// Meant for lb2, and not confirmed: it is still here.
	c.assign(inventory.Assignment{Node: "lb2", From: "lb1", Error: "droplet is locked"})
	m = recvUntil(t, s, func(m *pb.DrainNodeResponse) bool { return strings.Contains(m.Reason, "droplet is locked") })
	if len(m.ReservedIps) != 1 {
		t.Errorf("on its way: %v", m)
	}
	c.assign(inventory.Assignment{Node: "lb2", From: "lb1", Verified: time.Unix(7, 0).UTC()})
	recvUntil(t, s, func(m *pb.DrainNodeResponse) bool {
		return len(m.ReservedIps) == 0 && strings.Contains(m.Reason, "www.example.com")
	})
	went := time.Now()
	c.write(func(txn *inventory.Txn) {
		txn.Add(inventory.PutDNS(keys, &inventory.DNSRecords{FQDN: "www.example.com", Domain: "example.com",
			Records: []inventory.DNSRecord{{Address: netip.MustParseAddr("198.51.100.2"), Node: "lb2", ID: 6}}}))
	})
	m = recvUntil(t, s, func(m *pb.DrainNodeResponse) bool { return strings.Contains(m.Reason, "may remember") })
	if m.DnsExpireTime == nil {
		t.Errorf("no expiry: %v", m)
	}
	c.report(&inventory.Node{Name: "lb1", HAProxy: "running", Drained: true, Sessions: 3})
	m = recvUntil(t, s, func(m *pb.DrainNodeResponse) bool { return m.Reason == "3 sessions are open" })
	if m.Sessions != 3 || time.Since(went) < 900*time.Millisecond {
		t.Errorf("after %s: %v", time.Since(went), m)
	}
	c.report(&inventory.Node{Name: "lb1", HAProxy: "running", Drained: true})
	recvUntil(t, s, func(m *pb.DrainNodeResponse) bool { return m.Done })
	ended(t, s)

	if n := must(c.nodes[1].control.UndrainNode(ctx, &pb.UndrainNodeRequest{Name: "nodes/lb1"})).Node; n.DrainTime != nil {
		t.Errorf("undrained: %v", n)
	}
	waitEvent(t, c.nodes[0], "node.undrained")
}

// Without an entry point sessions alone count, as told after the drain.
func TestDrainWithoutIngress(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := newCluster(t, 2)
	c.members()
	s := must(c.nodes[0].control.DrainNode(ctx, &pb.DrainNodeRequest{Name: "nodes/lb1"}))
	recvUntil(t, s, func(m *pb.DrainNodeResponse) bool {
		return strings.Contains(m.Reason, "has not told its sessions") && !m.Done
	})
	c.report(&inventory.Node{Name: "lb1", HAProxy: "running", Drained: true})
	recvUntil(t, s, func(m *pb.DrainNodeResponse) bool { return m.Done })
	ended(t, s)

	// Put back while it is followed.
	must(c.nodes[0].control.UndrainNode(ctx, &pb.UndrainNodeRequest{Name: "nodes/lb1"}))
	c.report(&inventory.Node{Name: "lb1", HAProxy: "running"})
	s = must(c.nodes[0].control.DrainNode(ctx, &pb.DrainNodeRequest{Name: "nodes/lb1"}))
	must(s.Recv())
	must(c.nodes[1].control.UndrainNode(ctx, &pb.UndrainNodeRequest{Name: "nodes/lb1"}))
	var err error
	for err == nil {
		_, err = s.Recv()
	}
	wantProblem(t, err, codes.Aborted, server.ReasonOverridden)
}

func TestDrainRefuses(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	c.members()
	drain := func(name string) error {
		_, err := must(c.nodes[0].control.DrainNode(ctx, &pb.DrainNodeRequest{Name: name, NoWait: true})).Recv()
		return err
	}
	wantProblem(t, drain("lb1"), codes.InvalidArgument, server.ReasonInvalid)
	wantProblem(t, drain("nodes/lb7"), codes.NotFound, server.ReasonNodeNotFound)
	if err := drain("nodes/lb2"); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, drain("nodes/lb1"), codes.FailedPrecondition, server.ReasonLastNode)
	if err := drain("nodes/lb2"); err != nil {
		t.Errorf("draining what is drained: %v", err)
	}
	must(c.nodes[0].control.UndrainNode(ctx, &pb.UndrainNodeRequest{Name: "nodes/lb2"}))

	// Two at once: one is refused.
	errs := make(chan error, 2)
	for _, name := range []string{"nodes/lb1", "nodes/lb2"} {
		go func() { errs <- drain(name) }()
	}
	if a, b := <-errs, <-errs; (a == nil) == (b == nil) {
		t.Errorf("one should have been refused: %v, %v", a, b)
	}
}

func TestForgetNode(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	c.members()
	control := c.nodes[0].control
	_, err := control.ForgetNode(ctx, &pb.ForgetNodeRequest{Name: "nodes/lb2"})
	wantProblem(t, err, codes.FailedPrecondition, server.ReasonNodeAlive)
	c.sync(c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Node("lb2"), Delete: true}}}))
	nodes := must(c.nodes[0].cluster.ListNodes(ctx, &pb.ListNodesRequest{})).Nodes
	if len(nodes) != 2 || nodes[0].SilentTime != nil || nodes[0].DropletId != 11 || nodes[1].SilentTime == nil {
		t.Errorf("nodes: %v", nodes)
	}
	must(control.ForgetNode(ctx, &pb.ForgetNodeRequest{Name: "nodes/lb2"}))
	waitEvent(t, c.nodes[0], "node.forgotten")
	_, err = control.ForgetNode(ctx, &pb.ForgetNodeRequest{Name: "nodes/lb2"})
	wantProblem(t, err, codes.NotFound, server.ReasonNodeNotFound)
}
