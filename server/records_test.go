package server_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

func TestRecords(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(webPool())
	c.serving(2)
	bad := keys.Droplet("web", "web-0")
	c.sync(c.commit(inventory.Txn{Ops: []inventory.Op{{Key: bad, Value: []byte("{")}, {Key: keys.Prefix() + "theirs", Value: []byte("x")}}}))
	store := pb.NewStoreServiceClient(c.nodes[0].conn)

	var aside []string
	for _, r := range must(store.ListRecords(t.Context(), &pb.ListRecordsRequest{})).Records {
		if r.SetAside != "" {
			aside = append(aside, r.Key)
		}
		if r.Value != nil || r.Size == 0 || r.Revision == 0 {
			t.Errorf("listed: %v", r)
		}
	}
	if got := strings.Join(aside, " "); got != bad+" "+keys.Prefix()+"theirs" {
		t.Errorf("set aside: %s", got)
	}
	if got := must(store.ListRecords(t.Context(), &pb.ListRecordsRequest{Prefix: "droplets/"})).Records; len(got) != 2 {
		t.Errorf("droplets: %v", got)
	}
	r := must(store.GetRecord(t.Context(), &pb.GetRecordRequest{Key: "droplets/web/web-0"})).Record
	if string(r.Value) != "{" || r.Key != bad || r.SetAside == "" {
		t.Errorf("got: %v", r)
	}

	before := c.contents()
	refused := func(code codes.Code, reason string, req *pb.DeleteRecordRequest) {
		t.Helper()
		_, err := store.DeleteRecord(t.Context(), req)
		wantProblem(t, err, code, reason)
	}
	refused(codes.InvalidArgument, server.ReasonInvalid, &pb.DeleteRecordRequest{})
	refused(codes.InvalidArgument, server.ReasonInvalid, &pb.DeleteRecordRequest{Key: "/doproxy/other/meta"})
	refused(codes.NotFound, server.ReasonRecordNotFound, &pb.DeleteRecordRequest{Key: "pools/none"})
	refused(codes.FailedPrecondition, server.ReasonRecordCounts, &pb.DeleteRecordRequest{Key: "pools/web"})
	refused(codes.FailedPrecondition, server.ReasonRecordCounts, &pb.DeleteRecordRequest{Key: "meta"})
	refused(codes.Aborted, server.ReasonRecordChanged, &pb.DeleteRecordRequest{Key: bad, Revision: r.Revision - 1})
	must(store.DeleteRecord(t.Context(), &pb.DeleteRecordRequest{Key: bad, ValidateOnly: true}))
	if after := c.contents(); len(after) != len(before) {
		t.Errorf("something was deleted: %v, was %v", after, before)
	}
	must(store.DeleteRecord(t.Context(), &pb.DeleteRecordRequest{Key: bad, Revision: r.Revision}))
	must(store.DeleteRecord(t.Context(), &pb.DeleteRecordRequest{Key: "theirs"}))
	if kv := must(inventory.Get(context.Background(), c.store, bad)); kv.Mod != 0 || len(c.contents()) != len(before)-2 {
		t.Errorf("it is still there: %v", c.contents())
	}
}

// The cluster's own record cannot be read: all else goes on, and it can be deleted.
func TestUnreadableMeta(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(webPool())
	c.sync(c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Meta(), Value: []byte("{")}}}))
	must(c.nodes[0].pools.ScalePool(t.Context(), &pb.ScalePoolRequest{Name: "pools/web", Target: &pb.ScalePoolRequest_Delta{Delta: 1}}))
	must(pb.NewStoreServiceClient(c.nodes[0].conn).DeleteRecord(t.Context(), &pb.DeleteRecordRequest{Key: "meta"}))
}
