package server_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

func desired(n int32) *pb.ScalePoolRequest {
	return &pb.ScalePoolRequest{Name: "pools/web", Target: &pb.ScalePoolRequest_Desired{Desired: n}}
}

func delta(n int32, id string) *pb.ScalePoolRequest {
	return &pb.ScalePoolRequest{Name: "pools/web", Target: &pb.ScalePoolRequest_Delta{Delta: n}, RequestId: id}
}

func TestScalePool(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	c.apply(webPool())
	a, b := c.nodes[0].pools, c.nodes[1].pools

	resp := must(a.ScalePool(ctx, desired(5)))
	if resp.PreviousDesired != 2 || resp.Pool.Desired != 5 {
		t.Errorf("scale to 5 answered %v", resp)
	}
	old := resp.Pool.Etag
	// The other node may lag behind: it finds out by itself.
	resp = must(b.ScalePool(ctx, delta(-2, "")))
	if resp.PreviousDesired != 5 || resp.Pool.Desired != 3 || resp.Pool.Etag == old {
		t.Errorf("scale by -2 answered %v", resp)
	}
	req := desired(4)
	req.Etag = old
	_, err := a.ScalePool(ctx, req)
	wantProblem(t, err, codes.Aborted, server.ReasonPoolChanged)
	req.Etag = resp.Pool.Etag
	req.ValidateOnly = true
	if resp := must(a.ScalePool(ctx, req)); resp.Pool.Desired != 4 {
		t.Errorf("validate_only answered %v", resp)
	}
	if p := c.pool("web"); p.Desired != 3 {
		t.Errorf("validate_only set desired to %d", p.Desired)
	}
	_, err = a.ScalePool(ctx, desired(11))
	wantProblem(t, err, codes.OutOfRange, server.ReasonOutOfBounds)
	if !strings.Contains(err.Error(), "max of 10") {
		t.Errorf("the error does not tell the bound: %v", err)
	}
	_, err = a.ScalePool(ctx, delta(-3, ""))
	wantProblem(t, err, codes.OutOfRange, server.ReasonOutOfBounds)
	_, err = a.ScalePool(ctx, delta(2147483647, ""))
	wantProblem(t, err, codes.OutOfRange, server.ReasonOutOfBounds)

	waitEvent(t, c.nodes[0], "pool.scaled")
}

func waitEvent(t tb, n *node, kind string) {
	t.Helper()
	wake, cancel := n.mirror.Subscribe()
	defer cancel()
	late := time.After(10 * time.Second)
	for {
		for _, e := range n.mirror.State().Events {
			if e.Type == kind {
				return
			}
		}
		select {
		case <-wake:
		case <-late:
			t.Fatalf("no event %s", kind)
		}
	}
}

func TestRequestID(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	c.apply(webPool())
	first := must(c.nodes[0].pools.ScalePool(ctx, delta(1, "r-1")))
	must(c.nodes[0].pools.ScalePool(ctx, desired(9)))
	again := must(c.nodes[1].pools.ScalePool(ctx, delta(1, "r-1")))
	if !proto.Equal(first, again) {
		t.Errorf("the same request got\n%v, then\n%v", first, again)
	}
	if p := c.pool("web"); p.Desired != 9 {
		t.Errorf("a repeated request changed desired to %d", p.Desired)
	}
	_, err := c.nodes[0].pools.ScalePool(ctx, delta(2, "r-1"))
	wantProblem(t, err, codes.InvalidArgument, server.ReasonRequestIDReused)
	// An id whose request was refused is still free.
	_, err = c.nodes[0].pools.ScalePool(ctx, delta(5, "r-2"))
	wantProblem(t, err, codes.OutOfRange, server.ReasonOutOfBounds)
	must(c.nodes[0].pools.ScalePool(ctx, delta(-5, "r-2")))
}

// However many retries of however many requests run at once at whichever node,
// with commits that fail before or after they were done, each counts once.
func TestRequestIDCountsOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCluster(rt, 2)
		pool := webPool()
		pool.Max = 1000
		c.apply(pool)
		deltas := rapid.SliceOfN(rapid.Int32Range(1, 9), 1, 4).Draw(rt, "deltas")
		retries := rapid.IntRange(1, 6).Draw(rt, "retries")
		for _, n := range c.nodes {
			n.store.FailCommits(rapid.IntRange(0, 3).Draw(rt, "failures"), rapid.SampledFrom([]inventorytest.Fault{inventorytest.Before, inventorytest.After}).Draw(rt, "fault"))
		}
		var calls sync.WaitGroup
		sum := int32(2)
		for i, d := range deltas {
			sum += d
			for r := range retries {
				calls.Go(func() {
					for {
						_, err := c.nodes[r%2].pools.ScalePool(context.Background(), delta(d, fmt.Sprintf("id-%d", i)))
						if code, reason, _ := problemOf(err); code == codes.OK {
							return
						} else if reason != server.ReasonOutcomeUnknown && reason != server.ReasonContended {
							rt.Errorf("scale: %v", err)
							return
						}
					}
				})
			}
		}
		calls.Wait()
		if got := c.pool("web").Desired; got != int(sum) {
			rt.Fatalf("desired is %d after %v, each sent %d times; want %d", got, deltas, retries, sum)
		}
	})
}

func TestStoreDown(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 1)
	c.apply(webPool())
	n := c.nodes[0]

	n.store.FailCommits(1, inventorytest.After)
	_, err := n.pools.ScalePool(ctx, delta(1, "once"))
	wantProblem(t, err, codes.Unavailable, server.ReasonOutcomeUnknown)
	if !strings.Contains(err.Error(), "same request_id") {
		t.Errorf("the error does not say how to go on: %v", err)
	}
	must(n.pools.ScalePool(ctx, delta(1, "once")))
	if p := c.pool("web"); p.Desired != 3 {
		t.Errorf("desired is %d, want 3", p.Desired)
	}

	n.store.Partition()
	wake, cancel := n.mirror.Subscribe()
	defer cancel()
	for n.mirror.State().Err == nil {
		<-wake
	}
	_, err = n.pools.ScalePool(ctx, desired(5))
	wantProblem(t, err, codes.Unavailable, server.ReasonStoreUnavailable)
	if !strings.Contains(err.Error(), "traffic is not affected") || !hasRetryInfo(err) {
		t.Errorf("the error does not tell enough: %v", err)
	}
	st := must(n.cluster.GetStatus(ctx, &pb.GetStatusRequest{}))
	if st.StoreError == "" || st.StoreErrorTime == nil || len(st.Pools) != 1 || st.Node != "lb1" {
		t.Errorf("status while the store is down: %v", st)
	}
	list := must(n.drops.ListDroplets(ctx, &pb.ListDropletsRequest{}))
	if list.Stale == "" {
		t.Errorf("the list does not say that it is stale: %v", list)
	}
	n.store.Heal()
	for n.mirror.State().Err != nil {
		<-wake
	}
	must(n.pools.ScalePool(ctx, desired(5)))
}

func TestApplyPool(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	pools := c.nodes[0].pools
	dry := must(pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: webPool(), ValidateOnly: true}))
	if !dry.Created || len(dry.Changes) == 0 {
		t.Errorf("dry run answered %v", dry)
	}
	c.apply(webPool())

	change := webPool()
	change.Desired, change.HostnamePrefix = 0, ""
	change.Template.Size = "s-2vcpu-2gb"
	change.Template.UserData = "#!/bin/sh\nPASSWORD=secret"
	change.Backend = &pb.Backend{Port: 8080, CheckInterval: durationpb.New(time.Second), Hosts: []string{"Example.com"}}
	resp := must(c.nodes[1].pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: change}))
	got := map[string]string{}
	for _, ch := range resp.Changes {
		got[ch.Field] = ch.Before + "→" + ch.After
	}
	want := map[string]string{"template.size": "s-1vcpu-1gb→s-2vcpu-2gb", "backend.port": "80 (default)→8080", "backend.check_interval": "2s (default)→1s", "backend.hosts": "any (default)→example.com"}
	for field, value := range want {
		if got[field] != value {
			t.Errorf("change of %s is %q, want %q", field, got[field], value)
		}
	}
	if u := got["template.user_data"]; u == "" || strings.Contains(u, "secret") {
		t.Errorf("change of user data is %q", u)
	}
	if len(got) != len(want)+1 {
		t.Errorf("changes are %v", got)
	}
	if resp.Pool.Desired != 2 || resp.Pool.HostnamePrefix != "web" {
		t.Errorf("what was left out changed: %v", resp.Pool)
	}
	// What get answers can be applied as it is, and changes nothing. A read at
	// another node than the write's may lag behind it.
	c.sync(c.pool("web").Mod)
	p := must(pools.GetPool(ctx, &pb.GetPoolRequest{Name: "pools/web"})).Pool
	if resp := must(pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: p, Etag: p.Etag})); len(resp.Changes) != 0 || resp.Pool.Etag != p.Etag {
		t.Errorf("applying the same again answered %v", resp)
	}
	// Bounds pull desired along.
	p.Desired, p.Min, p.Max = 0, 4, 6
	if resp := must(pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: p})); resp.Pool.Desired != 4 {
		t.Errorf("desired is %d below min", resp.Pool.Desired)
	}
	_, err := pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: p, Etag: p.Etag})
	wantProblem(t, err, codes.Aborted, server.ReasonPoolChanged)
}

func TestDeletePoolKeepsOrdinals(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	pool := webPool()
	pool.Min = 0
	c.apply(pool)
	c.serving(2)
	del := &pb.DeletePoolRequest{Name: "pools/web"}
	_, err := c.nodes[0].pools.DeletePool(ctx, del)
	wantProblem(t, err, codes.FailedPrecondition, server.ReasonPoolNotEmpty)

	c.lead()
	must(c.nodes[0].pools.ScalePool(ctx, desired(0)))
	watch := must(c.nodes[0].drops.WatchDroplets(ctx, &pb.WatchDropletsRequest{Parent: "pools/web"}))
	there := map[string]bool{}
	for first := true; first || len(there) > 0; first = false {
		m := must(watch.Recv())
		for _, d := range m.Droplets {
			there[d.Name] = true
		}
		for _, name := range m.Deleted {
			delete(there, name)
		}
	}
	must(c.nodes[1].pools.DeletePool(ctx, del))
	_, err = c.nodes[0].pools.GetPool(ctx, &pb.GetPoolRequest{Name: "pools/none"})
	wantProblem(t, err, codes.NotFound, server.ReasonPoolNotFound)

	again := webPool()
	again.Name = "pools/other" // another pool of the prefix goes on
	again.Desired = 1
	again.Min = 0
	created := must(c.nodes[1].pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: again}))
	if !created.Created {
		t.Errorf("apply answered %v", created)
	}
	if p := c.pool("other"); p.NextOrdinal < 2 {
		t.Errorf("the new pool begins with ordinal %d: a name is used again", p.NextOrdinal)
	}
}

// Two pools that are made at once cannot get the same prefix.
func TestPrefixRace(t *testing.T) {
	for range 20 {
		c := newCluster(t, 2)
		var calls sync.WaitGroup
		errs := make([]error, 2)
		for i, n := range c.nodes {
			calls.Go(func() {
				p := webPool()
				p.Name = fmt.Sprintf("pools/p%d", i)
				p.Backend = &pb.Backend{Paths: []string{fmt.Sprintf("/p%d", i)}}
				_, errs[i] = n.pools.ApplyPool(t.Context(), &pb.ApplyPoolRequest{Pool: p})
			})
		}
		calls.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("one should have been refused: %v", errs)
		}
	}
}

// Each of these is refused with the field, and changes nothing.
func TestBadInputs(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(webPool())
	c.serving(2)
	n := c.nodes[0]
	ctx := t.Context()

	pool := func(field string, change func(p *pb.Pool)) func() (string, error) {
		return func() (string, error) {
			p := webPool()
			p.Template = proto.CloneOf(p.Template)
			p.Backend, p.Policy = &pb.Backend{}, &pb.Policy{}
			change(p)
			_, err := n.pools.ApplyPool(ctx, &pb.ApplyPoolRequest{Pool: p})
			return "pool." + field, err
		}
	}
	other := func(p *pb.Pool) { p.Name, p.HostnamePrefix, p.Backend.Paths = "pools/api", "api", []string{"/api"} }
	scale := func(field string, req *pb.ScalePoolRequest) func() (string, error) {
		return func() (string, error) { _, err := n.pools.ScalePool(ctx, req); return field, err }
	}
	create := func(field string, req *pb.CreateDropletsRequest) func() (string, error) {
		return func() (string, error) {
			_, err := must(n.drops.CreateDroplets(ctx, req)).Recv()
			return field, err
		}
	}
	del := func(field string, names ...string) func() (string, error) {
		return func() (string, error) {
			_, err := must(n.drops.DeleteDroplets(ctx, &pb.DeleteDropletsRequest{Names: names})).Recv()
			return field, err
		}
	}
	long := strings.Repeat("a", 300)
	for name, call := range map[string]func() (string, error){
		"no pool":            func() (string, error) { _, err := n.pools.ApplyPool(ctx, &pb.ApplyPoolRequest{}); return "pool", err },
		"name":               pool("name", func(p *pb.Pool) { p.Name = "web" }),
		"name with capitals": pool("name", func(p *pb.Pool) { p.Name = "pools/Web" }),
		"name with newline":  pool("name", func(p *pb.Pool) { p.Name = "pools/web\n" }),
		"prefix":             pool("hostname_prefix", func(p *pb.Pool) { p.HostnamePrefix = "we b" }),
		"prefix changed":     pool("hostname_prefix", func(p *pb.Pool) { p.HostnamePrefix = "www" }),
		"prefix of another":  pool("hostname_prefix", func(p *pb.Pool) { other(p); p.HostnamePrefix = "WEB" }),
		"no max":             pool("max", func(p *pb.Pool) { p.Max = 0 }),
		"max too large":      pool("max", func(p *pb.Pool) { p.Max = 1001 }),
		"negative min":       pool("min", func(p *pb.Pool) { p.Min = -1 }),
		"min above max":      pool("min", func(p *pb.Pool) { p.Min = 11 }),
		"desired above max":  pool("desired", func(p *pb.Pool) { p.Desired = 11 }),
		"desired below min":  pool("desired", func(p *pb.Pool) { p.Min, p.Desired = 3, 2 }),
		"negative desired":   pool("desired", func(p *pb.Pool) { p.Desired = -1 }),
		"no region":          pool("template.region", func(p *pb.Pool) { p.Template.Region = "" }),
		"size":               pool("template.size", func(p *pb.Pool) { p.Template.Size = "2 GB" }),
		"image":              pool("template.image", func(p *pb.Pool) { p.Template.Image = "a\nb" }),
		"ssh key":            pool("template.ssh_keys[1]", func(p *pb.Pool) { p.Template.SshKeys = []string{"12", "ssh-rsa AAAA"} }),
		"ssh key twice":      pool("template.ssh_keys[1]", func(p *pb.Pool) { p.Template.SshKeys = []string{"12", "12"} }),
		"user data too long": pool("template.user_data", func(p *pb.Pool) { p.Template.UserData = strings.Repeat("x", 64<<10+1) }),
		"vpc":                pool("template.vpc", func(p *pb.Pool) { p.Template.Vpc = "default" }),
		"tag":                pool("template.tags[0]", func(p *pb.Pool) { p.Template.Tags = []string{"a b"} }),
		"tag of doproxy":     pool("template.tags[0]", func(p *pb.Pool) { p.Template.Tags = []string{"Doproxy:x"} }),
		"port":               pool("backend.port", func(p *pb.Pool) { p.Backend.Port = 65536 }),
		"balance":            pool("backend.balance", func(p *pb.Pool) { p.Backend.Balance = "static-rr" }),
		"health path":        pool("backend.health_path", func(p *pb.Pool) { p.Backend.HealthPath = "/ok\nserver evil 10.0.0.1" }),
		"health path bare":   pool("backend.health_path", func(p *pb.Pool) { p.Backend.HealthPath = "ok" }),
		"check interval":     pool("backend.check_interval", func(p *pb.Pool) { p.Backend.CheckInterval = durationpb.New(time.Microsecond) }),
		"fall":               pool("backend.fall", func(p *pb.Pool) { p.Backend.Fall = -1 }),
		"rise":               pool("backend.rise", func(p *pb.Pool) { p.Backend.Rise = 1001 }),
		"max connections":    pool("backend.max_connections", func(p *pb.Pool) { p.Backend.MaxConnections = -1 }),
		"host":               pool("backend.hosts[0]", func(p *pb.Pool) { p.Backend.Hosts = []string{"a.com b.com"} }),
		"host too long":      pool("backend.hosts[0]", func(p *pb.Pool) { p.Backend.Hosts = []string{long} }),
		"path":               pool("backend.paths[0]", func(p *pb.Pool) { p.Backend.Paths = []string{"/a b"} }),
		"path with a query":  pool("backend.paths[0]", func(p *pb.Pool) { p.Backend.Paths = []string{"/a?b"} }),
		"path of slashes":    pool("backend.paths[0]", func(p *pb.Pool) { p.Backend.Paths = []string{"//"} }),
		"boot deadline":      pool("policy.boot_deadline", func(p *pb.Pool) { p.Policy.BootDeadline = durationpb.New(-time.Second) }),
		"drain deadline":     pool("policy.drain_deadline", func(p *pb.Pool) { p.Policy.DrainDeadline = &durationpb.Duration{Seconds: 1 << 50} }),
		"two catch all":      pool("backend", func(p *pb.Pool) { other(p); p.Backend.Paths = nil }),
		"two catch all by /": pool("backend", func(p *pb.Pool) { other(p); p.Backend.Paths = []string{"/"} }),
		"scale by bare name": scale("name", &pb.ScalePoolRequest{Name: "web", Target: &pb.ScalePoolRequest_Desired{Desired: 3}}),
		"scale to nothing":   scale("target", &pb.ScalePoolRequest{Name: "pools/web"}),
		"scale with bad id":  scale("request_id", delta(1, "a b")),
		"create none":        create("count", &pb.CreateDropletsRequest{Parent: "pools/web"}),
		"create minus one":   create("count", &pb.CreateDropletsRequest{Count: -1}),
		"create in bad name": create("parent", &pb.CreateDropletsRequest{Parent: "web", Count: 1}),
		"delete nothing":     del("names"),
		"delete path":        del("names[1]", "web-0", "pools/web"),
		"delete zero":        del("names[0]", "0"),
		"import nothing": func() (string, error) {
			_, err := n.drops.ImportDroplets(ctx, &pb.ImportDropletsRequest{})
			return "ids", err
		},
		"import minus one": func() (string, error) {
			_, err := n.drops.ImportDroplets(ctx, &pb.ImportDropletsRequest{Ids: []int64{-1}})
			return "ids[0]", err
		},
		"get no droplet": func() (string, error) {
			_, err := n.drops.GetDroplet(ctx, &pb.GetDropletRequest{Name: "web-0"})
			return "name", err
		},
		"list negative": func() (string, error) {
			_, err := n.pools.ListPools(ctx, &pb.ListPoolsRequest{PageSize: -1})
			return "page_size", err
		},
		"list with bad token": func() (string, error) {
			_, err := n.pools.ListPools(ctx, &pb.ListPoolsRequest{PageToken: "x"})
			return "page_token", err
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := c.contents()
			field, err := call()
			code, reason, fields := problemOf(err)
			if code != codes.InvalidArgument || reason != server.ReasonInvalid || len(fields) == 0 || fields[0] != field {
				t.Errorf("got %v %q, fields %q, want INVALID_ARGUMENT for %q: %v", code, reason, fields, field, err)
			}
			if after := c.contents(); !maps.Equal(before, after) {
				t.Errorf("the store changed from %v to %v", before, after)
			}
		})
	}
}

func TestPages(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 1)
	c.apply(webPool())
	c.serving(5)
	drops := c.nodes[0].drops
	var names []string
	req := &pb.ListDropletsRequest{PageSize: 2}
	for {
		resp := must(drops.ListDroplets(ctx, req))
		for _, d := range resp.Droplets {
			names = append(names, d.Hostname)
		}
		if req.PageToken = resp.NextPageToken; req.PageToken == "" {
			break
		}
		// What is on pages past goes: no droplet is left out for it.
		if len(names) == 2 {
			txn := inventory.Txn{Ops: []inventory.Op{{Key: keys.Droplet("web", "web-0"), Delete: true}}}
			c.sync(c.commit(txn))
		}
	}
	if got := strings.Join(names, " "); got != "web-0 web-1 web-2 web-3 web-4" {
		t.Errorf("pages have %s", got)
	}
	token := must(drops.ListDroplets(ctx, &pb.ListDropletsRequest{PageSize: 2})).NextPageToken
	_, err := drops.ListDroplets(ctx, &pb.ListDropletsRequest{Parent: "pools/web", PageToken: token})
	wantProblem(t, err, codes.InvalidArgument, server.ReasonInvalid)
}
