package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/cli"
	"github.com/doproxy/doproxy/inventory/raft"
)

// stoppedNode is the configuration and the directory of a node whose agent does
// not run.
type stoppedNode struct{ name, address, config, dir string }

func newStoppedNode(t *testing.T, name string) stoppedNode {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	n := stoppedNode{name, l.Addr().String(), filepath.Join(state, "doproxy.yml"), filepath.Join(state, "raft")}
	_ = l.Close()
	text := fmt.Sprintf("node: %s\ntoken: dop_v1_0123456789\nstore: raft\nstate_dir: %s\nraft: {address: '%s', plain: true}\napi: {socket: %s}\n", name, state, n.address, filepath.Join(state, "s"))
	if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n stoppedNode) open(t *testing.T) *raft.Node {
	t.Helper()
	node, err := raft.Open(raft.Options{Dir: n.dir, Name: n.name, Address: n.address, Plain: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	return node
}

// recover runs the command on the node.
func (n stoppedNode) recover(t *testing.T, args ...string) (exit int, out, errs string) {
	t.Helper()
	root := &cobra.Command{Use: "doproxy"}
	cli.Add(root, cli.Options{})
	cluster, _, err := root.Find([]string{"cluster"})
	if err != nil {
		t.Fatal(err)
	}
	cluster.AddCommand(RecoverCommand())
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(append([]string{"cluster", "recover", "--config", n.config}, args...))
	exit = cli.Execute(t.Context(), root)
	return exit, stdout.String(), stderr.String()
}

func TestRecoverCommand(t *testing.T) {
	lb1, lb2 := newStoppedNode(t, "lb-1"), newStoppedNode(t, "lb-2")
	first := lb1.open(t)
	if _, err := first.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	token, _, err := first.Token(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	second := lb2.open(t)
	if err := second.Join(t.Context(), token, false, nil); err != nil {
		t.Fatal(err)
	}
	for _, node := range []*raft.Node{first, second} {
		if err := node.Close(); err != nil {
			t.Fatal(err)
		}
	}
	object := func(args ...string) (r cli.Recovery) {
		t.Helper()
		exit, out, errs := lb1.recover(t, append(args, "-o", "json")...)
		if err := json.Unmarshal([]byte(out), &r); err != nil || exit != cli.ExitOK {
			t.Fatalf("%q: exit %d, %v\n%s%s", args, exit, err, out, errs)
		}
		return r
	}
	if exit, out, _ := lb1.recover(t); exit != cli.ExitOK || !strings.Contains(out, "The other members: "+lb2.address+".\n") || !strings.HasSuffix(out, "Nothing was changed.\n") {
		t.Errorf("exit %d\n%s", exit, out)
	}
	if exit, out, errs := lb1.recover(t, "--yes", "-o", "yaml"); exit != cli.ExitUsage || errs != "doproxy: -o \"yaml\": want table, plain, json\n" {
		t.Errorf("exit %d\n%s%s", exit, out, errs)
	}
	if r := object(); !strings.HasPrefix(r.ID, "lb-1-") || r.Cluster == "" || r.Term == 0 || r.Index == 0 || len(r.Others) != 1 || r.Others[0] != lb2.address || r.Changed {
		t.Errorf("shown: %+v", r)
	}
	if r := object("--yes"); len(r.Others) != 1 || !r.Changed {
		t.Errorf("recovered: %+v", r)
	}
	if r := object("--yes"); len(r.Others) != 0 || r.Index == 0 || r.Changed {
		t.Errorf("recovered twice: %+v", r)
	}
	if exit, out, _ := lb1.recover(t); exit != cli.ExitOK || !strings.HasSuffix(out, "It is the only member already: there is nothing to recover.\n") {
		t.Errorf("exit %d\n%s", exit, out)
	}
}

// A member that ended before its first entry is not the only one: it knows none.
func TestRecoverWithoutALog(t *testing.T) {
	n := newStoppedNode(t, "lb-1")
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	identity := filepath.Join(n.dir, "identity.json")
	const was = `{"id": "lb-1-9f3a01c2", "node": "lb-1", "cluster": "01JSTORE", "plain": true}`
	if err := os.WriteFile(identity, []byte(was), 0o600); err != nil {
		t.Fatal(err)
	}
	exit, out, errs := n.recover(t)
	if exit != cli.ExitOK || !strings.HasPrefix(out, "This node is member lb-1-9f3a01c2 of store 01JSTORE. It has no log: there is nothing to recover from.\n") || strings.Contains(out, "only member") {
		t.Errorf("exit %d\n%s%s", exit, out, errs)
	}
	exit, out, errs = n.recover(t, "--yes")
	if exit != cli.ExitRefused || out != "" || !strings.HasPrefix(errs, "doproxy: cluster recover: "+n.dir+" has no log to recover from; nothing was changed\n  mend: recover a node that has one\n  mend: have this one join anew: move "+n.dir+" away, ") {
		t.Errorf("exit %d\n%s%s", exit, out, errs)
	}
	if is, err := os.ReadFile(identity); err != nil || string(is) != was {
		t.Errorf("the identity was changed: %s, %v", is, err)
	}
}
