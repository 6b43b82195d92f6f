package haproxy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doproxy/doproxy/haproxy"
)

// needHAProxy returns the program and skips without it.
func needHAProxy(t testing.TB) string {
	t.Helper()
	binary := haproxy.FindBinary()
	if !filepath.IsAbs(binary) {
		t.Skip("haproxy is not installed (apt-get install haproxy)")
	}
	return binary
}

// rig is one HAProxy in a directory of its own, with the Sync that keeps it.
type rig struct {
	t       testing.TB
	dir     string
	binary  string
	options haproxy.Options
	managed haproxy.ManagedOptions
	sync    *haproxy.Sync
	front   string // address of the frontend
	stop    func() // ends the agent, not HAProxy
	cfg     haproxy.Config
	rev     int64
}

// newRig makes a directory and picks addresses. Nothing runs yet. HAProxy is
// ended after the test.
func newRig(t testing.TB) *rig {
	t.Helper()
	binary := needHAProxy(t)
	dir, err := os.MkdirTemp("/tmp", "dpx")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, binary: binary, front: freeAddr(t)}
	r.managed = haproxy.ManagedOptions{
		Binary:       binary,
		ConfigFile:   filepath.Join(dir, "haproxy.cfg"),
		MasterSocket: filepath.Join(dir, "master.sock"),
		PIDFile:      filepath.Join(dir, "haproxy.pid"),
		LogFile:      filepath.Join(dir, "haproxy.log"),
		Logger:       testLogger(t),
	}
	r.options = haproxy.Options{
		Binary: binary, ConfigFile: r.managed.ConfigFile, Logger: testLogger(t),
		AuditInterval: 200 * time.Millisecond, RetryMin: 50 * time.Millisecond,
	}
	r.cfg = haproxy.Config{
		Global: haproxy.Global{AdminSocket: filepath.Join(dir, "admin.sock"), HardStopAfter: 5 * time.Second},
		Binds:  []haproxy.Bind{{Address: r.front}},
		Backends: []haproxy.Backend{{
			Name: "web", HealthCheckPath: "/", CheckInter: 100 * time.Millisecond, CheckFall: 2, CheckRise: 1,
		}},
	}
	t.Cleanup(func() {
		if r.stop != nil {
			r.stop()
		}
		p, err := haproxy.NewManaged(r.managed)
		if err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := p.Stop(ctx); err != nil {
				t.Errorf("stop haproxy: %v", err)
			}
			p.Close()
		}
		if t.Failed() {
			log, _ := os.ReadFile(r.managed.LogFile)
			cfg, _ := os.ReadFile(r.managed.ConfigFile)
			t.Logf("haproxy.log:\n%s\nhaproxy.cfg:\n%s", log, cfg)
		}
		_ = os.RemoveAll(dir)
	})
	return r
}

func testLogger(t testing.TB) *slog.Logger {
	if os.Getenv("DOPROXY_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// start begins the agent's part.
func (r *rig) start() {
	r.t.Helper()
	m, err := haproxy.NewManaged(r.managed)
	if err != nil {
		r.t.Fatal(err)
	}
	r.startWith(m)
}

func (r *rig) startWith(p haproxy.Process) {
	r.t.Helper()
	o := r.options
	o.Process, o.Runtime = p, haproxy.NewRuntime(r.cfg.Global.AdminSocket)
	s, err := haproxy.New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r.sync = s
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
}

// apply applies r.cfg as the next revision and waits until it has taken effect.
func (r *rig) apply() {
	r.t.Helper()
	r.push()
	rev := r.rev
	r.wait("applied", func(s haproxy.Status) bool { return s.Applied >= rev })
}

// push applies without waiting.
func (r *rig) push() {
	r.rev++
	cfg := r.cfg
	cfg.Backends = slices.Clone(cfg.Backends)
	for i := range cfg.Backends {
		cfg.Backends[i].Servers = slices.Clone(cfg.Backends[i].Servers)
	}
	r.sync.Apply(cfg, r.rev)
}

func (r *rig) wait(what string, ok func(haproxy.Status) bool) haproxy.Status {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := r.sync.Wait(ctx, ok)
	if err != nil {
		r.t.Fatalf("waiting for %s: %v: %+v", what, err, s)
	}
	return s
}

// eventually polls until ok says nil.
func (r *rig) eventually(what string, ok func() error) {
	r.t.Helper()
	eventually(r.t, what, ok)
}

func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// command sends a command to HAProxy as an operator would, on a connection of
// its own.
func (r *rig) command(commands ...string) []string {
	r.t.Helper()
	rt := haproxy.NewRuntime(r.cfg.Global.AdminSocket)
	defer rt.Close()
	answers, err := rt.Do(context.Background(), commands...)
	if err != nil {
		r.t.Fatal(err)
	}
	return answers
}

// servers asks HAProxy for the servers of web.
func (r *rig) servers() ([]haproxy.ServerState, error) {
	rt := haproxy.NewRuntime(r.cfg.Global.AdminSocket)
	defer rt.Close()
	states, err := rt.ServersState(context.Background())
	return states["web"], err
}

// shows waits until HAProxy has exactly these servers: "name=weight …".
func (r *rig) shows(want string) {
	r.t.Helper()
	r.eventually("servers "+want, func() error {
		states, err := r.servers()
		if err != nil {
			return err
		}
		if got := describe(states); got != want {
			return fmt.Errorf("haproxy has %q", got)
		}
		return nil
	})
}

func describe(states []haproxy.ServerState) string {
	var parts []string
	for _, s := range states {
		p := fmt.Sprintf("%s=%d", s.Name, s.Weight)
		if s.Admin != 0 {
			p += fmt.Sprintf(" (admin %#x)", s.Admin)
		}
		if !s.Checks {
			p += " (no checks)"
		}
		parts = append(parts, p)
	}
	return strings.Join(parts, " ")
}

// fileShows waits until the file on disk has exactly these servers.
func (r *rig) fileShows(want string) {
	r.t.Helper()
	r.eventually("file with "+want, func() error {
		text, err := os.ReadFile(r.managed.ConfigFile)
		if err != nil {
			return err
		}
		var parts []string
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 3 && f[0] == "server" {
				w := slices.Index(f, "weight")
				parts = append(parts, f[1]+"="+f[w+1])
			}
		}
		if got := strings.Join(parts, " "); got != want {
			return fmt.Errorf("the file has %q", got)
		}
		return nil
	})
}

// app is a droplet's application: it answers with its name.
type app struct {
	name   string
	addr   netip.AddrPort
	served atomic.Int64
	slow   atomic.Int64 // ns per request
	close  func()
}

func newApp(t testing.TB, name string) *app {
	t.Helper()
	a := &app{name: name}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.addr = l.Addr().(*net.TCPAddr).AddrPort()
	var running sync.WaitGroup
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		running.Add(1)
		defer running.Done()
		if req.Method != http.MethodGet || req.URL.Path != "/" {
			a.served.Add(1)
			time.Sleep(time.Duration(a.slow.Load()))
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(w, name)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	a.close = sync.OnceFunc(func() { _ = srv.Close(); <-done; running.Wait() })
	t.Cleanup(a.close)
	return a
}

func (a *app) server(weight uint16) haproxy.Server {
	return haproxy.Server{Name: a.name, Address: a.addr.Addr(), Port: a.addr.Port(), Weight: weight, ID: 1, Hostname: "host-" + a.name}
}

// client asks the frontend; a connection is made for each when fresh is set.
func newClient(fresh bool) *http.Client {
	return &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: fresh, MaxIdleConnsPerHost: 16},
	}
}

func (r *rig) get(path string) (string, error) {
	c := newClient(true)
	resp, err := c.Get("http://" + r.front + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", resp.StatusCode)
	}
	return string(body), nil
}

// answers waits until the frontend is answered by an app of that name.
func (r *rig) answers(name string) {
	r.t.Helper()
	r.eventually("an answer of "+name, func() error {
		got, err := r.get("/x")
		if err == nil && got != name {
			err = fmt.Errorf("answered by %s", got)
		}
		return err
	})
}

// load sends requests from several connections until stop is called, which
// returns how many were sent and those that failed.
func (r *rig) load(workers int) (stop func() (int64, []error)) {
	ctx, cancel := context.WithCancel(context.Background())
	var sent atomic.Int64
	var mu sync.Mutex
	var failed []error
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			c := newClient(i%2 == 0)
			defer c.CloseIdleConnections()
			for ctx.Err() == nil {
				// A POST: Go would silently send a GET again.
				resp, err := c.Post("http://"+r.front+"/load", "text/plain", strings.NewReader("x"))
				sent.Add(1)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					if err == nil && resp.StatusCode != http.StatusOK {
						err = fmt.Errorf("status %d", resp.StatusCode)
					}
				}
				if err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() (int64, []error) {
		cancel()
		wg.Wait()
		return sent.Load(), failed
	}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
