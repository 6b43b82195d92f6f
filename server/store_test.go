package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

// storeAdmin is a store whose every answer is err, if that is set.
type storeAdmin struct {
	mu      sync.Mutex
	err     error
	members []inventory.StoreMember
	calls   []string
	// late is how many looks at the members after a step-down still see the former
	// leader; the look after these sees none.
	late int
}

func (a *storeAdmin) did(call string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, call)
	return a.err
}

func (a *storeAdmin) Init(context.Context, bool) (string, error) { return "01STORE", a.did("init") }
func (a *storeAdmin) Join(_ context.Context, token string, abandon bool) error {
	if abandon {
		token += ", abandoning"
	}
	return a.did("join " + token)
}
func (a *storeAdmin) Token(_ context.Context, ttl time.Duration) (string, time.Time, error) {
	return "secret", time.Unix(3600, 0).Add(ttl), a.did("token " + ttl.String())
}

func (a *storeAdmin) Members(context.Context) (inventory.Membership, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Contains(a.calls, "step down") {
		a.late--
		a.members[0].Leader, a.members[1].Leader = a.late >= 0, a.late < -1
		if a.late == -1 {
			return inventory.Membership{}, inventory.ErrUnavailable
		}
	}
	return inventory.Membership{Cluster: "01STORE", Members: slices.Clone(a.members), Tolerates: 1}, nil
}

func (a *storeAdmin) Remove(_ context.Context, node string, force bool) error {
	return a.did(fmt.Sprintf("remove %s %t", node, force))
}

func (a *storeAdmin) StepDown(context.Context) error { return a.did("step down") }

func voter(node string, healthy bool) inventory.StoreMember {
	return inventory.StoreMember{ID: node + "-a1", Node: node, Voter: true, Healthy: healthy, Leader: node == "lb1"}
}

func storeNode(t *testing.T, o server.Options) (*node, pb.StoreServiceClient) {
	c := newCluster(t, 0)
	c.options = o
	n := c.start("lb1")
	return n, pb.NewStoreServiceClient(n.conn)
}

// The inventory moves between a node's last look and its commit: what it left
// takes no change.
func TestChangeBesideAMove(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(webPool())
	c.before = sync.OnceFunc(func() {
		kv := must(inventory.Get(context.Background(), c.store, keys.Meta()))
		meta := must(inventory.DecodeMeta(kv))
		_, op := inventory.PutMoved(keys, *meta, &inventory.Move{To: "raft", At: time.Now()})
		c.commit(inventory.Txn{Ops: []inventory.Op{op}})
	})
	n := c.start("lb2")
	if got, err := n.pools.ScalePool(t.Context(), &pb.ScalePoolRequest{Name: "pools/web", Target: &pb.ScalePoolRequest_Delta{Delta: 1}}); err == nil {
		t.Errorf("scaled: %v", got)
	}
	if p := c.pool("web"); p.Desired != 2 {
		t.Errorf("desired: %d", p.Desired)
	}
}

// Its inventory is out of reach too: the service works without.
func TestStoreOfANodeWithoutOne(t *testing.T) {
	n, store := storeNode(t, server.Options{})
	n.store.Partition()
	got := must(store.GetStore(t.Context(), &pb.GetStoreRequest{}))
	if got.Store != "etcd" || got.Node != "nodes/lb1" || got.Membership != nil || got.Error != "" {
		t.Errorf("store: %v", got)
	}
	for name, call := range map[string]func() error{
		"init":   func() error { _, err := store.InitStore(t.Context(), &pb.InitStoreRequest{}); return err },
		"join":   func() error { _, err := store.JoinStore(t.Context(), &pb.JoinStoreRequest{}); return err },
		"token":  func() error { _, err := store.CreateJoinToken(t.Context(), &pb.CreateJoinTokenRequest{}); return err },
		"remove": func() error { _, err := store.RemoveMember(t.Context(), &pb.RemoveMemberRequest{}); return err },
		"step":   func() error { _, err := store.StepDown(t.Context(), &pb.StepDownRequest{}); return err },
		"migrate": func() error {
			_, err := must(store.MigrateStore(t.Context(), &pb.MigrateStoreRequest{})).Recv()
			return err
		},
	} {
		err := call()
		wantProblem(t, err, codes.FailedPrecondition, server.ReasonNoRaft)
		if err == nil || !strings.Contains(err.Error(), "raft.address") {
			t.Errorf("%s does not name the key: %v", name, err)
		}
	}
}

func TestStoreErrors(t *testing.T) {
	admin := &storeAdmin{members: []inventory.StoreMember{voter("lb1", true), voter("lb2", true), voter("lb3", true)}}
	n, store := storeNode(t, server.Options{StoreName: "raft", StoreAdmin: admin})
	n.store.Partition() // none of this needs the inventory
	remove := func() error {
		_, err := store.RemoveMember(t.Context(), &pb.RemoveMemberRequest{Node: "nodes/lb2"})
		return err
	}
	for _, c := range []struct {
		err    error
		code   codes.Code
		reason string
		text   string // its end
	}{
		{fmt.Errorf("stepping down: %w: join anew", inventory.ErrNotMember), codes.Unavailable, server.ReasonStoreUnavailable, "= this node belongs to no store: join anew"},
		{inventory.Refuse("lb9 knows better"), codes.FailedPrecondition, server.ReasonStoreRefused, "= lb9 knows better"},
		{fmt.Errorf("removing lb2: %w", inventory.Refuse("it is busy")), codes.FailedPrecondition, server.ReasonStoreRefused, "= removing lb2: it is busy"},
		{fmt.Errorf("%w: no leader", inventory.ErrUnavailable), codes.Unavailable, server.ReasonOutcomeUnknown, "no leader; it may have been done all the same: look (doproxy cluster members) before asking again"},
		{errors.New("index out of range"), codes.Internal, server.ReasonInternal, "index out of range"},
	} {
		admin.err = c.err
		err := remove()
		wantProblem(t, err, c.code, c.reason)
		if err == nil || !strings.HasSuffix(err.Error(), c.text) {
			t.Errorf("%v became %v, want an end of %q", c.err, err, c.text)
		}
	}
	// A token whose making failed was not made: nobody has it.
	admin.err = inventory.ErrUnavailable
	_, err := store.CreateJoinToken(t.Context(), &pb.CreateJoinTokenRequest{})
	wantProblem(t, err, codes.Unavailable, server.ReasonStoreUnavailable)
}

func TestStoreMembers(t *testing.T) {
	admin := &storeAdmin{members: []inventory.StoreMember{voter("lb1", true), voter("lb3", false), voter("lb2", true)}}
	_, store := storeNode(t, server.Options{StoreName: "raft", StoreAdmin: admin})
	got := must(store.GetStore(t.Context(), &pb.GetStoreRequest{}))
	if m := got.Membership; got.Store != "raft" || m.GetCluster() != "01STORE" || len(m.Members) != 3 || m.Members[1].Node != "nodes/lb2" || m.Tolerates != 1 || m.Members[0].Since != nil {
		t.Errorf("store: %v", got)
	}
	if r := must(store.InitStore(t.Context(), &pb.InitStoreRequest{})); r.Cluster != "01STORE" || r.Node != "nodes/lb1" {
		t.Errorf("init: %v", r)
	}
	if r := must(store.JoinStore(t.Context(), &pb.JoinStoreRequest{Token: " secret\n"})); len(r.Membership.GetMembers()) != 3 {
		t.Errorf("join: %v", r)
	}
	must(store.CreateJoinToken(t.Context(), &pb.CreateJoinTokenRequest{}))
	if r := must(store.CreateJoinToken(t.Context(), &pb.CreateJoinTokenRequest{Ttl: durationpb.New(time.Minute)})); r.Token != "secret" || r.ExpireTime.AsTime().Unix() != 3660 {
		t.Errorf("token: %v", r)
	}
	if r := must(store.RemoveMember(t.Context(), &pb.RemoveMemberRequest{Node: "nodes/lb3", ValidateOnly: true})); r.Stops || r.Left.Tolerates != 0 || len(r.Left.Members) != 2 || r.Removed.Healthy {
		t.Errorf("dry remove: %v", r)
	}
	must(store.RemoveMember(t.Context(), &pb.RemoveMemberRequest{Node: "nodes/lb3"}))
	if r := must(store.RemoveMember(t.Context(), &pb.RemoveMemberRequest{Node: "lb2-a1", Force: true})); !r.Stops {
		t.Errorf("forced remove: %v", r)
	}
	if r := must(store.StepDown(t.Context(), &pb.StepDownRequest{})); r.From != "nodes/lb1" || r.To != "nodes/lb3" {
		t.Errorf("step down: %v", r)
	}
	want := "init, join secret, token 1h0m0s, token 1m0s, remove lb3 false, remove lb2-a1 true, step down"
	if got := strings.Join(admin.calls, ", "); got != want {
		t.Errorf("it did %s\nwant %s", got, want)
	}
}

// Who led is not named as who leads now, however late it learns that it does not:
// after 3 s nobody is.
func TestStepDownOfALeaderThatBelievesItLeads(t *testing.T) {
	for late, want := range map[int]string{0: "nodes/lb2", 5: "nodes/lb2", 1000: ""} {
		synctest.Test(t, func(t *testing.T) {
			admin := &storeAdmin{late: late, members: []inventory.StoreMember{voter("lb1", true), voter("lb2", true), voter("lb3", true)}}
			_, store := storeNode(t, server.Options{StoreName: "raft", StoreAdmin: admin})
			began := time.Now()
			r := must(store.StepDown(t.Context(), &pb.StepDownRequest{}))
			if r.From != "nodes/lb1" || r.To != want || time.Since(began) > 3*time.Second {
				t.Errorf("it believes so for %d looks: %v after %s, want %q", late, r, time.Since(began), want)
			}
		})
	}
}

func TestStoreRefusesBeforeItAsks(t *testing.T) {
	admin := &storeAdmin{members: []inventory.StoreMember{voter("lb1", true), voter("lb2", true), voter("lb3", false)}}
	_, store := storeNode(t, server.Options{StoreName: "raft", StoreAdmin: admin})
	remove := func(node string, force bool) error {
		_, err := store.RemoveMember(t.Context(), &pb.RemoveMemberRequest{Node: node, Force: force})
		return err
	}
	wantProblem(t, remove("nodes/lb2", false), codes.FailedPrecondition, server.ReasonStoreRefused) // 1 of 2 would be left
	wantProblem(t, remove("nodes/lb9", true), codes.NotFound, server.ReasonNodeNotFound)
	wantProblem(t, remove("", false), codes.InvalidArgument, server.ReasonInvalid)
	wantProblem(t, remove("pools/lb1", false), codes.InvalidArgument, server.ReasonInvalid)
	_, err := store.JoinStore(t.Context(), &pb.JoinStoreRequest{Token: "\n"})
	wantProblem(t, err, codes.InvalidArgument, server.ReasonInvalid)
	_, err = store.CreateJoinToken(t.Context(), &pb.CreateJoinTokenRequest{Ttl: durationpb.New(time.Second)})
	wantProblem(t, err, codes.InvalidArgument, server.ReasonInvalid)
	admin.members = []inventory.StoreMember{voter("lb1", true), {ID: "lb2-b2", Node: "lb2", Healthy: true}}
	wantProblem(t, remove("nodes/lb1", true), codes.FailedPrecondition, server.ReasonStoreRefused) // the only voter
	admin.members = append(admin.members, voter("lb2", false))
	err = remove("nodes/lb2", false)
	wantProblem(t, err, codes.FailedPrecondition, server.ReasonStoreRefused)
	if !strings.Contains(err.Error(), "lb2-b2, lb2-a1") {
		t.Errorf("it does not name the ids: %v", err)
	}
	if len(admin.calls) > 0 {
		t.Errorf("it did %v", admin.calls)
	}
}

// migrator waits for its end after it told where it is, or ends at once.
type migrator struct {
	wait  bool
	err   error
	asked string
}

func (m *migrator) Migrate(ctx context.Context, do server.Migration, progress func(string)) (server.MigrateResult, error) {
	m.asked = fmt.Sprintf("%s %s %t", do.From, do.To, do.Abort)
	progress("copied 12 records")
	if m.wait {
		<-ctx.Done()
		return server.MigrateResult{}, ctx.Err()
	}
	return server.MigrateResult{Records: 12, Digest: "ab12", Held: time.Second, Next: []string{"Stop etcd."}}, m.err
}

func TestMigrate(t *testing.T) {
	m := &migrator{}
	n, store := storeNode(t, server.Options{Migrator: m})
	run := func(from, to string, abort bool) (lines []string, res *pb.Migration, err error) {
		stream := must(store.MigrateStore(t.Context(), &pb.MigrateStoreRequest{From: from, To: to, Abort: abort}))
		for {
			r, err := stream.Recv()
			if err != nil {
				return lines, res, err
			}
			if res = r.GetResult(); res != nil {
				return lines, res, nil
			}
			lines = append(lines, r.GetProgress())
		}
	}
	lines, res, err := run("etcd", "raft", false)
	if err != nil || strings.Join(lines, ", ") != "moving the inventory from etcd to raft, copied 12 records" || m.asked != "etcd raft false" {
		t.Errorf("%v, %v, asked %s", lines, err, m.asked)
	}
	if res.GetRecords() != 12 || res.GetDigest() != "ab12" || res.GetHeld().AsDuration() != time.Second || len(res.GetNext()) != 1 || res.GetTo() != "raft" {
		t.Errorf("result %v", res)
	}
	if _, res, _ := run("raft", "etcd", true); !res.GetAborted() || m.asked != "raft etcd true" {
		t.Errorf("abort: %v, asked %s", res, m.asked)
	}
	for _, bad := range [][2]string{{"", "raft"}, {"etcd", "etcd"}, {"etcd", "consul"}} {
		_, _, err := run(bad[0], bad[1], false)
		wantProblem(t, err, codes.InvalidArgument, server.ReasonInvalid)
	}
	m.err = inventory.Refuse("etcd has no inventory")
	_, _, err = run("etcd", "raft", false)
	wantProblem(t, err, codes.FailedPrecondition, server.ReasonStoreRefused)

	m.wait = true
	stream := must(store.MigrateStore(t.Context(), &pb.MigrateStoreRequest{From: "etcd", To: "raft"}))
	must(stream.Recv())
	must(stream.Recv())
	n.stop()
	_, err = stream.Recv()
	wantProblem(t, err, codes.Unavailable, server.ReasonShuttingDown)
	if err == nil || !strings.Contains(err.Error(), "stops where it is") {
		t.Errorf("it tells that it goes on: %v", err)
	}
}

// TestAbandonBesideOthers: only a node that is alone in its store is told to scale
// its pools to 0 before it gives that up.
func TestAbandonBesideOthers(t *testing.T) {
	for members, refused := range map[int]bool{1: true, 3: false} {
		admin := &storeAdmin{members: []inventory.StoreMember{voter("lb1", true), voter("lb2", true), voter("lb3", true)}[:members]}
		c := newCluster(t, 1)
		c.apply(webPool())
		c.serving(2)
		c.options = server.Options{StoreAdmin: admin}
		n := c.start("lb2")
		_, err := pb.NewStoreServiceClient(n.conn).JoinStore(t.Context(), &pb.JoinStoreRequest{Token: "secret", Abandon: true})
		if refused {
			wantProblem(t, err, codes.FailedPrecondition, server.ReasonStoreRefused)
		}
		if asked := len(admin.calls) > 0; asked == refused {
			t.Errorf("%d members: the store is asked: %t, %v", members, asked, err)
		}
	}
}
