package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/doproxy/doproxy/cloud/dosim"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// prefix is that of the cluster's keys.
const prefix = "/doproxy/dev/"

// memberDirs are the data directories of etcd.
func (c *cluster) memberDirs() []string {
	dirs, _ := filepath.Glob(filepath.Join(c.dir, "etcd-*", "data"))
	slices.Sort(dirs)
	return dirs
}

// stopEtcd ends all members and returns how to start them again.
func (c *cluster) stopEtcd() (stopped []*exec.Cmd) {
	for i := range c.memberDirs() {
		stopped = append(stopped, c.killEtcd(fmt.Sprintf("etcd-%d", i+1)))
	}
	return stopped
}

// startMembers starts members that were stopped, with the state they have.
func (c *cluster) startMembers(stopped []*exec.Cmd, state string) {
	c.t.Helper()
	for _, cmd := range stopped {
		cmd.Args[slices.Index(cmd.Args, "--initial-cluster-state")+1] = state
		if err := cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
}

// untouched fails if a droplet was made or deleted since the last reset.
func (c *cluster) untouched() {
	c.t.Helper()
	calls, err := c.admin().Calls(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, x := range calls.Calls {
		if x.Count > 0 && (x.Method == "POST" && x.Path == "/v2/droplets" || x.Method == "DELETE") {
			c.t.Errorf("%s %s, %d times", x.Method, x.Path, x.Count)
		}
	}
}

// TestRebuild: the store is lost for good. Traffic goes on; the inventory is made
// anew from the tags, for the old uid only, and no droplet is touched.
func TestRebuild(t *testing.T) {
	t.Run("etcd", func(t *testing.T) {
		testRebuild(t, "etcd", func(c *cluster) {
			members := c.stopEtcd()
			for _, dir := range c.memberDirs() {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
			c.startMembers(members, "new")
		})
	})
	t.Run("raft", func(t *testing.T) {
		testRebuild(t, "raft", func(c *cluster) {
			for i := range c.Nodes {
				c.killed(i)
			}
			for i, n := range c.Nodes {
				if err := os.RemoveAll(filepath.Join(filepath.Dir(n.AgentConfig), "raft")); err != nil {
					t.Fatal(err)
				}
				c.restart(i)
			}
			c.formStore()
		})
	})
}

func testRebuild(t *testing.T, store string, lose func(*cluster)) {
	c := start(t, "--store", store)
	c.ok(0, "scale", "web=5", "--wait")
	c.follows(5)
	holder := c.settled(0, c.entry(0))
	s, err := c.full(0)
	if err != nil {
		t.Fatal(err)
	}
	uid, names := s.Uid, c.droplets()
	c.savedWith(5)
	l := startLoad(t, c.Nodes, 50)
	if err := c.admin().ResetCalls(t.Context()); err != nil {
		t.Fatal(err)
	}
	lose(c)
	c.shows(0, "the nodes say that the store lost the cluster", func(s *pb.GetStatusResponse) error {
		if s.StoreError == "" || !strings.Contains(s.StoreError, "no longer holds this cluster") {
			return fmt.Errorf("%q", s.StoreError)
		}
		return nil
	})
	if r := c.run(0, "rebuild", "--from-cloud", "--yes"); r.code == 0 || !strings.Contains(r.stderr, uid) {
		t.Errorf("rebuild without a uid: %+v", r)
	}
	if r := c.run(0, "scale", "web=6"); r.code == 0 {
		t.Errorf("scale on a lost store: %+v", r)
	}
	out := c.ok(0, "rebuild", "--from-cloud", "--uid", uid, "--yes")
	t.Log(out)
	c.follows(5)
	c.untouched()
	if now := c.droplets(); !slices.Equal(now, names) {
		t.Errorf("droplets were %v and are %v", names, now)
	}
	if r := c.run(0, "rebuild", "--from-cloud", "--uid", uid, "--yes"); r.code == 0 {
		t.Errorf("rebuild of a whole inventory: %+v", r)
	}
	if at := c.settled(0, c.entry(0)); at != holder {
		t.Errorf("the address moved from %s to %s", c.Nodes[holder].Name, c.Nodes[at].Name)
	}
	c.ok(1, "create", "-n", "1")
	if !slices.Contains(c.droplets(), "web-5") {
		t.Errorf("the next name is not web-5: %v", c.droplets())
	}
	c.follows(6)
	l.end()
}

// savedWith waits until each node has n serving droplets on disk.
func (c *cluster) savedWith(n int) {
	c.t.Helper()
	for _, node := range c.Nodes {
		eventually(c.t, "the inventory is on the disk of "+node.Name, func() error {
			data, err := os.ReadFile(filepath.Join(filepath.Dir(node.AgentConfig), "inventory.json"))
			if got := strings.Count(string(data), `"phase":"serving"`); err == nil && got != n {
				err = fmt.Errorf("%d of %d serve", got, n)
			}
			return err
		})
	}
}

// TestOldSnapshot: etcd comes back as it was some time ago: records of droplets
// deleted since, droplets created since, ordinals run back. What serves stays, and
// no name is used twice.
func TestOldSnapshot(t *testing.T) {
	c := start(t, "--store", "etcd")
	c.follows(3) // web-0 to web-2
	copyDir := func(from, to string) {
		t.Helper()
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	members := c.stopEtcd()
	for _, dir := range c.memberDirs() {
		copyDir(dir, dir+".old")
	}
	c.startMembers(members, "existing")
	c.shows(0, "the store is back", func(s *pb.GetStatusResponse) error {
		if s.StoreError != "" || s.Leader == "" {
			return fmt.Errorf("%q, leader %q", s.StoreError, s.Leader)
		}
		return nil
	})
	c.ok(0, "scale", "web=7", "--wait")          // web-3 to web-6
	c.ok(0, "delete", "web-0", "web-1", "web-6") // the last name of all is one that is gone
	c.follows(4)
	c.savedWith(4)
	names := c.droplets() // web-2 to web-5

	l := startLoad(t, c.Nodes, 50)
	members = c.stopEtcd()
	for _, dir := range c.memberDirs() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		copyDir(dir+".old", dir)
	}
	if err := c.admin().ResetCalls(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.startMembers(members, "existing")
	c.shows(0, "the inventory is as the cloud is", func(s *pb.GetStatusResponse) error {
		if p := s.Pools[0]; s.StoreError != "" || p.Serving != 4 || p.Leaving != 0 || p.RewoundTime == nil {
			return fmt.Errorf("%q %v", s.StoreError, p)
		}
		return nil
	})
	c.follows(4)
	c.untouched()
	if now := c.droplets(); !slices.Equal(now, names) {
		t.Errorf("droplets were %v and are %v", names, now)
	}
	c.ok(0, "scale", "web=5", "--wait")
	if now := c.droplets(); !slices.Contains(now, "web-7") {
		t.Errorf("the name after web-6 is web-7: %v", now)
	}
	c.follows(5)
	l.end()
}

// TestVerify: what was changed behind doproxy's back is found and named.
func TestVerify(t *testing.T) {
	c := start(t, "--nodes", "2", "--store", "etcd", "--etcd-members", "1")
	c.follows(3)
	c.settled(0, c.entry(0))
	eventually(t, "nothing differs", func() error {
		if r := c.run(0, "verify"); r.code != 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	all, err := c.admin().Droplets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for all[i].Name != "web-0" {
		i++
	}
	c.ok(0, "pause") // so that nothing is mended while it is looked at
	if _, err := c.api().Droplets.Delete(t.Context(), all[i].ID); err != nil {
		t.Fatal(err)
	}
	c.unassign(c.entry(0))
	for _, want := range []string{"web-0", c.entry(0)} {
		eventually(t, "verify finds "+want, func() error {
			r := c.run(1, "verify", "-o", "json")
			if r.code != 9 || !strings.Contains(r.stdout, want) {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
	}
	other := all[slices.IndexFunc(all, func(d dosim.DropletView) bool { return d.Name == "web-1" })].ID
	eventually(t, "verify finds a server whose weight was changed", func() error {
		if err := runtimeCommand(c.Nodes[1].RuntimeSocket, fmt.Sprintf("set server web/www-%d weight 7", other)); err != nil {
			return err
		}
		if r := c.run(0, "verify"); r.code != 9 || !strings.Contains(r.stdout, fmt.Sprintf("www-%d", other)) {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	c.ok(0, "resume")
	c.ok(0, "scale", "web=3")
	c.run(0, "verify", "--repair")
	eventually(t, "nothing differs again", func() error {
		if r := c.run(0, "verify", "--repair"); r.code != 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	c.follows(3)
}

// TestBackupAndRestore: what backup wrote, restore and apply take.
func TestBackupAndRestore(t *testing.T) {
	c := start(t, "--nodes", "1")
	c.follows(3)
	c.ok(0, "apply", "-f", c.file("limits.yml", "limits: {droplets: 12, cost_hourly: 1.5}\n"))
	file := filepath.Join(c.dir, "backup.yml")
	c.ok(0, "backup", "-f", file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	again := c.ok(0, "backup")
	saved, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	uncommented := func(s string) string {
		var lines []string
		for line := range strings.Lines(s) {
			if !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	if uncommented(again) != uncommented(string(saved)) {
		t.Errorf("two backups differ:\n%s\n%s", saved, again)
	}
	c.ok(0, "apply", "-f", c.file("limits.yml", "limits: {droplets: 2}\n"))
	c.ok(0, "scale", "web=1", "--wait")
	if out := c.ok(0, "restore", "-f", file, "--dry-run"); !strings.Contains(out, "desired") || !strings.Contains(out, "droplets") {
		t.Errorf("restore --dry-run printed %s", out)
	}
	c.follows(1)
	c.ok(0, "restore", "-f", file, "--yes")
	c.follows(3)
	if now := c.ok(0, "backup"); uncommented(now) != uncommented(string(saved)) {
		t.Errorf("after restore:\n%s\nwant\n%s", now, saved)
	}
}

// TestOtherVersions: what a newer version wrote into records survives an older
// one's changes; records that nobody can read, and foreign ones, are set aside and
// shown; a schema too new is refused with words.
func TestOtherVersions(t *testing.T) {
	c := start(t, "--nodes", "2", "--etcd-members", "1", "--store", "etcd")
	c.follows(3)
	client := c.etcd()
	later := map[string]any{"from_the_future": map[string]any{"x": 1.0, "list": []any{"a"}}}
	keys := []string{prefix + "pools/web", prefix + "droplets/web/web-0", prefix + "members/lb-1", prefix + "settings"}
	for _, key := range keys {
		c.edit(client, key, later)
	}
	c.ok(0, "apply", "-f", c.file("limits.yml", "limits: {droplets: 50}\n"))
	c.ok(0, "scale", "web=4", "--wait")
	c.ok(1, "node", "drain", "lb-1", "--no-wait")
	c.ok(1, "node", "undrain", "lb-1")
	for _, key := range keys {
		r, err := client.Get(t.Context(), key)
		if err != nil || len(r.Kvs) != 1 {
			t.Fatal(key, r, err)
		}
		if !strings.Contains(string(r.Kvs[0].Value), `"from_the_future":{"list":["a"],"x":1}`) {
			t.Errorf("%s lost what it does not know: %s", key, r.Kvs[0].Value)
		}
	}

	for key, value := range map[string]string{
		prefix + "droplets/web/web-77": `{"name":`,
		prefix + "pools/broken":        `[]`,
		prefix + "somebody/elses":      `hello`,
		prefix + "ingress/ip/nonsense": `{}`,
	} {
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	c.shows(0, "the records set aside are shown", func(s *pb.GetStatusResponse) error {
		if len(s.Unreadable) != 4 {
			return fmt.Errorf("%v", s.Unreadable)
		}
		return nil
	})
	out := c.ok(0, "status")
	for _, key := range []string{"web-77", "pools/broken", "somebody/elses", "nonsense"} {
		if !strings.Contains(out, key) {
			t.Errorf("the status does not show %s:\n%s", key, out)
		}
	}
	for _, key := range []string{"droplets/web/web-77", "pools/broken", "somebody/elses", "ingress/ip/nonsense"} {
		c.ok(0, "store", "delete", key, "--yes")
	}
	c.ok(0, "scale", "web=3", "--wait")
	c.follows(3)

	l := startLoad(t, c.Nodes, 50)
	c.edit(client, prefix+"meta", map[string]any{"schema": 99})
	if err := c.admin().ResetCalls(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.run(0, "scale", "web=5")
	c.killed(1)
	c.restart(1)
	eventually(t, "an agent that starts says that it is too old", func() error {
		data, err := os.ReadFile(filepath.Join(c.dir, c.Nodes[1].Name, "log"))
		if err == nil && !strings.Contains(string(data), "schema 99") {
			err = fmt.Errorf("its log does not tell")
		}
		return err
	})
	c.untouched()
	c.edit(client, prefix+"meta", map[string]any{"schema": 1})
	c.ok(0, "scale", "web=4", "--wait")
	l.end()
}

// runtimeCommand has a HAProxy do something behind doproxy's back.
func runtimeCommand(socket, command string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err = fmt.Fprintln(conn, command); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn)
	return err
}
