package server_test

import (
	"maps"
	"testing"

	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// Every dry run tells what would come of it, and nothing else does.
func TestForecast(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 1)
	c.apply(webPool())
	c.serving(2)
	n := c.nodes[0]
	before := c.contents()

	scale := desired(4)
	scale.ValidateOnly = true
	if f := must(n.pools.ScalePool(ctx, scale)).Forecast; len(f.GetCreates()) != 2 || f.CostHourlyBefore != 1 {
		t.Errorf("scale: %v", f)
	}
	p := webPool()
	p.Desired = 1
	if f := must(n.pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: p, ValidateOnly: true})).Forecast; len(f.GetDeletes()) != 1 {
		t.Errorf("apply: %v", f)
	}
	p.Name, p.HostnamePrefix, p.Backend = "pools/api", "api", &pb.Backend{Paths: []string{"/api"}}
	if f := must(n.pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: p, ValidateOnly: true})).Forecast; len(f.GetCreates()) != 1 {
		t.Errorf("apply of a new pool: %v", f)
	}
	if f := must(must(n.drops.CreateDroplets(ctx, &pb.CreateDropletsRequest{Count: 3, ValidateOnly: true})).Recv()).Forecast; len(f.GetCreates()) != 3 {
		t.Errorf("create: %v", f)
	}
	if f := must(must(n.drops.DeleteDroplets(ctx, &pb.DeleteDropletsRequest{Names: []string{"web-1"}, ValidateOnly: true})).Recv()).Forecast; len(f.GetDeletes()) != 1 || f.Deletes[0] != "web-1" {
		t.Errorf("delete: %v", f)
	}
	if f := must(n.drops.ImportDroplets(ctx, &pb.ImportDropletsRequest{Ids: []int64{9}, ValidateOnly: true})).Forecast; len(f.GetHolds()) == 0 {
		t.Errorf("import: %v", f)
	}
	if !maps.Equal(before, c.contents()) {
		t.Error("a dry run changed the store")
	}
	if f := must(n.pools.ScalePool(ctx, desired(3))).Forecast; f != nil {
		t.Errorf("a scale that was done forecasts %v", f)
	}
}
