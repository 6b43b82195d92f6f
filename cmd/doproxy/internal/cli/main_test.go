package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain runs the tests, or this binary as something to look at by hand:
//
//	go test -c -o cli.test
//	DOPROXY_FAKE=/tmp/fake.sock ./cli.test &
//	DOPROXY_CLI=1 DOPROXY_SERVER=unix:///tmp/fake.sock ./cli.test create -n 3
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("DOPROXY_FAKE") != "":
		f := newFake()
		f.now, f.pause = time.Now, time.Second
		f.pools[0].Reason = os.Getenv("DOPROXY_FAKE_REASON")
		f.storeErr = os.Getenv("DOPROXY_FAKE_STORE")
		stop, err := f.serve(os.Getenv("DOPROXY_FAKE"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
		<-ended
		stop()
	case os.Getenv("DOPROXY_CLI") != "":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(Execute(ctx, newRoot(Options{})))
	default:
		goleak.VerifyTestMain(m)
	}
}

func newRoot(opts Options) *cobra.Command {
	root := &cobra.Command{Use: "doproxy", Short: "Scale droplets behind HAProxy"}
	if opts.Parse == nil {
		opts.Parse = func(path string, data []byte) (*Document, error) {
			pools, settings, err := config.ParseProto(path, data)
			return &Document{Pools: pools, Settings: settings}, err
		}
	}
	opts.Format = func(d Document) ([]byte, error) { return config.FormatProto(d.Pools, d.Settings, "") }
	Add(root, opts)
	return root
}

// terminal is an output that says it is one.
type terminal struct {
	syncBuffer
	width int
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// bench is a user at a shell.
type bench struct {
	t    *testing.T
	fake *fake
	env  map[string]string
	// width is that of the terminal that stdout and stderr are; 0 is a pipe.
	width int
	stop  func()
	sock  string
	now   func() time.Time
	// answer is what the user types at a terminal; without it stdin is none.
	answer string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli") // short: a socket's path has a limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &bench{t: t, fake: newFake(), sock: filepath.Join(dir, "s"), now: func() time.Time { return epoch }}
	b.env = map[string]string{"DOPROXY_SERVER": "unix://" + b.sock, "XDG_STATE_HOME": filepath.Join(dir, "state"), "LANG": "C.UTF-8"}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bench) start() {
	b.t.Helper()
	stop, err := b.fake.serve(b.sock)
	if err != nil {
		b.t.Fatal(err)
	}
	b.stop = stop
}

type result struct {
	out, err string
	exit     int
}

func (b *bench) run(args ...string) result { return b.runContext(context.Background(), args...) }

func (b *bench) runContext(ctx context.Context, args ...string) result {
	var out, errs io.Writer = &syncBuffer{}, &syncBuffer{}
	if b.width > 0 {
		out, errs = &terminal{width: b.width}, &terminal{width: b.width}
	}
	exit := b.runOn(ctx, out, errs, args...)
	return result{fmt.Sprint(out), fmt.Sprint(errs), exit}
}

func (b *bench) runOn(ctx context.Context, out, errs io.Writer, args ...string) int {
	root := newRoot(Options{
		Now:    b.now,
		Getenv: func(name string) string { return b.env[name] },
		Terminal: func(w io.Writer) (int, int, bool) {
			t, ok := w.(*terminal)
			if !ok {
				return 0, 0, false
			}
			return t.width, 40, true
		},
		Interactive:  func(io.Reader) bool { return b.answer != "" },
		rebuildQuiet: 50 * time.Millisecond,
	})
	root.SetIn(strings.NewReader(b.answer))
	root.SetOut(out)
	root.SetErr(errs)
	root.SetArgs(args)
	return Execute(ctx, root)
}

// want runs a command on pipes and compares all that it gave.
func (b *bench) want(exit int, out, errs string, args ...string) {
	b.t.Helper()
	got := b.run(args...)
	if got.exit != exit || got.out != out || got.err != errs {
		b.t.Errorf("doproxy %q: exit %d, want %d\nstdout:\n%s\nwant:\n%s\nstderr:\n%s\nwant:\n%s", args, got.exit, exit, got.out, out, got.err, errs)
	}
}

// golden compares with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s is missing: run go test -update and read it", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", path, got, want)
	}
}
