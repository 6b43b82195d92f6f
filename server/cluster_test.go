package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var keys = inventory.KeysOf("test")

// testing.T and rapid.T both are one.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Cleanup(func())
}

// cluster is one store with some nodes on it.
type cluster struct {
	t     tb
	store *inventorytest.Memory // without faults
	nodes []*node

	target  func(*inventory.State, netip.Addr, string) (string, error) // of nodes started from now on
	options server.Options                                             // StoreName, StoreAdmin and Migrator of these
	before  func()                                                     // is called before each commit of nodes started from now on
}

// node is one server, its client, and its own connection to the store.
type node struct {
	name    string
	store   *inventorytest.Memory
	mirror  *inventory.Mirror
	local   *local
	conn    *grpc.ClientConn
	stop    func() // ends the server, and waits
	pools   pb.PoolServiceClient
	drops   pb.DropletServiceClient
	cluster pb.ClusterServiceClient
	control pb.NodeServiceClient
}

// hooked is a connection to the store that calls before before each commit.
type hooked struct {
	inventory.Store
	before func()
}

func (h hooked) Commit(ctx context.Context, txn inventory.Txn) (inventory.Revision, error) {
	if h.before != nil {
		h.before()
	}
	return h.Store.Commit(ctx, txn)
}

type local struct {
	mu      sync.Mutex
	err     error
	reloads int64
	boom    bool
}

func (l *local) Reload(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.reloads++
	}
	return l.err
}

func (l *local) Render(context.Context) ([]byte, string, error) {
	if l.boom {
		panic("boom")
	}
	return []byte("global\n"), "/etc/haproxy/haproxy.cfg", l.err
}

func (l *local) Reloads() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reloads
}

func newCluster(t tb, nodes int) *cluster {
	t.Helper()
	c := &cluster{t: t, store: inventorytest.NewMemory()}
	if _, err := inventory.EnsureMeta(context.Background(), c.store, keys); err != nil {
		t.Fatalf("meta: %v", err)
	}
	for i := range nodes {
		c.nodes = append(c.nodes, c.start(fmt.Sprintf("lb%d", i+1)))
	}
	return c
}

func (c *cluster) start(name string, more ...net.Listener) *node {
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	n := &node{name: name, store: c.store.Connect(), local: &local{}}
	n.mirror = inventory.NewMirror(n.store, keys, logger)
	journal := inventory.NewJournal(n.store, n.store, keys, logger)
	s, err := server.New(server.Options{
		Cluster: "test", Node: name, Store: hooked{n.store, c.before}, Leaser: n.store, Keys: keys, Mirror: n.mirror, Journal: journal, Local: n.local, Logger: logger, Target: c.target,
		StoreName: c.options.StoreName, StoreAdmin: c.options.StoreAdmin, Migrator: c.options.Migrator,
		CallTimeout: time.Second, ReloadTimeout: 2 * time.Second, ShutdownTimeout: 2 * time.Second,
	})
	if err != nil {
		c.t.Fatalf("New: %v", err)
	}
	l := bufconn.Listen(1 << 20)
	n.conn, err = grpc.NewClient("passthrough:bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		c.t.Fatalf("NewClient: %v", err)
	}
	n.pools, n.drops = pb.NewPoolServiceClient(n.conn), pb.NewDropletServiceClient(n.conn)
	n.cluster, n.control = pb.NewClusterServiceClient(n.conn), pb.NewNodeServiceClient(n.conn)

	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = n.mirror.Run(ctx) })
	parts.Go(func() { _ = journal.Run(ctx) })
	serveCtx, stopServe := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.Serve(serveCtx, append(more, l)...) }()
	n.stop = sync.OnceFunc(func() {
		stopServe()
		if err := <-served; err != nil {
			c.t.Errorf("Serve: %v", err)
		}
	})
	c.t.Cleanup(func() {
		n.conn.Close()
		n.store.Heal()
		n.stop()
		cancel()
		parts.Wait()
	})
	c.report(&inventory.Node{Name: name, HAProxy: "running"})
	if _, err := n.mirror.WaitRevision(ctx, 1); err != nil {
		c.t.Fatalf("mirror: %v", err)
	}
	return n
}

// commit writes records as they are, whatever was there.
func (c *cluster) commit(txn inventory.Txn) inventory.Revision {
	c.t.Helper()
	rev, err := c.store.Commit(context.Background(), txn)
	if err != nil {
		c.t.Fatalf("commit: %v", err)
	}
	return rev
}

func (c *cluster) report(n *inventory.Node) {
	c.commit(inventory.Txn{Ops: []inventory.Op{inventory.PutNode(keys, n, 0)}})
}

// put writes droplets and waits until every node knows.
func (c *cluster) put(droplets ...*inventory.Droplet) {
	c.t.Helper()
	var txn inventory.Txn
	for _, d := range droplets {
		_, op := inventory.PutDroplet(keys, d)
		txn.Ops = append(txn.Ops, op)
	}
	c.sync(c.commit(txn))
}

func (c *cluster) sync(rev inventory.Revision) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, n := range c.nodes {
		if _, err := n.mirror.WaitRevision(ctx, rev); err != nil {
			c.t.Fatalf("%s does not come to revision %d: %v", n.name, rev, err)
		}
	}
}

// contents is what operators' requests may change: all but events and leases.
func (c *cluster) contents() map[string]string {
	c.t.Helper()
	l, err := c.store.List(context.Background(), keys.Prefix())
	if err != nil {
		c.t.Fatalf("list: %v", err)
	}
	out := map[string]string{}
	for _, kv := range l.KVs {
		if len(kv.Key) > len(keys.Event("")) && kv.Key[:len(keys.Event(""))] == keys.Event("") {
			continue
		}
		out[kv.Key] = string(kv.Value)
	}
	return out
}

func (c *cluster) pool(name string) *inventory.Pool {
	c.t.Helper()
	kv, err := inventory.Get(context.Background(), c.store, keys.Pool(name))
	if err != nil || kv.Mod == 0 {
		c.t.Fatalf("pool %s: %v, mod %d", name, err, kv.Mod)
	}
	p, err := inventory.DecodePool(keys, kv)
	if err != nil {
		c.t.Fatalf("pool %s: %v", name, err)
	}
	return p
}

func webPool() *pb.Pool {
	return &pb.Pool{
		Name: "pools/web", HostnamePrefix: "web", Desired: 2, Min: 1, Max: 10,
		Template: &pb.Template{Region: "nyc3", Size: "s-1vcpu-1gb", Image: "ubuntu-24-04-x64"},
	}
}

func (c *cluster) apply(p *pb.Pool) {
	c.t.Helper()
	if _, err := c.nodes[0].pools.ApplyPool(context.Background(), &pb.ApplyPoolRequest{Pool: p}); err != nil {
		c.t.Fatalf("apply: %v", err)
	}
	c.sync(c.pool(p.GetName()[len("pools/"):]).Mod)
}

// serving makes n droplets of the pool web that serve, web-0 first.
func (c *cluster) serving(n int) {
	c.t.Helper()
	var ds []*inventory.Droplet
	for i := range n {
		ds = append(ds, droplet(int64(i), inventory.Serving))
	}
	p := c.pool("web")
	p.NextOrdinal = int64(n)
	guard, op := inventory.PutPool(keys, p)
	c.commit(inventory.Txn{Guards: []inventory.Guard{guard}, Ops: []inventory.Op{op}})
	c.put(ds...)
}

func droplet(ordinal int64, phase inventory.Phase) *inventory.Droplet {
	d := &inventory.Droplet{
		Name: inventory.DropletName("web", ordinal), Pool: "web", Phase: phase,
		Created: time.Unix(1000+ordinal, 0).UTC(), Since: time.Unix(2000, 0).UTC(), PriceHourly: 0.5,
	}
	if phase != inventory.Requested {
		d.ID, d.Status = 100+ordinal, "active"
	}
	return d
}

// lead is a leader that moves each record one step whenever something changed,
// and nodes that apply at once. badBoot names droplets that do not become healthy,
// and then drain for good.
func (c *cluster) lead(badBoot ...string) {
	mirror := inventory.NewMirror(c.store, keys, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = mirror.Run(ctx) })
	parts.Go(func() {
		rev := inventory.Revision(1)
		c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Leader(), Value: []byte("lb1")}}})
		wake, unsubscribe := mirror.Subscribe()
		defer unsubscribe()
		for {
			st, err := mirror.WaitRevision(ctx, rev)
			if err != nil {
				return
			}
			txn := step(st, badBoot)
			if len(txn.Ops) > 0 {
				if got, err := c.store.Commit(ctx, txn); err == nil {
					rev = got
					continue
				}
			}
			select {
			case <-wake:
			case <-ctx.Done():
				return
			}
		}
	})
	c.t.Cleanup(func() { cancel(); parts.Wait() })
}

func step(st *inventory.State, badBoot []string) (txn inventory.Txn) {
	now := time.Now().UTC()
	var last inventory.Revision
	for _, p := range st.SortedPools() {
		next := *p
		staying := 0
		for _, d := range st.PoolDroplets(p.Name) {
			last = max(last, d.Mod)
			if !d.Phase.Leaving() && !slices.Contains(p.Remove, d.Name) {
				staying++
			}
		}
		for _, d := range st.PoolDroplets(p.Name) {
			moved := *d
			n, _ := inventory.Ordinal(p.HostnamePrefix, d.Name)
			switch {
			case d.Phase == inventory.Deleting:
				txn.Add(inventory.DeleteDroplet(keys, d))
				next.Remove = slices.DeleteFunc(slices.Clone(next.Remove), func(name string) bool { return name == d.Name })
				continue
			case d.Phase == inventory.Draining && d.Reason != "":
				continue // stays to be seen
			case d.Phase == inventory.Draining:
				moved.Phase = inventory.Deleting
			case slices.Contains(p.Remove, d.Name):
				moved.Phase = inventory.Draining
			case staying > p.Desired:
				moved.Phase = inventory.Draining
				staying--
			case d.Phase == inventory.Requested:
				moved.Phase, moved.ID, moved.Status = inventory.Booting, 100+n, "active"
			case d.Phase == inventory.Booting && slices.Contains(badBoot, d.Name):
				moved.Phase, moved.Reason = inventory.Draining, "it did not become healthy within 10m0s"
				staying--
			case d.Phase == inventory.Booting:
				moved.Phase = inventory.Serving
			default:
				continue
			}
			txn.Add(inventory.PutDroplet(keys, &moved))
		}
		for ; staying < p.Desired; staying++ {
			txn.Add(inventory.PutDroplet(keys, &inventory.Droplet{Name: inventory.DropletName(p.HostnamePrefix, next.NextOrdinal),
				Pool: p.Name, Phase: inventory.Requested, Created: now}))
			next.NextOrdinal++
		}
		if next.NextOrdinal != p.NextOrdinal || len(next.Remove) != len(p.Remove) {
			txn.Add(inventory.PutPool(keys, &next))
		}
	}
	for _, n := range st.SortedNodes() {
		if n.Applied < last {
			report := *n
			report.Applied, report.Seen = st.Revision, st.Revision
			txn.Ops = append(txn.Ops, inventory.PutNode(keys, &report, 0))
		}
	}
	return txn
}

// problemOf is the code, the reason and the fields of an error.
func problemOf(err error) (codes.Code, string, []string) {
	st := status.Convert(err)
	var reason string
	var fields []string
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.Reason
		case *errdetails.BadRequest:
			for _, v := range d.FieldViolations {
				fields = append(fields, v.Field)
			}
		}
	}
	return st.Code(), reason, fields
}

func wantProblem(t tb, err error, code codes.Code, reason string) {
	t.Helper()
	if c, r, _ := problemOf(err); c != code || r != reason {
		t.Errorf("got %v %q (%v), want %v %q", c, r, err, code, reason)
	}
}

func hasRetryInfo(err error) bool {
	return slices.ContainsFunc(status.Convert(err).Details(), func(d any) bool { _, ok := d.(*errdetails.RetryInfo); return ok })
}

// must is for calls that cannot fail unless the code is wrong.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("unexpected error: %v", err))
	}
	return v
}
