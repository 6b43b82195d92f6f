// Package e2e runs the built programs as an operator would: the cluster that
// `doproxy dev` makes, of separate processes with real etcd and real HAProxy,
// against a simulated DigitalOcean. DOPROXY_BIN is where the programs are.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a condition may take on a busy machine. Nothing is
// concluded from how long it took.
const patience = 90 * time.Second

type cluster struct {
	t   testing.TB
	dir string
	manifest
}

type manifest struct {
	DigitalOcean struct{ URL, Token string }
	Etcd         []string
	Nodes        []node
	Entry        []string // URLs of the reserved IPs
	Name         string   // in DNS
	PID          int
}

type node struct {
	Name          string
	PID           int
	GRPC          string
	HTTP          string
	HAProxyPID    int    `json:"haproxy_pid"`
	RuntimeSocket string `json:"runtime_socket"`
	ConfigFile    string `json:"config_file"`
	AgentConfig   string `json:"agent_config"`
	Socket        string
	Health        string

	dial func(ctx context.Context, network, address string) (net.Conn, error) // nil: as usual
}

func program(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("DOPROXY_BIN")
	if dir == "" {
		dir = "../../../bin"
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: run `make build` first (`make test` does)", err)
	}
	return path
}

// start brings up a cluster with no boot delays and ends it with the test.
func start(t testing.TB, args ...string) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "dp") // short, for the Unix sockets
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir}
	args = append([]string{
		"dev", "--detach", "--state-dir", dir,
		"--boot-delay", "100ms", "--app-delay", "50ms", "--delete-delay", "100ms", "--list-lag", "50ms",
		"--sim-arg=--rate-limit-minute=0", // the tests ask often
	}, args...)
	t.Cleanup(func() {
		if t.Failed() {
			c.dump()
		}
		if out, err := exec.Command(program(t, "doproxy"), "dev", "--stop", "--state-dir", dir).CombinedOutput(); err != nil && c.PID != 0 {
			t.Errorf("dev --stop: %v\n%s", err, out)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command(program(t, "doproxy"), args...).CombinedOutput(); err != nil {
		t.Fatalf("dev --detach: %v\n%s", err, out)
	}
	c.reread()
	return c
}

func (c *cluster) reread() {
	c.t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dir, "dev.json"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.manifest = manifest{}
	if err := json.Unmarshal(data, &c.manifest); err != nil {
		c.t.Fatalf("dev.json: %v\n%s", err, data)
	}
}

// dump shows the ends of the logs of a test that failed.
func (c *cluster) dump() {
	logs, _ := filepath.Glob(filepath.Join(c.dir, "*", "log"))
	for _, file := range append(logs, filepath.Join(c.dir, "log")) {
		data, _ := os.ReadFile(file)
		const most = 6000
		if len(data) > most {
			data = data[len(data)-most:]
		}
		c.t.Logf("---- %s\n%s", file, data)
	}
}

// result is how a program ended.
type result struct {
	stdout, stderr string
	code           int
}

// run runs doproxy against the node with this index.
func (c *cluster) run(i int, args ...string) result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	return c.exec(ctx, program(c.t, "doproxy"), append([]string{"--server", c.Nodes[i].GRPC}, args...)...)
}

func (c *cluster) exec(ctx context.Context, name string, args ...string) result {
	c.t.Helper()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(c.dir, "xdg"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok is run for what must succeed; it returns what was printed.
func (c *cluster) ok(i int, args ...string) string {
	c.t.Helper()
	r := c.run(i, args...)
	if r.code != 0 {
		c.t.Fatalf("doproxy %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// eventually waits until check returns nil.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func kill(t testing.TB, pid int, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatalf("kill -%d %d: %v", signal, pid, err)
	}
}

// status is what `doproxy status -o json` tells, as far as the tests ask.
type status struct {
	Leader string
	Node   string
	Nodes  []struct {
		Name    string
		HAProxy string `json:"haproxy"`
		Reloads int
		Error   string
	}
	Pools []struct {
		Name                                string
		Desired, Serving, Starting, Leaving int
		Reason                              string
	}
	StoreError string `json:"store_error"`
}

func (c *cluster) status(i int) (s status, err error) {
	r := c.run(i, "status", "-o", "json")
	if r.code != 0 {
		return s, fmt.Errorf("status: exit code %d: %s", r.code, r.stderr)
	}
	return s, json.Unmarshal([]byte(r.stdout), &s)
}
