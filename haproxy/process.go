package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// Process is the HAProxy that a Sync owns: its life and its reloads. What goes
// on in it is the Runtime's.
type Process interface {
	// Running says whether HAProxy runs, started by whomever.
	Running(ctx context.Context) bool
	// Start makes sure that HAProxy runs: it finds one that does, or starts
	// one with the configuration file. It returns when the master answers.
	// ErrNotRunning: none runs and starting it is another's business.
	Start(ctx context.Context) error
	// Reload makes HAProxy read its file again and returns when the new worker
	// runs. ErrReloadFailed: the file was refused and the old worker serves on.
	Reload(ctx context.Context) error
	// Proc asks the master for its processes.
	Proc(ctx context.Context) (Proc, error)
	// Exited is closed when the HAProxy of the last Start ends. A nil channel
	// says that the end is noticed by its sockets only.
	Exited() <-chan struct{}
	// Stop ends HAProxy. For a HAProxy that another supervises it does nothing.
	Stop(ctx context.Context) error
	// Close forgets HAProxy without ending it, and waits for what watched it.
	Close()
}

// ErrNotRunning is returned when no HAProxy runs and none was to be started.
var ErrNotRunning = errors.New("haproxy is not running")

// External is a HAProxy that another supervises, such as systemd: it is
// reloaded through its master socket and never started or ended.
type External struct{ master *Master }

// NewExternal returns the HAProxy whose master socket is at path.
func NewExternal(masterSocket string) *External { return &External{NewMaster(masterSocket)} }

// Running implements Process.
func (e *External) Running(ctx context.Context) bool {
	_, err := e.master.Proc(ctx)
	return err == nil
}

// Start says whether HAProxy runs.
func (e *External) Start(ctx context.Context) error {
	if _, err := e.master.Proc(ctx); err != nil {
		return fmt.Errorf("%w: its supervisor has to start it: %w", ErrNotRunning, err)
	}
	return nil
}

// Reload implements Process.
func (e *External) Reload(ctx context.Context) error { return e.master.Reload(ctx) }

// Proc implements Process.
func (e *External) Proc(ctx context.Context) (Proc, error) { return e.master.Proc(ctx) }

// Exited implements Process.
func (e *External) Exited() <-chan struct{} { return nil }

// Stop implements Process: it does nothing.
func (e *External) Stop(context.Context) error { return nil }

// Close implements Process.
func (e *External) Close() {}

// FileError is HAProxy's refusal of a configuration file.
type FileError struct {
	File   string
	Output string
}

func (e *FileError) Error() string {
	return "haproxy refuses " + e.File + ": " + e.Output
}

// CheckFile has the program check a configuration file. A *FileError says what
// is wrong with it.
func CheckFile(ctx context.Context, binary, file string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-c", "-f", file) // with -q it does not say why
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil && exit.Exited() {
		return &FileError{File: file, Output: alerts(out)}
	}
	return fmt.Errorf("check %s with %s: %w", file, binary, err)
}

// alerts keeps what tells an operator why: the lines of alerts, without the
// process id, at most a few.
func alerts(out []byte) string {
	var lines []string
	for line := range bytes.Lines(out) {
		if text := alertLine.FindSubmatch(line); text != nil && len(lines) < 5 {
			lines = append(lines, strings.TrimSpace(string(text[1])))
		}
	}
	if len(lines) == 0 {
		return strings.TrimSpace(string(out[:min(len(out), 500)]))
	}
	return strings.Join(lines, "; ")
}

var alertLine = regexp.MustCompile(`^\[ALERT\]\s+(?:\d+/\d+\s*)?\(\d+\)\s*:\s*(.*)`)

// Build is what a HAProxy program can do.
type Build struct {
	Version string
	// Prometheus says that it was built with the exporter.
	Prometheus bool
}

// Detect asks the program at that path for its version and abilities.
func Detect(ctx context.Context, binary string) (Build, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "-vv").Output()
	if err != nil {
		return Build{}, fmt.Errorf("%s -vv: %w", binary, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return Build{}, fmt.Errorf("%s -vv does not tell a version of HAProxy", binary)
	}
	return Build{Version: string(m[1]), Prometheus: bytes.Contains(out, []byte("prometheus-exporter"))}, nil
}

var versionLine = regexp.MustCompile(`(?m)^HA-?Proxy version (\S+)`)
