package haproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ManagedOptions say how Managed starts HAProxy.
type ManagedOptions struct {
	Binary       string // the program; empty: haproxy in PATH or /usr/sbin
	ConfigFile   string
	MasterSocket string
	PIDFile      string
	LogFile      string // what HAProxy writes to its standard output and error
	Logger       *slog.Logger
}

// Validate says what is missing.
func (o ManagedOptions) Validate() error {
	var v validation
	v.check(filePath(o.ConfigFile), "config_file", o.ConfigFile, "must be an absolute path of letters, digits and ._-+@/")
	v.check(CheckSocketPath(o.MasterSocket) == nil, "master_socket", o.MasterSocket, errText(CheckSocketPath(o.MasterSocket)))
	v.check(filePath(o.PIDFile), "pid_file", o.PIDFile, "must be an absolute path of letters, digits and ._-+@/")
	v.check(filePath(o.LogFile), "log_file", o.LogFile, "must be an absolute path of letters, digits and ._-+@/")
	return errors.Join(v...)
}

// Managed is a HAProxy that the agent itself starts. It lives in a session of
// its own and writes to a file, so that it outlives the agent, whose successor
// finds it by its pid file and master socket.
type Managed struct {
	o      ManagedOptions
	master *Master

	mu      sync.Mutex // guards the rest; never held while a process runs
	pid     int        // of the master, 0: none known
	ours    bool       // it is our child and we must reap it
	exited  chan struct{}
	watched sync.WaitGroup
	stop    chan struct{} // ends the watcher
}

// NewManaged returns a HAProxy that is not running yet, as far as it knows.
func NewManaged(o ManagedOptions) (*Managed, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("haproxy: %w", err)
	}
	if o.Binary == "" {
		o.Binary = FindBinary()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Managed{o: o, master: NewMaster(o.MasterSocket)}, nil
}

// FindBinary returns where HAProxy is, or "haproxy" if it is nowhere.
func FindBinary() string {
	dirs := append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin")
	for _, dir := range dirs {
		p := filepath.Join(dir, "haproxy")
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 && filepath.IsAbs(p) {
			return p
		}
	}
	return "haproxy"
}

const (
	watchInterval = 100 * time.Millisecond
	startTimeout  = 15 * time.Second
)

// Start adopts the HAProxy of the pid file if it runs with our configuration
// file, and else starts one.
func (m *Managed) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if pid := m.running(); pid != 0 {
		m.watch(pid, false)
		return m.answering(ctx, pid, m.Exited())
	}
	m.endOrphans(ctx)
	pid, err := m.spawn()
	if err != nil {
		return err
	}
	m.o.Logger.Info("started haproxy", "pid", pid, "config", m.o.ConfigFile)
	m.watch(pid, true)
	return m.answering(ctx, pid, m.Exited())
}

// Running implements Process.
func (m *Managed) Running(context.Context) bool { return m.running() != 0 }

// running returns the pid of our HAProxy's master, 0 if it does not run. Two
// HAProxies could bind the same address without an error, so this is asked
// before every start.
func (m *Managed) running() int {
	text, err := os.ReadFile(m.o.PIDFile)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err == nil && pid > 1 && m.isOurs(pid) {
			return pid
		}
	}
	return 0
}

// isOurs says that the process lives and was started with our file and master
// socket: a pid may have been given to another process since.
func (m *Managed) isOurs(pid int) bool {
	if !alive(pid) {
		return false
	}
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	args := strings.Split(string(cmdline), "\x00")
	var file, socket bool
	for i := 1; i < len(args); i++ {
		file = file || args[i-1] == "-f" && args[i] == m.o.ConfigFile
		socket = socket || args[i-1] == "-S" && args[i] == m.o.MasterSocket
	}
	return file && socket
}

// alive says that the process exists and is not a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	return ok && rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

// endOrphans ends workers whose master has gone: they would share the address
// with the new ones. HAProxy's workers end by themselves when their master
// does; this waits for that and helps after a second.
func (m *Managed) endOrphans(ctx context.Context) {
	for try := range 40 {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return
		}
		var left []int
		for _, e := range entries {
			if pid, err := strconv.Atoi(e.Name()); err == nil && pid > 1 && m.isOurs(pid) {
				left = append(left, pid)
			}
		}
		if len(left) == 0 {
			return
		}
		if try == 20 {
			for _, pid := range left {
				m.o.Logger.Warn("ending a haproxy worker whose master has gone", "pid", pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

func (m *Managed) spawn() (int, error) {
	log, err := os.OpenFile(m.o.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, fmt.Errorf("start haproxy: %w", err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, fmt.Errorf("start haproxy: %w", err)
	}
	defer null.Close()
	p, err := os.StartProcess(m.o.Binary,
		[]string{m.o.Binary, "-W", "-S", m.o.MasterSocket, "-f", m.o.ConfigFile, "-p", m.o.PIDFile},
		&os.ProcAttr{
			Dir:   "/",
			Env:   os.Environ(),
			Files: []*os.File{null, log, log},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
	if err != nil {
		return 0, fmt.Errorf("start haproxy: %w", err)
	}
	pid := p.Pid
	_ = p.Release() // the watcher reaps it
	// HAProxy writes the file itself, but late: an agent killed before that
	// must still be able to find it.
	if err := os.WriteFile(m.o.PIDFile, []byte(strconv.Itoa(pid)+"\n"), 0o644); err != nil {
		m.o.Logger.Warn("cannot write haproxy's pid file", "error", err)
	}
	return pid, nil
}

// watch notes the process and begins to look whether it lives.
func (m *Managed) watch(pid int, ours bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pid == pid && m.exited != nil {
		select {
		case <-m.exited:
		default:
			return // it is being watched
		}
	}
	if m.stop != nil {
		close(m.stop)
	}
	exited, stop := make(chan struct{}), make(chan struct{})
	m.pid, m.ours, m.exited, m.stop = pid, ours, exited, stop
	m.watched.Go(func() {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			if gone(pid, ours) {
				close(exited)
				return
			}
		}
	})
}

// gone reaps the process if it is our child, and says whether it has ended.
func gone(pid int, ours bool) bool {
	if ours {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		if got == pid || errors.Is(err, syscall.ECHILD) {
			return true
		}
		return false
	}
	return !alive(pid)
}

// answering waits until the master answers and has a worker.
func (m *Managed) answering(ctx context.Context, pid int, exited <-chan struct{}) error {
	for {
		p, err := m.master.Proc(ctx)
		if err == nil && p.MasterPID == pid && p.WorkerPID != 0 {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("haproxy ended at once: %s", m.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("haproxy (pid %d): its master socket does not answer: %w", pid, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// lastWords are the alerts at the end of the log.
func (m *Managed) lastWords() string {
	f, err := os.Open(m.o.LogFile)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	tail := make([]byte, 2048)
	st, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	n, _ := f.ReadAt(tail, max(0, st.Size()-int64(len(tail))))
	return alerts(tail[:n])
}

// Reload implements Process.
func (m *Managed) Reload(ctx context.Context) error { return m.master.Reload(ctx) }

// Proc implements Process.
func (m *Managed) Proc(ctx context.Context) (Proc, error) { return m.master.Proc(ctx) }

// Exited implements Process.
func (m *Managed) Exited() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exited
}

// Stop ends HAProxy: gently, and by force when the context ends or after 3 s.
// It waits until HAProxy has gone.
func (m *Managed) Stop(ctx context.Context) error {
	pid := m.running()
	if pid == 0 {
		return nil
	}
	m.mu.Lock()
	ours := m.ours && m.pid == pid
	m.mu.Unlock()
	proc, _ := m.master.Proc(ctx)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop haproxy (pid %d): %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	forced := false
	for alive(pid) && !gone(pid, ours) {
		select {
		case <-time.After(10 * time.Millisecond):
			continue
		case <-ctx.Done():
		}
		if forced {
			time.Sleep(10 * time.Millisecond) // the kernel ends it
			continue
		}
		forced = true
		for _, p := range append(proc.OldWorkers, proc.WorkerPID, pid) {
			if p > 1 && m.isOurs(p) {
				_ = syscall.Kill(p, syscall.SIGKILL)
			}
		}
	}
	_ = os.Remove(m.o.PIDFile)
	return nil
}

// Close implements Process.
func (m *Managed) Close() {
	m.mu.Lock()
	if m.stop != nil {
		close(m.stop)
		m.stop = nil
	}
	m.mu.Unlock()
	m.watched.Wait()
}
