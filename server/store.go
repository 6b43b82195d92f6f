package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// StoreAdmin forms the integrated store and changes its members. Errors that
// wrap inventory.ErrRefused are for people, and nothing was changed then.
// inventory.ErrUnavailable: the members do not answer.
type StoreAdmin interface {
	// Init begins a new store with this node as its first member. Unless forced, it
	// is refused if the account has droplets of another cluster than the node knows,
	// which this one may be a node of.
	Init(ctx context.Context, force bool) (cluster string, err error)
	// Join makes this node a member of the token's store. It returns once the
	// node keeps up. With abandon, it gives a store up that it alone is.
	Join(ctx context.Context, token string, abandon bool) error
	// Token makes a token for one node.
	Token(ctx context.Context, ttl time.Duration) (token string, expires time.Time, err error)
	Members(ctx context.Context) (inventory.Membership, error)
	// Remove takes out the member of a node, or the one with this id. What would
	// stop the store is refused unless forced.
	Remove(ctx context.Context, node string, force bool) error
	// StepDown hands the lead of the store to another member.
	StepDown(ctx context.Context) error
}

// Reasons of StoreService.
const (
	ReasonNoRaft       = "RAFT_NOT_CONFIGURED" // FAILED_PRECONDITION: the node's configuration has no raft.address
	ReasonStoreRefused = "STORE_REFUSED"       // FAILED_PRECONDITION: it makes no sense as the store is now, or would stop it; nothing was changed
)

const (
	storeKinds = "etcd or raft"
	// storeTimeout bounds a change of members; joinTimeout one that copies the store.
	storeTimeout = 45 * time.Second
	joinTimeout  = 10 * time.Minute
	// leadTimeout bounds the wait for who leads after a step-down, which is looked
	// for each leadPoll: an election takes less than 2 s.
	leadTimeout = 3 * time.Second
	leadPoll    = 100 * time.Millisecond

	leastTTL, usualTTL, mostTTL = time.Minute, time.Hour, 30 * 24 * time.Hour // of tokens
	maxToken                    = 4096
)

func storeKind(name string) bool { return name == "etcd" || name == "raft" }

var errNoRaft = &problem{code: codes.FailedPrecondition, reason: ReasonNoRaft, subject: "raft.address",
	message: "this node has no integrated store: set raft.address in its doproxy.yml, where other members reach it (such as 10.132.0.2:7477), and restart its agent"}

func storeRefused(node, message string) error {
	return &problem{code: codes.FailedPrecondition, reason: ReasonStoreRefused, subject: NodeName(node), message: message + "; nothing was changed"}
}

// admin is the part that forms the store, or why there is none.
func (s *Server) admin() (StoreAdmin, error) {
	if s.storeAdmin == nil {
		return nil, errNoRaft
	}
	return s.storeAdmin, nil
}

// storeError gives an error of StoreAdmin or Migrator its code. Those errors
// have words for people, which other calls' errors of the store do not.
func storeError(subject string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, inventory.ErrRefused):
		return &problem{code: codes.FailedPrecondition, reason: ReasonStoreRefused, subject: subject, cause: err, message: err.Error()}
	case errors.Is(err, inventory.ErrNotMember):
		return &problem{code: codes.Unavailable, reason: ReasonStoreUnavailable, cause: err, message: noPart(err)}
	case errors.Is(err, inventory.ErrUnavailable):
		return &problem{code: codes.Unavailable, reason: ReasonStoreUnavailable, retry: 2 * time.Second, cause: err, message: err.Error()}
	}
	return err
}

// changeStore bounds a change of the members. One whose answer is missing may
// have been made: mend says how to find out.
func changeStore(ctx context.Context, limit time.Duration, subject, mend string, do func(context.Context) error) error {
	callCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := do(callCtx)
	if errors.Is(err, inventory.ErrNotMember) {
		return storeError(subject, err)
	}
	late := err != nil && ctx.Err() == nil && callCtx.Err() != nil
	if late || errors.Is(err, inventory.ErrUnavailable) && !errors.Is(err, inventory.ErrRefused) {
		text := err.Error()
		if late {
			text = fmt.Sprintf("no end within %s (%s)", limit, text)
		}
		return &problem{code: codes.Unavailable, reason: ReasonOutcomeUnknown, cause: err, message: text + "; it may have been done all the same: " + mend}
	}
	return storeError(subject, err)
}

func (s *Server) members(ctx context.Context, admin StoreAdmin) (m inventory.Membership, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		m, err = admin.Members(ctx)
		return err
	})
	return m, storeError("store", err)
}

// GetStore implements pb.StoreServiceServer. It answers whatever happens.
func (s *Server) GetStore(ctx context.Context, _ *pb.GetStoreRequest) (*pb.GetStoreResponse, error) {
	resp := &pb.GetStoreResponse{Store: s.storeName, Node: NodeName(s.node)}
	if st := s.mirror.State(); inventory.Untrusted(st.Err) {
		resp.Untrusted = st.Err.Error()
	}
	if s.storeAdmin == nil {
		return resp, nil
	}
	m, err := s.members(ctx, s.storeAdmin)
	switch {
	case err == nil:
		resp.Membership = MembershipToProto(m)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		resp.Error = err.Error()
	}
	return resp, nil
}

// InitStore implements pb.StoreServiceServer.
func (s *Server) InitStore(ctx context.Context, req *pb.InitStoreRequest) (*pb.InitStoreResponse, error) {
	admin, err := s.admin()
	if err != nil {
		return nil, err
	}
	resp := &pb.InitStoreResponse{Node: NodeName(s.node)}
	err = changeStore(ctx, storeTimeout, "store", "look (doproxy store status) before asking again", func(ctx context.Context) (err error) {
		resp.Cluster, err = admin.Init(ctx, req.GetForce())
		return err
	})
	if err != nil {
		return nil, err
	}
	s.tellOfMember("store.begun", s.node, "a new store begins with "+s.node+", by request")
	return resp, nil
}

// JoinStore implements pb.StoreServiceServer. Its errors do not repeat the token.
func (s *Server) JoinStore(ctx context.Context, req *pb.JoinStoreRequest) (*pb.JoinStoreResponse, error) {
	admin, err := s.admin()
	if err != nil {
		return nil, err
	}
	token := strings.TrimSpace(req.GetToken())
	switch {
	case token == "":
		return nil, invalid("token", "", "is missing: make one on a member (doproxy cluster token)")
	case len(token) > maxToken:
		return nil, invalid("token", len(token), fmt.Sprintf("bytes are too many: at most %d", maxToken))
	}
	if st := s.mirror.State(); req.GetAbandon() && st.Err == nil && len(st.Droplets) > 0 && s.alone(ctx, admin) {
		return nil, storeRefused(s.node, fmt.Sprintf("the store that node %s alone is has %d droplets, which nobody would look after: scale its pools to 0 first", s.node, len(st.Droplets)))
	}
	err = changeStore(ctx, joinTimeout, "store", "look (doproxy cluster members) before asking again, with a new token", func(ctx context.Context) error {
		return admin.Join(ctx, token, req.GetAbandon())
	})
	if err != nil {
		return nil, err
	}
	s.tellOfMember("store.joined", s.node, s.node+" joined the store, by request")
	resp := &pb.JoinStoreResponse{Node: NodeName(s.node)}
	if m, err := s.members(ctx, admin); err == nil {
		resp.Membership = MembershipToProto(m)
	}
	return resp, nil
}

// alone says whether this node is its store's only member.
func (s *Server) alone(ctx context.Context, admin StoreAdmin) bool {
	m, err := s.members(ctx, admin)
	return err == nil && len(m.Members) == 1
}

// CreateJoinToken implements pb.StoreServiceServer. One whose answer is lost is
// of no use to anybody, and expires.
func (s *Server) CreateJoinToken(ctx context.Context, req *pb.CreateJoinTokenRequest) (*pb.CreateJoinTokenResponse, error) {
	admin, err := s.admin()
	if err != nil {
		return nil, err
	}
	var v violations
	v.duration("ttl", req.GetTtl(), leastTTL, mostTTL)
	if err := v.err(); err != nil {
		return nil, err
	}
	resp := &pb.CreateJoinTokenResponse{}
	err = s.call(ctx, func(ctx context.Context) error {
		token, expires, err := admin.Token(ctx, or(req.GetTtl().AsDuration(), usualTTL))
		resp.Token, resp.ExpireTime = token, timestamp(expires)
		return err
	})
	if err != nil {
		return nil, storeError("store", err)
	}
	return resp, nil
}

// RemoveMember implements pb.StoreServiceServer. What is left is worked out here,
// so that it can be shown before; whoever leads the store decides on its own.
func (s *Server) RemoveMember(ctx context.Context, req *pb.RemoveMemberRequest) (*pb.RemoveMemberResponse, error) {
	admin, err := s.admin()
	if err != nil {
		return nil, err
	}
	name, err := parseMember("node", req.GetNode())
	if err != nil {
		return nil, err
	}
	now, err := s.members(ctx, admin)
	if err != nil {
		return nil, err
	}
	gone, left, err := without(now, name)
	if err != nil {
		return nil, err
	}
	voters, healthy := votersOf(left)
	stops := healthy < quorum(voters)
	switch {
	case voters == 0:
		return nil, storeRefused(gone.Node, fmt.Sprintf("%s is the only voter: without it there is no store; have another node join first", gone.Node))
	case stops && !req.GetForce():
		return nil, storeRefused(gone.Node, fmt.Sprintf("without %s the store would stop, with %d of %d voters healthy: mend the others or have more join first", gone.Node, healthy, voters))
	}
	resp := &pb.RemoveMemberResponse{Removed: memberToProto(gone), Left: MembershipToProto(left), Stops: stops}
	if req.GetValidateOnly() {
		return resp, nil
	}
	err = changeStore(ctx, storeTimeout, NodeName(gone.Node), "look (doproxy cluster members) before asking again", func(ctx context.Context) error {
		return admin.Remove(ctx, name, req.GetForce())
	})
	if err != nil {
		return nil, err
	}
	s.tellOfMember("store.removed", gone.Node, gone.Node+" is no member of the store any more, by request")
	return resp, nil
}

// StepDown implements pb.StoreServiceServer.
func (s *Server) StepDown(ctx context.Context, _ *pb.StepDownRequest) (*pb.StepDownResponse, error) {
	admin, err := s.admin()
	if err != nil {
		return nil, err
	}
	before, err := s.members(ctx, admin)
	if err != nil {
		return nil, err
	}
	err = changeStore(ctx, storeTimeout, "store", "look (doproxy cluster members) before asking again", admin.StepDown)
	if err != nil {
		return nil, err
	}
	resp := &pb.StepDownResponse{From: leaderOf(before)}
	resp.To = s.successor(ctx, admin, resp.From)
	s.tellOfMember("store.stepped_down", s.node, "another member leads the store, by request")
	return resp, nil
}

// successor is the resource name of the node that leads instead of the former
// one, which still believes for a moment that it leads. Empty: none is known
// within leadTimeout.
func (s *Server) successor(ctx context.Context, admin StoreAdmin, former string) string {
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	for tick := time.Tick(leadPoll); ; {
		if m, err := s.members(ctx, admin); err == nil {
			if leader := leaderOf(m); leader != "" && leader != former {
				return leader
			}
		}
		select {
		case <-ctx.Done():
			return ""
		case <-tick:
		}
	}
}

func (s *Server) tellOfMember(event, node, message string) {
	s.journal.Record(inventory.Event{Type: event, Node: node, Message: message})
}
