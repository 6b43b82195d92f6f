package raft

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// A member as a process of its own is this test binary again.
const memberEnv = "DOPROXY_TEST_MEMBER"

func TestMain(m *testing.M) {
	if options := os.Getenv(memberEnv); options != "" {
		if err := runMember(options); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type memberOptions struct {
	Dir, Name, Address, Socket string
	SnapshotEntries            uint64
}

func runMember(options string) error {
	var o memberOptions
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return err
	}
	logs := io.Discard
	if os.Getenv("DOPROXY_TEST_LOG") != "" {
		logs = os.Stderr
	}
	n, err := Open(Options{
		Dir: o.Dir, Name: o.Name, Address: o.Address, Plain: true, Version: "test",
		Logger:          slog.New(slog.NewTextHandler(logs, nil)).With("node", o.Name),
		snapshotEntries: o.SnapshotEntries, stabilize: 100 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	if err := rpc.RegisterName("Remote", &Remote{n}); err != nil {
		return err
	}
	l, err := net.Listen("unix", o.Socket)
	if err != nil {
		return err
	}
	rpc.Accept(l)
	return nil
}

// Remote is what a process's test asks of its member.
type Remote struct{ n *Node }

// None is nothing.
type None struct{}

func (r *Remote) Do(in Request, out *Outcome) (err error) {
	*out, err = do(r.n, in)
	return err
}

func (r *Remote) Form(token string, _ *None) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if token == "" {
		_, err = r.n.Init(ctx)
		return err
	}
	return r.n.Join(ctx, token, false, nil)
}

func (r *Remote) Token(_ None, token *string) (err error) {
	*token, _, err = r.n.Token(context.Background(), time.Hour)
	return err
}

func (r *Remote) Leads(_ None, leads *bool) error {
	m := r.n.member.Load()
	*leads = m != nil && m.leading.Load() != nil
	return nil
}

func (r *Remote) StepDown(_ None, _ *None) error { return r.n.StepDown(context.Background()) }

func (r *Remote) Healthy(_ None, voters *int) error {
	all, err := r.n.Members(context.Background())
	for _, m := range all.Members {
		if m.Voter && m.Healthy {
			*voters++
		}
	}
	return err
}

// process is a member of its own process.
type process struct {
	memberOptions
	t   testing.TB
	cmd *exec.Cmd

	mu     sync.Mutex
	client *rpc.Client
}

func newProcess(t testing.TB, i int, change ...func(*memberOptions)) *process {
	t.Helper()
	dir, err := os.MkdirTemp("", "dpr") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprint("lb", i+1)
	p := &process{t: t, memberOptions: memberOptions{
		Dir: filepath.Join(dir, name), Name: name, Address: freeAddress(t), Socket: filepath.Join(dir, "s"),
	}}
	for _, change := range change {
		change(&p.memberOptions)
	}
	t.Cleanup(func() {
		p.kill()
		os.RemoveAll(dir)
	})
	p.start()
	return p
}

// start returns when the member answers.
func (p *process) start() {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	options, err := json.Marshal(p.memberOptions)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), memberEnv+"="+string(options))
	p.cmd.Stdout, p.cmd.Stderr = os.Stdout, os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	_ = os.Remove(p.Socket)
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, p.Name+" answers", func() error {
		client, err := rpc.Dial("unix", p.Socket)
		if err == nil {
			p.mu.Lock()
			p.client = client
			p.mu.Unlock()
		}
		return err
	})
}

// kill ends it at once, SIGKILL.
func (p *process) kill() {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.cmd = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		p.client.Close()
	}
}

func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

func (p *process) call(method string, in, out any) error {
	p.mu.Lock()
	client := p.client
	p.mu.Unlock()
	return client.Call("Remote."+method, in, out)
}

func eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// processes is a store of some.
type processes []*process

func newProcesses(t testing.TB, change ...func(*memberOptions)) processes {
	t.Helper()
	var all processes
	for i := range 3 {
		all = append(all, newProcess(t, i, change...))
	}
	for i, p := range all {
		var token string
		if i > 0 {
			eventually(t, "a token", func() error { return all[0].call("Token", None{}, &token) })
		}
		if err := p.call("Form", token, &None{}); err != nil {
			t.Fatal(err)
		}
		all[:i+1].healthy(t, i+1)
	}
	return all
}

// healthy waits until so many vote and keep up.
func (all processes) healthy(t testing.TB, want int) {
	t.Helper()
	eventually(t, fmt.Sprint(want, " healthy voters"), func() error {
		got := 0
		if err := all[0].call("Healthy", None{}, &got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}

// leader is the first that says that it leads; -1 without.
func (all processes) leader() int {
	for i, p := range all {
		var leads bool
		if p.cmd != nil && p.call("Leads", None{}, &leads) == nil && leads {
			return i
		}
	}
	return -1
}

// TestKilled is TestHistories with processes of their own, which are killed
// or stopped for a while.
func TestKilled(t *testing.T) {
	pause := func(d time.Duration) { time.Sleep(d) }
	days := map[string]func(all processes, round int){
		"any member is killed": func(all processes, round int) {
			all[round%3].kill()
			pause(300 * time.Millisecond)
			all[round%3].start()
		},
		"two of three are killed": func(all processes, round int) {
			all[round%3].kill()
			all[(round+1)%3].kill()
			pause(800 * time.Millisecond)
			all[round%3].start()
			all[(round+1)%3].start()
		},
		"all are killed": func(all processes, _ int) {
			for _, p := range all {
				p.kill()
			}
			for _, p := range all {
				p.start()
			}
		},
		"the leader is slow": func(all processes, round int) {
			p := all[max(0, all.leader())]
			for range 3 {
				p.signal(syscall.SIGSTOP)
				pause(time.Duration(300+300*(round%4)) * time.Millisecond)
				p.signal(syscall.SIGCONT)
				pause(50 * time.Millisecond)
			}
		},
		"a follower is slow": func(all processes, _ int) {
			p := all[(all.leader()+1)%3]
			p.signal(syscall.SIGSTOP)
			pause(1500 * time.Millisecond)
			p.signal(syscall.SIGCONT)
		},
		"snapshots are interrupted": func(all processes, round int) {
			pause(time.Duration(round*37%200) * time.Millisecond)
			all[round%3].kill()
			all[round%3].start()
		},
	}
	for name, day := range days {
		t.Run(name, func(t *testing.T) {
			all := newProcesses(t, func(o *memberOptions) {
				if name[0] == 's' {
					o.SnapshotEntries = 10
				}
			})
			w := &workload{cluster: &cluster{T: t}, ask: all.ask}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			w.run(ctx, 3)
			for round := 0; ctx.Err() == nil; round++ {
				day(all, round)
				pause(700 * time.Millisecond)
			}
			w.check()
			all.same(t)
		})
	}
}

// ask has a member do a request. Without an answer it may have been done.
func (all processes) ask(i int, in Request) (Outcome, error) {
	var out Outcome
	err := all[i].call("Do", in, &out)
	if _, answered := err.(rpc.ServerError); err != nil && !answered {
		return Outcome{Unknown: true}, nil
	}
	return out, err
}

// same waits until every member has every key.
func (all processes) same(t *testing.T) {
	t.Helper()
	all.healthy(t, 3)
	for key := range historyKeys {
		var want Outcome
		for i := range all {
			eventually(t, fmt.Sprint(all[i].Name, " has what the others have"), func() error {
				out, err := all.ask(i, Request{Key: key, Read: true})
				if err != nil || out.Unknown {
					return fmt.Errorf("no answer: %w", err)
				}
				if i == 0 {
					want = out
				} else if out != want {
					t.Fatalf("%s has %+v, %s has %+v", all[i].Name, out, all[0].Name, want)
				}
				return nil
			})
		}
	}
}

// TestStoppedLeader: a change that was sent to a leader which hangs is sent again
// as soon as another leads.
func TestStoppedLeader(t *testing.T) {
	all := newProcesses(t)
	leader := all.leader()
	asked, other := all[(leader+1)%3], all[(leader+2)%3]
	var sent time.Time
	if err := asked.call("Stamped", 1, &sent); err != nil {
		t.Fatal(err)
	}
	all[leader].signal(syscall.SIGSTOP)
	at := time.Now()
	led := make(chan time.Duration, 1)
	go func() {
		for {
			for _, p := range []*process{asked, other} {
				if leads := false; p.call("Leads", None{}, &leads) == nil && leads {
					led <- time.Since(at)
					return
				}
			}
			time.Sleep(time.Millisecond)
		}
	}()
	err := asked.call("Stamped", 1, &sent)
	took := time.Since(at)
	if known := <-led; err != nil || took > 3*known {
		t.Errorf("another led after %s, and the change was done after %s: %v", known, took, err)
	}
	all[leader].signal(syscall.SIGCONT)
}

// TestBackSoon: the longer a member is away, the less often the library tries to
// send it entries.
func TestBackSoon(t *testing.T) {
	all := newProcesses(t)
	leader := all.leader()
	i := (leader + 1) % 3
	all[i].kill()
	away := time.Now()
	for n := 0; time.Since(away) < 12*time.Second; n++ {
		if _, err := all.ask(leader, Request{Value: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	all[i].start()
	back := time.Now()
	eventually(t, "it has what was written meanwhile", func() error {
		out, err := all.ask(i, Request{Read: true})
		if err == nil && out.Unknown {
			err = errNoLeader
		}
		return err
	})
	if took := time.Since(back); took > 4*time.Second {
		t.Errorf("it took %s, a third of the time that it was away", took)
	}
}

// TestDiskFull: a member whose disk is full is away until there is room. That of
// a follower disturbs nobody; the leader's makes another lead.
func TestDiskFull(t *testing.T) {
	disk := smallDisk(t)
	all := newProcesses(t, func(o *memberOptions) {
		if o.Name == "lb3" {
			o.Dir = filepath.Join(disk, o.Name)
		}
		o.SnapshotEntries = 50
	})
	for round, leads := range []bool{false, true} {
		eventually(t, fmt.Sprint("lb3 leads: ", leads), func() error {
			if i := all.leader(); i < 0 || (i == 2) != leads {
				_ = all[0].call("StepDown", None{}, &None{})
				time.Sleep(200 * time.Millisecond)
				return fmt.Errorf("node %d does", i+1)
			}
			return nil
		})
		all.healthy(t, 3)
		w := &workload{cluster: &cluster{T: t}, ask: func(i int, in Request) (Outcome, error) {
			in.Key += 10 * round
			return all.ask(i, in)
		}}
		ctx, cancel := context.WithCancel(t.Context())
		w.run(ctx, 3)
		ballast := filepath.Join(disk, "ballast")
		fill(t, ballast)
		// What is preallocated is written yet; fill it.
		value := make([]byte, 256<<10)
		full := time.Now()
		for i := 0; i < 60 || time.Since(full) < 3*time.Second; i++ {
			eventually(t, "a write with the disk of one member full", func() error {
				out, err := all.ask(i%2, Request{Key: 1000 + i%4, Value: string(value)})
				if err == nil && out.Unknown {
					err = inventory.ErrUnavailable
				}
				return err
			})
			time.Sleep(20 * time.Millisecond)
		}
		if i := all.leader(); i == 2 {
			t.Error("the member leads whose disk is full")
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		cancel()
		w.check()
		all.same(t)
	}
}

// TestFullDiskAtStart: a node that starts with a full disk is up, and says why it
// has no part in the store; once there is room it has.
func TestFullDiskAtStart(t *testing.T) {
	disk := smallDisk(t)
	c := newCluster(t, 1, func(o *Options) { o.Dir = filepath.Join(disk, o.Name) })
	if out, err := do(c.nodes[0], Request{Value: "kept"}); err != nil || out.Unknown {
		t.Fatal(out, err)
	}
	ballast := filepath.Join(disk, "ballast")
	if err := c.nodes[0].Close(); err != nil {
		t.Fatal(err)
	}
	fill(t, ballast)
	for range 2 { // it also ends when it is told to
		c.restart(0)
		if _, err := c.nodes[0].List(t.Context(), "/"); !errors.Is(err, inventory.ErrUnavailable) || !strings.Contains(err.Error(), "0 MB free") {
			t.Error("with a full disk:", err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c.eventually("what was written is there", func() error {
		out, err := do(c.nodes[0], Request{Read: true})
		if err == nil && out.Value != "kept" {
			err = fmt.Errorf("%+v", out)
		}
		return err
	})
}

// smallDisk is a file system of 64 MB.
func smallDisk(t *testing.T) (dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("it takes root to mount a small disk")
	}
	dir = t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skip("no small disk: ", err)
	}
	// After the processes' end, which is registered later.
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
}
