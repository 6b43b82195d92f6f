package cli

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

var growth = &doproxyv1.Forecast{
	Creates: []string{"web-7", "web-8", "web-9", "web-10", "web-11"}, CostHourlyBefore: 0.05, CostHourlyAfter: 0.09,
	Holds: []string{"limits.cost_hourly is $0.08: 4 of 5 are created"}, UnpricedSizes: []string{"s-9vcpu"},
}

const growthText = `Would create web-7, web-8 and 3 more.
Cost: $0.05 → $0.09 an hour (+$0.04, about +$29 a month).
Not in it: s-9vcpu, whose price is not known.
Held up: limits.cost_hourly is $0.08: 4 of 5 are created
`

func TestDryRunsTellTheForecast(t *testing.T) {
	b := newBench(t)
	b.fake.forecast = growth
	b.want(0, "Would request 5 droplets in web, wanted 2.\n"+growthText, "", "create", "-n", "5", "--dry-run")
	b.want(0, "web: would want 2 → 7\n"+growthText, "", "scale", "web=7", "--dry-run")
	b.fake.forecast = &doproxyv1.Forecast{Drains: []string{"auto-nginx-1"}, Deletes: []string{"auto-nginx-1", "auto-nginx-3"}, CostHourlyBefore: 30, CostHourlyAfter: 0.5}
	b.want(0, `Would delete auto-nginx-1 (pvt ip: 10.132.224.169, id: 4202646) from web.
Would drain and delete auto-nginx-1.
Would delete auto-nginx-3.
Cost: $30.00 → $0.50 an hour (-$29.50, about -$21,535 a month).
`, "", "delete", "auto-nginx-1", "--dry-run")
	b.fake.forecast = &doproxyv1.Forecast{CostHourlyBefore: 0.05, CostHourlyAfter: 0.05}
	b.want(0, "web: would want 2 → 4\nWould create and delete nothing.\nCost: $0.05 an hour, as before.\n", "", "scale", "web=4", "--dry-run")
	if got := b.run("create", "--dry-run", "-o", "json"); !strings.Contains(got.out, `"cost_hourly_after": 0.05`) {
		t.Errorf("create --dry-run gave\n%s\nwant a forecast in it", got.out)
	}
}

func TestFailover(t *testing.T) {
	b := newBench(t)
	b.fake.entry()
	b.want(0, "Would move 45.55.96.47 from lb1 to lb2.\n", "", "failover", "45.55.96.47", "--dry-run")
	b.want(0, "Success: 45.55.96.47 is on lb3.\n", `45.55.96.47: asked to lb3
45.55.96.47: to lb3, not yet confirmed by DigitalOcean
45.55.96.47: on lb3, confirmed by DigitalOcean
`, "failover", "45.55.96.47", "--to", "lb3")
	b.want(0, "Requested: move 45.55.96.47 to another node.\n", "", "failover", "45.55.96.47", "--no-wait")
	b.want(ExitNotFound, "", "doproxy: failover 45.55.96.1: there is no reserved IP reservedIps/45.55.96.1\n", "failover", "45.55.96.1")
	b.want(ExitUsage, "", "doproxy: failover: \"web\" is not an address: want a reserved IP such as 45.55.96.47\n  mend: see the addresses with `doproxy status`\n", "failover", "web")
}

// A move to any other node is not asked for twice.
func TestFailoverIsAskedForOnce(t *testing.T) {
	b := newBench(t)
	b.fake.entry()
	var lost atomic.Bool
	b.fake.step = func(n int) error {
		if n == 1 && lost.CompareAndSwap(false, true) {
			b.fake.mu.Lock()
			defer b.fake.mu.Unlock()
			ip := b.fake.ips[0]
			ip.Want, ip.Node, ip.VerifyTime = "", "nodes/lb2", timestamppb.New(epoch)
			return status.Error(codes.Unavailable, "this node ends")
		}
		return nil
	}
	got := b.run("failover", "45.55.96.47")
	if got.exit != 0 || got.out != "Success: 45.55.96.47 is on lb2.\n" || len(sent[*doproxyv1.FailoverRequest](b.fake)) != 1 {
		t.Errorf("exit %d, stdout %q, stderr %q, %d requests; want success with one", got.exit, got.out, got.err, len(sent[*doproxyv1.FailoverRequest](b.fake)))
	}
}

func TestNodeDrain(t *testing.T) {
	b := newBench(t)
	b.want(0, "lb2 is drained: a restart disturbs nobody.\n", `lb2: 1 address, 1 DNS record, DNS forgotten in 43s, 12 sessions
lb2: 0 addresses, 0 DNS records, DNS forgotten in 43s, 12 sessions
lb2: held up: 1 WebSocket is open
lb2: 0 addresses, 0 DNS records, DNS forgotten in 43s, 1 session
lb2: 0 addresses, 0 DNS records, 0 sessions
`, "node", "drain", "lb2", "--reason", "kernel")
	b.want(0, "Would drain lb2.\nWould move 45.55.96.47 to other nodes.\nWould take away www.example.com A 104.131.0.2.\n12 sessions would be waited for.\n", "", "node", "drain", "lb2", "--dry-run")
	b.want(0, "Requested: drain lb2.\n", "", "nodes", "drain", "lb2", "--no-wait")
	b.want(ExitNotFound, "", "doproxy: node drain lb9: there is no node \"lb9\"\n", "node", "drain", "lb9")
	if req := sent[*doproxyv1.DrainNodeRequest](b.fake)[0]; req.GetName() != "nodes/lb2" || req.GetReason() != "kernel" {
		t.Errorf("sent %v", req)
	}
}

func TestNodeDrainStopped(t *testing.T) {
	b := newBench(t)
	b.fake.pause = time.Hour
	got := b.run("node", "drain", "lb2", "--timeout", "50ms", "--no-progress")
	if want := "doproxy: node drain lb2: stopped following, the work goes on: no end within --timeout 50ms\n  mend: follow it again with `doproxy node drain lb2`, or end it with `doproxy node undrain lb2`\n"; !strings.HasSuffix(got.err, want) || got.exit != ExitTimeout {
		t.Errorf("exit %d, stderr:\n%s\nwant:\n%s", got.exit, got.err, want)
	}
}

func TestNodes(t *testing.T) {
	b := newBench(t)
	b.fake.entry()
	b.fake.nodes[1].DrainTime, b.fake.nodes[1].DrainReason, b.fake.nodes[1].Sessions = timestamppb.New(epoch.Add(-5*time.Minute)), "kernel", 3
	b.fake.nodes[2] = &doproxyv1.Node{Name: "nodes/lb3", SilentTime: timestamppb.New(epoch.Add(-time.Hour))}
	golden(t, "nodes.txt", b.run("nodes").out)
	if list := b.run("node", "list").out; list != b.run("node").out {
		t.Errorf("node list and node differ:\n%s", list)
	}
	b.want(0, "Success: lb2 is back in service.\n", "", "node", "undrain", "lb2")
	b.want(0, "Would forget lb3.\n", "", "node", "forget", "lb3", "--dry-run")
	b.want(0, "Success: lb3 forgotten.\n", "", "node", "forget", "nodes/lb3")
	b.want(ExitRefused, "", "doproxy: node forget lb1: lb1 is alive\n  mend: name: end its agent first, or drain it\n", "node", "forget", "lb1")
}

func TestPauseAndResume(t *testing.T) {
	b := newBench(t)
	b.want(0, "It was not paused.\n", "", "resume")
	b.want(0, "Would stop every change at DigitalOcean until `doproxy resume`.\n", "", "pause", "--dry-run")
	b.want(0, "Paused: nothing changes at DigitalOcean until `doproxy resume`.\n", "", "pause", "--reason", "incident 4711")
	if got := b.run("status").out; !strings.HasPrefix(got, "paused: since 2026-03-01T12:00:00Z (asked: lb2, reason: incident 4711)\n") {
		t.Errorf("status begins\n%s", got)
	}
	b.want(0, "Resumed: what was asked for meanwhile is done now.\n", "", "resume")
	b.want(0, "web had not stopped.\n", "", "resume", "web")
	b.fake.stopped["pools/web"] = true
	b.want(0, "Resumed: web creates again.\n", "", "resume", "web")
}

const heldWeb = "▲ 2 of 8 serving droplets are surplus although nobody asked for it (for 12m)\n  web-1 web-2\n"

func TestConfirm(t *testing.T) {
	b := newBench(t)
	b.want(0, "Nothing is held.\n", "", "confirm")
	b.fake.conditions = []*doproxyv1.Condition{guard("web-1", "web-2")}
	b.want(0, heldWeb+"Would let these 2 droplets go.\n", "", "confirm", "--dry-run")
	b.want(ExitUsage, heldWeb, "doproxy: confirm web: it asks before it goes on, and there is no terminal to ask at; nothing was changed\n  mend: look with `doproxy confirm web --dry-run`, then `doproxy confirm web --yes`\n", "confirm", "web")
	b.answer = "n\n"
	b.want(ExitFailed, heldWeb, "Let these 2 droplets go? [y/N] doproxy: confirm: not agreed to; nothing was changed\n", "confirm")
	for _, req := range sent[*doproxyv1.ConfirmRequest](b.fake) {
		if !req.GetValidateOnly() {
			t.Fatalf("sent %v before it was agreed to", req)
		}
	}
	b.answer = "y\n"
	b.want(0, heldWeb+"Confirmed: web-1 and web-2 go. See it with `doproxy watch`.\n", "Let these 2 droplets go? [y/N] ", "confirm")
	b.answer = ""
	b.want(0, heldWeb+"Confirmed: web-1 and web-2 go. See it with `doproxy watch`.\n", "", "confirm", "--yes")
	reqs := sent[*doproxyv1.ConfirmRequest](b.fake)
	if last := reqs[len(reqs)-1]; strings.Join(last.GetHostnames(), " ") != "web-1 web-2" {
		t.Errorf("sent %v, want exactly what was shown", last)
	}
}

// What is held when the user answers may differ from what was shown.
func TestConfirmOfWhatIsHeldNoMore(t *testing.T) {
	b := newBench(t)
	b.fake.conditions = []*doproxyv1.Condition{guard("web-1", "web-2")}
	b.fake.before = func(m proto.Message) error {
		if req, ok := m.(*doproxyv1.ConfirmRequest); ok && !req.GetValidateOnly() {
			b.fake.conditions = []*doproxyv1.Condition{guard("web-1")}
		}
		return nil
	}
	b.want(ExitRefused, heldWeb, "doproxy: confirm web: web-2 is not held\n  mend: what is held changed meanwhile: run `doproxy confirm web` again and look\n", "confirm", "web", "--yes")
}

func TestVerify(t *testing.T) {
	b := newBench(t)
	b.want(0, "no differences: 12 droplets, 3 nodes\n", "", "verify")
	b.fake.verified = &doproxyv1.VerifyResponse{
		Differences: []*doproxyv1.Difference{
			{Kind: "droplet.missing", Subject: "web-3", Message: "DigitalOcean has no droplet 4202648"},
			{Kind: "server.weight", Subject: "web-4", Node: "nodes/lb2", Message: "has weight 0, 100 is wanted"},
		},
		Unanswered: []*doproxyv1.Unanswered{{Who: "nodes/lb3", Reason: "no report for 12s"}},
	}
	const out = "droplet.missing web-3: DigitalOcean has no droplet 4202648\nserver.weight web-4 on lb2: has weight 0, 100 is wanted\nunanswered lb3: no report for 12s\n"
	const silent = "  mend: lb3 did not answer: is its agent running (`systemctl status doproxy` there)? If it is gone for good: `doproxy node forget lb3`\n"
	b.want(ExitDiffers, out, "doproxy: verify: 2 differences; lb3 did not answer\n  mend: have them mended now with `doproxy verify --repair`\n"+silent, "verify")
	b.want(ExitDiffers, out, "doproxy: verify: 2 differences, being mended; lb3 did not answer\n  mend: see with `doproxy verify` in a moment whether they are gone, and with `doproxy status` what holds the rest up\n"+silent, "verify", "--repair")
	b.fake.verified = &doproxyv1.VerifyResponse{Unanswered: []*doproxyv1.Unanswered{{Who: "leader", Reason: "no node leads"}}}
	if got := b.run("verify", "-o", "json"); got.exit != ExitDiffers || !strings.Contains(got.err, `"exit_code":9`) {
		t.Errorf("exit %d, stderr %s", got.exit, got.err)
	}
}

func TestRebuild(t *testing.T) {
	b := newBench(t)
	b.fake.lost, b.fake.adopts, b.fake.expects = "01JUID", 3, 3
	b.want(ExitUsage, "", "doproxy: rebuild needs --from-cloud: DigitalOcean's tags are what it rebuilds from\n  mend: to bring pools and settings back from a file: `doproxy restore -f FILE`\n", "rebuild", "--uid", "01JUID")
	b.want(ExitUsage, "", "doproxy: rebuild: uid: \"\" is missing\n  mend: uid: this node remembers 01JUID\n", "rebuild", "--from-cloud")
	const explained = `The inventory of cluster 01JUID is made anew in the store.
Pools: web (wants 2), as the node remembers them.
Droplets: 3 droplets are expected at DigitalOcean.
Every droplet with the tag doproxy:01JUID is adopted. None is created, changed or deleted; HAProxies serve on.
`
	b.want(0, explained, "", "rebuild", "--from-cloud", "--uid", "01JUID", "--dry-run")
	got := b.run("rebuild", "--from-cloud", "--uid", "01JUID")
	if got.exit != ExitUsage || len(b.fake.droplets) != 2 {
		t.Errorf("without a terminal: exit %d, stderr %s; want 2 and nothing changed", got.exit, got.err)
	}
	got = b.run("rebuild", "--from-cloud", "--uid", "01JUID", "--yes")
	if want := explained + "Success: 3 droplets adopted, 3 serving. Compare with `doproxy verify`.\n"; got.exit != 0 || got.out != want {
		t.Errorf("exit %d, stdout:\n%s\nwant:\n%s", got.exit, got.out, want)
	}
	if !strings.HasSuffix(got.err, "adopted 3 of 3 droplets, 3 serving\n") {
		t.Errorf("stderr:\n%s", got.err)
	}
}

// How many there are is not known: it is over when no more come.
func TestRebuildOfAnUnknownUid(t *testing.T) {
	b := newBench(t)
	b.fake.lost, b.fake.adopts = "01JUID", 2
	got := b.run("rebuild", "--from-cloud", "--uid", "01JOTHER", "--yes")
	if got.exit != 0 || !strings.HasSuffix(got.out, "Success: 2 droplets adopted, 2 serving. Compare with `doproxy verify`.\n") || !strings.Contains(got.out, "does not know this uid") {
		t.Errorf("exit %d, stdout:\n%s\nstderr:\n%s", got.exit, got.out, got.err)
	}
}

func TestBackupIsWhatApplyTakes(t *testing.T) {
	b := newBench(t)
	b.fake.entry()
	b.fake.pools[0].Failures, b.fake.pools[0].StopTime, b.fake.pools[0].RewoundTime = 3, timestamppb.New(epoch), timestamppb.New(epoch)
	file := filepath.Join(t.TempDir(), "backup.yml")
	b.want(0, "Success: 1 pool and the settings in "+file+".\n", "", "backup", "-f", file)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v; want mode 0600", info, err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "backup.yml", string(data))
	if out := b.run("backup").out; out != string(data) {
		t.Errorf("to stdout it gives\n%s", out)
	}
	doc, err := config.ParseDocument(file, data)
	if err != nil || len(doc.Pools) != 1 || doc.Pools[0].Desired != 2 || !doc.HasLimits || !doc.HasIngress || len(doc.Settings.Ingress.DNS) != 2 {
		t.Errorf("the configuration's own reader gives %+v, %v", doc, err)
	}
	b.fake.settings, b.fake.pools = &doproxyv1.Settings{}, nil
	doc, err = config.ParseDocument(file, []byte(b.run("backup").out))
	if err != nil || !doc.HasLimits || !doc.HasIngress {
		t.Errorf("of an empty cluster it gives %+v, %v", doc, err)
	}
}

func TestRestore(t *testing.T) {
	b := newBench(t)
	b.fake.entry()
	file := filepath.Join(t.TempDir(), "backup.yml")
	b.run("backup", "-f", file)
	b.want(0, "settings: unchanged\nweb: unchanged\nNothing to restore: all is as in "+file+".\n", "", "restore", "-f", file)
	b.fake.settings.Limits.Droplets = 10
	b.fake.pools[0].Template.Size = "s-8vcpu"
	const changes = "settings: would change\n  limits.droplets: 10 → 50\nweb: would change\n  template.size: s-8vcpu → s-1vcpu-1gb\n"
	b.want(0, changes, "", "restore", "-f", file, "--dry-run")
	b.answer = "no\n"
	b.want(ExitFailed, changes, "Restore 1 pool and the settings? [y/N] doproxy: restore: not agreed to; nothing was changed\n", "restore", "-f", file)
	b.answer = "yes\n"
	b.want(0, changes+strings.ReplaceAll(changes, "would change", "changed"), "Restore 1 pool and the settings? [y/N] ", "restore", "-f", file)
	if b.fake.settings.GetLimits().GetDroplets() != 50 || b.fake.pools[0].GetTemplate().GetSize() != "s-1vcpu-1gb" {
		t.Errorf("after it: %v, %v", b.fake.settings, b.fake.pools[0])
	}
	if err := os.WriteFile(file, []byte("pools: [{name: web, template: {region: nyc3, size: s-1vcpu-1gb, image: ubuntu-24-04-x64}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := b.run("restore", "-f", file, "--dry-run")
	if want := "doproxy: warning: the file wants no droplet in web, or does not say: it keeps wanting 2; for none: `doproxy scale web=0`\n"; got.err != want {
		t.Errorf("stderr %q, want %q", got.err, want)
	}
	b.answer = ""
	if got := b.run("restore", "-f", "-"); got.exit != ExitUsage {
		t.Errorf("restore -f - without --yes: exit %d", got.exit)
	}
}

// A file with one part of the settings leaves the other as it is.
func TestApplySettings(t *testing.T) {
	b := newBench(t)
	b.fake.entry()
	b.fake.forecast = growth
	file := filepath.Join(t.TempDir(), "limits.yml")
	if err := os.WriteFile(file, []byte("limits: {droplets: 60}\npools: [{name: api, template: {region: nyc3, size: s-1vcpu-1gb, image: ubuntu-24-04-x64}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.want(0, "settings: would change\n  limits.droplets: 50 → 60\napi: would be created\n"+growthText+
		"What holds pools up is told by the settings of now, not by those of the file.\n", "", "apply", "-f", file, "--dry-run")
	b.want(0, "settings: changed\n  limits.droplets: 50 → 60\napi: created\n", "", "apply", "-f", file)
	if got := b.fake.settings; len(got.GetIngress().GetReservedIps()) != 3 || got.GetLimits().GetDroplets() != 60 {
		t.Errorf("the settings are %v, want the ingress as it was", got)
	}
	if err := os.WriteFile(file, []byte("ingress: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.want(0, "settings: changed\n  ingress.reserved_ips: 3 → 0\n", "", "apply", "-f", file)
	if got := b.fake.settings.GetLimits().GetDroplets(); got != 60 {
		t.Errorf("limits.droplets is %d, want 60", got)
	}
}

func TestCompletionOfNodesAndAddresses(t *testing.T) {
	b := newBench(t)
	b.fake.entry()
	b.fake.nodes[2].SilentTime = timestamppb.New(epoch.Add(-time.Hour))
	for args, want := range map[string]string{
		"node drain ":                   "lb1\tin service\nlb2\tin service\nlb3\tsilent for 60m\n:4\n",
		"node drain lb1 ":               ":4\n",
		"node forget ":                  "lb3\tsilent for 60m\n:4\n",
		"failover 45.55.96.47 --to lb2": "lb2\tin service\n:4\n",
		"failover 45.":                  "45.55.96.47\ton lb1\n45.55.96.48\ton lb3\n:4\n",
		"confirm ":                      "web\twants 2, serving 2\n:4\n",
		"resume w":                      "web\twants 2, serving 2\n:4\n",
		"pause ":                        ":4\n",
		"verify ":                       ":4\n",
	} {
		if got := b.run(append([]string{"__complete"}, strings.Split(args, " ")...)...); got.out != want {
			t.Errorf("completing %q gave %q, want %q", args, got.out, want)
		}
	}
}

func TestWatchTellsWhatStands(t *testing.T) {
	b := newBench(t)
	b.fake.conditions = []*doproxyv1.Condition{guard("web-1", "web-2")}
	got := b.run("watch", "--timeout", "200ms")
	if want := "doproxy: warning: web for 12m: 2 of 8 serving droplets are surplus although nobody asked for it\n"; !strings.HasPrefix(got.err, want) {
		t.Errorf("stderr:\n%s\nwant first:\n%s", got.err, want)
	}
}
