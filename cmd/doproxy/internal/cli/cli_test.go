package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func TestPrintOnAPipeHasDOProxysForm(t *testing.T) {
	b := newBench(t)
	const want = "0) auto-nginx-0 (pvt ip: 10.132.224.168, status: active, id: 4202645)\n" +
		"1) auto-nginx-1 (pvt ip: 10.132.224.169, status: active, id: 4202646)\n"
	b.want(0, want, "", "print")
	b.want(0, want, "", "list")
	b.want(0, want, "", "print", "--pool", "web")
	b.fake.droplets = nil
	b.want(0, "The inventory is empty. Use the create command.\n", "", "print")
}

func TestPrintTellsWhatIsNotInService(t *testing.T) {
	b := newBench(t)
	d := b.fake.newDroplet(b.fake.pools[0])
	d.Reason = "size s-9 is not available in nyc3\n\x1b[31m"
	b.fake.pools[0].Reason = d.Reason
	b.fake.storeErr = "no quorum"
	got := b.run("print")
	if want := "2) auto-nginx-2 (pvt ip: -, status: -, id: -, phase: requested, reason: size s-9 is not available in nyc3 [31m)\n"; !strings.HasSuffix(got.out, want) {
		t.Errorf("print gave\n%s\nwant at its end\n%s", got.out, want)
	}
	for _, want := range []string{"as last seen: no quorum", "creates in web are held back: size s-9"} {
		if !strings.Contains(got.err, want) {
			t.Errorf("stderr lacks %q:\n%s", want, got.err)
		}
	}
}

func TestPrintReadsAllPages(t *testing.T) {
	b := newBench(t)
	for range 5 {
		b.fake.advance(b.fake.newDroplet(b.fake.pools[0]), doproxyv1.Phase_PHASE_SERVING)
	}
	if got := b.run("print"); strings.Count(got.out, "\n") != 7 {
		t.Errorf("print gave\n%s\nwant 7 lines", got.out)
	}
}

func TestPrintJSON(t *testing.T) {
	b := newBench(t)
	golden(t, "print.json", b.run("print", "-o", "json").out)
}

func TestCreateFollowsToSuccess(t *testing.T) {
	b := newBench(t)
	b.want(0, "Success: 4202647 created and added to backend.\nSuccess: 4202648 created and added to backend.\n",
		`web: requested 2/2, active 0/2, healthy 0/2, serving 0/2 on 3 nodes
web: requested 2/2, active 1/2, healthy 0/2, serving 0/2 on 3 nodes
web: requested 2/2, active 1/2, healthy 1/2, serving 1/2 on 3 nodes
web: requested 2/2, active 2/2, healthy 1/2, serving 1/2 on 3 nodes
web: requested 2/2, active 2/2, healthy 2/2, serving 2/2 on 3 nodes
`, "create", "-n", "2")
	b.want(0, "Success: 4202649 created and added to backend.\n", "", "create", "--no-progress")
	b.want(0, "Requested 3 droplets in web, wanted 8.\n", "", "create", "-n", "3", "--no-wait")
	b.want(0, "Would request 1 droplet in web, wanted 8.\n", "", "create", "--dry-run")
	ids := map[string]bool{}
	for _, req := range sent[*doproxyv1.CreateDropletsRequest](b.fake) {
		if req.GetRequestId() == "" || ids[req.GetRequestId()] {
			t.Errorf("request id %q is empty or was used before", req.GetRequestId())
		}
		ids[req.GetRequestId()] = true
	}
}

func TestCreateJSON(t *testing.T) {
	b := newBench(t)
	got := b.run("create", "-o", "json", "--request-id", "abc")
	var out struct {
		RequestID string `json:"request_id"`
		Progress  struct {
			Droplets []struct{ ID int64 }
			Done     bool
		}
	}
	if err := json.Unmarshal([]byte(got.out), &out); err != nil {
		t.Fatalf("%v in\n%s", err, got.out)
	}
	if out.RequestID != "abc" || !out.Progress.Done || len(out.Progress.Droplets) != 1 || out.Progress.Droplets[0].ID != 4202647 || got.err != "" {
		t.Errorf("create gave %+v and on stderr %q", out, got.err)
	}
}

func TestCreateTellsWhatHoldsItUp(t *testing.T) {
	b := newBench(t)
	b.fake.pools[0].Reason = "droplet limit exceeded"
	if got := b.run("create"); !strings.Contains(got.err, "web: held up: droplet limit exceeded\n") {
		t.Errorf("stderr:\n%s", got.err)
	}
}

func TestRefusalsHaveTheirExitCodeAndMend(t *testing.T) {
	b := newBench(t)
	b.want(ExitRefused, "", "doproxy: create: web would want 502\n  mend: -n at most 198: max is 200\n", "create", "-n", "500")
	b.want(ExitNotFound, "", "doproxy: create in api: there is no pool \"api\"\n", "create", "--pool", "api")
	got := b.run("create", "-n", "500", "-o", "json")
	golden(t, "error.json", got.err)
	if got.exit != ExitRefused || got.out != "" {
		t.Errorf("exit %d, stdout %q", got.exit, got.out)
	}
}

func TestUsage(t *testing.T) {
	b := newBench(t)
	for _, args := range [][]string{
		{"bogus"}, {"create", "--bogus"}, {"create", "-n", "x"}, {"create", "-n", "0"}, {"create", "3"}, {"delete"}, {"delete", ""},
		{"scale"}, {"scale", "web"}, {"scale", "web=x"}, {"scale", "web=+0"}, {"scale", "web=1", "web=2"}, {"scale", "=1"}, {"scale", "web=99999999999"},
		{"print", "-o", "xml"}, {"print", "-o", "yaml"}, {"apply"}, {"apply", "-f", "/does/not/exist"}, {"status", "--events", "0"},
		{"print", "--server", "nonsense"}, {"print", "--server", "h:1,"}, {"print", "--server", "unix:"}, {"print", "--ca-file", "/does/not/exist"},
		{"print", "--cert-file", "x"}, {"print", "--timeout", "-1s"}, {"pools", "get"}, {"pools", "get", "a", "b"},
	} {
		got := b.run(args...)
		if got.exit != ExitUsage || got.out != "" || !strings.HasPrefix(got.err, "doproxy: ") {
			t.Errorf("doproxy %q: exit %d, stdout %q, stderr %q; want exit 2 and words on stderr only", args, got.exit, got.out, got.err)
		}
	}
	if len(b.fake.calls) > 0 {
		t.Errorf("a call was made: %v", b.fake.calls)
	}
}

func TestDeleteByIndexOfThePrintJustSeen(t *testing.T) {
	b := newBench(t)
	b.want(ExitStale, "", "doproxy: delete: 0 is an index, and no print was seen in this terminal within the last hour\n  mend: run `doproxy print` first\n", "delete", "0")
	b.run("print")
	b.want(ExitNotFound, "", "doproxy: delete: the print just seen has no index 2: it has 0 to 1\n  mend: run `doproxy print` and look again\n", "delete", "0", "2")
	if n := len(sent[*doproxyv1.DeleteDropletsRequest](b.fake)); n > 0 {
		t.Fatalf("%d deletes were sent, want none", n)
	}
	b.want(0, "Would delete auto-nginx-1 (pvt ip: 10.132.224.169, id: 4202646) from web.\n", "", "delete", "1", "--dry-run")
	b.want(0, "Success: 4202646 deleted and removed from backend.\n", `web: draining 0/1, removed 0/1, deleted 0/1
web: draining 1/1, removed 0/1, deleted 0/1
web: draining 1/1, removed 1/1, deleted 0/1
web: draining 1/1, removed 1/1, deleted 1/1
`, "delete", "1")
	reqs := sent[*doproxyv1.DeleteDropletsRequest](b.fake)
	last := reqs[len(reqs)-1]
	if last.GetEtag() != "auto-nginx-0/auto-nginx-1" || len(last.GetNames()) != 1 || last.GetNames()[0] != "pools/web/droplets/auto-nginx-1" {
		t.Errorf("sent %v", last)
	}
	b.want(ExitStale, "", "doproxy: delete 0: the inventory changed\n  mend: run `doproxy print` and look again: an index may mean another droplet now\n", "delete", "0")
	if len(b.fake.droplets) != 1 {
		t.Errorf("%d droplets are left, want 1", len(b.fake.droplets))
	}
}

func TestDeleteForgetsAPrintAfterAnHour(t *testing.T) {
	b := newBench(t)
	b.run("print")
	b.now = func() time.Time { return epoch.Add(61 * time.Minute) }
	if got := b.run("delete", "0"); got.exit != ExitStale {
		t.Errorf("exit %d, want %d: %s", got.exit, ExitStale, got.err)
	}
}

func TestDeleteByNameAndID(t *testing.T) {
	b := newBench(t)
	b.want(ExitNotFound, "", "doproxy: delete auto-nginx-0 foo: there is no droplet \"foo\"\n", "delete", "auto-nginx-0", "foo")
	b.want(ExitUsage, "", "doproxy: delete: auto-nginx-0 is named twice\n", "delete", "auto-nginx-0", "auto-nginx-0")
	if len(b.fake.droplets) != 2 {
		t.Fatalf("%d droplets are left, want 2", len(b.fake.droplets))
	}
	b.want(0, "Success: 4202645 deleted and removed from backend.\nSuccess: 4202646 deleted and removed from backend.\n", "", "delete", "auto-nginx-0", "4202646", "--no-progress")
	for _, req := range sent[*doproxyv1.DeleteDropletsRequest](b.fake) {
		if req.GetEtag() != "" {
			t.Errorf("names and ids need no etag, sent %q", req.GetEtag())
		}
	}
}

func TestDeleteMixedNeedsTheEtagToo(t *testing.T) {
	b := newBench(t)
	b.run("print")
	b.fake.newDroplet(b.fake.pools[0])
	if got := b.run("delete", "0", "auto-nginx-1"); got.exit != ExitStale || len(b.fake.droplets) != 3 {
		t.Errorf("exit %d with %d droplets left, want %d and 3", got.exit, len(b.fake.droplets), ExitStale)
	}
}

func TestStateFileIsPrivateAndPerServer(t *testing.T) {
	b := newBench(t)
	b.run("print")
	path := filepath.Join(b.env["XDG_STATE_HOME"], "doproxy", "seen.json")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, want 0600", path, info.Mode().Perm())
	}
	link := b.sock + "2"
	if err := os.Symlink(b.sock, link); err != nil {
		t.Fatal(err)
	}
	if got := b.run("--server", "unix://"+link, "delete", "0"); got.exit != ExitStale {
		t.Errorf("an index of another server's print: exit %d, want %d", got.exit, ExitStale)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := b.run("delete", "0"); got.exit != ExitStale {
		t.Errorf("a broken state file: exit %d, want %d", got.exit, ExitStale)
	}
	if got := b.run("print"); got.exit != 0 || got.err != "" {
		t.Errorf("print does not mend the state file: exit %d, %s", got.exit, got.err)
	}
}

func TestScale(t *testing.T) {
	b := newBench(t)
	b.want(0, "web: wanted 2 → 3\n", "", "scale", "web=3")
	b.want(0, "web: wanted 3 → 5\n", "", "scale", "web=+2")
	b.want(0, "web: wanted 5 → 4\n", "", "scale", "web=-1")
	b.want(0, "web: would want 4 → 9\n", "", "scale", "web=9", "--dry-run")
	b.want(0, "web: wanted 4 already\n", "", "scale", "pools/web=4")
	b.want(ExitRefused, "", "doproxy: scale web: pool web cannot want 900\n  mend: desired: from 1 to 200\n", "scale", "web=900")
	if got := b.fake.pools[0].GetDesired(); got != 4 {
		t.Errorf("wanted is %d, want 4", got)
	}
	b.want(ExitNotFound, "", "doproxy: scale api: there is no pool \"api\"\n", "scale", "web=9", "api=1")
	if got := b.fake.pools[0].GetDesired(); got != 4 {
		t.Errorf("wanted is %d, want 4: one of two could not be", got)
	}
}

func TestScaleWaits(t *testing.T) {
	b := newBench(t)
	got := b.run("scale", "web=4", "--wait")
	if got.exit != 0 || got.out != "web: wanted 2 → 4\n" || !strings.HasSuffix(got.err, "web: requested 4/4, active 4/4, healthy 4/4, serving 4/4 on 3 nodes\n") {
		t.Errorf("exit %d, stdout:\n%sstderr:\n%s", got.exit, got.out, got.err)
	}
}

const changedPools = `pools:
  - name: web
    template: {region: nyc3, size: s-2vcpu-2gb, image: ubuntu-24-04-x64, user_data: "a\nb\nc\n"}
  - name: api
    template: {region: nyc3, size: s-1vcpu-1gb, image: debian-12-x64}
`

func TestApply(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(t.TempDir(), "pools.yml")
	if err := os.WriteFile(file, []byte(changedPools), 0o600); err != nil {
		t.Fatal(err)
	}
	const changes = "  template.size: s-1vcpu-1gb → s-2vcpu-2gb\n  template.user_data: (2 lines, 32 bytes) → (3 lines, 6 bytes)\n"
	b.want(0, "web: would change\n"+changes+"api: would be created\n", "", "apply", "-f", file, "--dry-run")
	if len(b.fake.pools) != 1 {
		t.Fatal("a dry run created a pool")
	}
	b.want(0, "web: changed\n"+changes+"api: created\n", "", "apply", "-f", file)
	b.want(0, "web: unchanged\napi: unchanged\n", "", "apply", "-f", file)
}

func TestPoolsGetGivesWhatApplyTakes(t *testing.T) {
	b := newBench(t)
	got := b.run("pools", "get", "web", "-o", "yaml")
	pools, _, err := config.ParseProto("web.yml", []byte(got.out))
	if err != nil || len(pools) != 1 {
		t.Fatalf("%v in\n%s", err, got.out)
	}
	want := proto.Clone(b.fake.pools[0]).(*doproxyv1.Pool)
	want.Policy = &doproxyv1.Policy{}
	want.Serving, want.CostHourly, want.Etag, want.CreateTime = 0, 0, "", nil
	if !proto.Equal(pools[0], want) {
		t.Errorf("came back as %v, want %v", pools[0], want)
	}
}

func TestPools(t *testing.T) {
	b := newBench(t)
	b.want(0, "web: wanted 2, serving 2, starting 0, leaving 0, min 1, max 200, region nyc3, size s-1vcpu-1gb, image ubuntu-24-04-x64, cost $0.0179/h\n", "", "pools")
	b.want(ExitRefused, "", "doproxy: pools delete web: pool web has 2 droplets\n", "pools", "delete", "web")
	b.want(ExitNotFound, "", "doproxy: pools get api: there is no pool \"api\"\n", "pools", "get", "api")
}

func TestReloadAndGenerate(t *testing.T) {
	b := newBench(t)
	b.want(0, "global\n    daemon\n", "", "generate")
	b.want(0, "Success: lb1 reloaded (2 reloads so far).\n", "", "reload")
	b.fake.reloadErr = "line 3: unknown keyword"
	b.want(ExitFailed, "Success: lb1 reloaded (2 reloads so far).\n",
		"doproxy: reload: lb2: line 3: unknown keyword\n  mend: the old configuration still serves; see the new one with `doproxy generate`\n", "reload", "--all")
}

func TestStatus(t *testing.T) {
	b := newBench(t)
	got := b.run("status")
	golden(t, "status.txt", got.out)
	golden(t, "status.json", b.run("status", "-o", "json").out)
}

func TestWatchShowsEachEventOnce(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	out, errs := &syncBuffer{}, &syncBuffer{}
	exit := make(chan int, 1)
	go func() { exit <- b.runOn(ctx, out, errs, "watch", "--new") }()
	until(t, func() bool { return len(sent[*doproxyv1.WatchEventsRequest](b.fake)) == 1 })
	b.fake.addEvent(&doproxyv1.Event{Id: "01C", Type: "pool.scaled", Pool: "web", Message: "2 to 3"})
	until(t, func() bool { return strings.Contains(out.String(), "pool.scaled") })
	b.stop()
	_ = os.Remove(b.sock)
	b.start()
	b.fake.addEvent(&doproxyv1.Event{Id: "01D", Type: "pool.scaled", Pool: "web", Message: "3 to 4"})
	until(t, func() bool { return strings.Contains(out.String(), "3 to 4") })
	cancel()
	if code := <-exit; code != 0 {
		t.Errorf("exit %d, want 0: Ctrl-C is how a watch ends", code)
	}
	if want := "- pool.scaled web: 2 to 3\n- pool.scaled web: 3 to 4\n"; out.String() != want {
		t.Errorf("watch gave\n%s\nwant\n%s", out, want)
	}
	if strings.Count(errs.String(), "trying again") != 1 {
		t.Errorf("stderr should tell of the loss once:\n%s", errs)
	}
}

func TestImport(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		what      ImportOptions
		exit      int
		out, errs string
	}{
		{ImportOptions{Pool: "web", IDs: []int64{11, 4202645}, NoWait: true}, 0, "Requested: import 11 into web.\n1 in the inventory already.\n", ""},
		{ImportOptions{Pool: "web", IDs: []int64{11}, DryRun: true}, 0, "11 would be imported into web.\n", ""},
		{ImportOptions{IDs: []int64{4202645}}, 0, "1 in the inventory already.\n", ""},
		{ImportOptions{IDs: []int64{11, 404}}, ExitNotFound, "Success: 11 imported and added to backend.\n",
			"web: importing 2 droplets\ndoproxy: import: 404 was not imported into web: DigitalOcean knows no such droplet\n"},
	} {
		root := newRoot(Options{})
		root.AddCommand(importCommand(c.what))
		out, errs := &syncBuffer{}, &syncBuffer{}
		root.SetOut(out)
		root.SetErr(errs)
		root.SetArgs([]string{"import", "--server", "unix://" + b.sock})
		if code := Execute(t.Context(), root); code != c.exit || out.String() != c.out || errs.String() != c.errs {
			t.Errorf("import %v: exit %d, want %d; gave %q, want %q; stderr %q, want %q", c.what, code, c.exit, out, c.out, errs, c.errs)
		}
	}
}

func TestDeleteByAnOldPrintIsStaleWhateverElseIsWrong(t *testing.T) {
	b := newBench(t)
	b.run("print")
	b.want(ExitNotFound, "", "doproxy: delete: the print just seen has no index 99: it has 0 to 1\n  mend: run `doproxy print` and look again\n", "delete", "99")
	b.fake.mu.Lock()
	b.fake.newDroplet(b.fake.pools[0])
	b.fake.mu.Unlock()
	for _, args := range []string{"99", "0 0"} {
		b.want(ExitStale, "", "doproxy: delete "+args+": the inventory changed since the print: run doproxy print again; nothing was changed\n", append([]string{"delete"}, strings.Fields(args)...)...)
	}
}

func TestErrorsNameFlagsAndNoEscapes(t *testing.T) {
	for in, want := range map[string]string{
		`parent: "" is missing, and there are several pools`: "--pool is missing, and there are several pools",
		`lost: request_id: "x" must be so`:                   `lost: --request-id "x" must be so`,
		"ask again with the same request_id":                 "ask again with the same --request-id",
		"pools.yml:4: pools[0].count: unknown":               "pools.yml:4: pools[0].count: unknown",
	} {
		if got := asFlags(in); got != want {
			t.Errorf("asFlags(%q) is %q, want %q", in, got, want)
		}
	}
	b := newBench(t)
	if got := b.run("delete", "a\x1b[31mb"); !strings.HasPrefix(got.err, `doproxy: delete "a\x1b[31mb": `) {
		t.Errorf("stderr: %q", got.err)
	}
}

func TestCompletion(t *testing.T) {
	b := newBench(t)
	for args, want := range map[string]string{
		"delete auto":                       "auto-nginx-0\tserving in web, id 4202645\nauto-nginx-1\tserving in web, id 4202646\n:4\n",
		"delete auto-nginx-0 auto":          "auto-nginx-1\tserving in web, id 4202646\n:4\n",
		"scale w":                           "web=\twants 2, serving 2\n:6\n",
		"pools get ":                        "web\twants 2, serving 2\n:4\n",
		"create --pool ":                    "web\twants 2, serving 2\n:4\n",
		"print --server unix:///no --pool ": ":4\n",
	} {
		if got := b.run(append([]string{"__complete"}, strings.Split(args, " ")...)...); got.out != want {
			t.Errorf("completing %q gave %q, want %q", args, got.out, want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		f := &Failure{Op: "x", Err: status.Error(code, "why")}
		if exit := f.exit(); code != codes.OK && exit == 0 {
			t.Errorf("%v gives exit 0", code)
		}
	}
}

// until waits for what other goroutines bring about.
func until(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not come about within 10 s")
		}
	}
}

// What is surplus is let go by saying again how many are wanted, which is told.
func TestScaleLetsGo(t *testing.T) {
	pool := &doproxyv1.Pool{Name: "pools/web", Desired: 5, Serving: 6, Starting: 1}
	if got := scaleText(style{}, &doproxyv1.ScalePoolResponse{Pool: pool, PreviousDesired: 5}, false); got != "web: wanted 5 already, and 7 are there: the others are let go\n" {
		t.Error(got)
	}
}
