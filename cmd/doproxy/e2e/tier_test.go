package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/doproxy/doproxy/cloud/dosim"
)

var (
	created = regexp.MustCompile(`(?m)^Success: (\d+) created and added to backend\.$`)
	deleted = regexp.MustCompile(`(?m)^Success: (\d+) deleted and removed from backend\.$`)
	printed = regexp.MustCompile(`^(\d+)\) (\S+) \(pvt ip: ([\d.]+), status: (\w+), id: (\d+)\)$`)
)

// TestTier is the main job: print, create, delete, scale, reload and generate,
// by the command line and by grpcurl, with three load balancers following.
func TestTier(t *testing.T) {
	c := start(t)

	reloads := c.reloads()
	lines := c.print(t)
	if len(lines) != 3 {
		t.Fatalf("print after the start: %d droplets, want 3: %q", len(lines), lines)
	}
	c.follows(3)

	out := c.ok(1, "create", "-n", "2")
	if got := len(created.FindAllString(out, -1)); got != 2 {
		t.Errorf("create -n 2 printed %d successes:\n%s", got, out)
	}
	c.follows(5)

	lines = c.print(t)
	gone := printed.FindStringSubmatch(lines[1])[5]
	out = c.ok(0, "delete", "1")
	if m := deleted.FindStringSubmatch(out); m == nil || m[1] != gone {
		t.Errorf("delete 1 printed %q, want the success of id %s", out, gone)
	}
	c.follows(4)
	if strings.Contains(strings.Join(c.print(t), "\n"), gone) {
		t.Errorf("%s is still printed", gone)
	}

	// Nothing goes by a typo or by an index of another day.
	c.print(t)
	c.ok(2, "scale", "web=5", "--wait")
	for _, args := range [][]string{{"delete", "0"}, {"delete", "foo"}, {"delete", "web-3", "foo"}} {
		if r := c.run(0, args...); r.code == 0 || r.stderr == "" {
			t.Errorf("doproxy %s: exit code %d, stderr %q", strings.Join(args, " "), r.code, r.stderr)
		}
	}
	c.follows(5)

	grpcurl := c.exec(context.Background(), program(t, "grpcurl"), "-plaintext", "-d", `{"name":"pools/web","delta":-1,"request_id":"e2e-1"}`,
		c.Nodes[2].GRPC, "doproxy.v1.PoolService/ScalePool")
	again := c.exec(context.Background(), program(t, "grpcurl"), "-plaintext", "-d", `{"name":"pools/web","delta":-1,"request_id":"e2e-1"}`,
		c.Nodes[0].GRPC, "doproxy.v1.PoolService/ScalePool")
	if grpcurl.code != 0 || again.code != 0 || !strings.Contains(again.stdout, `"desired": 4`) {
		t.Errorf("scale by grpcurl: %+v, then with the same request id: %+v", grpcurl, again)
	}
	if list := c.exec(context.Background(), program(t, "grpcurl"), "-plaintext", c.Nodes[0].GRPC, "list"); !strings.Contains(list.stdout, "doproxy.v1.PoolService") || !strings.Contains(list.stdout, "grpc.health.v1.Health") {
		t.Errorf("grpcurl list: %+v", list)
	}
	c.follows(4)

	generated := c.ok(0, "generate")
	eventually(t, "the file of lb-1 is what generate prints", func() error {
		file, err := os.ReadFile(c.Nodes[0].ConfigFile)
		if err == nil && string(file) != generated {
			err = fmt.Errorf("generate:\n%s\nfile:\n%s", generated, file)
		}
		return err
	})
	if now := c.reloads(); !maps.Equal(now, reloads) {
		t.Errorf("reloads were %v and are %v", reloads, now)
	}
	c.ok(0, "reload", "--all")
	for name, n := range c.reloads() {
		if n != reloads[name]+1 {
			t.Errorf("%s has made %d reloads, and %d before `reload --all`", name, n, reloads[name])
		}
	}
	c.follows(4)

	before := c.pids()
	c.stop()
	for _, pid := range before {
		if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(cmdline) > 0 { // a zombie has none
			t.Errorf("process %d outlives dev --stop", pid)
		}
	}
}

func (c *cluster) print(t testing.TB) []string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(c.ok(0, "print")), "\n")
	for i, line := range lines {
		if m := printed.FindStringSubmatch(line); m == nil || m[1] != fmt.Sprint(i) {
			t.Errorf("print's line %d is %q", i, line)
		}
	}
	return lines
}

// follows waits until every load balancer spreads over exactly n droplets, and
// the cloud has no more than these.
func (c *cluster) follows(n int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("the tier is of %d", n), func() error {
		for _, node := range c.Nodes {
			seen, err := answers(node, 4*n)
			if err != nil {
				return err
			}
			if len(seen) != n {
				return fmt.Errorf("%s spreads over %v, want %d", node.Name, seen, n)
			}
		}
		if have := c.droplets(); len(have) != n {
			return fmt.Errorf("DigitalOcean has %d droplets, want %d", len(have), n)
		}
		return nil
	})
}

func (c *cluster) admin() *dosim.Admin { return &dosim.Admin{URL: c.DigitalOcean.URL} }

// droplets are the names at the cloud, duplicates and all.
func (c *cluster) droplets() []string {
	c.t.Helper()
	all, err := c.admin().Droplets(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	var names []string
	for _, d := range all {
		if !strings.HasPrefix(d.Name, "lb-") { // the load balancers are droplets too
			names = append(names, d.Name)
		}
	}
	slices.Sort(names)
	return names
}

// reloads is how often each HAProxy was reloaded.
func (c *cluster) reloads() map[string]int {
	c.t.Helper()
	s, err := c.status(0)
	if err != nil {
		c.t.Fatal(err)
	}
	reloads := map[string]int{}
	for _, n := range s.Nodes {
		reloads[n.Name] = n.Reloads
	}
	return reloads
}

// pids are those of all processes of the cluster.
func (c *cluster) pids() []int {
	pids := []int{c.PID}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(data), c.dir+"/") {
			var pid int
			fmt.Sscanf(filepath.Base(filepath.Dir(file)), "%d", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

func (c *cluster) stop() {
	c.t.Helper()
	if r := c.exec(context.Background(), program(c.t, "doproxy"), "dev", "--stop", "--state-dir", c.dir); r.code != 0 {
		c.t.Fatalf("dev --stop: %+v", r)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "dev.json")); !errors.Is(err, os.ErrNotExist) {
		c.t.Errorf("dev.json outlives dev --stop: %v", err)
	}
	c.PID = 0
}

// TestScalingUnderLoad scales 3 → 30 → 3 by the command line while every load
// balancer serves 500 requests a second: none fails, and nothing is reloaded.
func TestScalingUnderLoad(t *testing.T) {
	c := start(t)
	c.follows(3)
	reloads := c.reloads()
	l := startLoad(t, c.Nodes, 500)
	c.ok(0, "scale", "web=30", "--wait")
	c.ok(1, "scale", "web=3", "--wait")
	l.end()
	c.follows(3)
	if now := c.reloads(); !maps.Equal(now, reloads) {
		t.Errorf("reloads were %v and are %v", reloads, now)
	}
}

// TestManyAtOnce: a hundred droplets take ten create calls, and following them
// takes a number of lists that has nothing to do with theirs.
func TestManyAtOnce(t *testing.T) {
	c := start(t, "--boot-delay", "0s", "--nodes", "1")
	c.follows(3)
	if err := c.admin().ResetCalls(context.Background()); err != nil {
		t.Fatal(err)
	}
	out := c.ok(0, "create", "-n", "100")
	if got := len(created.FindAllString(out, -1)); got != 100 {
		t.Errorf("create -n 100 printed %d successes", got)
	}
	calls, err := c.admin().Calls(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	creates, lists := calls.Of("POST", "/v2/droplets"), calls.Of("GET", "/v2/droplets")
	others := calls.Of("GET", "/v2/droplets/{droplet_id}") + calls.Of("DELETE", "/v2/droplets/{droplet_id}") + calls.Of("POST", "/v2/tags/{tag_id}/resources")
	t.Logf("%d creates, %d lists, %d others", creates, lists, others)
	if creates > 10 || others > 0 {
		t.Errorf("%d create calls (at most 10) and %d calls for single droplets (none): %+v", creates, others, calls)
	}
	if lists > 50 {
		t.Errorf("%d lists to follow 100 droplets", lists)
	}
	c.follows(103)
}

// TestSupervisorKilled: what a killed `doproxy dev` leaves behind, `--stop` ends.
func TestSupervisorKilled(t *testing.T) {
	c := start(t, "--nodes", "2", "--desired", "1")
	before := c.pids()
	kill(t, c.PID, syscall.SIGKILL)
	c.stop()
	for _, pid := range before {
		if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(cmdline) > 0 {
			t.Errorf("process %d outlives dev --stop: %q", pid, cmdline)
		}
	}
}
