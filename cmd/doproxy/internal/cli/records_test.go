package cli

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func TestStoreRecords(t *testing.T) {
	b := newBench(t)
	b.fake.raw = []*doproxyv1.Record{
		{Key: "/doproxy/default/droplets/web/web-3", Value: []byte("{\x1b"), Size: 2, Revision: 7, SetAside: "it is no JSON"},
		{Key: "/doproxy/default/nodes/lb1", Value: []byte("{}"), Size: 2, Revision: 9, Leased: true},
		{Key: "/doproxy/default/pools/web", Value: []byte(`{"desired":3}`), Size: 13, Revision: 8},
	}
	b.want(0, "/doproxy/default/droplets/web/web-3 (revision: 7, bytes: 2) set aside: it is no JSON\n"+
		"/doproxy/default/nodes/lb1 (revision: 9, bytes: 2) leased\n/doproxy/default/pools/web (revision: 8, bytes: 13)\n", "", "store", "records")
	b.want(0, "/doproxy/default/pools/web (revision: 8, bytes: 13)\n", "", "store", "records", "pools/")
	b.want(0, "{\"desired\":3}\n", "", "store", "get", "pools/web")
	b.want(0, "{\x1b\n", "warning: it is set aside: it is no JSON\n", "store", "get", "droplets/web/web-3")

	b.want(ExitUsage, "/doproxy/default/droplets/web/web-3 (revision: 7, bytes: 2) set aside: it is no JSON\n{\n",
		"doproxy: store delete droplets/web/web-3: it asks before it goes on, and there is no terminal to ask at; nothing was changed\n"+
			"  mend: look with `doproxy store delete droplets/web/web-3 --dry-run`, then add --yes\n", "store", "delete", "droplets/web/web-3")
	b.answer = "y"
	b.want(0, "/doproxy/default/droplets/web/web-3 (revision: 7, bytes: 2) set aside: it is no JSON\n{\nSuccess: /doproxy/default/droplets/web/web-3 is deleted.\n",
		"Delete it? [y/N] ", "store", "delete", "droplets/web/web-3")

	// The answer of the first try is lost: the second one finds nothing any more.
	lost := false
	b.fake.before = func(m proto.Message) error {
		if req, ok := m.(*doproxyv1.DeleteRecordRequest); ok && !req.GetValidateOnly() && !lost {
			lost = true
			return status.Error(codes.Unavailable, "this node ends")
		}
		return nil
	}
	b.want(0, "Success: /doproxy/default/pools/web is deleted.\n", "", "store", "delete", "pools/web", "--yes")
	if !lost {
		t.Error("no answer was lost")
	}
}
