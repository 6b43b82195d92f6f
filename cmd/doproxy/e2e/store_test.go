package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// configure changes a node's doproxy.yml.
func (c *cluster) configure(i int, change func(string) string) {
	c.t.Helper()
	file := c.Nodes[i].AgentConfig
	data, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(change(string(data))), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// formStore forms the integrated store of all nodes.
func (c *cluster) formStore() {
	c.t.Helper()
	eventually(c.t, "the first node begins the store", func() error {
		if r := c.run(0, "cluster", "init"); r.code != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	for i := 1; i < len(c.Nodes); i++ {
		token := strings.TrimSpace(c.ok(0, "cluster", "token"))
		eventually(c.t, "a node joins", func() error {
			if r := c.run(i, "cluster", "join", token); r.code != 0 && !strings.Contains(r.stderr, "already") {
				return fmt.Errorf("%s", r.stderr)
			}
			return nil
		})
	}
}

// leadsStore is the node whose member leads the integrated store.
func (c *cluster) leadsStore() (leader int) {
	c.t.Helper()
	eventually(c.t, "a member leads the store", func() error {
		r := c.run(0, "cluster", "members", "-o", "json")
		var m struct {
			Members []struct {
				Node   string
				Leader bool
			}
		}
		if err := json.Unmarshal([]byte(r.stdout), &m); err != nil {
			return fmt.Errorf("%s%w", r.stderr, err)
		}
		for _, one := range m.Members {
			if leader = slices.IndexFunc(c.Nodes, func(n node) bool { return "nodes/"+n.Name == one.Node || n.Name == one.Node }); one.Leader {
				return nil
			}
		}
		return fmt.Errorf("none: %s", r.stdout)
	})
	return leader
}

// The inventory moves from etcd into the agents and back, while clients are served
// and without a change to any droplet.
func TestMigrateStore(t *testing.T) {
	c := start(t, "--store", "etcd", "--etcd-members", "1")
	before := c.droplets()
	load := startLoad(t, c.Nodes, 100)

	restart := func(store string, nodes ...int) {
		for _, i := range nodes {
			c.killed(i)
			c.configure(i, func(s string) string {
				s = strings.Replace(s, "store: etcd\n", "store: "+store+"\n", 1)
				return strings.Replace(s, "store: raft\n", "store: "+store+"\n", 1)
			})
			c.restart(i)
		}
	}
	for i, n := range c.Nodes {
		host, _, _ := strings.Cut(n.GRPC, ":")
		c.configure(i, func(s string) string { return s + "\nraft:\n  address: " + host + ":7477\n" })
	}
	restart("etcd", 0, 1, 2)
	c.formStore()
	for more, way := range [][2]string{{"etcd", "raft"}, {"raft", "etcd"}} {
		wanted := len(before) + more + 1
		out := c.ok(1, "store", "migrate", "--from", way[0], "--to", way[1], "--yes")
		t.Log(out)
		if r := c.run(0, "scale", "web=9"); r.code == 0 {
			t.Errorf("a request was taken by the store that was left: %s", r.stdout)
		}
		// The one that leads the integrated store comes last: until then it hands on,
		// so that work goes on with an agent that uses the new store already.
		last := c.leadsStore()
		others := slices.DeleteFunc([]int{0, 1, 2}, func(i int) bool { return i == last })
		restart(way[1], others...)
		eventually(t, "work is done while nodes use either store", func() error {
			if r := c.run(others[0], "scale", fmt.Sprint("web=", wanted), "--wait", "--timeout", "30s"); r.code != 0 {
				return fmt.Errorf("%s", r.stderr)
			}
			return nil
		})
		restart(way[1], last)
		c.follows(wanted)
	}
	load.end()
	terms := 0 // of the integrated store: with each restart of a node some, and none for the moves
	for _, n := range c.Nodes {
		log, err := os.ReadFile(filepath.Join(c.dir, n.Name, "log"))
		if err != nil {
			t.Fatal(err)
		}
		terms += strings.Count(string(log), "this member leads the store")
	}
	if terms > 20 {
		t.Errorf("the store's leadership was handed on %d times", terms)
	}
	t.Log(terms, " terms of the integrated store")
	after := c.droplets()
	if len(after) != len(before)+2 {
		t.Errorf("droplets: %v, then %v", before, after)
	}
}

// Two of three nodes are lost for good: the third goes on alone, and a node joins
// anew.
func TestRecoverStore(t *testing.T) {
	c := start(t)
	c.savedWith(3)
	for i := range c.Nodes {
		c.killed(i)
	}
	recovery := func(args ...string) (string, error) {
		out, err := exec.Command(program(t, "doproxy"), append([]string{"cluster", "recover", "--config", c.Nodes[1].AgentConfig}, args...)...).CombinedOutput()
		return string(out), err
	}
	out, err := recovery()
	if err != nil || !strings.Contains(out, "WARNING") || !strings.Contains(out, "Nothing was changed") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err = recovery("--yes"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c.restart(1)
	eventually(t, "the node goes on alone", func() error {
		if r := c.run(1, "scale", "web=4", "--wait"); r.code != 0 {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	// One of the others comes back with what it had, and is refused; then it joins.
	c.restart(0)
	token := strings.TrimSpace(c.ok(1, "cluster", "token"))
	eventually(t, "a node joins anew", func() error {
		if r := c.run(0, "cluster", "join", token); r.code != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	c.Nodes = c.Nodes[:2]
	c.follows(4)
}

// A node that lost its disk begins a store of its own by mistake. It takes nothing
// from the others, and finds back to them.
func TestInitByMistake(t *testing.T) {
	c := start(t)
	c.follows(3)
	holder := c.settled(0, c.entry(0)) // which all that follows is asked
	lost := (holder + 1) % 3
	c.killed(lost)
	dir := filepath.Dir(c.Nodes[lost].AgentConfig)
	for _, name := range []string{"raft", "inventory.json"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	c.restart(lost)
	eventually(t, "it is asked to join", func() error {
		if r := c.run(lost, "cluster", "init"); r.code == 0 || !strings.Contains(r.stderr, "doproxy cluster join") {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	c.ok(lost, "cluster", "init", "--force")
	c.shows(lost, "it is told that the address is another's", func(s *pb.GetStatusResponse) error {
		for _, one := range s.Conditions {
			if strings.Contains(one.Message, "no node of this cluster") {
				return nil
			}
		}
		return fmt.Errorf("%v", s.Conditions)
	})
	if at := c.settled(holder, c.entry(0)); at != holder {
		t.Errorf("the address moved from %s to %s", c.Nodes[holder].Name, c.Nodes[at].Name)
	}
	token := strings.TrimSpace(c.ok(holder, "cluster", "token"))
	if r := c.run(lost, "cluster", "join", token); r.code == 0 || !strings.Contains(r.stderr, "--abandon") {
		t.Errorf("join beside a store of its own: %+v", r)
	}
	c.ok(lost, "cluster", "join", "--abandon", token)
	c.follows(3)
	if at := c.settled(holder, c.entry(0)); at != holder {
		t.Errorf("the address moved from %s to %s", c.Nodes[holder].Name, c.Nodes[at].Name)
	}
}
