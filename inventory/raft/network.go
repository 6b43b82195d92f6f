package raft

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"

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
}

func listen(address, advertised string, dialer func(context.Context, string) (net.Conn, error)) (*network, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("raft.listen: %w", err)
	}
	if dialer == nil {
		dialer = dialTCP
	}
	n := &network{listener: listener, address: advertised, dialer: dialer, closed: make(chan struct{}), queues: map[byte]*queue{}}
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
		go n.sort(conn)
	}
}

// sort gives a connection to who speaks what it wants.
func (n *network) sort(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout))
	known, banned := true, false
	if n.server != nil {
		secure := tls.Server(conn, n.server)
		if secure.Handshake() != nil {
			conn.Close()
			return
		}
		id, ok := pki.Peer(secure.ConnectionState())
		known, banned = ok, ok && n.banned(id)
		conn = secure
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
