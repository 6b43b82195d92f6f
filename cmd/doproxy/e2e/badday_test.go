package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud/dosim"
)

// leader is the index of the node that leads, as asked of node i.
func (c *cluster) leader(i int) int {
	c.t.Helper()
	at := -1
	eventually(c.t, "somebody leads", func() error {
		s, err := c.status(i)
		if err != nil {
			return err
		}
		at = slices.IndexFunc(c.Nodes, func(n node) bool { return n.Name == s.Leader })
		if at < 0 {
			return fmt.Errorf("the leader is %q", s.Leader)
		}
		return nil
	})
	return at
}

// background runs doproxy while the test does something else.
func (c *cluster) background(i int, args ...string) <-chan result {
	done := make(chan result, 1)
	go func() { done <- c.run(i, args...) }()
	return done
}

// restart starts the agent of a node that was killed, as systemd would.
func (c *cluster) restart(i int) {
	c.t.Helper()
	log, err := os.OpenFile(filepath.Join(c.dir, c.Nodes[i].Name, "log"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program(c.t, "doproxy"), "agent", "--config", c.Nodes[i].AgentConfig)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.Nodes[i].PID = cmd.Process.Pid
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
}

// killed kills an agent and waits until it is gone.
func (c *cluster) killed(i int) {
	c.t.Helper()
	pid := c.Nodes[i].PID
	kill(c.t, pid, syscall.SIGKILL)
	eventually(c.t, "the agent is gone", func() error {
		// Its memory goes before its sockets do: it is dead when it is a zombie, or gone.
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if _, state, _ := strings.Cut(string(data), ") "); err == nil && !strings.HasPrefix(state, "Z") {
			return fmt.Errorf("pid %d runs", pid)
		}
		return nil
	})
}

// requested waits until the cloud has been asked for more than n droplets.
func (c *cluster) requested(n int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("DigitalOcean has more than %d droplets", n), func() error {
		if have := c.droplets(); len(have) <= n {
			return fmt.Errorf("it has %d", len(have))
		}
		return nil
	})
}

// TestLeaderKilledDuringCreate: kill -9 of the leading agent in the middle of
// `create -n 20`. Another leads, the work ends, and exactly 20 more exist. The
// call itself goes on: it was made at another node.
func TestLeaderKilledDuringCreate(t *testing.T) {
	c := start(t, "--boot-delay", "1s")
	c.follows(3)
	l := startLoad(t, c.Nodes, 100)
	victim := c.leader(0)
	other := (victim + 1) % len(c.Nodes)
	create := c.background(other, "create", "-n", "20")
	c.requested(3)
	c.killed(victim)
	r := <-create
	if got := len(created.FindAllString(r.stdout, -1)); r.code != 0 || got != 20 {
		t.Errorf("create -n 20: exit code %d, %d successes\n%s%s", r.code, got, r.stdout, r.stderr)
	}
	if now := c.leader(other); now == victim {
		t.Errorf("%s still leads", c.Nodes[victim].Name)
	}
	c.restart(victim)
	c.follows(23)
	l.end()
	if names := c.droplets(); len(slices.Compact(names)) != 23 {
		t.Errorf("names are used twice: %v", names)
	}
}

// TestNodeOfTheCallKilled: the node that took `create -n 5` dies, agent and all.
// The command goes on at another node with the same request id: five, not ten.
func TestNodeOfTheCallKilled(t *testing.T) {
	c := start(t, "--boot-delay", "1s")
	c.follows(3)
	done := make(chan result, 1)
	servers := strings.Join([]string{c.Nodes[0].GRPC, c.Nodes[1].GRPC, c.Nodes[2].GRPC}, ",")
	go func() {
		done <- c.exec(context.Background(), program(t, "doproxy"), "--server", servers, "create", "-n", "5")
	}()
	c.requested(3)
	c.killed(0)
	if r := <-done; r.code != 0 || len(created.FindAllString(r.stdout, -1)) != 5 {
		t.Errorf("create -n 5: %+v", r)
	}
	c.restart(0)
	c.follows(8)
}

// TestHAProxyKilled: a worker and a master killed, and a server's weight changed
// by hand: HAProxy is brought back to what the inventory says.
func TestHAProxyKilled(t *testing.T) {
	c := start(t)
	c.follows(3)
	master := c.Nodes[0].HAProxyPID
	children, err := exec.Command("pgrep", "-P", fmt.Sprint(master)).Output()
	var worker int
	if _, scanErr := fmt.Sscan(string(children), &worker); err != nil || scanErr != nil {
		t.Fatalf("the worker of %d: %v %v", master, err, scanErr)
	}
	kill(t, worker, syscall.SIGKILL)
	eventually(t, "HAProxy serves again after its worker was killed", func() error { _, err := answers(c.Nodes[0], 6); return err })
	c.follows(3)

	eventually(t, "dev.json has the new HAProxy", func() error {
		if c.reread(); c.Nodes[0].HAProxyPID == master {
			return fmt.Errorf("pid %d", master)
		}
		return nil
	})
	kill(t, c.Nodes[0].HAProxyPID, syscall.SIGKILL)
	eventually(t, "HAProxy serves again after its master was killed", func() error { _, err := answers(c.Nodes[0], 6); return err })
	c.ok(1, "scale", "web=4", "--wait")
	c.follows(4)
}

// TestEtcdWithoutQuorum: two of three members die. Traffic is undisturbed, also
// through a HAProxy that dies then; requests are refused with a clear error, and
// print still answers; work goes on when the members are back.
func TestEtcdWithoutQuorum(t *testing.T) {
	c := start(t, "--store", "etcd")
	c.follows(3)
	l := startLoad(t, c.Nodes[1:], 100)
	dead := []*exec.Cmd{c.killEtcd("etcd-1"), c.killEtcd("etcd-2")}
	c.withoutStore(0)
	kill(t, c.Nodes[0].HAProxyPID, syscall.SIGKILL)
	eventually(t, "a HAProxy comes back without the store", func() error { _, err := answers(c.Nodes[0], 6); return err })

	for _, cmd := range dead {
		c.startEtcd(cmd)
	}
	eventually(t, "scale works again", func() error {
		if r := c.run(0, "scale", "web=5", "--wait"); r.code != 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	c.follows(5)
	l.end()
}

// withoutStore: a node says that the store is away, refuses requests, and shows
// what it has.
func (c *cluster) withoutStore(i int) {
	c.t.Helper()
	eventually(c.t, "status says that the store is away", func() error {
		s, err := c.status(i)
		if err == nil && s.StoreError == "" {
			err = fmt.Errorf("it does not")
		}
		return err
	})
	r := c.run(i, "scale", "web=5")
	if r.code == 0 || !strings.Contains(r.stderr, "store") {
		c.t.Errorf("scale without the store: %+v", r)
	}
	if lines := c.print(c.t); len(lines) != 3 {
		c.t.Errorf("print without the store: %q", lines)
	}
}

// TestAgentsWithoutQuorum is the same where the agents keep the store: two of
// three are killed, and come back.
func TestAgentsWithoutQuorum(t *testing.T) {
	c := start(t)
	c.follows(3)
	l := startLoad(t, c.Nodes, 100)
	c.killed(1)
	c.killed(2)
	c.withoutStore(0)
	c.restart(1)
	c.restart(2)
	eventually(t, "scale works again", func() error {
		if r := c.run(0, "scale", "web=5", "--wait"); r.code != 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	c.follows(5)
	l.end()
}

// killEtcd kills a member and returns how to start it again.
func (c *cluster) killEtcd(name string) *exec.Cmd {
	c.t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, _ := os.ReadFile(file)
		if !bytes.Contains(data, []byte(filepath.Join(c.dir, name, "data"))) {
			continue
		}
		args := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
		var pid int
		fmt.Sscanf(filepath.Base(filepath.Dir(file)), "%d", &pid)
		kill(c.t, pid, syscall.SIGKILL)
		return exec.Command(args[0], args[1:]...)
	}
	c.t.Fatalf("no process of %s", name)
	return nil
}

func (c *cluster) startEtcd(cmd *exec.Cmd) {
	c.t.Helper()
	i := slices.Index(cmd.Args, "--initial-cluster-state")
	cmd.Args[i+1] = "existing"
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// TestStartWithoutStore: an agent that starts while etcd is away, beside a
// HAProxy that died too, serves the last inventory that it saw.
func TestStartWithoutStore(t *testing.T) {
	c := start(t, "--nodes", "1", "--etcd-members", "1", "--store", "etcd")
	c.follows(3)
	saved := filepath.Join(filepath.Dir(c.Nodes[0].AgentConfig), "inventory.json")
	eventually(t, "the inventory is on disk", func() error {
		data, err := os.ReadFile(saved)
		if err == nil && bytes.Count(data, []byte(`"phase":"serving"`)) != 3 {
			err = fmt.Errorf("%s", data)
		}
		return err
	})
	c.killEtcd("etcd-1")
	c.killed(0)
	kill(t, c.Nodes[0].HAProxyPID, syscall.SIGKILL)
	c.restart(0)
	eventually(t, "the tier is served without etcd", func() error {
		seen, err := answers(c.Nodes[0], 12)
		if err == nil && len(seen) != 3 {
			err = fmt.Errorf("%v", seen)
		}
		return err
	})
}

// TestCreateRefused: what DigitalOcean says is shown in its own words, tried
// again with backoff, never in a tight loop, and ends when it says yes.
func TestCreateRefused(t *testing.T) {
	c := start(t, "--sim-arg=--droplet-limit=7")
	c.follows(3)
	if err := c.admin().ResetCalls(t.Context()); err != nil {
		t.Fatal(err)
	}
	create := c.background(0, "create", "-n", "2")
	eventually(t, "status and print tell why", func() error {
		s, err := c.status(1)
		if err != nil {
			return err
		}
		if !strings.Contains(s.Pools[0].Reason, "droplet limit") {
			return fmt.Errorf("the pool's reason is %q", s.Pools[0].Reason)
		}
		if out := c.ok(2, "print", "-o", "json"); !strings.Contains(out, "droplet limit") {
			return fmt.Errorf("print does not: %s", out)
		}
		return nil
	})
	time.Sleep(5 * time.Second) // long enough for a tight loop to show
	calls, err := c.admin().Calls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := calls.Of("POST", "/v2/droplets"); n > 12 {
		t.Errorf("%d creates while they are refused", n)
	}
	c.ok(0, "delete", "web-0") // makes room
	r := <-create
	if r.code != 0 || len(created.FindAllString(r.stdout, -1)) != 2 {
		t.Errorf("create -n 2: %+v", r)
	}
	c.follows(4)
}

// TestAmbiguousCreates: create calls that do their work and whose answer is
// lost, by a hang and by a reset. Nothing is made twice and nothing forgotten.
func TestAmbiguousCreates(t *testing.T) {
	c := start(t)
	c.follows(3)
	for _, fault := range []dosim.Fault{
		{Method: "POST", Path: "/v2/droplets", Kind: "reset", When: "after", Count: 1},
		{Method: "POST", Path: "/v2/droplets", Kind: "reset", When: "before", Count: 1},
		{Method: "POST", Path: "/v2/droplets", Kind: "error", Status: 503, When: "after", Count: 1},
		{Method: "POST", Path: "/v2/droplets", Kind: "hang", When: "after", Count: 1},
	} {
		if _, err := c.admin().SetFault(t.Context(), fault); err != nil {
			t.Fatal(err)
		}
		before := len(c.droplets())
		out := c.ok(0, "create", "-n", "3")
		if got := len(created.FindAllString(out, -1)); got != 3 {
			t.Errorf("after a create with %s %s: %d successes\n%s", fault.Kind, fault.When, got, out)
		}
		c.follows(before + 3)
	}
}

// TestMendedTemplate: a pool whose template DigitalOcean refuses says so, and a
// mended template is tried at once, whatever hold the refusals had come to.
func TestMendedTemplate(t *testing.T) {
	c := start(t, "--nodes", "1", "--desired", "1")
	apply := func(key string) {
		t.Helper()
		file := filepath.Join(c.dir, "pool.yml")
		text := "name: web\nhostname_prefix: web\nmax: 20\ntemplate: {region: nyc3, size: s-1vcpu-1gb, image: debian-12-x64, ssh_keys: [" + key + "]}\n" +
			"backend: {port: 8080, health_path: /health, check_interval: 1s}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.ok(0, "apply", "-f", file)
	}
	apply("163420") // there is no such key
	c.ok(0, "scale", "web=3")
	eventually(t, "DigitalOcean's words are shown", func() error {
		if out := c.ok(0, "status"); !strings.Contains(out, "163420 are invalid key identifiers") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	apply("")
	c.follows(3)
}
