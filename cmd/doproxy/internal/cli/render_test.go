package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// styles are those that the golden files show.
var styles = map[string]style{
	"80":    {terminal: true, width: 80, height: 40},
	"120":   {terminal: true, width: 120, height: 40},
	"color": {terminal: true, width: 80, height: 40, color: true},
	"ascii": {terminal: true, width: 80, height: 40, ascii: true},
}

// trouble is a cluster on a bad day.
func trouble() *fake {
	f := newFake()
	f.pools[0].Desired = 5
	f.pools[0].Reason = "droplet limit exceeded: creating this/these droplet(s) will exceed your droplet limit"
	f.pools[0].RetryTime = timestamppb.New(epoch.Add(40 * time.Second))
	f.nodes[1].Haproxy, f.nodes[1].Error = "failed", "haproxy -c: [ALERT] parsing [/etc/haproxy/haproxy.cfg:12]: unknown keyword 'blance' in 'backend' section"
	f.nodes[2].AppliedRevision = 96
	d := f.newDroplet(f.pools[0])
	f.advance(d, doproxyv1.Phase_PHASE_BOOTING)
	d.Health[0].Health, d.Health[1].Health = "up", "down"
	f.newDroplet(f.pools[0]).Reason = f.pools[0].Reason
	f.droplets[1].NodesServing, f.droplets[1].Health[2].Health = 2, "down"
	f.storeErr = "context deadline exceeded"
	return f
}

// nightmare is a cluster in which all that can stands in the way.
func nightmare() *fake {
	f := newFake()
	f.entry()
	f.paused = &doproxyv1.Pause{Time: timestamppb.New(epoch.Add(-12 * time.Minute)), Node: "nodes/lb2", Reason: "incident 4711"}
	f.conditions = []*doproxyv1.Condition{
		guard("auto-nginx-1", "auto-nginx-2", "auto-nginx-3", "auto-nginx-4", "auto-nginx-5"),
		{Key: "limit/cost", Type: "fleet.held", Pool: "pools/web", Time: timestamppb.New(epoch.Add(-40 * time.Second)), Message: "2 creates wait: limits.cost_hourly is $0.50, and all droplets cost $0.49"},
	}
	f.pools[0].StopTime, f.pools[0].Failures, f.pools[0].Reason = timestamppb.New(epoch.Add(-5*time.Minute)), 10, "not healthy within 10m of its create"
	f.pools[0].RewoundTime = timestamppb.New(epoch.Add(-time.Hour))
	f.nodes[1].DrainTime, f.nodes[1].DrainReason, f.nodes[1].Sessions = timestamppb.New(epoch.Add(-5*time.Minute)), "kernel update", 3
	f.nodes[2] = &doproxyv1.Node{Name: "nodes/lb3", SilentTime: timestamppb.New(epoch.Add(-3 * time.Hour))}
	f.nodes[0].Conditions = []*doproxyv1.Condition{{
		Key: "kept/web", Type: "node.kept", Pool: "pools/web", Time: timestamppb.New(epoch.Add(-time.Minute)), Hostnames: []string{"auto-nginx-9"},
		Message: "keeps servers whose record vanished",
	}}
	return f
}

func TestStatusOfABadNightOnAPipe(t *testing.T) {
	b := newBench(t)
	bad := nightmare()
	b.fake.clusterFake, b.fake.nodes, b.fake.pools = bad.clusterFake, bad.nodes, bad.pools
	golden(t, "status-night.txt", b.run("status").out)
}

func TestMoney(t *testing.T) {
	for amount, want := range map[float64]string{0: "$0.00", 0.05: "$0.05", 0.00893: "$0.0089", 0.0625: "$0.0625", 1.5: "$1.50", 1234567.891: "$1,234,567.89"} {
		if got := money(amount); got != want {
			t.Errorf("money(%v) is %s, want %s", amount, got, want)
		}
	}
	if got := monthly(0.00893) + " " + monthly(2); got != "$6.52 $1,460" {
		t.Errorf("monthly gave %s", got)
	}
}

func TestGoldenRenderings(t *testing.T) {
	good, bad := newFake(), trouble()
	status := func(f *fake) *doproxyv1.GetStatusResponse {
		res, err := f.GetStatus(t.Context(), &doproxyv1.GetStatusRequest{Events: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range res.GetEvents() {
			e.Time = nil // a terminal shows local time
		}
		return res
	}
	progress := &doproxyv1.Progress{
		Pool: bad.pools[0], Droplets: bad.droplets[1:], Total: 12, Requested: 12, Active: 7, Healthy: 3, Serving: 2, NodesLive: 3, Reason: bad.pools[0].GetReason(),
	}
	leaving := &doproxyv1.Progress{Pool: good.pools[0], Droplets: newFake().droplets, Total: 2, Draining: 2, Removed: 1, NodesLive: 3}
	leaving.Droplets[0].Phase, leaving.Droplets[1].Phase = doproxyv1.Phase_PHASE_DRAINING, doproxyv1.Phase_PHASE_DELETING
	leaving.Droplets[0].Health[0].Sessions = 12
	night := nightmare()
	drain := drainView{node: "lb2", now: epoch, drain: &doproxyv1.DrainNodeResponse{
		ReservedIps:   []*doproxyv1.ReservedIp{{Address: "45.55.96.47", Error: "422 The droplet is locked by another event"}},
		DnsExpireTime: timestamppb.New(epoch.Add(43 * time.Second)), Sessions: 12, Reason: "no other node is fit to hold 45.55.96.47",
	}}
	differences := &doproxyv1.VerifyResponse{
		Differences: []*doproxyv1.Difference{
			{Kind: "droplet.missing", Subject: "auto-nginx-3", Message: "DigitalOcean has no droplet 4202648, which the inventory says serves"},
			{Kind: "server.weight", Subject: "auto-nginx-4", Node: "nodes/lb2", Message: "has weight 0, 100 is wanted"},
		},
		Unanswered: []*doproxyv1.Unanswered{{Who: "nodes/lb3", Reason: "no report for 12s"}},
	}
	sick, alone := newStoreFake(), newStoreFake()
	sick.sick(2)
	alone.membership.Members = alone.membership.Members[:1]
	counting(alone.membership)
	removal, err := good.RemoveMember(t.Context(), &doproxyv1.RemoveMemberRequest{Node: "nodes/lb1", ValidateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, st := range styles {
		var b strings.Builder
		show := func(title, text string) { fmt.Fprintf(&b, "=== %s\n%s", title, text) }
		show("print", dropletsTable(st, epoch, good.droplets, nil, ""))
		show("print on a bad day", dropletsTable(st, epoch, bad.droplets, bad.pools, bad.storeErr))
		show("print of nothing", dropletsTable(st, epoch, nil, nil, ""))
		show("status", statusTable(st, epoch, status(good)))
		show("status on a bad day", statusTable(st, epoch, status(bad)))
		show("pools", poolsTable(st, epoch, bad.pools))
		show("pools get", poolText(st, epoch, good.pools[0]))
		show("create", strings.Join(progressLines(st, progressView{kind: creating, progress: progress, elapsed: 75 * time.Second}), "\n"))
		show("delete", strings.Join(progressLines(st, progressView{kind: deleting, progress: leaving, elapsed: 5 * time.Second, note: "cannot connect to lb1:7400: connection refused; trying again"}), "\n"))
		show("apply", applyText(st, &doproxyv1.ApplyPoolResponse{Pool: good.pools[0], Changes: []*doproxyv1.FieldChange{
			{Field: "desired", Before: "3", After: "5"}, {Field: "template.vpc", After: "u-u-i-d"}, {Field: "template.user_data", Before: "a\nb", After: strings.Repeat("long ", 40)},
		}}, true))
		show("status of a bad night", statusTable(st, epoch, status(night)))
		show("standing", standingText(st, epoch, status(night)))
		show("forecast", forecastText(st, growth))
		show("drain", strings.Join(drain.lines(st, 5*time.Second, ""), "\n"))
		show("failover", strings.Join(moveView{address: "45.55.96.48", ip: night.ips[1]}.lines(st, 5*time.Second, ""), "\n"))
		show("rebuild", strings.Join(rebuildView{30, 12, 8}.lines(st, 5*time.Second, ""), "\n"))
		show("rebuild of an unknown uid", rebuildText(st, "01JOTHER", &doproxyv1.RebuildResponse{UnknownUid: true}))
		show("confirm", heldText(st, epoch, night.conditions))
		show("verify", verifyTable(st, differences))
		show("verify of no differences", verifyTable(st, &doproxyv1.VerifyResponse{Droplets: 12, Nodes: 3}))
		show("members", st.membersTable(epoch, good.membership))
		show("members on a bad day", st.membersTable(epoch, sick.membership))
		show("removal of the leader", removalText(st, epoch, removal))
		show("store", st.storeTable(epoch, &doproxyv1.GetStoreResponse{Store: "etcd", Node: "nodes/lb2", Membership: alone.membership}))
		show("store that does not answer", st.storeTable(epoch, &doproxyv1.GetStoreResponse{Store: "raft", Node: "nodes/lb2", Error: "the members have no leader: are more than half of them up, and do they reach each other?"}))
		show("migration", migrationText(st, &doproxyv1.Migration{To: "raft", Records: 10042, Digest: "9c1185a5", Held: durationpb.New(312 * time.Millisecond), Next: []string{"Write `store: raft` into every doproxy.yml."}}))
		golden(t, "terminal-"+name+".txt", b.String())
		for line := range strings.Lines(b.String()) {
			if w := text.StringWidthWithoutEscSequences(strings.TrimSuffix(line, "\n")); w > st.width {
				t.Errorf("%s: a line is %d wide: %s", name, w, line)
			}
			if !st.color && strings.Contains(line, "\x1b") {
				t.Errorf("%s: colour in %q", name, line)
			}
			if st.ascii && strings.ContainsFunc(line, func(r rune) bool { return r > 126 }) {
				t.Errorf("%s: beyond ASCII: %q", name, line)
			}
		}
	}
}

func TestATerminalGetsColourUnlessRefused(t *testing.T) {
	b := newBench(t)
	b.width = 100
	if got := b.run("create"); !strings.Contains(got.err, "\x1b[") || !strings.Contains(got.out, "\x1b[32mSuccess:\x1b[0m 4202647 created") {
		t.Errorf("no colour or no live display: %q, %q", got.out, got.err)
	}
	b.env["NO_COLOR"] = "1"
	if got := b.run("print"); strings.Contains(got.out, "\x1b") || !strings.Contains(got.out, "PRIVATE IP") {
		t.Errorf("want a table without colour: %q", got.out)
	}
	b.env["TERM"] = "dumb"
	if got := b.run("create"); strings.Contains(got.err, "\x1b") || !strings.Contains(got.err, "web: requested 1/1") {
		t.Errorf("a dumb terminal gets plain lines: %q", got.err)
	}
}

func TestClean(t *testing.T) {
	if got := clean("a\x1b[31m\r\nb\u202e\u009bc\x00"); got != "a[31m bc" {
		t.Errorf("clean gave %q", got)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 3 * time.Hour: "3h", 49 * time.Hour: "2d"} {
		if got := short(d); got != want {
			t.Errorf("short(%v) is %s, want %s", d, got, want)
		}
	}
}
