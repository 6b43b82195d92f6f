package inventorytest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Etcd is a cluster of real etcd processes on loopback ports, which ends with
// the test that started it.
type Etcd struct {
	// Endpoints are the URLs of the members' client ports.
	Endpoints []string
	Members   []*Member
}

// Member is one etcd process.
type Member struct {
	Name      string
	ClientURL string
	DataDir   string

	args   []string
	binary string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	log    *tail
}

// StartEtcd starts a cluster and waits until each member is healthy. The binary
// is $DOPROXY_ETCD, or bin/etcd at the top of the module; without one the test
// is skipped. Further arguments go to every member.
func StartEtcd(t testing.TB, members int, args ...string) *Etcd {
	t.Helper()
	binary := etcdBinary()
	if binary == "" {
		t.Skip("no etcd: neither DOPROXY_ETCD nor bin/etcd of the module is a file (make build builds it)")
	}
	// A port found free may be taken before etcd has it, so try again.
	var err error
	for range 3 {
		e := newEtcd(t, binary, members, args)
		if err = e.start(); err == nil {
			t.Cleanup(e.kill)
			return e
		}
		e.kill()
	}
	t.Fatalf("etcd did not start: %v", err)
	return nil
}

func etcdBinary() string {
	if path := os.Getenv("DOPROXY_ETCD"); path != "" {
		if isFile(path) {
			return path
		}
		return ""
	}
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if isFile(filepath.Join(dir, "go.mod")) {
			if path := filepath.Join(dir, "bin", "etcd"); isFile(path) {
				return path
			}
			return ""
		}
	}
	return ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func newEtcd(t testing.TB, binary string, members int, args []string) *Etcd {
	ports := freePorts(t, 2*members)
	e := &Etcd{}
	token := filepath.Base(t.TempDir())
	var cluster []string
	for i := range members {
		cluster = append(cluster, fmt.Sprintf("m%d=http://127.0.0.1:%d", i, ports[2*i+1]))
	}
	for i := range members {
		m := &Member{
			Name:      fmt.Sprintf("m%d", i),
			ClientURL: fmt.Sprintf("http://127.0.0.1:%d", ports[2*i]),
			DataDir:   t.TempDir(),
			binary:    binary,
		}
		peer := fmt.Sprintf("http://127.0.0.1:%d", ports[2*i+1])
		m.args = append([]string{
			"--name", m.Name, "--data-dir", m.DataDir, "--log-level", "warn",
			"--listen-client-urls", m.ClientURL, "--advertise-client-urls", m.ClientURL,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-token", token,
			"--unsafe-no-fsync", // a killed process loses nothing that it wrote
		}, args...)
		e.Members = append(e.Members, m)
		e.Endpoints = append(e.Endpoints, m.ClientURL)
	}
	return e
}

func freePorts(t testing.TB, n int) []int {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (e *Etcd) start() error {
	for _, m := range e.Members {
		if err := m.launch(); err != nil {
			return err
		}
	}
	for _, m := range e.Members {
		if err := m.waitHealthy(60 * time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (e *Etcd) kill() {
	for _, m := range e.Members {
		m.Kill()
	}
}

// Start starts a member that was killed, on the data that it had.
func (m *Member) Start(t testing.TB) {
	t.Helper()
	if err := m.launch(); err != nil {
		t.Fatal(err)
	}
}

// WaitHealthy waits until the member serves, which takes a quorum.
func (m *Member) WaitHealthy(t testing.TB) {
	t.Helper()
	if err := m.waitHealthy(60 * time.Second); err != nil {
		t.Fatal(err)
	}
}

// Kill ends the member at once (SIGKILL) and waits until it is gone.
func (m *Member) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		<-m.exited
		m.cmd = nil
	}
}

// Stop freezes the member (SIGSTOP): its connections stay open and silent.
func (m *Member) Stop() { m.signal(syscall.SIGSTOP) }

// Cont lets a frozen member run on.
func (m *Member) Cont() { m.signal(syscall.SIGCONT) }

// PID of the process, zero when it does not run.
func (m *Member) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return 0
	}
	return m.cmd.Process.Pid
}

func (m *Member) signal(s os.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(s)
	}
}

func (m *Member) launch() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		return fmt.Errorf("etcd member %s runs already", m.Name)
	}
	log := &tail{}
	cmd := exec.Command(m.binary, m.args...)
	cmd.Stdout, cmd.Stderr = log, log
	// Also ends with a test binary that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	m.cmd, m.exited, m.log = cmd, exited, log
	return nil
}

func (m *Member) waitHealthy(within time.Duration) error {
	m.mu.Lock()
	exited, log := m.exited, m.log
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.ClientURL+"/health", nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-exited:
			return fmt.Errorf("etcd member %s ended:\n%s", m.Name, log)
		case <-ctx.Done():
			return fmt.Errorf("etcd member %s is not healthy after %s:\n%s", m.Name, within, log)
		}
	}
}

// tail keeps the last of a log.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if over := w.buf.Len() - 8<<10; over > 0 {
		w.buf.Next(over)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}
