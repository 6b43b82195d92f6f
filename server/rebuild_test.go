package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

// lose deletes every record of the store, and waits until the first node knows.
func (c *cluster) lose() {
	c.t.Helper()
	c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Meta(), Delete: true}}}) // first: what goes with it is no news
	for {
		var txn inventory.Txn
		for _, kv := range must(c.store.List(context.Background(), keys.Prefix())).KVs {
			if len(txn.Ops) < inventory.MaxOps {
				txn.Ops = append(txn.Ops, inventory.Op{Key: kv.Key, Delete: true})
			}
		}
		if len(txn.Ops) == 0 {
			break
		}
		c.commit(txn)
	}
	wake, cancel := c.nodes[0].mirror.Subscribe()
	defer cancel()
	for !errors.Is(c.nodes[0].mirror.State().Err, inventory.ErrWiped) {
		<-wake
	}
}

func (c *cluster) meta() inventory.Meta {
	var m inventory.Meta
	if err := json.Unmarshal([]byte(c.contents()[keys.Meta()]), &m); err != nil {
		c.t.Fatalf("meta: %v", err)
	}
	return m
}

func TestRebuild(t *testing.T) {
	for name, fresh := range map[string]bool{"empty store": false, "another cluster began in it": true} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			c := newCluster(t, 1)
			old := c.meta()
			c.apply(webPool())
			c.serving(2)
			must(c.nodes[0].cluster.ApplySettings(ctx, &pb.ApplySettingsRequest{Settings: someSettings()}))
			p := c.pool("web")
			p.Remove, p.Import, p.Release, p.NextOrdinal = []string{"web-0"}, []int64{7}, 2, 1
			c.write(func(txn *inventory.Txn) {
				txn.Add(inventory.PutPool(keys, p))
				for i := range 200 { // more than one transaction takes
					txn.Add(inventory.PutMember(keys, &inventory.Member{Name: fmt.Sprintf("m%d", i), Reason: "kept"}))
					if len(txn.Ops) == inventory.MaxOps {
						c.sync(c.commit(inventory.Txn{Ops: txn.Ops}))
						txn.Ops = nil
					}
				}
			})
			api := c.nodes[0].cluster
			_, err := api.Rebuild(ctx, &pb.RebuildRequest{Uid: old.UID})
			wantProblem(t, err, codes.FailedPrecondition, server.ReasonNotEmpty)

			c.lose()
			_, err = api.Rebuild(ctx, &pb.RebuildRequest{})
			if code, _, fields := problemOf(err); code != codes.InvalidArgument || fields[0] != "uid" || !strings.Contains(err.Error(), old.UID) {
				t.Errorf("without uid: %v", err)
			}
			if fresh { // with a pool of its own, and one of the same name
				must(inventory.EnsureMeta(ctx, c.store, keys))
				for _, name := range []string{"web", "own"} {
					_, op := inventory.PutPool(keys, &inventory.Pool{PoolSpec: inventory.PoolSpec{Name: name}, Desired: 1})
					c.commit(inventory.Txn{Ops: []inventory.Op{op}})
				}
			}
			before := c.contents()
			dry := must(api.Rebuild(ctx, &pb.RebuildRequest{Uid: old.UID, ValidateOnly: true}))
			if !maps.Equal(before, c.contents()) {
				t.Error("validate_only changed the store")
			}
			done := must(api.Rebuild(ctx, &pb.RebuildRequest{Uid: old.UID}))
			if len(done.Pools) != 1 || done.Pools[0].Desired != 2 || done.Droplets != 2 || done.UnknownUid || len(dry.Pools) != 1 {
				t.Errorf("rebuilt %v", done)
			}
			m := c.meta()
			if m.UID != old.UID || !m.Created.Equal(old.Created) || time.Since(m.Rebuilt) > time.Minute || m.Schema != inventory.Schema {
				t.Errorf("meta is %+v", m)
			}
			if p := c.pool("web"); p.Desired != 2 || p.Remove != nil || p.Import != nil || p.Release != 0 || p.NextOrdinal != 2 {
				t.Errorf("the pool is %+v", p)
			}
			got := c.contents()
			if !strings.Contains(got[keys.Settings()], "203.0.113.7") || !strings.Contains(got[keys.Member("m199")], "kept") || got[keys.Ordinal("web")] == "" {
				t.Error("settings, members or ordinals are missing")
			}
			if _, own := got[keys.Pool("own")]; own != fresh {
				t.Errorf("the other pool is there: %v", own)
			}
			// The node that remembered follows the store again.
			wake, cancel := c.nodes[0].mirror.Subscribe()
			defer cancel()
			for c.nodes[0].mirror.State().Err != nil {
				<-wake
			}
			waitEvent(t, c.nodes[0], "cluster.rebuilt")
			_, err = api.Rebuild(ctx, &pb.RebuildRequest{Uid: old.UID})
			wantProblem(t, err, codes.FailedPrecondition, server.ReasonNotEmpty)
		})
	}
}

// A node that never knew the cluster writes its uid alone.
func TestRebuildWhatIsNotRemembered(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 1)
	api := c.nodes[0].cluster
	done := must(api.Rebuild(ctx, &pb.RebuildRequest{Uid: "0123456789ab"}))
	if !done.UnknownUid || len(done.Pools) != 0 || c.meta().UID != "0123456789ab" || c.meta().Rebuilt.IsZero() {
		t.Errorf("rebuilt %v, meta %+v", done, c.meta())
	}
	_, err := api.Rebuild(ctx, &pb.RebuildRequest{Uid: "a:b"})
	wantProblem(t, err, codes.InvalidArgument, server.ReasonInvalid)
	c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Meta(), Value: []byte(`{"uid":"x","schema":99}`)}}})
	_, err = api.Rebuild(ctx, &pb.RebuildRequest{Uid: "0123456789ab"})
	wantProblem(t, err, codes.FailedPrecondition, server.ReasonRecordUnreadable)
}
