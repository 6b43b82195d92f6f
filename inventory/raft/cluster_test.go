package raft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

// patience bounds what should happen soon.
const patience = 60 * time.Second

// cluster is some members in this process.
type cluster struct {
	*testing.T
	dir   string
	nodes []*Node
	opts  []Options
	plain bool

	mu    sync.Mutex
	cut   map[[2]string]bool
	held  map[string]chan struct{} // by the address of the node that is answered
	conns map[net.Conn][2]string
}

func newCluster(t *testing.T, size int, change ...func(*Options)) *cluster {
	c := &cluster{T: t, dir: t.TempDir(), plain: true, cut: map[[2]string]bool{}, held: map[string]chan struct{}{}, conns: map[net.Conn][2]string{}}
	for i := range size {
		c.add(i, change...)
	}
	c.init(0)
	for i := 1; i < size; i++ {
		c.join(i)
	}
	return c
}

// freeAddress is on a loopback address that hardly anybody else uses, so that
// nobody takes the port before the member does.
func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 128+rand.IntN(64), rand.IntN(256), 1+rand.IntN(254)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// add opens a node that belongs to no store yet.
func (c *cluster) add(i int, change ...func(*Options)) *Node {
	name := fmt.Sprint("lb", i+1)
	o := Options{
		Dir: filepath.Join(c.dir, name), Name: name, Address: freeAddress(c), Plain: c.plain, Version: "test",
		Logger: c.logger(name), stabilize: 100 * time.Millisecond,
	}
	for _, change := range change {
		change(&o)
	}
	from := o.Address
	o.dial = func(ctx context.Context, to string) (net.Conn, error) { return c.connect(ctx, from, to) }
	n, err := Open(o)
	if err != nil {
		c.Fatal(err)
	}
	c.nodes, c.opts = append(c.nodes, n), append(c.opts, o)
	c.Cleanup(func() { c.nodes[i].Close() })
	return n
}

func (c *cluster) logger(name string) *slog.Logger {
	if os.Getenv("DOPROXY_TEST_LOG") == "" {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", name)
}

func (c *cluster) init(i int) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	if _, err := c.nodes[i].Init(ctx); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) token() string {
	c.Helper()
	var token string
	c.eventually("a token", func() (err error) {
		token, _, err = c.nodes[0].Token(c.Context(), time.Hour)
		return err
	})
	return token
}

func (c *cluster) join(i int) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	if err := c.nodes[i].Join(ctx, c.token(), false, nil); err != nil {
		c.Fatal(err)
	}
	c.voters(i + 1)
}

// voters waits until there are so many healthy ones.
func (c *cluster) voters(want int) {
	c.Helper()
	c.eventually(fmt.Sprint(want, " voters"), func() error {
		var all inventory.Membership
		err := errors.New("no node is open")
		for _, n := range c.nodes {
			if all, err = n.Members(c.Context()); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
		got := 0
		for _, m := range all.Members {
			if m.Voter && m.Healthy {
				got++
			}
		}
		if got != want {
			return fmt.Errorf("%d healthy voters: %+v", got, all.Members)
		}
		return nil
	})
}

func (c *cluster) eventually(what string, try func() error) {
	c.Helper()
	eventually(c.T, what, try)
}

// connect dials unless the two are cut off from each other.
func (c *cluster) connect(ctx context.Context, from, to string) (net.Conn, error) {
	pair := [2]string{from, to}
	c.mu.Lock()
	cut := c.cut[pair]
	c.mu.Unlock()
	if cut {
		return nil, errors.New("cut off")
	}
	conn, err := dialTCP(ctx, to)
	if err != nil {
		return nil, err
	}
	conn = &heldConn{conn, func() chan struct{} {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.held[from]
	}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[conn] = pair
	return conn, nil
}

// separate cuts two nodes off from each other.
func (c *cluster) separate(i, j int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, b := c.opts[i].Address, c.opts[j].Address
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		c.cut[pair] = true
		for conn, of := range c.conns {
			if of == pair {
				conn.Close()
				delete(c.conns, conn)
			}
		}
	}
}

// hold keeps back what others answer to a node until release, from when on what
// the node sends by the same connections is lost.
func (c *cluster) hold(i int) (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := make(chan struct{})
	c.held[c.opts[i].Address] = held
	return func() { close(held) }
}

// heldConn is a connection whose node's answers may be kept back.
type heldConn struct {
	net.Conn
	held func() chan struct{}
}

func (c *heldConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if held := c.held(); held != nil {
		<-held
	}
	return n, err
}

func (c *heldConn) Write(b []byte) (int, error) {
	if held := c.held(); held != nil {
		select {
		case <-held:
			return len(b), nil
		default:
		}
	}
	return c.Conn.Write(b)
}

// isolate cuts a node off from all others, or heals that.
func (c *cluster) isolate(i int, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	self := c.opts[i].Address
	for j := range c.nodes {
		if other := c.opts[j].Address; j != i {
			c.cut[[2]string{self, other}], c.cut[[2]string{other, self}] = cut, cut
		}
	}
	if cut {
		for conn, pair := range c.conns {
			if pair[0] == self || pair[1] == self {
				conn.Close()
				delete(c.conns, conn)
			}
		}
	}
}

// leader is the node that leads the store, once one does.
func (c *cluster) leader() int {
	c.Helper()
	leader := -1
	c.eventually("a leader", func() error {
		for i, n := range c.nodes {
			if m := n.member.Load(); m != nil {
				if l := m.leading.Load(); l != nil {
					if _, err := l.verifiedIndex(c.Context()); err == nil {
						leader = i
						return nil
					}
				}
			}
		}
		return errNoLeader
	})
	return leader
}

func (c *cluster) restart(i int) {
	c.Helper()
	if err := c.nodes[i].Close(); err != nil {
		c.Fatal(err)
	}
	n, err := Open(c.opts[i])
	if err != nil {
		c.Fatal(err)
	}
	c.nodes[i] = n
}

// compacter compacts every member, since each has a history of its own.
type compacter struct{ nodes []*Node }

func (c compacter) Compact(_ context.Context, rev inventory.Revision) error {
	for _, n := range c.nodes {
		m := n.member.Load().machine
		m.mu.Lock()
		m.compact(rev)
		m.mu.Unlock()
	}
	return nil
}

// TestConformance runs the suite through the leader and through a follower.
func TestConformance(t *testing.T) {
	for _, through := range []string{"leader", "follower"} {
		t.Run(through, func(t *testing.T) {
			c := newCluster(t, 3)
			i := c.leader()
			if through == "follower" {
				i = (i + 1) % 3
			}
			inventorytest.Run(t, func(*testing.T) (inventorytest.Backend, inventorytest.Compacter) {
				return c.nodes[i], compacter{c.nodes}
			})
		})
	}
}
