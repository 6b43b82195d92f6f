package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

// Cluster is what DIR/dev.json tells of a running cluster.
type Cluster struct {
	DigitalOcean struct {
		URL   string `json:"url"`
		Token string `json:"token"`
	} `json:"digitalocean"`
	Store string   `json:"store"` // raft or etcd
	Etcd  []string `json:"etcd"`
	Nodes []Node   `json:"nodes"`
	// Entry are the URLs of the reserved IPs, Name is the name in DNS.
	Entry []string `json:"entry"`
	Name  string   `json:"name"`
	// PID is the supervisor's.
	PID int `json:"pid"`

	dir string
}

// Node is one load balancer of the cluster.
type Node struct {
	Name          string `json:"name"`
	PID           int    `json:"pid"`  // the agent's
	GRPC          string `json:"grpc"` // host:port
	HTTP          string `json:"http"` // URL at which HAProxy serves
	HAProxyPID    int    `json:"haproxy_pid"`
	RuntimeSocket string `json:"runtime_socket"`
	ConfigFile    string `json:"config_file"`  // HAProxy's
	AgentConfig   string `json:"agent_config"` // doproxy.yml
	Socket        string `json:"socket"`       // the agent's, for --server
	Health        string `json:"health"`       // URL of the agent's own /healthz and /metrics
}

func manifestPath(dir string) string { return filepath.Join(dir, "dev.json") }

func (c *Cluster) write() error {
	c.PID = os.Getpid()
	for i := range c.Nodes {
		c.Nodes[i].HAProxyPID = c.Nodes[i].haproxyPID()
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(manifestPath(c.dir), append(data, '\n'), 0o600)
}

// follow keeps dev.json true while HAProxies come and go, until ctx ends.
func (c *Cluster) follow(ctx context.Context) error {
	for tick := time.Tick(200 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
		}
		for i := range c.Nodes {
			if pid := c.Nodes[i].haproxyPID(); pid != 0 && pid != c.Nodes[i].HAProxyPID {
				if err := c.write(); err != nil {
					return err
				}
				break
			}
		}
	}
}

func (n *Node) haproxyPID() int {
	return readPID(filepath.Join(filepath.Dir(n.ConfigFile), "haproxy.pid"))
}

// Read reads the dev.json of a running cluster.
func Read(dir string) (*Cluster, error) {
	data, err := os.ReadFile(manifestPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no cluster runs in %s: there is no dev.json", dir)
	}
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s: %w", manifestPath(dir), err)
	}
	return c, nil
}

// Stop ends the cluster in dir. If its supervisor is gone, Stop ends what that
// left behind.
func Stop(dir string, out io.Writer) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	c, err := Read(dir)
	if err == nil && runs(c.PID, "dev") && locked(dir) {
		_ = syscall.Kill(c.PID, syscall.SIGTERM)
		for deadline := time.Now().Add(2 * time.Minute); locked(dir); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("the supervisor (pid %d) did not end within 2 minutes", c.PID)
			}
		}
		fmt.Fprintln(out, "stopped")
		return nil
	}
	left, stopErr := stopLeftovers(dir)
	if left == 0 && err != nil {
		return err
	}
	fmt.Fprintf(out, "stopped %d processes that a killed supervisor had left\n", left)
	return errors.Join(stopErr, os.RemoveAll(readyPath(dir)), os.RemoveAll(manifestPath(dir)))
}

// stopLeftovers ends the cluster's processes that have no supervisor any more:
// those of its programs whose command line names a file in dir. Agents go first,
// since they would start HAProxy again.
func stopLeftovers(dir string) (stopped int, err error) {
	var errs []error
	for _, part := range []struct{ program, does string }{{"doproxy", "agent"}, {"haproxy", "-W"}, {"etcd", ""}, {"dosim", ""}} {
		procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return stopped, err
		}
		for _, file := range procs {
			exe, err := os.Readlink(filepath.Join(filepath.Dir(file), "exe"))
			if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != part.program {
				continue
			}
			cmdline, err := os.ReadFile(file)
			if err != nil || part.does != "" && !slices.Contains(strings.Split(string(cmdline), "\x00"), part.does) {
				continue
			}
			if pid := readPIDName(file); runs(pid, dir+"/") {
				stopped++
				errs = append(errs, stopPID(pid, dir+"/"))
			}
		}
	}
	return stopped, errors.Join(errs...)
}

func readPIDName(cmdline string) (pid int) {
	_, _ = fmt.Sscanf(filepath.Base(filepath.Dir(cmdline)), "%d", &pid)
	return pid
}

// lock makes the state directory this process's until it ends.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("a cluster runs in %s already: end it with `doproxy dev --stop --state-dir %s`, or name another --state-dir", dir, dir)
	}
	return func() { f.Close() }, nil
}

func locked(dir string) bool {
	unlock, err := lock(dir)
	if err == nil {
		unlock()
	}
	return err != nil
}
