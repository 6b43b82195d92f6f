package server_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

func TestPauseAndResume(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	a, b := c.nodes[0].cluster, c.nodes[1].cluster
	if must(a.Resume(ctx, &pb.ResumeRequest{})).Resumed {
		t.Error("what was not paused was resumed")
	}
	must(a.Pause(ctx, &pb.PauseRequest{Reason: "dry", ValidateOnly: true}))
	first := must(a.Pause(ctx, &pb.PauseRequest{Reason: "the account is being moved"})).Pause
	again := must(b.Pause(ctx, &pb.PauseRequest{Reason: "another"})).Pause
	if first.Node != "lb1" || first.Time == nil || again.Node != "lb1" || again.Reason != first.Reason || !again.Time.AsTime().Equal(first.Time.AsTime()) {
		t.Errorf("paused %v, then %v", first, again)
	}
	waitEvent(t, c.nodes[1], "cluster.paused")
	if st := must(b.GetStatus(ctx, &pb.GetStatusRequest{})); st.Pause.GetReason() != first.Reason {
		t.Errorf("status has pause %v", st.Pause)
	}
	if !must(b.Resume(ctx, &pb.ResumeRequest{})).Resumed {
		t.Error("it did not resume")
	}
	waitEvent(t, c.nodes[1], "cluster.resumed")
	if _, there := c.contents()[keys.Pause()]; there {
		t.Error("the pause is still on record")
	}
	_, err := a.Pause(ctx, &pb.PauseRequest{Reason: strings.Repeat("x", 501)})
	wantProblem(t, err, codes.InvalidArgument, server.ReasonInvalid)

	// A pause that cannot be read holds, and ends.
	c.sync(c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Pause(), Value: []byte("{")}}}))
	if must(a.Pause(ctx, &pb.PauseRequest{})).Pause == nil || !must(a.Resume(ctx, &pb.ResumeRequest{})).Resumed {
		t.Error("a pause that cannot be read does not hold, or does not end")
	}
	if _, there := c.contents()[keys.Pause()]; there {
		t.Error("the pause that cannot be read is still on record")
	}
}

// stopped is a pool that creates nothing any more, and is older than its droplets.
func (c *cluster) stopped() {
	p := c.pool("web")
	p.Stopped, p.Failures, p.RetryAt, p.Reason = time.Unix(5000, 0).UTC(), 10, time.Unix(6000, 0).UTC(), "quota"
	p.Rewound = time.Unix(7000, 0).UTC()
	c.write(func(txn *inventory.Txn) { txn.Add(inventory.PutPool(keys, p)) })
}

// What asks for droplets lets a pool that stopped create again. Release follows
// from what is wanted; being rewound ends with an operator's number.
func TestRequestsAndThePoolsGuards(t *testing.T) {
	ctx := t.Context()
	for name, test := range map[string]struct {
		call           func(n *node) error
		goesOn, number bool
		release        int
	}{
		"scale up":          {func(n *node) error { _, err := n.pools.ScalePool(ctx, desired(7)); return err }, true, true, 0},
		"scale down":        {func(n *node) error { _, err := n.pools.ScalePool(ctx, desired(2)); return err }, true, true, 3},
		"scale to the same": {func(n *node) error { _, err := n.pools.ScalePool(ctx, desired(4)); return err }, true, true, 1},
		"apply a number": {func(n *node) error {
			p := webPool()
			p.Desired = 3
			_, err := n.pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: p})
			return err
		}, true, true, 2},
		"apply a template": {func(n *node) error {
			p := webPool()
			p.Desired, p.Template.Size = 0, "s-2vcpu-2gb"
			_, err := n.pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: p})
			return err
		}, true, false, 9},
		"apply the same": {func(n *node) error {
			p := webPool()
			p.Desired = 0
			_, err := n.pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: p})
			return err
		}, false, false, 9},
		"apply bounds": {func(n *node) error {
			p := webPool()
			p.Desired, p.Max = 0, 3
			_, err := n.pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: p})
			return err
		}, true, false, 2},
		"create": {func(n *node) error {
			_, err := createAll(t, n, &pb.CreateDropletsRequest{Count: 2, NoWait: true})
			return err
		}, true, false, 0},
		"delete": {func(n *node) error {
			_, err := deleteAll(t, n, &pb.DeleteDropletsRequest{Names: []string{"web-0", "web-1"}, NoWait: true})
			return err
		}, false, false, 1},
		"import": {func(n *node) error {
			_, err := n.drops.ImportDroplets(ctx, &pb.ImportDropletsRequest{Ids: []int64{9}})
			return err
		}, false, false, 0},
		"resume": {func(n *node) error {
			r, err := n.cluster.Resume(ctx, &pb.ResumeRequest{Pool: "pools/web"})
			if err == nil && !r.Resumed {
				t.Error("not resumed")
			}
			return err
		}, true, false, 9},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1)
			pool := webPool()
			pool.Desired = 4
			c.apply(pool)
			c.serving(5)
			p := c.pool("web")
			p.Release = 9
			c.write(func(txn *inventory.Txn) { txn.Add(inventory.PutPool(keys, p)) })
			c.stopped()
			m := must(c.nodes[0].pools.GetPool(ctx, &pb.GetPoolRequest{Name: "pools/web"})).Pool
			if m.Failures != 10 || m.StopTime == nil || m.RewoundTime == nil {
				t.Errorf("the pool is %v", m)
			}
			if err := test.call(c.nodes[0]); err != nil {
				t.Fatal(err)
			}
			p = c.pool("web")
			if goesOn := p.Stopped.IsZero() && p.Failures == 0 && p.RetryAt.IsZero() && p.Reason == ""; goesOn != test.goesOn {
				t.Errorf("creates go on: %v, want %v", goesOn, test.goesOn)
			}
			if p.Rewound.IsZero() != test.number {
				t.Errorf("rewound is %v", p.Rewound)
			}
			if p.Release != test.release {
				t.Errorf("release is %d, want %d", p.Release, test.release)
			}
		})
	}
}

func TestResumePoolThatDidNotStop(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(webPool())
	if must(c.nodes[0].cluster.Resume(t.Context(), &pb.ResumeRequest{Pool: "pools/web"})).Resumed {
		t.Error("resumed what did not stop")
	}
	_, err := c.nodes[0].cluster.Resume(t.Context(), &pb.ResumeRequest{Pool: "pools/none"})
	wantProblem(t, err, codes.NotFound, server.ReasonPoolNotFound)
}

// What cannot be read is told, not taken for a conflict.
func TestUnreadableRecord(t *testing.T) {
	ctx := context.Background()
	c := newCluster(t, 1)
	c.apply(webPool())
	c.sync(c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Pool("web"), Value: []byte(`{"name":`)}, {Key: keys.Pool("api"), Value: []byte(`[]`)},
		{Key: keys.Settings(), Value: []byte(`7`)}}}))
	n := c.nodes[0]
	api := desired(3)
	api.Name = "pools/api"
	other := webPool()
	other.Name, other.HostnamePrefix, other.Backend = "pools/api", "api", &pb.Backend{Paths: []string{"/api"}}
	for name, call := range map[string]func() error{
		"scale":                  func() error { _, err := n.pools.ScalePool(ctx, desired(3)); return err },
		"scale what never was":   func() error { _, err := n.pools.ScalePool(ctx, api); return err },
		"apply":                  func() error { _, err := n.pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: webPool()}); return err },
		"apply what never was":   func() error { _, err := n.pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: other}); return err },
		"create in the only one": func() error { _, err := createAll(t, n, &pb.CreateDropletsRequest{Count: 1}); return err },
		"dry run": func() error {
			_, err := createAll(t, n, &pb.CreateDropletsRequest{Parent: "pools/web", Count: 1, ValidateOnly: true})
			return err
		},
		"settings": func() error {
			_, err := n.cluster.ApplySettings(ctx, &pb.ApplySettingsRequest{Settings: someSettings()})
			return err
		},
	} {
		err := call()
		wantProblem(t, err, codes.FailedPrecondition, server.ReasonRecordUnreadable)
		if err != nil && !strings.Contains(err.Error(), keys.Prefix()) {
			t.Errorf("%s: the error does not name the key: %v", name, err)
		}
	}
}
