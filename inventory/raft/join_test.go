package raft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/raft/pki"
)

// TestAbandonIsNoMixture: a node that gives its store up for another, whose history
// has the same revisions, shows the one or the other, whether or not the join
// comes to its end.
func TestAbandonIsNoMixture(t *testing.T) {
	for _, whole := range []bool{true, false} {
		t.Run(fmt.Sprint("to its end: ", whole), func(t *testing.T) {
			c := newCluster(t, 1)
			c.add(1)
			c.init(1)
			keys := inventory.KeysOf("test")
			put := func(i int, name string) {
				t.Helper()
				var txn inventory.Txn
				txn.Add(inventory.PutDroplet(keys, &inventory.Droplet{Pool: "web", Name: name, ID: 1, Phase: inventory.Serving, Created: time.Unix(1700000000, 0).UTC()}))
				if _, err := c.nodes[i].Commit(t.Context(), txn); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 2 {
				if _, err := inventory.EnsureMeta(t.Context(), c.nodes[i], keys); err != nil {
					t.Fatal(err)
				}
			}
			put(1, "web-1")
			var want []string
			for i := range 20 {
				want = append(want, fmt.Sprint("web-", 10+i))
				put(0, want[i])
			}

			mirror := inventory.NewMirror(c.nodes[1], keys, c.logger("mirror"))
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan struct{})
			go func() {
				defer close(over)
				_ = mirror.Run(ctx)
			}()
			t.Cleanup(func() { cancel(); <-over })
			wake, unsubscribe := mirror.Subscribe()
			defer unsubscribe()
			shown := func() []string { return slices.Sorted(maps.Keys(mirror.State().Droplets)) }
			c.eventually("its own", func() error {
				if got := shown(); mirror.State().Err != nil || !slices.Equal(got, []string{"web-1"}) {
					return fmt.Errorf("it shows %v", got)
				}
				return nil
			})
			go func() {
				for {
					select {
					case <-wake:
						if got := shown(); len(got) != 1 && len(got) != len(want) {
							t.Errorf("it shows %v", got)
						}
					case <-over:
						return
					}
				}
			}()

			joinCtx, stop := context.WithCancel(t.Context())
			defer stop()
			err := c.nodes[1].Join(joinCtx, c.token(), true, func() {
				mirror.Expect()
				if !whole {
					time.AfterFunc(20*time.Millisecond, stop)
				}
			})
			if whole && err != nil {
				t.Fatal(err)
			}
			c.eventually("the others'", func() error {
				if got := shown(); mirror.State().Err != nil || !slices.Equal(got, want) {
					return fmt.Errorf("it shows %v, %v", got, mirror.State().Err)
				}
				return nil
			})
		})
	}
}

// TestKeyOfAnother: the key that an init left which came to nothing is no harm to
// the store that the node joins.
func TestKeyOfAnother(t *testing.T) {
	c := &cluster{T: t, dir: t.TempDir(), cut: map[[2]string]bool{}, held: map[string]chan struct{}{}, conns: map[net.Conn][2]string{}}
	for i := range 3 {
		c.add(i)
	}
	c.init(0)
	other, err := pki.NewAuthority("other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFiles(c.opts[1].Dir, file{caKeyFile, other.KeyPEM()}); err != nil {
		t.Fatal(err)
	}
	c.join(1)
	c.eventually("it has led", func() error {
		l := c.nodes[1].member.Load().leading.Load()
		if l == nil {
			_ = c.nodes[0].StepDown(t.Context())
			return errNoLeader
		}
		if _, err := os.Stat(filepath.Join(c.opts[1].Dir, caKeyFile)); err == nil {
			return errors.New("it has the key yet")
		}
		return nil
	})
	if err := c.nodes[2].Join(t.Context(), c.token(), false, nil); err != nil {
		t.Error("the third cannot join:", err)
	}
}

// TestFounderCutShort: a founder that was killed between the two writes that begin
// a store begins it when it starts again.
func TestFounderCutShort(t *testing.T) {
	c := newCluster(t, 1)
	c.add(1)
	o := c.opts[1]
	if err := c.nodes[1].Close(); err != nil {
		t.Fatal(err)
	}
	id := &identity{ID: "lb2-00000000", Node: "lb2", Cluster: "x", Plain: true, Founder: true}
	if err := writeFiles(o.Dir, id.file()); err != nil {
		t.Fatal(err)
	}
	d, err := openDisk(o.Dir, libraryLogger(o.Logger))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.log.SetUint64([]byte("CurrentTerm"), 1), d.close()); err != nil {
		t.Fatal(err)
	}
	c.restart(1)
	c.put(1, "/a", "1")
}

// TestRecoverCutShort: a recovery that was killed after it had written down who is
// left out, and before that was so, leaves out nobody.
func TestRecoverCutShort(t *testing.T) {
	c := newCluster(t, 3, secured)
	c.put(0, "/a", "1")
	id := c.nodes[0].member.Load().identity
	for i, n := range c.nodes {
		if i > 0 {
			id.Recovered = append(id.Recovered, n.member.Load().ID)
		}
	}
	for _, n := range c.nodes {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeFiles(c.opts[0].Dir, id.file()); err != nil {
		t.Fatal(err)
	}
	for i, o := range c.opts {
		n, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[i] = n
	}
	time.Sleep(askEvery + time.Second) // each has asked the others
	for i := range c.nodes {
		if why := c.nodes[i].expelled.Load(); why != nil {
			t.Errorf("node %d %s", i, why.why)
		}
	}
	c.voters(3)
	if again, err := readIdentity(c.opts[0].Dir); err != nil || len(again.Recovered) > 0 {
		t.Errorf("it still leaves out %v, %v", again.Recovered, err)
	}
}

// TestOtherCluster: a node that is configured for another cluster is not let in; it
// could come to lead, and nobody would act.
func TestOtherCluster(t *testing.T) {
	c := newCluster(t, 1, func(o *Options) { o.Inventory = "shop" })
	c.add(1, func(o *Options) { o.Inventory = "blog" })
	token := c.token()
	refused(t, "another cluster", c.nodes[1].Join(t.Context(), token, false, nil), `"shop"`)
	c.opts[1].Inventory = "shop"
	c.restart(1)
	if err := c.nodes[1].Join(t.Context(), token, false, nil); err != nil {
		t.Error("with the right one, and the same token:", err)
	}
}

// TestSecondAgent: a second agent on a member's directory, with another address,
// is refused before it tells the others of that.
func TestSecondAgent(t *testing.T) {
	c := newCluster(t, 2)
	o := c.opts[1]
	o.Address = freeAddress(t)
	if n, err := Open(o); err == nil {
		n.Close()
		t.Error("there are two of it")
	}
	all, err := c.nodes[0].Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := all.Members[1]; got.Address != c.opts[1].Address {
		t.Errorf("it is looked for at %s, and is at %s", got.Address, c.opts[1].Address)
	}
}
