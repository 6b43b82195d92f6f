package raft

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	hraft "github.com/hashicorp/raft"
	"google.golang.org/grpc/peer"

	"github.com/doproxy/doproxy/inventory/raft/pki"
)

// The first byte on a connection says what is spoken on it.
const (
	speakRaft   = 'r'
	speakMember = 'm' // MemberService
	speakJoin   = 'j' // JoinService: the only one without a certificate
	outcast     = 'o' // not spoken: what a removed member says is answered apart
)

// handshakeTimeout bounds what comes before the first byte.
const handshakeTimeout = 5 * time.Second

// network is the one port of a member, and its way to the others.
type network struct {
	listener       net.Listener
	address        string
	server, client *tls.Config // nil: plain
	// banned says whether a certificate is one of a removed member.
	banned func(id string) bool
	dialer func(ctx context.Context, address string) (net.Conn, error)

	queues map[byte]*queue
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	known map[net.Conn]string // whose certificate each open connection was made with
	// strangers are the connections that have not proved whose they are, oldest
	// first.
	strangers []*sorted
}

// maxStrangers is how many connections may be open at a time that have not proved
// whose they are, and maxOfOne how many of them from one address. For one more the
// oldest is closed: a member proves itself before it comes to that.
const maxStrangers, maxOfOne = 100, 20

func listen(address, advertised string, dialer func(context.Context, string) (net.Conn, error)) (*network, error) {
	listener, err := net.Listen("tcp", address)
	// A process that was killed may have it for a moment yet.
	for try := 0; errors.Is(err, syscall.EADDRINUSE) && try < 20; try++ {
		time.Sleep(50 * time.Millisecond)
		listener, err = net.Listen("tcp", address)
	}
	if err != nil {
		return nil, fmt.Errorf("raft.listen: %w", err)
	}
	if dialer == nil {
		dialer = dialTCP
	}
	n := &network{listener: listener, address: advertised, dialer: dialer, closed: make(chan struct{}), queues: map[byte]*queue{},
		known: map[net.Conn]string{}}
	for _, kind := range []byte{speakRaft, speakMember, speakJoin, outcast} {
		n.queues[kind] = &queue{network: n, conns: make(chan net.Conn)}
	}
	return n, nil
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// serve takes connections until close.
func (n *network) serve() {
	for {
		conn, err := n.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s := &sorted{Conn: conn, raw: conn}
		s.closed = func() { n.leave(s) }
		n.enter(s)
		go n.sort(s)
	}
}

// enter makes a connection a stranger's.
func (n *network) enter(conn *sorted) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.strangers = append(n.strangers, conn)
	of := func(s *sorted) string { return hostOf(s.raw) }
	same := 0
	for _, s := range n.strangers {
		if of(s) == of(conn) {
			same++
		}
	}
	switch {
	case same > maxOfOne:
		i := slices.IndexFunc(n.strangers, func(s *sorted) bool { return of(s) == of(conn) })
		n.strangers[i].raw.Close()
		n.strangers = slices.Delete(n.strangers, i, i+1)
	case len(n.strangers) > maxStrangers:
		n.strangers[0].raw.Close()
		n.strangers = slices.Delete(n.strangers, 0, 1)
	}
}

// leave is for one that has proved itself, or is closed.
func (n *network) leave(conn *sorted) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.strangers = slices.DeleteFunc(n.strangers, func(s *sorted) bool { return s == conn })
}

func hostOf(conn net.Conn) string {
	host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
	return host
}

// sorted is a connection that came in. Its RemoteAddr is a caller if it is known
// whose it is.
type sorted struct {
	net.Conn
	raw    net.Conn // below TLS
	caller string
	closed func() // may be called again
}

func (c *sorted) Close() error {
	c.closed()
	return c.Conn.Close()
}

func (c *sorted) RemoteAddr() net.Addr {
	if c.caller == "" {
		return c.Conn.RemoteAddr()
	}
	return caller{c.Conn.RemoteAddr(), c.caller}
}

// caller is where a call came from, and the id in the certificate.
type caller struct {
	net.Addr
	id string
}

// callerOf is the id of the member that calls; unknown where members speak plain.
func callerOf(ctx context.Context) (id string, known bool) {
	if p, ok := peer.FromContext(ctx); ok {
		if from, ok := p.Addr.(caller); ok {
			return from.id, true
		}
	}
	return "", false
}

// cut closes the connections of members that were removed.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for conn, id := range n.known {
		if n.banned(id) {
			go conn.Close() // which takes itself off the list
		}
	}
}

// sort gives a connection to who speaks what it wants.
func (n *network) sort(conn *sorted) {
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout))
	known, banned := true, false
	if n.server != nil {
		secure := tls.Server(conn.Conn, n.server)
		if secure.Handshake() != nil {
			conn.Close()
			return
		}
		var id string
		id, known = pki.Peer(secure.ConnectionState())
		banned = known && n.banned(id)
		conn.Conn = secure
		if known && !banned {
			conn.caller = id
			conn.closed = func() {
				n.leave(conn)
				n.mu.Lock()
				defer n.mu.Unlock()
				delete(n.known, conn)
			}
			n.mu.Lock()
			n.known[conn] = id
			n.mu.Unlock()
		}
	}
	var kind [1]byte
	if _, err := conn.Read(kind[:]); err != nil {
		conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	if banned && kind[0] == speakMember {
		kind[0] = outcast
	}
	q := n.queues[kind[0]]
	if q == nil || !known && kind[0] != speakJoin || banned && kind[0] == speakRaft {
		conn.Close()
		return
	}
	if !banned && (known && n.server != nil || kind[0] != speakJoin) {
		n.leave(conn)
	}
	select {
	case q.conns <- conn:
	case <-n.closed:
		conn.Close()
	}
}

func (n *network) dial(ctx context.Context, address string, kind byte, security *tls.Config) (net.Conn, error) {
	conn, err := n.dialer(ctx, address)
	if err != nil {
		return nil, err
	}
	if security != nil {
		secure := tls.Client(conn, security)
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("%s: %w", address, err)
		}
		conn = secure
	}
	if _, err := conn.Write([]byte{kind}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (n *network) close() {
	n.once.Do(func() {
		close(n.closed)
		n.listener.Close()
	})
}

// queue is the listener of one kind of connections. Closing it closes all.
type queue struct {
	*network
	conns chan net.Conn
}

var _ hraft.StreamLayer = (*queue)(nil)

func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.close()
	return nil
}

// Addr is the address that others dial.
func (q *queue) Addr() net.Addr { return advertised(q.address) }

// Dial implements raft.StreamLayer.
func (q *queue) Dial(address hraft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return q.dial(ctx, string(address), speakRaft, q.client)
}

type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }
