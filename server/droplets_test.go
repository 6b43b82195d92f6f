package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

func createAll(t tb, n *node, req *pb.CreateDropletsRequest) ([]*pb.Progress, error) {
	t.Helper()
	stream := must(n.drops.CreateDroplets(context.Background(), req))
	var all []*pb.Progress
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, m.GetProgress())
	}
}

func deleteAll(t tb, n *node, req *pb.DeleteDropletsRequest) ([]*pb.Progress, error) {
	t.Helper()
	stream := must(n.drops.DeleteDroplets(context.Background(), req))
	var all []*pb.Progress
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, m.GetProgress())
	}
}

func hostnames(ds []*pb.Droplet) string {
	var names []string
	for _, d := range ds {
		names = append(names, d.Hostname)
	}
	return strings.Join(names, " ")
}

func TestCreate(t *testing.T) {
	c := newCluster(t, 3)
	c.apply(webPool())
	c.serving(2)
	c.lead("web-3")
	all, err := createAll(t, c.nodes[1], &pb.CreateDropletsRequest{Count: 3})
	if err != nil {
		t.Fatal(err)
	}
	before := &pb.Progress{}
	for _, p := range all {
		counts := []int32{p.Total, p.Requested, p.Active, p.Healthy, p.Serving}
		if p.Total != 3 || !slices.IsSortedFunc(counts, func(a, b int32) int { return int(b - a) }) {
			t.Errorf("counts do not count the next in: %v", counts)
		}
		if p.Pool.GetDesired() != 5 {
			t.Errorf("the pool wants %d", p.Pool.GetDesired())
		}
		if before.Done {
			t.Error("a message came after the last one")
		}
		before = p
	}
	last := all[len(all)-1]
	if !last.Done || last.Serving != 3 || last.NodesLive != 3 || hostnames(last.Droplets) != "web-2 web-4 web-5 web-3" {
		t.Errorf("the last message is %v", last)
	}
	for _, d := range last.Droplets[:3] {
		if d.Id == 0 || d.NodesServing != 3 || d.Phase != pb.Phase_PHASE_SERVING || len(d.Health) != 3 {
			t.Errorf("not serving everywhere: %v", d)
		}
	}
	if d := last.Droplets[3]; !strings.Contains(d.Reason, "did not become healthy") {
		t.Errorf("the failed one does not tell why: %v", d)
	}
}

func TestCreateRepeatedFollowsTheSame(t *testing.T) {
	c := newCluster(t, 2)
	c.apply(webPool())
	c.serving(2)
	req := &pb.CreateDropletsRequest{Count: 2, RequestId: "abc", NoWait: true}
	first, err := createAll(t, c.nodes[0], req)
	if err != nil || len(first) != 1 || first[0].Done || first[0].Total != 2 {
		t.Fatalf("no_wait got %v, %v", first, err)
	}
	c.lead()
	// Another wish after that one gets other droplets.
	others, err := createAll(t, c.nodes[1], &pb.CreateDropletsRequest{Count: 1})
	if err != nil || hostnames(others[len(others)-1].Droplets) != "web-4" {
		t.Errorf("the second wish got %v, %v", others[len(others)-1], err)
	}
	req.NoWait = false
	again, err := createAll(t, c.nodes[1], req)
	if err != nil || hostnames(again[len(again)-1].Droplets) != "web-2 web-3" {
		t.Errorf("the repeated wish got %v, %v", again[len(again)-1], err)
	}
	if p := c.pool("web"); p.Desired != 5 {
		t.Errorf("desired is %d, want 5", p.Desired)
	}
	_, err = createAll(t, c.nodes[0], &pb.CreateDropletsRequest{Count: 6})
	wantProblem(t, err, codes.OutOfRange, server.ReasonOutOfBounds)
	_, err = createAll(t, c.nodes[0], &pb.CreateDropletsRequest{Count: 1, Parent: "pools/none"})
	wantProblem(t, err, codes.NotFound, server.ReasonPoolNotFound)
}

// With no leader, and one node behind, a create says what it waits for; lowered
// by somebody else it ends.
func TestCreateTellsWhatHoldsItUp(t *testing.T) {
	c := newCluster(t, 2)
	c.apply(webPool())
	c.serving(2)
	n := c.nodes[0]
	stream := must(n.drops.CreateDroplets(t.Context(), &pb.CreateDropletsRequest{Count: 1}))
	until := func(what string, ok func(*pb.Progress) bool) {
		t.Helper()
		for {
			m, err := stream.Recv()
			if err != nil {
				t.Fatalf("until %s: %v", what, err)
			}
			if ok(m.GetProgress()) {
				return
			}
		}
	}
	until("no leader", func(p *pb.Progress) bool { return strings.Contains(p.Reason, "no node leads") })
	c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Leader(), Value: []byte("lb1")}}})
	p := c.pool("web")
	p.Reason = "droplet limit reached"
	_, op := inventory.PutPool(keys, p)
	c.commit(inventory.Txn{Ops: []inventory.Op{op}})
	until("the cloud's words", func(p *pb.Progress) bool { return p.Reason == "droplet limit reached" })
	p.Reason = ""
	_, op = inventory.PutPool(keys, p)
	c.commit(inventory.Txn{Ops: []inventory.Op{op}})

	d := droplet(2, inventory.Serving)
	c.put(d)
	c.report(&inventory.Node{Name: "lb1", HAProxy: "running", Applied: 1 << 40})
	c.report(&inventory.Node{Name: "lb2", HAProxy: "failed"})
	until("the failed node", func(p *pb.Progress) bool {
		return p.Healthy == 1 && p.Serving == 0 && p.Reason == "node lb2: its HAProxy is failed" && p.Droplets[0].NodesServing == 1
	})
	c.report(&inventory.Node{Name: "lb2", HAProxy: "running", Applied: 1 << 40})
	until("done", func(p *pb.Progress) bool { return p.Done })
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream went on: %v", err)
	}

	stream = must(n.drops.CreateDroplets(t.Context(), &pb.CreateDropletsRequest{Count: 2}))
	until("asked", func(p *pb.Progress) bool { return p.Total == 2 })
	must(n.pools.ScalePool(t.Context(), desired(3)))
	var err error
	for err == nil {
		_, err = stream.Recv()
	}
	wantProblem(t, err, codes.Aborted, server.ReasonOverridden)
}

func TestDelete(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	c.apply(webPool())
	c.serving(5)
	p := c.pool("web")
	p.Desired = 5
	_, op := inventory.PutPool(keys, p)
	c.sync(c.commit(inventory.Txn{Ops: []inventory.Op{op}}))
	n := c.nodes[0]
	etag := must(n.drops.ListDroplets(ctx, &pb.ListDropletsRequest{})).Etag

	for name, test := range map[string]struct {
		names  []string
		etag   string
		code   codes.Code
		reason string
	}{
		"a typo":         {names: []string{"web-1", "foo"}, code: codes.NotFound, reason: server.ReasonDropletNotFound},
		"another pool":   {names: []string{"pools/api/droplets/web-1"}, code: codes.NotFound, reason: server.ReasonDropletNotFound},
		"unknown id":     {names: []string{"4711"}, code: codes.NotFound, reason: server.ReasonDropletNotFound},
		"below min":      {names: []string{"web-0", "web-1", "web-2", "web-3", "web-4"}, code: codes.OutOfRange, reason: server.ReasonOutOfBounds},
		"an old etag":    {names: []string{"web-1"}, etag: "old", code: codes.Aborted, reason: server.ReasonInventoryChanged},
		"too many named": {names: slices.Repeat([]string{"web-1"}, 101), code: codes.InvalidArgument, reason: server.ReasonInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			before := fmt.Sprint(c.contents())
			_, err := deleteAll(t, n, &pb.DeleteDropletsRequest{Names: test.names, Etag: test.etag})
			wantProblem(t, err, test.code, test.reason)
			if after := fmt.Sprint(c.contents()); after != before {
				t.Errorf("the store changed from %s to %s", before, after)
			}
		})
	}

	// One droplet by three names counts once.
	req := &pb.DeleteDropletsRequest{Names: []string{"web-1", "101", "pools/-/droplets/web-1", "pools/web/droplets/web-3"}, Etag: etag, NoWait: true, RequestId: "d"}
	dry := &pb.DeleteDropletsRequest{Names: req.Names, ValidateOnly: true}
	if all, err := deleteAll(t, n, dry); err != nil || len(all) != 1 || all[0].Total != 2 || c.pool("web").Desired != 5 {
		t.Errorf("validate_only got %v, %v", all, err)
	}
	all, err := deleteAll(t, n, req)
	if err != nil || len(all) != 1 || all[0].Total != 2 || all[0].Done {
		t.Fatalf("no_wait got %v, %v", all, err)
	}
	if p := c.pool("web"); p.Desired != 3 || fmt.Sprint(p.Remove) != "[web-1 web-3]" {
		t.Errorf("wanted: %d, remove %v", p.Desired, p.Remove)
	}
	// Again, with one that is asked away already: followed, but counted once.
	stream := must(c.nodes[1].drops.DeleteDroplets(ctx, &pb.DeleteDropletsRequest{Names: []string{"web-3", "web-4"}}))
	must(stream.Recv())
	if p := c.pool("web"); p.Desired != 2 {
		t.Errorf("wanted: %d, want 2", p.Desired)
	}
	c.lead()
	var last *pb.Progress
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		last = must(m, err).GetProgress()
	}
	if !last.Done || last.Deleted != 2 || last.Removed != 2 || last.Draining != 2 || fmt.Sprint(last.DeletedIds, last.DeletedHostnames) != "[103 104] [web-3 web-4]" {
		t.Errorf("the last message is %v", last)
	}
	// The first request repeated, long after: it tells the ids all the same.
	req.NoWait = false
	all, err = deleteAll(t, c.nodes[1], req)
	if err != nil || !all[len(all)-1].Done || fmt.Sprint(all[len(all)-1].DeletedIds) != "[101 103]" {
		t.Errorf("repeated, it got %v, %v", all, err)
	}
	left := must(n.drops.ListDroplets(ctx, &pb.ListDropletsRequest{Parent: "pools/web"}))
	if hostnames(left.Droplets) != "web-0 web-2" || left.Etag == etag {
		t.Errorf("left: %v", left)
	}
	if p := c.pool("web"); p.Desired != 2 || len(p.Remove) != 0 {
		t.Errorf("in the end: wanted %d, remove %v", p.Desired, p.Remove)
	}
}

func TestImport(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 1)
	c.apply(webPool())
	c.serving(2)
	drops := c.nodes[0].drops
	resp := must(drops.ImportDroplets(ctx, &pb.ImportDropletsRequest{Ids: []int64{700, 100, 500, 700}}))
	if fmt.Sprint(resp.Importing) != "[700 500]" || resp.Pool.Desired != 4 {
		t.Errorf("import answered %v", resp)
	}
	if p := c.pool("web"); fmt.Sprint(p.Import) != "[500 700]" {
		t.Errorf("import is %v", p.Import)
	}
	if resp := must(drops.ImportDroplets(ctx, &pb.ImportDropletsRequest{Ids: []int64{700, 500}})); len(resp.Importing) != 0 || resp.Pool.Desired != 4 {
		t.Errorf("again it answered %v", resp)
	}
	_, err := drops.ImportDroplets(ctx, &pb.ImportDropletsRequest{Ids: []int64{1, 2, 3, 4, 5, 6, 7}})
	wantProblem(t, err, codes.OutOfRange, server.ReasonOutOfBounds)
}

func TestWatchDroplets(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(webPool())
	c.serving(2)
	watch := must(c.nodes[0].drops.WatchDroplets(t.Context(), &pb.WatchDropletsRequest{}))
	if m := must(watch.Recv()); hostnames(m.Droplets) != "web-0 web-1" {
		t.Errorf("first: %v", m)
	}
	d := droplet(1, inventory.Draining)
	_, op := inventory.PutDroplet(keys, d)
	c.commit(inventory.Txn{Ops: []inventory.Op{op, {Key: keys.Droplet("web", "web-0"), Delete: true}}})
	if m := must(watch.Recv()); hostnames(m.Droplets) != "web-1" || fmt.Sprint(m.Deleted) != "[pools/web/droplets/web-0]" {
		t.Errorf("second: %v", m)
	}
	got := must(c.nodes[0].drops.GetDroplet(t.Context(), &pb.GetDropletRequest{Name: "pools/-/droplets/web-1"})).Droplet
	if got.Phase != pb.Phase_PHASE_DRAINING || got.Name != "pools/web/droplets/web-1" {
		t.Errorf("get: %v", got)
	}
	_, err := c.nodes[0].drops.GetDroplet(t.Context(), &pb.GetDropletRequest{Name: "pools/web/droplets/web-9"})
	wantProblem(t, err, codes.NotFound, server.ReasonDropletNotFound)
}
