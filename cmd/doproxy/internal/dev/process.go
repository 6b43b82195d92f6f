package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
)

// programs are the paths of what a cluster runs.
type programs struct{ doproxy, dosim, etcd, haproxy string }

// findPrograms looks beside this program first, as `make build` leaves them,
// then in PATH, and for haproxy where Debian has it, unless that is named.
func findPrograms(store, haproxy string) (programs, error) {
	self, err := os.Executable()
	if err != nil {
		return programs{}, err
	}
	p := programs{doproxy: self}
	var missing []error
	find := func(name, mend string) string {
		if beside := filepath.Join(filepath.Dir(self), name); isProgram(beside) {
			return beside
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
		if path := "/usr/sbin/" + name; isProgram(path) {
			return path
		}
		missing = append(missing, fmt.Errorf("%s is neither beside %s nor in PATH: %s", name, self, mend))
		return ""
	}
	p.dosim = find("dosim", "make build")
	if store == config.StoreEtcd {
		p.etcd = find("etcd", "make bin/etcd")
	}
	if p.haproxy = haproxy; haproxy == "" {
		p.haproxy = find("haproxy", "make haproxy, or apt-get install haproxy")
	}
	return p, errors.Join(missing...)
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// process is a child with its own log file.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// supervisor owns the cluster's processes. It does not start again what ended:
// a development cluster shows what happens then.
type supervisor struct {
	dir     string
	running []*process
	pids    []string // pid files of HAProxies, which are their agents' children
}

// start runs a program in a process group of its own, so that a Ctrl-C meant
// for the supervisor does not reach it.
func (s *supervisor) start(name, program string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(s.dir, name, "log"), done: make(chan struct{})}
	if err := os.MkdirAll(filepath.Dir(p.log), 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Dir = filepath.Dir(p.log)
	// A token for the real DigitalOcean has no business here.
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "DOPROXY_TOKEN=") || strings.HasPrefix(v, "DIGITALOCEAN_TOKEN=")
	})
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // what it had to say is in its log
	}()
	s.running = append(s.running, p)
	return p, nil
}

// await waits until ready says so, p ends, or ctx does.
func (p *process) await(ctx context.Context, what string, ready func() error) error {
	for tick := time.Tick(20 * time.Millisecond); ; {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s (see %s)", p.name, p.lastWords(), p.log)
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (%w); see %s", what, ctx.Err(), err, p.log)
		case <-tick:
		}
	}
}

// lastWords are the last line of the log, which mostly says why.
func (p *process) lastWords() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}

// stop ends everything, last started first, and the HAProxies after the agents,
// which would start them again.
func (s *supervisor) stop() error {
	var errs []error
	agents := func(p *process) bool { return strings.HasPrefix(p.name, "lb-") }
	var rest []*process
	for _, p := range slices.Backward(s.running) {
		if !agents(p) {
			rest = append(rest, p)
			continue
		}
		errs = append(errs, p.stop())
	}
	for _, file := range s.pids {
		errs = append(errs, stopHAProxy(file))
	}
	for _, p := range rest {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

const stopDeadline = 15 * time.Second

func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error says that it ended
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // in case someone stopped it
	select {
	case <-p.done:
		return nil
	case <-time.After(stopDeadline):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within %s of SIGTERM and was killed: see %s", p.name, stopDeadline, p.log)
	}
}

// stopHAProxy ends the HAProxy of a pid file beside its configuration.
func stopHAProxy(pidFile string) error {
	pid := readPID(pidFile)
	if pid == 0 || !runs(pid, filepath.Dir(pidFile)) {
		return nil
	}
	return stopPID(pid, filepath.Dir(pidFile))
}

// stopPID ends a process that is no child, if its command line names dir.
func stopPID(pid int, dir string) error {
	_ = syscall.Kill(pid, syscall.SIGTERM)
	_ = syscall.Kill(pid, syscall.SIGCONT)
	for deadline := time.Now().Add(stopDeadline); runs(pid, dir); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return fmt.Errorf("process %d did not end within %s of SIGTERM and was killed", pid, stopDeadline)
		}
	}
	return nil
}

// runs says whether pid lives and its command line names dir: a pid alone could
// be another's by now.
func runs(pid int, dir string) bool {
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && strings.Contains(string(cmdline), dir)
}

func readPID(file string) int {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil || pid < 2 {
		return 0
	}
	return pid
}
