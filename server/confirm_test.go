package server_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

func holds(pool, kind string, names ...string) inventory.Condition {
	return inventory.Condition{Key: kind + "/" + pool, Type: kind, Pool: pool, Message: "held", Since: time.Unix(9, 0).UTC(), Names: names}
}

// tell writes the leader's report.
func (c *cluster) tell(r *inventory.Report) {
	c.sync(c.commit(inventory.Txn{Ops: []inventory.Op{inventory.PutReport(keys, r)}}))
}

func (c *cluster) confirmed(pool string) []string {
	var got inventory.Confirm
	if value := c.contents()[keys.Confirm(pool)]; value != "" {
		if err := json.Unmarshal([]byte(value), &got); err != nil {
			c.t.Fatalf("confirm: %v", err)
		}
	}
	return got.Names
}

func TestConfirm(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	c.apply(webPool())
	api := c.nodes[0].cluster
	_, err := api.Confirm(ctx, &pb.ConfirmRequest{})
	wantProblem(t, err, codes.FailedPrecondition, server.ReasonNothingHeld)
	_, err = api.Confirm(ctx, &pb.ConfirmRequest{Pool: "pools/none"})
	wantProblem(t, err, codes.NotFound, server.ReasonPoolNotFound)

	c.tell(&inventory.Report{Node: "lb1", Conditions: []inventory.Condition{holds("web", "guard.surplus", "web-1", "web-2"), {Key: "x", Pool: "web", Message: "no names"}}})
	c.report(&inventory.Node{Name: "lb2", HAProxy: "running", Conditions: []inventory.Condition{holds("web", "guard.vanished", "web-2", "web-3"), holds("api", "guard.vanished", "api-1")}})
	c.sync(must(c.store.List(ctx, keys.Prefix())).Revision)

	dry := must(api.Confirm(ctx, &pb.ConfirmRequest{ValidateOnly: true}))
	if len(dry.Conditions) != 3 || len(c.confirmed("web")) != 0 {
		t.Errorf("the dry run told %v", dry)
	}
	_, err = api.Confirm(ctx, &pb.ConfirmRequest{Hostnames: []string{"web-1", "web-9"}})
	wantProblem(t, err, codes.FailedPrecondition, server.ReasonNotHeld)
	if len(c.confirmed("web")) != 0 {
		t.Error("what is not held was confirmed in part")
	}
	one := must(api.Confirm(ctx, &pb.ConfirmRequest{Pool: "pools/web", Hostnames: []string{"web-3"}}))
	if len(one.Conditions) != 1 || !slices.Equal(one.Conditions[0].Hostnames, []string{"web-3"}) || one.Conditions[0].Node != "lb2" {
		t.Errorf("one: %v", one)
	}
	if got := c.confirmed("web"); !slices.Equal(got, []string{"web-3"}) || c.confirmed("api") != nil {
		t.Errorf("confirmed %v and %v", got, c.confirmed("api"))
	}
	must(api.Confirm(ctx, &pb.ConfirmRequest{}))
	if got := c.confirmed("web"); !slices.Equal(got, []string{"web-1", "web-2", "web-3"}) {
		t.Errorf("confirmed %v", got)
	}
	if got := c.confirmed("api"); !slices.Equal(got, []string{"api-1"}) {
		t.Errorf("confirmed %v of a pool without a record", got)
	}
	if kv := must(inventory.Get(ctx, c.store, keys.Confirm("web"))); kv.Lease == 0 {
		t.Error("the confirmation does not expire")
	}
	waitEvent(t, c.nodes[0], "guard.confirmed")
}

// answer has the leader and nodes answer each verify: those named.
func (c *cluster) answer(leader bool, nodes ...string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- c.store.Watch(ctx, keys.Verify(), 1, func(b inventory.Batch) error {
			for _, change := range b.Changes {
				var v inventory.Verify
				if err := json.Unmarshal(change.Value, &v); err != nil {
					return err
				}
				if leader {
					c.commit(inventory.Txn{Ops: []inventory.Op{inventory.PutReport(keys, &inventory.Report{Node: "lb1", Verified: v.ID,
						Differences: []inventory.Difference{{Kind: "droplet.missing", Subject: "web-0", Message: "repair " + map[bool]string{true: "yes", false: "no"}[v.Repair]}}})}})
				}
				for _, name := range nodes {
					c.report(&inventory.Node{Name: name, HAProxy: "running", Verified: v.ID + "0", // a later one counts too
						Differences: []inventory.Difference{{Kind: "server.weight", Subject: "web-1", Message: "weight"}}})
				}
			}
			return nil
		})
	}()
	return func() { cancel(); <-done }
}

func TestVerify(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	c.apply(webPool())
	c.serving(2)
	c.write(func(txn *inventory.Txn) {
		txn.Add(inventory.PutMember(keys, &inventory.Member{Name: "lb9", Silent: time.Unix(9, 0).UTC()}))
	})
	stop := c.answer(true, "lb1", "lb2")
	v := must(c.nodes[1].cluster.Verify(ctx, &pb.VerifyRequest{Repair: true}))
	stop()
	if len(v.Differences) != 3 || v.Differences[0].Message != "repair yes" || v.Differences[1].Node != "lb1" || v.Differences[2].Node != "lb2" || v.Droplets != 2 || v.Nodes != 2 {
		t.Errorf("verify told %v", v)
	}
	if len(v.Unanswered) != 1 || v.Unanswered[0].Who != "lb9" || !strings.Contains(v.Unanswered[0].Reason, "silent since 1970") {
		t.Errorf("unanswered: %v", v.Unanswered)
	}
	waitEvent(t, c.nodes[1], "verify.requested")

	stop = c.answer(false, "lb1")
	defer stop()
	v = must(c.nodes[0].cluster.Verify(ctx, &pb.VerifyRequest{}))
	var who []string
	for _, u := range v.Unanswered {
		who = append(who, u.Who+": "+u.Reason)
	}
	if len(who) != 3 || who[0] != "leader: no node leads" || who[1] != "lb2: lb2 has not answered within 2s" || v.Nodes != 1 || len(v.Differences) != 1 {
		t.Errorf("unanswered: %q, of %v", who, v)
	}
}
