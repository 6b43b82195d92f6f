package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/doproxy/doproxy/cloud/dosim"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// file writes a file into the cluster's folder and returns its path.
func (c *cluster) file(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// says waits until the status of node i tells of a condition that matches.
func (c *cluster) says(i int, pattern string) {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	c.shows(i, "the status says "+pattern, func(s *pb.GetStatusResponse) error {
		all := slices.Clone(s.Conditions)
		for _, n := range s.Nodes {
			all = append(all, n.Conditions...)
		}
		for _, p := range s.Pools {
			all = append(all, &pb.Condition{Message: p.Reason})
		}
		if !slices.ContainsFunc(all, func(x *pb.Condition) bool { return re.MatchString(x.Message) }) {
			return fmt.Errorf("%v", all)
		}
		return nil
	})
}

// etcd is the cluster's store, to meddle with.
func (c *cluster) etcd() *clientv3.Client {
	c.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Etcd})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { client.Close() })
	return client
}

// edit changes the members of a record behind doproxy's back.
func (c *cluster) edit(client *clientv3.Client, key string, members map[string]any) {
	c.t.Helper()
	r, err := client.Get(context.Background(), key)
	if err != nil || len(r.Kvs) != 1 {
		c.t.Fatalf("%s: %v %v", key, r, err)
	}
	record := map[string]any{}
	if err := json.Unmarshal(r.Kvs[0].Value, &record); err != nil {
		c.t.Fatal(err)
	}
	for name, value := range members {
		record[name] = value
	}
	data, err := json.Marshal(record)
	if err == nil {
		_, err = client.Put(context.Background(), key, string(data))
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// creates is how many create calls DigitalOcean got since the last reset.
func (c *cluster) calls(method, path string) int {
	c.t.Helper()
	calls, err := c.admin().Calls(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	return calls.Of(method, path)
}

// TestLimits: what the operator set is not exceeded, and is told where it bites;
// a dry run says so beforehand, with the cost.
func TestLimits(t *testing.T) {
	c := start(t)
	c.follows(3)
	limit := func(text string) { t.Helper(); c.ok(0, "apply", "-f", c.file("limits.yml", "limits: "+text+"\n")) }
	// held waits until the tier stands still at n droplets because of a limit.
	held := func(n int, pattern string) {
		t.Helper()
		c.says(1, pattern)
		c.follows(n)
		out := c.ok(0, "status")
		if !regexp.MustCompile(pattern).MatchString(strings.Join(strings.Fields(out), " ")) {
			t.Errorf("the status does not say %q:\n%s", pattern, out)
		}
	}
	limit("{droplets: 5}")
	out := c.ok(0, "scale", "web=8", "--dry-run")
	if !strings.Contains(out, "web-3") || !strings.Contains(out, "limits.droplets") || !strings.Contains(out, "$") {
		t.Errorf("the dry run printed %s", out)
	}
	c.follows(3)
	c.ok(0, "scale", "web=8")
	held(5, `limits\.droplets`)

	const price = 0.00893 // of s-1vcpu-1gb, an hour
	limit(fmt.Sprintf("{cost_hourly: %.5f}", 6.5*price))
	held(6, `limits\.cost_hourly`)
	limit("{creates_hourly: 7}")
	held(7, `limits\.creates_hourly`)
	c.killed(c.leader(0)) // the count is on record: the next leader knows it
	c.restart(slices.IndexFunc(c.Nodes, func(n node) bool { return ready(n) != nil }))
	c.says(0, `limits\.creates_hourly`)
	if got := len(c.droplets()); got != 7 {
		t.Errorf("%d droplets after the leader died, want 7", got)
	}
	limit("{}")
	c.follows(8)
	if r := c.run(0, "apply", "-f", c.file("bad.yml", "limits: {leave_percent: 120}\n")); r.code == 0 || !strings.Contains(r.stderr, "leave_percent") {
		t.Errorf("a bad limit: %+v", r)
	}

	// At most a quarter goes at once.
	limit("{leave_percent: 25}")
	c.ok(0, "scale", "web=2")
	most := 0
	c.shows(0, "the tier shrinks", func(s *pb.GetStatusResponse) error {
		most = max(most, int(s.Pools[0].Leaving))
		if s.Pools[0].Serving != 2 || s.Pools[0].Leaving != 0 {
			return fmt.Errorf("%v", s.Pools[0])
		}
		return nil
	})
	c.follows(2)
	if most > 2 {
		t.Errorf("%d of 8 left at once, want at most 2", most)
	}
}

// TestPause: while paused nothing changes at the cloud; what is asked for waits.
func TestPause(t *testing.T) {
	c := start(t, "--nodes", "2", "--store", "etcd", "--etcd-members", "1")
	c.follows(3)
	c.settled(0, c.entry(0))
	c.ok(0, "pause", "--reason", "maintenance at DigitalOcean")
	if out := c.ok(1, "status"); !strings.Contains(strings.ToLower(out), "paused") || !strings.Contains(out, "maintenance at DigitalOcean") {
		t.Errorf("the status of a paused cluster:\n%s", out)
	}
	if err := c.admin().ResetCalls(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.ok(0, "scale", "web=5")
	c.ok(0, "delete", "web-0", "--no-wait")
	if r := c.run(0, "failover", c.entry(0)); r.code == 0 || !strings.Contains(r.stderr, "doproxy resume") {
		t.Errorf("failover while paused: %+v", r)
	}
	c.killNode(c.leader(0)) // pauses outlive leaders
	other := slices.IndexFunc(c.Nodes, func(n node) bool { return ready(n) == nil })
	c.says(other, "paused")
	time.Sleep(2 * time.Second) // time enough for a call that must not come
	calls, err := c.admin().Calls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range calls.Calls {
		if x.Method != "GET" && x.Count > 0 {
			t.Errorf("while paused: %s %s, %d times", x.Method, x.Path, x.Count)
		}
	}
	c.ok(other, "resume")
	c.restart(1 - other)
	c.shows(other, "the work goes on", func(s *pb.GetStatusResponse) error {
		if p := s.Pools[0]; s.Pause != nil || p.Serving != 4 || p.Leaving != 0 {
			return fmt.Errorf("%v %v", s.Pause, p)
		}
		return nil
	})
	if slices.Contains(c.droplets(), "web-0") {
		t.Error("web-0 is still there")
	}
}

// TestWipeGuardOfTheLeader: a pool that suddenly wants almost nothing, by no
// request, keeps what it has until an operator confirms.
func TestWipeGuardOfTheLeader(t *testing.T) {
	c := start(t, "--store", "etcd")
	c.ok(0, "scale", "web=6", "--wait")
	c.follows(6)
	l := startLoad(t, c.Nodes, 50)
	c.edit(c.etcd(), "/doproxy/dev/pools/web", map[string]any{"desired": 1})
	c.says(0, "doproxy confirm")
	c.killed(c.leader(0))
	c.restart(slices.IndexFunc(c.Nodes, func(n node) bool { return ready(n) != nil }))
	c.says(0, "doproxy confirm")
	if got := len(c.droplets()); got != 6 {
		t.Fatalf("%d droplets are left of 6", got)
	}
	if r := c.run(0, "confirm", "web"); r.code == 0 || !strings.Contains(r.stderr, "--yes") {
		t.Errorf("confirm without a terminal and --yes: %+v", r)
	}
	if out := c.ok(0, "confirm", "web", "--yes"); !strings.Contains(out, "web-") {
		t.Errorf("confirm printed %q", out)
	}
	c.follows(1)
	// What a request asks for goes at once.
	c.ok(0, "scale", "web=6", "--wait")
	c.ok(0, "scale", "web=1", "--wait")
	c.follows(1)
	l.end()
}

// TestDyingDroplets: droplets that never become healthy are made later and later,
// and then no more, until somebody says so.
func TestDyingDroplets(t *testing.T) {
	c := start(t, "--nodes", "1", "--etcd-members", "1", "--desired", "0", "--store", "etcd")
	c.ok(0, "apply", "-f", c.file("pool.yml", "name: web\nhostname_prefix: web\nmax: 20\ntemplate: {region: nyc3, size: s-1vcpu-1gb, image: debian-12-x64, ssh_keys: [163420]}\nbackend: {port: 8080, health_path: /health, check_interval: 1s}\n"))
	c.ok(0, "scale", "web=1")
	eventually(t, "some are refused", func() error {
		if n := c.calls("POST", "/v2/droplets"); n < 4 {
			return fmt.Errorf("%d creates", n)
		}
		return nil
	})
	// The count of failures is on record; what is left of the ten would take minutes.
	eventually(t, "the leader stops", func() error {
		s, err := c.full(0)
		if err != nil || s.Pools[0].StopTime != nil {
			return err
		}
		c.edit(c.etcd(), "/doproxy/dev/pools/web", map[string]any{"failures": 9, "retry_at": time.Now().UTC()})
		time.Sleep(time.Second)
		return fmt.Errorf("%v", s.Pools[0])
	})
	c.says(0, "doproxy (resume|apply)")
	before := c.calls("POST", "/v2/droplets")
	c.ok(0, "apply", "-f", c.file("pool.yml", "name: web\nhostname_prefix: web\nmax: 20\ntemplate: {region: nyc3, size: s-1vcpu-1gb, image: debian-12-x64}\nbackend: {port: 8080, health_path: /health, check_interval: 1s}\n"))
	c.follows(1)
	if after := c.calls("POST", "/v2/droplets"); after != before+1 {
		t.Errorf("%d creates after the stop, want one", after-before)
	}
}

// TestBudget: with few calls left of the account's hour, polling and creates
// leave some for a failover.
func TestBudget(t *testing.T) {
	c := start(t, "--sim-arg=--rate-limit-hour=80")
	c.follows(3)
	c.settled(0, c.entry(0))
	// Another program with the same token uses them up to a few.
	for left := 80; left > 8; {
		_, r, err := c.api().Account.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		left = r.Rate.Remaining
	}
	c.ok(0, "scale", "web=4")
	c.run(0, "verify") // which lists
	c.says(0, "(calls|API|budget)")
	holder := c.settled(0, c.entry(0))
	c.killNode(holder)
	address := c.entry(0)
	eventually(t, "the address moves with the last calls", func() error {
		assigns, err := c.admin().Assigns(t.Context())
		if err != nil {
			return err
		}
		var last dosim.Assign
		for _, a := range assigns {
			if a.Address.String() == address {
				last = a
			}
		}
		all, err := c.admin().Droplets(t.Context())
		if err != nil {
			return err
		}
		for _, d := range all {
			if d.ID == last.Droplet && d.Name != c.Nodes[holder].Name {
				return nil
			}
		}
		return fmt.Errorf("the last move is %+v", last)
	})
	c.restart(holder)
}
