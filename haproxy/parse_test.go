package haproxy

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseProc(t *testing.T) {
	const text = `#<PID>          <type>          <reloads>       <uptime>        <version>
16848           master          3 [failed: 2]   0d00h00m02s     2.6.12-1+deb12u4
# workers
16896           worker          2               0d00h00m01s     2.6.12-1+deb12u4
# old workers
16700           worker          4               0d00h01m01s     2.6.12-1+deb12u4
# programs
`
	p, err := parseProc(text)
	if err != nil || p.MasterPID != 16848 || p.WorkerPID != 16896 || p.Reloads != 3 || p.Failed != 2 || len(p.OldWorkers) != 1 || p.Version != "2.6.12-1+deb12u4" {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "Permission denied\n", "x y z\n"} {
		if _, err := parseProc(bad); err == nil {
			t.Errorf("%q was taken for an answer", bad)
		}
	}
}

func TestStatReaderTakesQuotesAndUnknownColumns(t *testing.T) {
	const text = `# pxname,svname,novel,scur,status,check_status,type,uweight,
web,www-1,"a ""b"", c",7,UP,* L7OK,2,100,
web,"www-2",,0,DOWN 1/2,L4CON,2,0,
doproxy,FRONTEND,,3,OPEN,,0,,
`
	var r statReader
	var got []string
	err := r.read([]byte(text), func(row *statRow) {
		got = append(got, string(row.backend)+"/"+string(row.name)+" "+string(row.status)+" "+string(row.checkStatus))
		if string(row.name) == "www-1" && (row.sessions != 7 || row.weight != 100 || row.frontend) {
			t.Errorf("%+v", row)
		}
		if row.frontend != (string(row.name) == "FRONTEND") {
			t.Errorf("%s: frontend %v", row.name, row.frontend)
		}
	})
	if want := "web/www-1 UP * L7OK|web/www-2 DOWN 1/2 L4CON|doproxy/FRONTEND OPEN "; err != nil || strings.Join(got, "|") != want {
		t.Fatalf("%q, %v", got, err)
	}
	if err := r.read([]byte("Permission denied\n"), nil); err == nil {
		t.Error("a refusal was taken for figures")
	}
}

func TestParseServersStateRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, bad := range []string{"", "Permission denied", "1\n# be_id be_name\n3 web\n", "1\n# be_id be_name srv_id srv_name srv_addr srv_admin_state srv_uweight srv_check_state srv_port\n3 web 1\n"} {
		if got, err := parseServersState([]byte(bad)); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}

func TestRoutesAreSpecificFirst(t *testing.T) {
	var got []string
	for _, r := range routes([]Backend{
		{Name: "a", Paths: []string{"/x", "/x/long"}}, {Name: "b", Hosts: []string{"h"}},
		{Name: "c", Hosts: []string{"h"}, Paths: []string{"/y"}}, {Name: "d"},
	}) {
		got = append(got, r.Backend+r.Path)
	}
	if s := strings.Join(got, " "); s != "c/y b a/x/long a/x" {
		t.Fatal(s)
	}
}

// fakeSocket answers each line by what f gives for it; an empty string from f
// means silence, "EOF" ends the connection.
func fakeSocket(t *testing.T, f func(line string) string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "dpx")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 65536)
			for {
				n, err := c.Read(buf)
				if err != nil {
					break
				}
				for line := range strings.Lines(string(buf[:n])) {
					answer := f(strings.TrimSpace(line))
					if answer == "EOF" {
						_ = c.Close()
						break
					}
					_, _ = c.Write([]byte(answer))
				}
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done; _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func TestRuntimeTellsRefusalSilenceAndEnd(t *testing.T) {
	path := fakeSocket(t, func(line string) string {
		switch {
		case line == "prompt":
			return "\n> "
		case strings.HasPrefix(line, "set server be/ok "):
			return "\n> "
		case strings.HasPrefix(line, "set server be/gone "):
			return "No such server.\n> "
		case strings.HasPrefix(line, "set server be/odd "):
			return "Something else.\n\n> "
		case strings.HasPrefix(line, "set server be/dies "):
			return "EOF"
		}
		return ""
	})
	r := NewRuntime(path)
	defer r.Close()
	ctx := context.Background()
	if err := r.SetWeight(ctx, "be", "ok", 1); err != nil {
		t.Error(err)
	}
	if err := r.SetWeight(ctx, "be", "gone", 1); !errors.Is(err, ErrNoServer) {
		t.Error(err)
	}
	var answer *CommandError
	if err := r.SetWeight(ctx, "be", "odd", 1); !errors.As(err, &answer) || answer.Command != "set server be/odd weight 1" || answer.Answer != "Something else." {
		t.Error(err)
	}
	if err := r.SetWeight(ctx, "be", "dies", 1); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := r.SetWeight(ctx, "be", "ok", 1); err != nil {
		t.Errorf("after the end: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := r.SetWeight(short, "be", "silent", 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := r.SetWeight(ctx, "be", "ok", 1); err != nil {
		t.Errorf("after silence: %v", err)
	}
	for _, bad := range []string{"a\nb", "a;b", strings.Repeat("x", 9000)} {
		if _, err := r.Do(ctx, bad); err == nil {
			t.Errorf("sent %.20q", bad)
		}
	}
}
