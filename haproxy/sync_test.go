package haproxy_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doproxy/doproxy/haproxy"
)

func TestServersComeAndGoUnderLoadWithoutAReload(t *testing.T) {
	r := newRig(t)
	a, b := newApp(t, "www-1"), newApp(t, "www-2")
	web := &r.cfg.Backends[0]
	web.Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	r.answers("www-1")
	first := r.sync.Status()

	stop := r.load(8)
	for range 3 {
		web.Servers = []haproxy.Server{a.server(100), b.server(0)} // boots
		r.apply()
		r.eventually("www-2 healthy", func() error {
			if h := r.sync.Sample().Servers["web/www-2"]; !h.Up || !h.Checked {
				return fmt.Errorf("%+v", h)
			}
			return nil
		})
		if n := b.served.Load(); n != 0 {
			t.Fatalf("a booting server got %d requests", n)
		}
		web.Servers[1].Weight = 100 // serves
		r.apply()
		r.eventually("www-2 serves", func() error {
			if b.served.Load() == 0 {
				return fmt.Errorf("no request yet")
			}
			return nil
		})
		web.Servers[1].Weight = 0 // drains
		r.apply()
		rev := r.rev
		r.eventually("www-2 drained", func() error {
			s := r.sync.Sample()
			if h := s.Servers["web/www-2"]; s.Revision < rev || h.Sessions != 0 || h.Weight != 0 {
				return fmt.Errorf("revision %d: %+v", s.Revision, h)
			}
			return nil
		})
		before := b.served.Load()
		web.Servers = web.Servers[:1] // goes
		r.apply()
		r.shows("www-1=100")
		if n := b.served.Load() - before; n != 0 {
			t.Fatalf("a drained server got %d requests", n)
		}
		b.served.Store(0)
	}
	sent, failed := stop()
	if len(failed) > 0 {
		t.Fatalf("%d of %d requests failed, first: %v", len(failed), sent, failed[0])
	}
	if sent < 200 {
		t.Fatalf("only %d requests were sent", sent)
	}
	last := r.sync.Status()
	if last.Reloads != 0 || last.PID != first.PID || last.Repairs != 0 {
		t.Fatalf("reloaded or repaired: %+v, before %+v", last, first)
	}
	r.fileShows("www-1=100")
}

func TestReloadWhenMoreThanServersChanges(t *testing.T) {
	r := newRig(t)
	a, b := newApp(t, "www-1"), newApp(t, "www-2")
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	r.answers("www-1")
	pid := r.sync.Status().PID
	stop := r.load(4)

	r.cfg.Backends = append(r.cfg.Backends, haproxy.Backend{
		Name: "api", Paths: []string{"/api"}, HealthCheckPath: "/", CheckInter: 100 * time.Millisecond,
		Servers: []haproxy.Server{b.server(100)},
	})
	r.apply()
	sent, failed := stop()
	if len(failed) > 0 {
		t.Fatalf("%d of %d requests failed, first: %v", len(failed), sent, failed[0])
	}
	s := r.sync.Status()
	if s.Reloads != 1 || s.PID == pid || s.State != haproxy.Running {
		t.Fatalf("status after the reload: %+v", s)
	}
	for path, want := range map[string]string{"/api": "www-2", "/api/x": "www-2", "/apix": "www-1", "/": "www-1"} {
		if got, err := r.get(path); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
	// Empty again: the other pool is not disturbed.
	r.cfg.Backends[1].Servers = nil
	r.apply()
	if got, err := r.get("/"); err != nil || got != "www-1" {
		t.Errorf("/: %q, %v", got, err)
	}
	if _, err := r.get("/api"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("/api of an empty pool: %v, want 503", err)
	}
	if n := r.sync.Status().Reloads; n != 1 {
		t.Errorf("%d reloads, want 1", n)
	}
}

func TestForcedReloadKeepsTheState(t *testing.T) {
	r := newRig(t)
	a, b := newApp(t, "www-1"), newApp(t, "www-2")
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(37), b.server(0)}
	r.apply()
	if err := r.sync.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	s := r.sync.Status()
	if s.Reloads != 1 || s.Repairs != 0 {
		t.Fatalf("%+v", s)
	}
	states, err := r.servers()
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(states); got != "www-1=37 www-2=0" {
		t.Fatalf("after the reload haproxy has %q", got)
	}
}

func TestBadTemplateIsRolledBack(t *testing.T) {
	r := newRig(t)
	text := haproxy.DefaultTemplate()
	file := filepath.Join(r.dir, "haproxy.cfg.tmpl")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	r.options.Template = haproxy.TemplateFile(file)
	a, b := newApp(t, "www-1"), newApp(t, "www-2")
	web := &r.cfg.Backends[0]
	web.Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	r.answers("www-1")
	pid := r.sync.Status().PID
	good, err := os.ReadFile(r.managed.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}

	for name, bad := range map[string]struct{ text, why string }{
		"haproxy refuses it":        {text + "\nfrontend broken\n    nonsense keyword\n", "unknown keyword 'nonsense'"},
		"it cannot be parsed":       {text + "{{ .Nope", "unclosed action"},
		"it cannot be rendered":     {text + "{{ .Nope }}", "Nope"},
		"it leaves out the servers": {strings.ReplaceAll(text, "{{ .ServerLines }}", "    server a 127.0.0.1:1"), "leaves out server www-1"},
		"it leaves out the backend": {strings.ReplaceAll(text, "backend {{ .Name }}", "backend other"), "leaves out the backend"},
	} {
		write(bad.text)
		if err := r.sync.Reload(context.Background()); err == nil {
			t.Fatalf("%s: a reload with it went well", name)
		}
		// The one before left it failed too: its own reason says that it is this one.
		s := r.wait(name, func(s haproxy.Status) bool {
			return s.State == haproxy.Failed && strings.Contains(s.Error, bad.why)
		})
		if s.PID != pid {
			t.Fatalf("%s: %+v", name, s)
		}
		if now, _ := os.ReadFile(r.managed.ConfigFile); string(now) != string(good) {
			t.Fatalf("%s: the file is not what haproxy runs", name)
		}
	}
	// Servers come and go all the same.
	web.Servers = []haproxy.Server{a.server(100), b.server(100)}
	r.apply()
	r.shows("www-1=100 www-2=100")
	r.fileShows("www-1=100 www-2=100")
	if s := r.sync.Status(); s.State != haproxy.Failed || s.PID != pid || s.Reloads != 0 {
		t.Fatalf("%+v", s)
	}
	write(text + "\n# mended\n")
	r.wait("recovery", func(s haproxy.Status) bool { return s.State == haproxy.Running && s.Error == "" })
	if now, _ := os.ReadFile(r.managed.ConfigFile); !strings.Contains(string(now), "# mended") {
		t.Fatal("the mended template is not in the file")
	}
}

// What haproxy -c does not see is found by the reload itself.
func TestFailedReloadIsRolledBack(t *testing.T) {
	r := newRig(t)
	a, b := newApp(t, "www-1"), newApp(t, "www-2")
	web := &r.cfg.Backends[0]
	web.Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	r.answers("www-1")
	pid := r.sync.Status().PID
	good, _ := os.ReadFile(r.managed.ConfigFile)

	binds := r.cfg.Binds
	r.cfg.Binds = append(binds[:1:1], haproxy.Bind{Address: a.addr.String()}) // taken, by another program
	r.push()
	s := r.wait("the failure", func(s haproxy.Status) bool { return s.State == haproxy.Failed })
	if s.Applied == r.rev || s.PID != pid || s.Error == "" {
		t.Fatalf("%+v", s)
	}
	if now, _ := os.ReadFile(r.managed.ConfigFile); string(now) != string(good) {
		t.Fatalf("the file is not what haproxy runs:\n%s", now)
	}
	r.answers("www-1")
	// A drain is honoured although the rest cannot be had.
	web.Servers = []haproxy.Server{a.server(0), b.server(100)}
	r.push()
	r.shows("www-1=0 www-2=100")
	r.answers("www-2")
	if s := r.sync.Status(); s.Applied == r.rev {
		t.Fatalf("claims to have applied it: %+v", s)
	}
	r.cfg.Binds = binds
	r.apply()
	r.wait("recovery", func(s haproxy.Status) bool { return s.State == haproxy.Running && s.Error == "" })
	r.fileShows("www-1=0 www-2=100")
}

func TestKilledHAProxyIsBroughtBack(t *testing.T) {
	for _, victim := range []string{"worker", "master"} {
		t.Run(victim, func(t *testing.T) {
			r := newRig(t)
			a, b := newApp(t, "www-1"), newApp(t, "www-2")
			web := &r.cfg.Backends[0]
			web.Servers = []haproxy.Server{a.server(100)}
			r.start()
			r.apply()
			web.Servers = []haproxy.Server{a.server(50), b.server(0)}
			r.apply()
			s := r.sync.Status()
			pid := s.PID
			if victim == "master" {
				pid = s.MasterPID
			}
			killed := time.Now()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r.wait("a new worker", func(now haproxy.Status) bool { return now.PID != s.PID && now.State == haproxy.Running })
			r.answers("www-1")
			t.Logf("back after %v", time.Since(killed))
			r.shows("www-1=50 www-2=0")
		})
	}
}

func TestDriftIsRepaired(t *testing.T) {
	r := newRig(t)
	a, b := newApp(t, "www-1"), newApp(t, "www-2")
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(100), b.server(100)}
	r.start()
	r.apply()
	const want = "www-1=100 www-2=100"
	r.shows(want)
	r.command("set server web/www-1 weight 3")
	r.shows(want)
	r.command("set server web/www-1 state drain", "disable health web/www-2")
	r.shows(want)
	r.command("set server web/www-2 state maint", "del server web/www-2")
	r.shows(want)
	r.command("add server web/foreign 127.0.0.1:9 weight 1", "enable server web/foreign")
	r.shows(want)
	r.command("set server web/www-2 addr 127.0.0.9 port 9")
	r.shows(want)
	r.eventually("the address", func() error {
		states, err := r.servers()
		if err == nil && (len(states) != 2 || states[1].Port != b.addr.Port()) {
			err = fmt.Errorf("%+v", states)
		}
		return err
	})
	r.fileShows(want)
	good, err := os.ReadFile(r.managed.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.managed.ConfigFile, []byte("edited\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.eventually("the file", func() error {
		if now, _ := os.ReadFile(r.managed.ConfigFile); string(now) != string(good) {
			return fmt.Errorf("still %.200q", now)
		}
		return nil
	})
	if s := r.sync.Status(); s.Reloads != 0 || s.Repairs < 6 {
		t.Fatalf("%+v", s)
	}
	// Asked for, an audit tells what it found. One that was due anyway may have
	// come first.
	r.eventually("drift", func() error {
		r.command("set server web/www-1 weight 7")
		drift, err := r.sync.Audit(t.Context())
		if err == nil && (len(drift) != 1 || drift[0].Subject != "web/www-1") {
			err = fmt.Errorf("%+v", drift)
		}
		return err
	})
	r.shows(want)
}

func TestReloadByAnotherHandIsNoticed(t *testing.T) {
	r := newRig(t)
	r.options.StatsInterval = 50 * time.Millisecond
	a := newApp(t, "www-1")
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	pid := r.sync.Status().PID
	if err := haproxy.NewMaster(r.managed.MasterSocket).Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.wait("the new worker", func(s haproxy.Status) bool { return s.PID != pid && s.Connected })
	r.cfg.Backends[0].Servers[0].Weight = 5
	r.apply()
	r.shows("www-1=5")
}

func TestAgentRestartAdopts(t *testing.T) {
	r := newRig(t)
	a, b := newApp(t, "www-1"), newApp(t, "www-2")
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	before := r.sync.Status()
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(100), b.server(0)}
	r.apply()
	r.stop() // flushes
	r.fileShows("www-1=100 www-2=0")
	r.start()
	r.wait("adoption", func(s haproxy.Status) bool { return s.Connected })
	r.cfg.Backends[0].Servers[1].Weight = 7
	r.apply()
	r.shows("www-1=100 www-2=7")
	s := r.sync.Status()
	if s.PID != before.PID || s.MasterPID != before.MasterPID || s.Reloads != 0 || s.Starts != 0 {
		t.Fatalf("not the same haproxy, untouched: %+v, before %+v", s, before)
	}

	// A reload that was broken off is made good.
	r.stop()
	if err := os.WriteFile(r.managed.ConfigFile+".unconfirmed", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.apply()
	if s := r.wait("a reload", func(s haproxy.Status) bool { return s.Reloads == 1 }); s.MasterPID != before.MasterPID {
		t.Fatalf("%+v", s)
	}
}

func TestStartsFromTheLastFileWithoutAnInventory(t *testing.T) {
	r := newRig(t)
	a := newApp(t, "www-1")
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(100)}
	content, err := haproxy.Render(nil, r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.managed.ConfigFile, content, 0o644); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.answers("www-1")
	r.apply()
	if s := r.sync.Status(); s.Reloads != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestExternalHAProxy(t *testing.T) {
	r := newRig(t)
	a := newApp(t, "www-1")
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(100)}
	r.startWith(haproxy.NewExternal(r.managed.MasterSocket))
	r.push()
	r.wait("failure", func(s haproxy.Status) bool { return s.State == haproxy.Failed })
	r.fileShows("www-1=100") // what its supervisor will start it with
	m, err := haproxy.NewManaged(r.managed)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.wait("applied", func(s haproxy.Status) bool { return s.Applied == r.rev && s.State == haproxy.Running })
	r.cfg.Backends[0].CheckFall = 7
	r.apply()
	if s := r.sync.Status(); s.Reloads != 1 {
		t.Fatalf("%+v", s)
	}
	if err := m.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.wait("the loss", func(s haproxy.Status) bool { return s.State == haproxy.Failed && !s.Connected })
	if err := m.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.wait("the return", func(s haproxy.Status) bool { return s.State == haproxy.Running && s.Connected })
}

// An agent that first hears of a server when it already serves holds it at
// weight 0 until its check has ended.
func TestServingServerIsHeldUntilItsFirstCheck(t *testing.T) {
	r := newRig(t)
	a, b := newApp(t, "www-1"), newApp(t, "www-2")
	web := &r.cfg.Backends[0]
	web.CheckInter = time.Second
	web.Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	b.close()
	stop := r.load(4)
	web.Servers = []haproxy.Server{a.server(100), b.server(100)}
	r.apply()
	r.eventually("www-2 is seen to be down", func() error {
		s := r.sync.Sample().Servers["web/www-2"]
		if !strings.HasPrefix(s.Status, "DOWN") {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	r.shows("www-1=100 www-2=100")
	if sent, failed := stop(); len(failed) > 0 {
		t.Fatalf("%d of %d requests failed, first: %v", len(failed), sent, failed[0])
	}
	r.wait("the end of the hold", func(s haproxy.Status) bool { return s.Held == 0 })
}

// A server taken away while it answers finishes its answer, does not hold up
// other changes, and is cut at the deadline.
func TestRemovedServerMayFinish(t *testing.T) {
	for name, deadline := range map[string]time.Duration{"finishes": 20 * time.Second, "is cut": 300 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.options.RemoveDeadline = deadline
			a, b := newApp(t, "www-1"), newApp(t, "www-2")
			b.slow.Store(int64(2 * time.Second))
			web := &r.cfg.Backends[0]
			web.Servers = []haproxy.Server{b.server(100)}
			r.start()
			r.apply()
			result := make(chan error, 1)
			go func() { _, err := r.get("/slow"); result <- err }()
			r.eventually("the request is under way", func() error {
				if b.served.Load() == 0 {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			web.Servers = []haproxy.Server{a.server(100)}
			r.apply()
			r.answers("www-1")
			select {
			case err := <-result:
				if deadline > time.Second {
					t.Fatalf("the answer came before it was due: %v", err)
				}
			default:
			}
			err := <-result
			if cut := deadline < time.Second; (err != nil) != cut {
				t.Fatalf("the running request: %v", err)
			}
			r.shows("www-1=100")
		})
	}
}

// What is on disk gives the state that HAProxy has.
func TestFileEqualsRunningState(t *testing.T) {
	r := newRig(t)
	apps := []*app{newApp(t, "www-1"), newApp(t, "www-2"), newApp(t, "www-3")}
	web := &r.cfg.Backends[0]
	r.start()
	for step := range 12 {
		web.Servers = nil
		for i, a := range apps {
			if step&(1<<i) != 0 {
				web.Servers = append(web.Servers, a.server(uint16(step*i)))
			}
		}
		r.apply()
	}
	r.wait("no holds", func(s haproxy.Status) bool { return s.Held == 0 })
	states, err := r.servers()
	if err != nil {
		t.Fatal(err)
	}
	r.fileShows(describe(states))
	if err := haproxy.CheckFile(context.Background(), r.binary, r.managed.ConfigFile); err != nil {
		t.Fatal(err)
	}
	if err := haproxy.NewMaster(r.managed.MasterSocket).Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.shows(describe(states))
}

func TestInvalidConfigIsRefusedWhole(t *testing.T) {
	r := newRig(t)
	a := newApp(t, "www-1")
	web := &r.cfg.Backends[0]
	web.Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	evil := a.server(100)
	evil.Name = "www-2\nset server web/www-1 weight 0"
	web.Servers = []haproxy.Server{a.server(100), evil}
	r.push()
	s := r.wait("the refusal", func(s haproxy.Status) bool { return s.State == haproxy.Failed })
	if s.Applied == r.rev || s.Wanted != r.rev || !strings.Contains(s.Error, `backends["web"].servers`) {
		t.Fatalf("%+v", s)
	}
	r.shows("www-1=100")
	web.Servers = []haproxy.Server{a.server(90)}
	r.apply()
	r.wait("recovery", func(s haproxy.Status) bool { return s.State == haproxy.Running && s.Error == "" })
	r.shows("www-1=90")
}

func TestMovedServerIsReplacedWithoutAReload(t *testing.T) {
	r := newRig(t)
	a, b := newApp(t, "www-1"), newApp(t, "www-2")
	web := &r.cfg.Backends[0]
	web.Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	r.answers("www-1")
	web.Servers[0].Port = b.addr.Port()
	r.apply()
	r.answers("www-2")
	r.shows("www-1=100")
	r.fileShows("www-1=100")
	if s := r.sync.Status(); s.Reloads != 0 || s.Repairs != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestCallsAfterTheEndReturn(t *testing.T) {
	r := newRig(t)
	r.start()
	if err := r.sync.Reload(context.Background()); err == nil {
		t.Error("reloaded nothing")
	}
	r.stop()
	if err := r.sync.Reload(context.Background()); err == nil {
		t.Error("reloaded after the end")
	}
	if _, err := r.sync.Stats(context.Background()); err == nil {
		t.Error("a sample after the end")
	}
}

// A file that cannot be written is told of: a restart would bring back what was.
func TestUnwritableFileIsTold(t *testing.T) {
	r := newRig(t)
	a, b := newApp(t, "www-1"), newApp(t, "www-2")
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(100)}
	r.start()
	r.apply()
	r.answers("www-1")
	r.fileShows("www-1=100")
	// A directory in its place: that stops root too.
	if err := os.Rename(r.managed.ConfigFile, r.managed.ConfigFile+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.managed.ConfigFile, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.cfg.Backends[0].Servers = []haproxy.Server{a.server(100), b.server(100)}
	r.apply()
	r.wait("the error is shown", func(s haproxy.Status) bool { return strings.Contains(s.Error, "haproxy.cfg") })
	if err := os.RemoveAll(r.managed.ConfigFile); err != nil {
		t.Fatal(err)
	}
	r.wait("the error is gone", func(s haproxy.Status) bool { return s.Error == "" })
	r.fileShows("www-1=100 www-2=100")
}
