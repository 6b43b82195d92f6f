package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReadyFileTellsHowToReachIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ready.json")
	t.Setenv("DOSIM_TOKEN", "from-the-environment")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	c := command()
	c.SetArgs([]string{"--ready-file", file, "--boot-delay", "0", "--rate-limit-minute", "0", "--droplet-port", "18391"})
	c.SetOut(&out)
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(ctx) }()

	var r ready
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if b, err := os.ReadFile(file); err == nil {
			if err := json.Unmarshal(b, &r); err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			break
		}
		select {
		case err := <-ended:
			t.Fatal("ended:", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("no ready file")
		}
	}
	if r.Token != "from-the-environment" || r.PID != os.Getpid() || !strings.HasPrefix(r.DropletPrefix, "127.") || r.DropletPort != 18391 {
		t.Errorf("ready file: %+v", r)
	}
	req, err := http.NewRequestWithContext(ctx, "GET", r.URL+"/v2/account", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if res.StatusCode != 200 {
		t.Error(res.Status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the ready file is still there")
	}
	if !strings.Contains(out.String(), r.URL) {
		t.Errorf("printed %q", out.String())
	}
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{
		{"--droplet-prefix", "10.0"}, {"--boot-delay", "-1s"}, {"--listen", "nowhere:x"}, {"extra"}, {"--entry-port", "0"}, {"--entry-port", "443,443"}, {"--move-delay", "-1s"},
		{"--ready-file", filepath.Join(t.TempDir(), "missing", "ready.json")},
	} {
		c := command()
		c.SetArgs(args)
		c.SetOut(io.Discard)
		if err := c.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}
