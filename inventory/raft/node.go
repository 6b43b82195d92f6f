// Package raft keeps the inventory in the agents themselves: each is a member of
// one replicated log, by github.com/hashicorp/raft.
//
// Every write is an entry of the log and takes effect where it is applied, under
// the guards that hold there. The leader key is bound to the term: the first
// entry of a later term deletes it before anything else is done, so that whatever
// an ended leader still has under way finds its fence gone.
package raft

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/raft/pki"
)

// Options of a Node. Dir, Name, Address and Logger are needed.
type Options struct {
	Dir     string // the member's alone; it holds keys
	Name    string // the node's
	Address string // host:port, where the other members reach this one
	// Inventory names what the store is to keep: a node that names another is not
	// let in. Empty is any.
	Inventory string
	Listen    string // default Address
	// Plain is without TLS, for loopback. It holds for the whole cluster.
	Plain bool
	// NeverLead: this node must not act as leader; it hands the store's
	// leadership on.
	NeverLead bool
	// DeadAfter is how long a member may be silent before it is removed, while
	// three remain. Default DefaultDeadAfter.
	DeadAfter time.Duration
	Version   string
	Logger    *slog.Logger
	// Timeout of one call. Default DefaultTimeout.
	Timeout time.Duration

	// Of tests: how others are dialed, what each write to the log waits for, and
	// how soon a snapshot is due.
	dial            func(ctx context.Context, address string) (net.Conn, error)
	write           func()
	snapshotEntries uint64
	stabilize       time.Duration
}

const (
	DefaultTimeout   = 3 * time.Second
	DefaultDeadAfter = 10 * time.Minute
)

// The library's clocks. A leader that reaches no quorum gives up after
// leaderLease, well before a follower that hears none stands for election.
const (
	heartbeatTimeout = 500 * time.Millisecond
	electionTimeout  = 500 * time.Millisecond
	leaderLease      = 400 * time.Millisecond
	// commitTimeout is how soon a follower that no announcement reached learns of
	// what is committed.
	commitTimeout = 100 * time.Millisecond

	// A follower stands for election when the leader was silent for standAfter, and
	// standApart for each voter before it, so that two seldom do so at once.
	standAfter = 600 * time.Millisecond
	standApart = 50 * time.Millisecond
)

// defaultSnapshotEntries is how much of the log a member that starts does again,
// about; that takes some 20 µs an entry. Members that were away for no more
// than five times as much need no snapshot.
const defaultSnapshotEntries = 2048

// Node is this process's part in the store: an inventory.Store and Leaser, and a
// member of the cluster that keeps it. Until it belongs to one, its calls fail
// with inventory.ErrUnavailable.
type Node struct {
	opts   Options
	logger *slog.Logger
	client client

	open  context.Context // until Close
	close context.CancelFunc

	mu     sync.Mutex // held while the member starts, or stops
	member atomic.Pointer[member]
	// failed is why the member is stopped until its log can be opened again.
	failed atomic.Pointer[error]
	again  sync.WaitGroup // those that open it, or end it for good
	// expelled is why the others go on without this node's member, which is stopped.
	expelled atomic.Pointer[expelled]

	// changed is closed, and replaced, when the node may have gained or lost the
	// leadership, or its membership, or when another leads.
	changeMu sync.Mutex
	changed  chan struct{}
}

var (
	_ inventory.Store  = (*Node)(nil)
	_ inventory.Leaser = (*Node)(nil)
)

// Open returns the node. If its directory belongs to a member, that starts, once
// its disk has room; else Init or Join make it one. The caller closes it.
func Open(opts Options) (*Node, error) {
	switch {
	case opts.Dir == "" || opts.Name == "" || opts.Address == "" || opts.Logger == nil:
		return nil, errors.New("raft: directory, name, address or logger is missing")
	case opts.Listen == "":
		opts.Listen = opts.Address
	}
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.DeadAfter <= 0 {
		opts.DeadAfter = DefaultDeadAfter
	}
	if opts.snapshotEntries == 0 {
		opts.snapshotEntries = defaultSnapshotEntries
	}
	if opts.stabilize == 0 {
		opts.stabilize = 3 * time.Second
	}
	n := &Node{opts: opts, logger: opts.Logger, changed: make(chan struct{})}
	n.open, n.close = context.WithCancel(context.Background())
	id, err := readIdentity(opts.Dir)
	if err != nil {
		return nil, err
	}
	if id == nil {
		n.logger.Warn("this node belongs to no store yet: `doproxy cluster init` begins one, `doproxy cluster join` joins one")
		return n, nil
	}
	if id.Expelled != "" {
		n.expelled.Store(&expelled{id.Expelled})
		n.logger.Error("this node has no part in the store any more", "because", n.expelled.Load())
		return n, nil
	}
	if id.Node != opts.Name {
		return nil, fmt.Errorf("%s belongs to node %s and this is %s: set `node` back, or move the directory away and join anew", opts.Dir, id.Node, opts.Name)
	}
	if id.Plain != opts.Plain {
		return nil, fmt.Errorf("raft.plain is %t and the store in %s was begun with %t: set it back", opts.Plain, opts.Dir, id.Plain)
	}
	if full := room(opts.Dir); full != nil {
		n.fail(full)
		n.again.Go(func() { n.away(id, full) })
		return n, nil
	}
	n.mu.Lock() // so that a disk that fails meanwhile is seen to after
	defer n.mu.Unlock()
	if err := n.start(id); err != nil {
		return nil, err
	}
	return n, nil
}

// Close leaves the others without this member until it is opened again. A
// leader should step down before.
func (n *Node) Close() error {
	n.close() // first: a member that starts may be waiting for its disk
	n.mu.Lock()
	m := n.member.Swap(nil)
	n.mu.Unlock()
	n.again.Wait()
	if m != nil {
		return m.stop()
	}
	return nil
}

// reopen stops a member whose disk failed, and starts it when that works.
func (n *Node) reopen(m *member, cause error) {
	n.mu.Lock()
	if n.member.Load() != m {
		n.mu.Unlock()
		return // it is closed, or was never begun
	}
	n.fail(cause) // first: without both it would be a member of nothing
	n.member.Store(nil)
	n.notify()
	if err := m.stop(); err != nil {
		n.logger.Warn("stopping this member", "error", err)
	}
	n.mu.Unlock()
	n.away(m.identity, cause)
}

// away waits until the disk works, and starts the member. To the others it is
// away until then.
func (n *Node) away(id *identity, cause error) {
	for cause != nil {
		n.fail(cause)
		n.logger.Error("cannot write to the store's disk: this member is away until that works", "directory", n.opts.Dir, "error", cause)
		select {
		case <-n.open.Done():
			return
		case <-time.After(time.Second):
		}
		if cause = room(n.opts.Dir); cause == nil {
			cause = n.startAgain(id)
		}
	}
}

func (n *Node) fail(cause error) { n.failed.Store(&cause) }

func (n *Node) startAgain(id *identity) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open.Err() != nil {
		return nil
	}
	err := n.start(id)
	if err == nil {
		n.failed.Store(nil)
		n.logger.Info("the store's disk takes writes again")
	}
	return err
}

// expel ends a member for good: it would else vote, with others like it, for a
// store of their own. Its data stays until the node joins anew.
func (n *Node) expel(m *member, why *expelled) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.member.CompareAndSwap(m, nil) {
		return
	}
	n.logger.Error("this node has no part in the store any more", "because", why)
	n.expelled.Store(why)
	n.notify()
	m.identityMu.Lock()
	m.Expelled = why.why
	err := writeFiles(n.opts.Dir, m.identity.file())
	m.identityMu.Unlock()
	if err = errors.Join(err, m.stop()); err != nil {
		n.logger.Warn("stopping this member", "error", err)
	}
}

func (n *Node) notify() {
	n.changeMu.Lock()
	defer n.changeMu.Unlock()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *Node) changes() <-chan struct{} {
	n.changeMu.Lock()
	defer n.changeMu.Unlock()
	return n.changed
}

// running is the member, or why there is none.
func (n *Node) running() (*member, error) {
	if n.open.Err() != nil {
		return nil, errClosed
	}
	if m := n.member.Load(); m != nil {
		return m, nil
	}
	if why := n.expelled.Load(); why != nil {
		return nil, fmt.Errorf("%w: %w", inventory.ErrNotMember, why)
	}
	if err := n.failed.Load(); err != nil {
		return nil, fmt.Errorf("%w: cannot write to the store's disk: %w", inventory.ErrUnavailable, *err)
	}
	return nil, errNoStore
}

// member is a node's membership while it lasts.
type member struct {
	*Node
	*identity
	identityMu sync.Mutex // of what in identity changes: Founder, Begun, Recovered
	machine    *machine
	raft       *hraft.Raft
	network    *network
	trans      *hraft.NetworkTransport
	disk       *disk
	log        *failing
	library    hclog.Logger
	peers      peers
	servers    []*grpc.Server

	leading atomic.Pointer[leading]
	verify  *verifier
	contact contact
	// refused is what the leader said to this member's wish to belong to it.
	refused atomic.Pointer[error]

	ctx  context.Context
	end  context.CancelFunc
	work sync.WaitGroup
}

// start brings the member of the directory up. n.mu is held, or nobody else has n.
func (n *Node) start(id *identity) (err error) {
	m := &member{Node: n, identity: id, machine: newMachine(), library: libraryLogger(n.logger)}
	m.ctx, m.end = context.WithCancel(n.open)
	m.contact.lost = make(chan struct{})
	m.contact.last = time.Now()
	up := false
	defer func() {
		if !up { // or its disk did not let it until the node was closed: see steady
			err = errors.Join(err, m.stop())
		}
	}()
	if m.network, err = listen(n.opts.Listen, n.opts.Address, n.opts.dial); err != nil {
		return err
	}
	if !id.Plain {
		if m.network.server, m.network.client, err = loadTLS(n.opts.Dir, id.Cluster); err != nil {
			return err
		}
	}
	m.network.banned = m.banned
	if m.disk, err = openDisk(n.opts.Dir, m.library); err != nil {
		return err
	}
	if out := m.outBeforehand(); out != nil {
		id.Expelled = out.why
		n.expelled.Store(out)
		n.logger.Error("this node has no part in the store any more", "because", out)
		return writeFiles(n.opts.Dir, id.file())
	}
	m.trans = hraft.NewNetworkTransportWithConfig(&hraft.NetworkTransportConfig{
		Logger: m.library, Stream: m.network.queues[speakRaft], MaxPool: 4, Timeout: time.Second,
		MsgpackUseNewTimeFormat: true,
		// One message at a time to each member, of as many entries as there are. With
		// more (raft 1.8.0, pipelineReplicate) the leader waits for ever, and that
		// member gets no entry, once one is rejected while another is under way.
		MaxRPCsInFlight: 1,
	})
	stable := &steady{StableStore: m.disk.log, logger: n.logger, closed: m.ctx.Done()}
	conf := n.config(id, m.library)
	m.log = &failing{WAL: m.disk.log, before: n.opts.write, fail: func(err error) { n.again.Go(func() { n.reopen(m, err) }) }}
	if err := m.begin(conf, stable); err != nil {
		return err
	}
	trans := &transport{NetworkTransport: m.trans, member: m,
		echoes: map[hraft.ServerID]echo{}, echoed: make(chan struct{}), answered: map[hraft.ServerID]time.Time{}}
	m.raft, err = hraft.NewRaft(conf, fsm{m.machine, m.applied}, m.log, stable, m.disk.snaps, trans)
	if err != nil {
		return fmt.Errorf("starting the store in %s: %w", n.opts.Dir, err)
	}
	trans.raft.Store(m.raft)
	if err := m.forgetRecovery(); err != nil {
		return err
	}
	m.verify = newVerifier(m.ctx, m.raft, trans)
	m.serve()
	for _, work := range []func(){m.network.serve, m.leadWhenElected, m.watchContact, m.noticeSilence, m.register, m.verify.run} {
		m.work.Go(work)
	}
	up = true
	n.member.Store(m)
	n.notify()
	return nil
}

// config is the library's, but for what start gives it.
func (n *Node) config(id *identity, logger hclog.Logger) *hraft.Config {
	c := hraft.DefaultConfig()
	c.LocalID = hraft.ServerID(id.ID)
	c.HeartbeatTimeout, c.ElectionTimeout = heartbeatTimeout, electionTimeout
	c.LeaderLeaseTimeout, c.CommitTimeout = leaderLease, commitTimeout
	c.SnapshotThreshold, c.TrailingLogs = n.opts.snapshotEntries, 5*defaultSnapshotEntries
	c.SnapshotInterval = 5 * time.Second
	if n.opts.snapshotEntries < defaultSnapshotEntries { // a test
		c.TrailingLogs = n.opts.snapshotEntries + n.opts.snapshotEntries/4
		c.SnapshotInterval = 200 * time.Millisecond
	}
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false // it may be put back
	c.NoLegacyTelemetry = true
	c.Logger = logger
	return c
}

// loadTLS reads what a member proves itself with.
func loadTLS(dir, cluster string) (server, client *tls.Config, err error) {
	var pem [3][]byte
	for i, name := range []string{certFile, keyFile, caFile} {
		if pem[i], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, nil, err
		}
	}
	if server, client, err = pki.Mutual(pem[0], pem[1], pem[2], cluster); err != nil {
		return nil, nil, fmt.Errorf("certificates in %s: %w", dir, err)
	}
	return server, client, nil
}

// stop ends everything of a member; what is not begun yet is nil.
func (m *member) stop() error {
	m.end()
	var err error
	if m.raft != nil {
		err = m.raft.Shutdown().Error()
	}
	for _, s := range m.servers {
		s.Stop()
	}
	if m.trans != nil {
		m.trans.CloseStreams()
		err = errors.Join(err, m.trans.Close())
	}
	if m.network != nil {
		m.network.close()
	}
	m.peers.close()
	m.work.Wait()
	if m.disk != nil {
		err = errors.Join(err, m.disk.close())
	}
	return err
}
