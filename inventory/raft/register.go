package raft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	hraft "github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// register has this member in the configuration, with its address as it is now.
func (m *member) register() {
	told := false
	pause := 50 * time.Millisecond
	for {
		servers := m.raft.GetConfiguration().Configuration().Servers
		self := slices.IndexFunc(servers, func(s hraft.Server) bool { return string(s.ID) == m.ID })
		if self >= 0 {
			m.mark()
		}
		m.network.cut()
		if _, leader := m.raft.LeaderWithID(); leader == "" {
			told = false // it may have been removed meanwhile, which nobody else tells it
		}
		if !told || self < 0 || string(servers[self].Address) != m.opts.Address {
			told = m.tryRegister(servers) == nil
		} else {
			pause = 2 * time.Second
			m.keepPeers(servers)
		}
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// keepPeers writes down where the others are, for when they have removed this one.
func (m *member) keepPeers(servers []hraft.Server) {
	var addresses []string
	for _, s := range servers {
		if string(s.ID) != m.ID {
			addresses = append(addresses, string(s.Address))
		}
	}
	if !slices.Equal(addresses, m.loadPeers()) {
		if err := m.savePeers(addresses); err != nil {
			m.logger.Error("cannot write to the store's disk", "error", err)
		}
	}
}

func (m *member) tryRegister(servers []hraft.Server) error {
	ctx, cancel := context.WithTimeout(m.ctx, m.opts.Timeout)
	defer cancel()
	r := &storev1.RegisterRequest{Id: m.ID, Node: m.Node.opts.Name, Address: m.opts.Address, NeverLead: m.opts.NeverLead}
	if l := m.leading.Load(); l != nil {
		return l.admit(ctx, r)
	}
	var addresses []string
	if address, id := m.raft.LeaderWithID(); id != "" {
		addresses = append(addresses, string(address))
	}
	for _, s := range servers {
		addresses = append(addresses, string(s.Address))
	}
	err := errors.New("no address of another member is known")
	for _, address := range append(addresses, m.loadPeers()...) {
		if address == m.opts.Address {
			continue
		}
		peer, peerErr := m.peer(address)
		if peerErr != nil {
			return peerErr
		}
		tryCtx, cancel := context.WithTimeout(ctx, time.Second)
		_, err = peer.Register(tryCtx, r)
		cancel()
		if err == nil {
			m.refused.Store(nil)
			return nil
		}
		if s := status.Convert(err); s.Code() == codes.FailedPrecondition && s.Message() != notLeading {
			why := s.Message()
			if old := m.refused.Swap(&why); old == nil || *old != why {
				m.logger.Error("the store refuses this member", "because", why)
			}
			return err
		}
	}
	return err
}

func (s memberService) Register(ctx context.Context, r *storev1.RegisterRequest) (*storev1.RegisterResponse, error) {
	if caller, known := callerOf(ctx); known && caller != r.Id {
		return nil, rpcError(inventory.Refuse("%s is not %s", caller, r.Id))
	}
	l := s.leading.Load()
	if l == nil {
		return nil, rpcError(errNoLeader)
	}
	if err := l.admit(ctx, r); err != nil {
		return nil, rpcError(err)
	}
	return &storev1.RegisterResponse{}, nil
}

// admit takes a server into the configuration, or its new address.
func (l *leading) admit(ctx context.Context, r *storev1.RegisterRequest) error {
	if err := l.outcast(r.Id); err != nil {
		return err
	}
	if len(l.recovered()) > 0 {
		return errNoLeader // first it must be known who is out
	}
	l.admitting.Lock()
	defer l.admitting.Unlock()
	var present *hraft.Server
	for _, s := range l.raft.GetConfiguration().Configuration().Servers {
		switch {
		case string(s.ID) == r.Id:
			present = &s
		case l.nodeOf(s.ID) == r.Node:
			// The node lost its disk, or another bears its name.
			if p, err := l.progressOf(ctx, s); err == nil && p.Id == string(s.ID) {
				return inventory.Refuse("a member of node %s is alive at %s: give this node another name (`node` in doproxy.yml), or first `doproxy cluster remove %s`", r.Node, s.Address, r.Node)
			}
			if err := l.removeServer(ctx, s.ID, "was replaced by another of node "+r.Node); err != nil {
				return err
			}
			l.logger.Info("a member is replaced", "node", r.Node, "former", s.ID, "now", r.Id)
		}
	}
	if present == nil && l.recordOf(hraft.ServerID(r.Id)) == nil {
		return inventory.Refuse("this member is not known here, since another has its place, or the store was recovered without it: join anew with `doproxy cluster join`")
	}
	if err := l.record(ctx, r); err != nil {
		return err
	}
	var err error
	switch id, address := hraft.ServerID(r.Id), hraft.ServerAddress(r.Address); {
	case present != nil && present.Address == address:
		return nil
	case present != nil && present.Suffrage == hraft.Voter:
		err = settled(ctx, l.raft.AddVoter(id, address, 0, l.opts.Timeout))
	default:
		l.logger.Info("a member joins", "node", r.Node, "id", r.Id, "address", r.Address)
		err = settled(ctx, l.raft.AddNonvoter(id, address, 0, l.opts.Timeout))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", inventory.ErrUnavailable, err)
	}
	return nil
}

// record writes what is to be known of a server, and forgets those of its node
// that are no members.
func (l *leading) record(ctx context.Context, r *storev1.RegisterRequest) error {
	record, err := proto.Marshal(&storev1.MemberRecord{Id: r.Id, Node: r.Node, Address: r.Address, NeverLead: r.NeverLead})
	if err != nil {
		return err
	}
	var ops []inventory.Op
	if key := memberPrefix + r.Id; string(valueOf(l.machine.list(key), key)) != string(record) {
		ops = append(ops, inventory.Op{Key: key, Value: record})
	}
	servers := l.raft.GetConfiguration().Configuration().Servers
	for _, kv := range l.machine.list(memberPrefix).KVs {
		id := hraft.ServerID(strings.TrimPrefix(kv.Key, memberPrefix))
		if string(id) != r.Id && l.nodeOf(id) == r.Node && !slices.ContainsFunc(servers, func(s hraft.Server) bool { return s.ID == id }) {
			ops = append(ops, inventory.Op{Key: kv.Key, Delete: true})
		}
	}
	if len(ops) == 0 {
		return nil
	}
	return l.change(ctx, ops...)
}
