package e2e

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestWipedStore: records vanish from etcd, some or all. Traffic is undisturbed,
// and not one droplet goes at the cloud.
func TestWipedStore(t *testing.T) {
	c := start(t, "--store", "etcd")
	c.follows(3)
	before := c.droplets()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Etcd})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	get := func(key string) string {
		t.Helper()
		r, err := client.Get(t.Context(), key)
		if err != nil || len(r.Kvs) != 1 {
			t.Fatalf("%s: %v %v", key, r, err)
		}
		return string(r.Kvs[0].Value)
	}
	wipe := func(key string) {
		t.Helper()
		if _, err := client.Delete(t.Context(), key, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
	}
	put := func(key, value string) {
		t.Helper()
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	errorsAre := func(want bool) {
		t.Helper()
		eventually(t, "the nodes tell of what they keep, or not", func() error {
			s, err := c.full(0)
			if err != nil {
				return err
			}
			for _, n := range s.Nodes {
				if (len(n.Conditions) > 0) != want {
					return fmt.Errorf("%s: %v", n.Name, n.Conditions)
				}
			}
			return nil
		})
	}
	meta, pool := get(prefix+"meta"), get(prefix+"pools/web")
	l := startLoad(t, c.Nodes, 100)

	wipe(prefix + "droplets/")
	eventually(t, "the droplets are on record again", func() error {
		s, err := c.status(0)
		if err == nil && s.Pools[0].Serving != 3 {
			err = fmt.Errorf("%+v", s.Pools)
		}
		return err
	})
	errorsAre(false)
	l.more(300)

	wipe(prefix + "pools/web")
	errorsAre(true)
	l.more(300)
	put(prefix+"pools/web", pool)
	errorsAre(false)

	wipe(prefix)
	kill(t, c.Nodes[2].PID, syscall.SIGTERM)
	c.killedAlready(2)
	c.restart(2)
	put(prefix+"meta", meta)
	errorsAre(true)
	l.more(300)
	for _, n := range c.Nodes {
		if seen, err := answers(n, 12); err != nil || len(seen) != 3 {
			t.Errorf("%s spreads over %v, %v", n.Name, seen, err)
		}
	}
	put(prefix+"pools/web", pool)
	errorsAre(false)
	l.end()
	c.follows(3)
	if after := c.droplets(); !slices.Equal(after, before) {
		t.Errorf("DigitalOcean had %v and has %v", before, after)
	}
}

// killedAlready waits until an agent that was asked to end has.
func (c *cluster) killedAlready(i int) {
	c.t.Helper()
	eventually(c.t, "the agent has ended", func() error {
		if slices.Contains(c.pids(), c.Nodes[i].PID) {
			return fmt.Errorf("pid %d runs", c.Nodes[i].PID)
		}
		return nil
	})
}
