package raft

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/doproxy/doproxy/inventory"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// peers are the connections to other members, by address.
type peers struct {
	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

// peer is the service of the member at an address.
func (m *member) peer(address string) (storev1.MemberServiceClient, error) {
	p := &m.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		p.conns = map[string]*grpc.ClientConn{}
	}
	conn := p.conns[address]
	if conn == nil {
		var err error
		// TLS is below, where the kind of connection is told.
		conn, err = grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return m.network.dial(ctx, address, speakMember, m.network.client)
			}),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: time.Second}),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
				MinConnectTimeout: time.Second,
			}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
		if err != nil {
			return nil, err
		}
		p.conns[address] = conn
	}
	return storev1.NewMemberServiceClient(conn), nil
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		conn.Close()
	}
}

// call asks the leader, if it is another that is known. asked says whether the
// question may have reached it.
func call[T any](ctx context.Context, m *member, do func(context.Context, storev1.MemberServiceClient) (T, error)) (answer T, asked bool, err error) {
	address, id := m.raft.LeaderWithID()
	if id == "" || string(id) == m.ID {
		return answer, false, errNoLeader
	}
	leader, err := m.peer(string(address))
	if err != nil {
		return answer, false, err
	}
	callCtx, end := m.whileLed(ctx, id)
	defer end()
	answer, err = do(callCtx, leader)
	switch {
	case err == nil:
		return answer, true, nil
	case ctx.Err() != nil:
		return answer, true, ctx.Err()
	case callCtx.Err() != nil:
		return answer, true, fmt.Errorf("%w: another member leads by now", inventory.ErrUnavailable)
	}
	err = peerError(err)
	return answer, !errors.Is(err, errNoLeader), err
}

// peerError is what rpcError made an error of.
func peerError(err error) error {
	s := status.Convert(err)
	switch {
	case err == nil:
		return nil
	case s.Code() == codes.FailedPrecondition && s.Message() == notLeading:
		return errNoLeader
	case s.Code() == codes.FailedPrecondition:
		return inventory.Refuse("%s", s.Message())
	case s.Code() == codes.PermissionDenied:
		return &expelled{s.Message()}
	}
	return fmt.Errorf("%w: the leader: %s", inventory.ErrUnavailable, s.Message())
}

const notLeading = "this member does not lead"

// memberService answers other members.
type memberService struct {
	storev1.UnimplementedMemberServiceServer
	*member
}

// serve answers what comes in by gRPC.
func (m *member) serve() {
	members, joins, outcasts := grpc.NewServer(grpc.MaxRecvMsgSize(4<<20)), strangersServer(), strangersServer()
	storev1.RegisterMemberServiceServer(members, memberService{member: m})
	storev1.RegisterJoinServiceServer(joins, joinService{member: m})
	storev1.RegisterMemberServiceServer(outcasts, outcastService{member: m})
	m.servers = []*grpc.Server{members, joins, outcasts}
	m.work.Go(func() { _ = outcasts.Serve(m.network.queues[outcast]) })
	m.work.Go(func() { _ = members.Serve(m.network.queues[speakMember]) })
	m.work.Go(func() { _ = joins.Serve(m.network.queues[speakJoin]) })
}

// strangersServer is for those who have to prove nothing but a token: what they may
// send is small, and their connections do not last.
func strangersServer() *grpc.Server {
	return grpc.NewServer(grpc.MaxRecvMsgSize(64<<10), grpc.MaxConcurrentStreams(4), grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 10 * time.Second, MaxConnectionAge: time.Minute, MaxConnectionAgeGrace: time.Minute}))
}

// outcastService tells members that were removed so, and nothing else.
type outcastService struct {
	storev1.UnimplementedMemberServiceServer
	*member
}

func (s outcastService) Register(_ context.Context, r *storev1.RegisterRequest) (*storev1.RegisterResponse, error) {
	return nil, rpcError(s.outcast(r.Id))
}

// outcast is why a server may not come back; nil if it may.
func (m *member) outcast(id string) error {
	if why := valueOf(m.machine.list(removedPrefix+id), removedPrefix+id); why != nil {
		return &expelled{string(why)}
	}
	if slices.Contains(m.recovered(), id) {
		return &expelled{leftOut}
	}
	return nil
}

// leftOut is why a server is out that a recovered store goes on without.
const leftOut = "was left out when the store was recovered without it"

// rpcError is the error of a call between members.
func rpcError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoLeader):
		return status.Error(codes.FailedPrecondition, notLeading)
	case errors.As(err, new(*expelled)):
		var e *expelled
		errors.As(err, &e)
		return status.Error(codes.PermissionDenied, e.why)
	case errors.Is(err, inventory.ErrRefused):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Unavailable, err.Error())
}

func (s memberService) Submit(ctx context.Context, r *storev1.SubmitRequest) (*storev1.SubmitResponse, error) {
	for _, op := range r.GetCommand().GetTxn().GetOps() {
		if strings.HasPrefix(op.GetKey(), removedPrefix) { // who leads writes these itself
			return nil, rpcError(inventory.Refuse("%s is not for members to change", op.GetKey()))
		}
	}
	a, sent, err := s.propose(ctx, r.GetCommand())
	if err != nil && !sent && !errors.Is(err, inventory.ErrRefused) {
		err = errNoLeader
	}
	if err != nil {
		return nil, rpcError(err)
	}
	return &storev1.SubmitResponse{Answer: a}, nil
}

func (s memberService) Renew(ctx context.Context, r *storev1.RenewRequest) (*storev1.RenewResponse, error) {
	l := s.leading.Load()
	if l == nil {
		return nil, rpcError(errNoLeader)
	}
	lost, err := l.renew(ctx, inventory.LeaseID(r.Lease))
	if err != nil {
		return nil, rpcError(err)
	}
	return &storev1.RenewResponse{Lost: lost}, nil
}

func (s memberService) ReadIndex(ctx context.Context, r *storev1.ReadIndexRequest) (*storev1.ReadIndexResponse, error) {
	l := s.leading.Load()
	if l == nil {
		return nil, rpcError(errNoLeader)
	}
	index, err := l.verifiedIndex(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	if r.GetApplied() < index {
		l.announce.repeat(hraft.ServerID(r.GetId()))
	}
	return &storev1.ReadIndexResponse{Index: index}, nil
}

func (s memberService) GetProgress(context.Context, *storev1.GetProgressRequest) (*storev1.GetProgressResponse, error) {
	return s.progress(), nil
}

func (m *member) progress() *storev1.GetProgressResponse {
	p := &storev1.GetProgressResponse{
		Id: m.ID, Version: m.opts.Version, LastIndex: m.raft.LastIndex(), AppliedIndex: m.raft.AppliedIndex(), LastContactMs: -1,
	}
	p.LastTerm = lastTerm(m.raft.Stats())
	if at := m.raft.LastContact(); !at.IsZero() {
		p.LastContactMs = time.Since(at).Milliseconds()
	}
	return p
}

// submit has a command done where the store is led. sent says whether it may be
// done although there was an error.
func (m *member) submit(ctx context.Context, c *storev1.Command) (a *storev1.Answer, sent bool, err error) {
	if m.leading.Load() != nil {
		return m.propose(ctx, c)
	}
	r, sent, err := call(ctx, m, func(ctx context.Context, leader storev1.MemberServiceClient) (*storev1.SubmitResponse, error) {
		return leader.Submit(ctx, &storev1.SubmitRequest{Command: c})
	})
	return r.GetAnswer(), sent, err
}

// readIndex is an index that has every write that was answered before the call.
func (m *member) readIndex(ctx context.Context) (uint64, error) {
	if l := m.leading.Load(); l != nil {
		return l.verifiedIndex(ctx)
	}
	r, _, err := call(ctx, m, func(ctx context.Context, leader storev1.MemberServiceClient) (*storev1.ReadIndexResponse, error) {
		return leader.ReadIndex(ctx, &storev1.ReadIndexRequest{Id: m.ID, Applied: m.machine.last()})
	})
	return r.GetIndex(), err
}

func (m *member) renew(ctx context.Context, id inventory.LeaseID) (lost bool, err error) {
	if l := m.leading.Load(); l != nil {
		return l.renew(ctx, id)
	}
	r, _, err := call(ctx, m, func(ctx context.Context, leader storev1.MemberServiceClient) (*storev1.RenewResponse, error) {
		return leader.Renew(ctx, &storev1.RenewRequest{Lease: int64(id)})
	})
	return r.GetLost(), err
}
