package server_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

// write commits guarded records and waits until every node knows.
func (c *cluster) write(add func(txn *inventory.Txn)) {
	c.t.Helper()
	var txn inventory.Txn
	add(&txn)
	c.sync(c.commit(inventory.Txn{Ops: txn.Ops}))
}

func someSettings() *pb.Settings {
	return &pb.Settings{
		Limits: &pb.Limits{Droplets: 50, CostHourly: 2.5, CreatesHourly: 20, LeavePercent: 25},
		Ingress: &pb.Ingress{
			ReservedIps: []string{"203.0.113.7", "2001:db8:0::7"},
			Dns:         []*pb.DnsName{{Domain: "Example.com", Name: "www", Ttl: 30}, {Domain: "example.com", Name: "@"}},
			FailAfter:   durationpb.New(500 * time.Millisecond),
		},
	}
}

func TestSettings(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, 2)
	a, b := c.nodes[0].cluster, c.nodes[1].cluster
	empty := must(a.GetSettings(ctx, &pb.GetSettingsRequest{})).Settings
	if empty.Etag == "" || empty.Limits.Droplets != 0 {
		t.Errorf("no settings are %v", empty)
	}
	before := c.contents()
	dry := must(a.ApplySettings(ctx, &pb.ApplySettingsRequest{Settings: someSettings(), ValidateOnly: true}))
	if !maps.Equal(before, c.contents()) {
		t.Error("validate_only changed the store")
	}
	done := must(a.ApplySettings(ctx, &pb.ApplySettingsRequest{Settings: someSettings(), Etag: empty.Etag}))
	if !proto.Equal(dry, done) {
		t.Errorf("the dry run told\n%v, and it was\n%v", dry, done)
	}
	got := map[string]string{}
	for _, ch := range done.Changes {
		got[ch.Field] = ch.Before + " → " + ch.After
	}
	want := map[string]string{
		"limits.droplets": "no limit (default) → 50", "limits.cost_hourly": "no limit (default) → 2.5",
		"limits.creates_hourly": "no limit (default) → 20", "limits.leave_percent": "no limit (default) → 25",
		"ingress.reserved_ips": "none (default) → 203.0.113.7, 2001:db8::7", "ingress.dns": "none (default) → www.example.com (ttl 30), example.com",
		"ingress.fail_after": "300ms (default) → 500ms",
	}
	if !maps.Equal(got, want) {
		t.Errorf("changes are\n%v, want\n%v", got, want)
	}
	waitEvent(t, c.nodes[0], "settings.changed")

	_, err := b.ApplySettings(ctx, &pb.ApplySettingsRequest{Settings: someSettings(), Etag: empty.Etag})
	wantProblem(t, err, codes.Aborted, server.ReasonSettingsChanged)
	// What get answers can be applied as it is, and changes nothing.
	s := must(a.GetSettings(ctx, &pb.GetSettingsRequest{})).Settings
	before = c.contents()
	if again := must(b.ApplySettings(ctx, &pb.ApplySettingsRequest{Settings: s, Etag: s.Etag})); len(again.Changes) != 0 || again.Settings.Etag != s.Etag {
		t.Errorf("applying the same again answered %v", again)
	}
	if !maps.Equal(before, c.contents()) {
		t.Error("applying the same again wrote")
	}
	if st := must(a.GetStatus(ctx, &pb.GetStatusRequest{})); !proto.Equal(st.Settings, s) || len(st.ReservedIps) != 2 || st.ReservedIps[0].Name != "reservedIps/203.0.113.7" {
		t.Errorf("status has settings %v and addresses %v", st.Settings, st.ReservedIps)
	}
}

// A newer version's members survive.
func TestSettingsKeepWhatIsUnknown(t *testing.T) {
	c := newCluster(t, 1)
	c.sync(c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Settings(), Value: []byte(`{"limits":{"droplets":3,"volumes":7}}`)}}}))
	must(c.nodes[0].cluster.ApplySettings(t.Context(), &pb.ApplySettingsRequest{Settings: &pb.Settings{Limits: &pb.Limits{Droplets: 4}}}))
	if got := c.contents()[keys.Settings()]; !strings.Contains(got, `"volumes":7`) || !strings.Contains(got, `"droplets":4`) {
		t.Errorf("the record is %s", got)
	}
}

func TestBadSettings(t *testing.T) {
	c := newCluster(t, 1)
	before := c.contents()
	for name, test := range map[string]struct {
		field  string
		change func(s *pb.Settings)
	}{
		"droplets":          {"limits.droplets", func(s *pb.Settings) { s.Limits.Droplets = -1 }},
		"cost":              {"limits.cost_hourly", func(s *pb.Settings) { s.Limits.CostHourly = -0.5 }},
		"creates":           {"limits.creates_hourly", func(s *pb.Settings) { s.Limits.CreatesHourly = -1 }},
		"percent":           {"limits.leave_percent", func(s *pb.Settings) { s.Limits.LeavePercent = 101 }},
		"negative percent":  {"limits.leave_percent", func(s *pb.Settings) { s.Limits.LeavePercent = -1 }},
		"address":           {"ingress.reserved_ips[1]", func(s *pb.Settings) { s.Ingress.ReservedIps[1] = "203.0.113" }},
		"address with zone": {"ingress.reserved_ips[1]", func(s *pb.Settings) { s.Ingress.ReservedIps[1] = "fe80::1%eth0" }},
		"mapped address":    {"ingress.reserved_ips[1]", func(s *pb.Settings) { s.Ingress.ReservedIps[1] = "::ffff:203.0.113.8" }},
		"address twice":     {"ingress.reserved_ips[2]", func(s *pb.Settings) { s.Ingress.ReservedIps = append(s.Ingress.ReservedIps, "2001:DB8::7") }},
		"domain":            {"ingress.dns[0].domain", func(s *pb.Settings) { s.Ingress.Dns[0].Domain = "example" }},
		"domain with dot":   {"ingress.dns[0].domain", func(s *pb.Settings) { s.Ingress.Dns[0].Domain = "example.com." }},
		"no name":           {"ingress.dns[0].name", func(s *pb.Settings) { s.Ingress.Dns[0].Name = "" }},
		"wildcard":          {"ingress.dns[0].name", func(s *pb.Settings) { s.Ingress.Dns[0].Name = "*.a" }},
		"name with slash":   {"ingress.dns[0].name", func(s *pb.Settings) { s.Ingress.Dns[0].Name = "a/b" }},
		"long label":        {"ingress.dns[0].name", func(s *pb.Settings) { s.Ingress.Dns[0].Name = strings.Repeat("a", 64) }},
		"name twice":        {"ingress.dns[1].name", func(s *pb.Settings) { s.Ingress.Dns[1].Domain, s.Ingress.Dns[1].Name = "example.com", "WWW" }},
		"name twice, in another domain": {"ingress.dns[1].name", func(s *pb.Settings) {
			s.Ingress.Dns[1].Domain, s.Ingress.Dns[1].Name = "www.example.com", "@"
		}},
		"ttl":               {"ingress.dns[0].ttl", func(s *pb.Settings) { s.Ingress.Dns[0].Ttl = 29 }},
		"negative duration": {"ingress.hold_down", func(s *pb.Settings) { s.Ingress.HoldDown = durationpb.New(-time.Second) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := someSettings()
			test.change(s)
			if err := server.ValidateSettings(s); err == nil {
				t.Error("ValidateSettings takes it")
			}
			_, err := c.nodes[0].cluster.ApplySettings(t.Context(), &pb.ApplySettingsRequest{Settings: s})
			code, reason, fields := problemOf(err)
			if code != codes.InvalidArgument || reason != server.ReasonInvalid || len(fields) != 1 || fields[0] != "settings."+test.field {
				t.Errorf("got %v %q, fields %q: %v", code, reason, fields, err)
			}
		})
	}
	_, err := c.nodes[0].cluster.ApplySettings(t.Context(), &pb.ApplySettingsRequest{})
	wantProblem(t, err, codes.InvalidArgument, server.ReasonInvalid)
	if !maps.Equal(before, c.contents()) {
		t.Error("bad settings changed the store")
	}
}
