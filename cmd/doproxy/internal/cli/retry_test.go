package cli

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func importCommand(what ImportOptions) *cobra.Command {
	return &cobra.Command{Use: "import", RunE: func(cmd *cobra.Command, _ []string) error {
		return Import(cmd, Options{}, what)
	}}
}

// Only what the store refused certainly left no trace.
func TestNothingWasChangedIsSaidOnlyWhenItIsSo(t *testing.T) {
	answer := func(reason, message string) error {
		s, err := status.New(codes.Unavailable, message).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "doproxy"})
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	none := answer("STORE_UNAVAILABLE", "the store does not answer; traffic is not affected and nothing was changed: try again")
	unknown := answer("OUTCOME_UNKNOWN", "the store did not answer in time, and the change may or may not have been made: ask again with the same request_id")
	for _, c := range []struct {
		name    string
		answers []error // the last again and again
		want    string
	}{
		{"refused", []error{none}, "doproxy: create: the store does not answer; traffic is not affected and nothing was changed: try again\n"},
		{"unknown", []error{unknown}, "doproxy: create: the store did not answer in time, and the change may or may not have been made: ask again with the same --request-id\n  mend: it counts once with --request-id abc\n"},
		{"unknown, then refused", []error{unknown, none}, "doproxy: create: the store did not answer in time, and the change may or may not have been made: ask again with the same --request-id\n  mend: it counts once with --request-id abc\n"},
	} {
		b := newBench(t)
		var n atomic.Int32
		b.fake.before = func(proto.Message) error { return c.answers[min(int(n.Add(1)), len(c.answers))-1] }
		var ticks atomic.Int64
		b.now = func() time.Time { return epoch.Add(time.Duration(ticks.Add(1)) * 2 * time.Second) }
		got := b.run("create", "--request-id", "abc", "--no-progress")
		if !strings.HasSuffix(got.err, c.want) || got.exit != ExitUnavailable {
			t.Errorf("%s: exit %d, stderr:\n%s\nwant:\n%s", c.name, got.exit, got.err, c.want)
		}
	}
}

// A node that dies in the middle of a create is asked again with the same id.
func TestCreateSurvivesTheDeathOfItsNode(t *testing.T) {
	b := newBench(t)
	var died atomic.Bool
	restarted := make(chan struct{})
	b.fake.step = func(n int) error {
		if n != 2 || !died.CompareAndSwap(false, true) {
			return nil
		}
		go func() { // Stop waits for this call
			defer close(restarted)
			b.stop()
			_ = os.Remove(b.sock)
			b.start()
		}()
		time.Sleep(20 * time.Millisecond)
		return status.Error(codes.Unavailable, "dying")
	}
	got := b.run("create", "-n", "2")
	<-restarted
	if want := "Success: 4202647 created and added to backend.\nSuccess: 4202648 created and added to backend.\n"; got.exit != 0 || got.out != want {
		t.Errorf("exit %d, stdout:\n%sstderr:\n%s", got.exit, got.out, got.err)
	}
	reqs := sent[*doproxyv1.CreateDropletsRequest](b.fake)
	if len(reqs) < 2 {
		t.Fatalf("%d requests, want 2 or more", len(reqs))
	}
	for _, req := range reqs {
		if !proto.Equal(req, reqs[0]) {
			t.Errorf("asked again with %v, first with %v", req, reqs[0])
		}
	}
	if len(b.fake.droplets) != 4 {
		t.Errorf("there are %d droplets, want 4", len(b.fake.droplets))
	}
	if !strings.Contains(got.err, "trying again for") {
		t.Errorf("stderr does not tell:\n%s", got.err)
	}
}

// A stream that ends in good order before its work is done counts as lost.
func TestCreateGoesOnAfterAnEarlyEnd(t *testing.T) {
	b := newBench(t)
	var ended atomic.Bool
	b.fake.step = func(n int) error {
		if n == 1 && ended.CompareAndSwap(false, true) {
			return errEnded
		}
		return nil
	}
	if got := b.run("create", "--no-progress"); got.exit != 0 || got.out != "Success: 4202647 created and added to backend.\n" {
		t.Errorf("exit %d, stdout:\n%sstderr:\n%s", got.exit, got.out, got.err)
	}
}

func TestScaleByDeltaIsRepeatedWithItsID(t *testing.T) {
	b := newBench(t)
	var n atomic.Int32
	b.fake.before = func(proto.Message) error {
		if n.Add(1) == 1 {
			return status.Error(codes.Unavailable, "the store elects a leader")
		}
		return nil
	}
	b.want(0, "web: wanted 2 → 3\n", "", "scale", "web=+1")
	reqs := sent[*doproxyv1.ScalePoolRequest](b.fake)
	if len(reqs) != 2 || reqs[0].GetRequestId() == "" || !proto.Equal(reqs[0], reqs[1]) {
		t.Errorf("sent %v", reqs)
	}
}

// What is refused for good is not repeated, nor is what must not count twice.
func TestWhatIsNotRepeated(t *testing.T) {
	b := newBench(t)
	b.fake.before = func(proto.Message) error { return status.Error(codes.FailedPrecondition, "no") }
	b.want(ExitRefused, "", "doproxy: create: no\n", "create")
	b.fake.before = func(proto.Message) error { return status.Error(codes.Unavailable, "no store") }
	b.want(ExitUnavailable, "", "doproxy: reload: no store\n", "reload")
	b.want(ExitUnavailable, "", "doproxy: print: no store\n", "print")
	if n := len(b.fake.calls); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
}

func TestNobodyThereIsToldAtOnce(t *testing.T) {
	b := newBench(t)
	b.env["DOPROXY_SERVER"] = ""
	start := time.Now()
	none := "unix://" + filepath.Join(t.TempDir(), "none")
	got := b.run("create", "--server", none)
	want := "doproxy: create: cannot connect to " + none + ": no such file or directory\n  mend: is the agent running here (`systemctl status doproxy`)? Name another node with --server HOST:PORT or DOPROXY_SERVER\n"
	if got.exit != ExitUnavailable || got.err != want {
		t.Errorf("exit %d, stderr:\n%s\nwant:\n%s", got.exit, got.err, want)
	}
	got = b.run("print", "--server", none+",127.0.0.1:1")
	if want := "doproxy: print: none of 2 servers answers, the last: cannot connect to 127.0.0.1:1: connection refused\n"; got.exit != ExitUnavailable || !strings.HasPrefix(got.err, want) {
		t.Errorf("exit %d, stderr:\n%s\nwant:\n%s", got.exit, got.err, want)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestTheNextServerIsAsked(t *testing.T) {
	b := newBench(t)
	got := b.run("create", "--no-progress", "--server", "127.0.0.1:1,unix://"+b.sock)
	if got.exit != 0 || got.out != "Success: 4202647 created and added to backend.\n" {
		t.Errorf("exit %d, stdout:\n%sstderr:\n%s", got.exit, got.out, got.err)
	}
}

func TestInterrupt(t *testing.T) {
	b := newBench(t)
	b.fake.pause = time.Hour
	for _, args := range [][]string{{"create", "--request-id", "abc"}, {"delete", "auto-nginx-0", "--request-id", "def"}} {
		ctx, cancel := context.WithCancel(t.Context())
		out, errs := &syncBuffer{}, &syncBuffer{}
		exit := make(chan int, 1)
		go func() { exit <- b.runOn(ctx, out, errs, args...) }()
		until(t, func() bool { return strings.Contains(errs.String(), "web: ") })
		cancel()
		if code := <-exit; code != ExitInterrupted || out.String() != "" {
			t.Errorf("%q: exit %d, want %d; stdout %q", args, code, ExitInterrupted, out)
		}
		for _, want := range []string{": stopped following, the work goes on: interrupted\n", "`doproxy status`", "--request-id " + args[len(args)-1]} {
			if !strings.Contains(errs.String(), want) {
				t.Errorf("%q: stderr lacks %q:\n%s", args, want, errs)
			}
		}
	}
}

func TestInterruptBeforeTheFirstAnswer(t *testing.T) {
	b := newBench(t)
	came := make(chan struct{}, 1)
	release := make(chan struct{})
	b.fake.before = func(proto.Message) error { came <- struct{}{}; <-release; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	errs := &syncBuffer{}
	exit := make(chan int, 1)
	go func() { exit <- b.runOn(ctx, &syncBuffer{}, errs, "create", "--request-id", "abc") }()
	<-came
	cancel()
	code := <-exit
	close(release)
	if want := "doproxy: create: not known whether it is on record: interrupted\n  mend: it counts once with --request-id abc\n"; code != ExitInterrupted || errs.String() != want {
		t.Errorf("exit %d, stderr:\n%s\nwant:\n%s", code, errs, want)
	}
}

func TestTimeout(t *testing.T) {
	b := newBench(t)
	b.fake.pause = time.Hour
	got := b.run("create", "--timeout", "50ms", "--request-id", "abc")
	if want := "doproxy: create: stopped following, the work goes on: no end within --timeout 50ms\n"; got.exit != ExitTimeout || !strings.Contains(got.err, want) {
		t.Errorf("exit %d, stderr:\n%s", got.exit, got.err)
	}
}

func TestTLS(t *testing.T) {
	b := newBench(t)
	donor := httptest.NewTLSServer(nil) // for its certificate
	defer donor.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: donor.TLS.Certificates})))
	doproxyv1.RegisterNodeServiceServer(s, b.fake)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(listener) }()
	defer func() { s.Stop(); <-done }()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: donor.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	b.want(0, "global\n    daemon\n", "", "generate", "--server", addr, "--ca-file", ca)
	got := b.run("generate", "--server", addr, "--tls")
	if got.exit != ExitUnavailable || !strings.Contains(got.err, "certificate signed by unknown authority") {
		t.Errorf("exit %d, stderr:\n%s", got.exit, got.err)
	}
}

func TestANodeThatWantsACertificate(t *testing.T) {
	b := newBench(t)
	donor := httptest.NewTLSServer(nil) // for its certificate
	defer donor.Close()
	serve := func(ask tls.ClientAuthType) (addr string, stop func()) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: donor.TLS.Certificates, ClientAuth: ask})))
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(listener) }()
		return listener.Addr().String(), func() { s.Stop(); <-done }
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: donor.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	addr, stop := serve(tls.RequireAnyClientCert)
	defer stop()
	got := b.run("generate", "--server", addr, "--ca-file", ca)
	if got.exit != ExitDenied || !strings.Contains(got.err, "--cert-file and --key-file") {
		t.Errorf("exit %d, stderr:\n%s", got.exit, got.err)
	}
}

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		"lb1:7400": "lb1:7400", "[::1]:7400": "[::1]:7400", "unix:///run/d.sock": "unix:///run/d.sock", "unix:/run/d.sock": "unix:///run/d.sock", "/run/d.sock": "unix:///run/d.sock",
	} {
		got, err := parseTarget(in)
		if err != nil || got.String() != want {
			t.Errorf("parseTarget(%q) is %v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "lb1", ":7400", "lb1:", "http://lb1:7400", "unix:"} {
		if got, err := parseTarget(in); err == nil {
			t.Errorf("parseTarget(%q) is %v, want an error", in, got)
		}
	}
}
