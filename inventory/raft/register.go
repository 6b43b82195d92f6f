package raft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// askEvery is how often a member asks the others whether it is still one.
const askEvery = 5 * time.Second

// register has this member in the configuration, with its address as it is now,
// and ends it if others say that it is none any more: the members of a store that
// was recovered without it do so when they are asked, and nobody else would.
func (m *member) register() {
	told := false
	var asked time.Time
	pause := 50 * time.Millisecond
	for {
		servers := m.raft.GetConfiguration().Configuration().Servers
		self := slices.IndexFunc(servers, func(s hraft.Server) bool { return string(s.ID) == m.ID })
		if self >= 0 {
			m.mark()
		}
		m.network.cut()
		_, leader := m.raft.LeaderWithID()
		wrong := self < 0 || string(servers[self].Address) != m.opts.Address
		if !told || wrong || leader == "" || time.Since(asked) > askEvery {
			asked = time.Now()
			told = m.tryRegister(servers)
		}
		if told && !wrong {
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

// tryRegister says whether this member is one now.
func (m *member) tryRegister(servers []hraft.Server) bool {
	ctx, cancel := context.WithTimeout(m.ctx, m.opts.Timeout)
	defer cancel()
	addresses := m.loadPeers()
	for _, s := range servers {
		addresses = append(addresses, string(s.Address))
	}
	answers := m.askOthers(ctx, addresses)
	if l := m.leading.Load(); l != nil {
		answers = append(answers, l.admit(ctx, m.registration()))
	}
	if out := outcastBy(answers); out != nil {
		m.again.Go(func() { m.expel(m, out) })
		m.refuse(out)
		return false
	}
	var refusal error
	for _, err := range answers {
		if err == nil {
			m.refused.Store(nil)
			return true
		}
		if errors.Is(err, inventory.ErrRefused) {
			refusal = err
		}
	}
	if refusal != nil {
		m.refuse(refusal)
	}
	return false
}

// refuse notes, for a join that waits, why this member is not let in.
func (m *member) refuse(why error) {
	if old := m.refused.Swap(&why); old == nil || (*old).Error() != why.Error() {
		m.logger.Error("the store refuses this member", "because", why)
	}
}

func (m *member) registration() *storev1.RegisterRequest {
	return &storev1.RegisterRequest{Id: m.ID, Node: m.Node.opts.Name, Address: m.opts.Address, NeverLead: m.opts.NeverLead, Cluster: m.Cluster}
}

// askOthers registers at each of these addresses at once: who leads lets this
// member in, and the others say if it is out.
func (m *member) askOthers(ctx context.Context, addresses []string) []error {
	slices.Sort(addresses)
	addresses = slices.DeleteFunc(slices.Compact(addresses), func(a string) bool { return a == m.opts.Address })
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answers := make([]error, len(addresses))
	var work sync.WaitGroup
	for i, address := range addresses {
		work.Go(func() {
			peer, err := m.peer(address)
			if err == nil {
				_, err = peer.Register(ctx, m.registration())
			}
			answers[i] = peerError(err)
		})
	}
	work.Wait()
	return answers
}

func outcastBy(answers []error) *expelled {
	for _, err := range answers {
		if out := (*expelled)(nil); errors.As(err, &out) {
			return out
		}
	}
	return nil
}

// outBeforehand asks the others, before this member takes part again, whether it
// may: several that are out, and start at a time, would else elect one of them.
func (m *member) outBeforehand() *expelled {
	if !m.Begun {
		return nil
	}
	ctx, cancel := context.WithTimeout(m.ctx, 500*time.Millisecond)
	defer cancel()
	return outcastBy(m.askOthers(ctx, m.loadPeers()))
}

func (s memberService) Register(ctx context.Context, r *storev1.RegisterRequest) (*storev1.RegisterResponse, error) {
	if caller, known := callerOf(ctx); known && caller != r.Id {
		return nil, rpcError(inventory.Refuse("%s is not %s", caller, r.Id))
	}
	if r.Cluster != s.Cluster { // where members speak plain, an address is all that there is to go by
		return nil, rpcError(inventory.Refuse("%s is a member of store %s, and %s of %s", s.opts.Address, s.Cluster, r.Id, r.Cluster))
	}
	if err := s.outcast(r.Id); err != nil {
		return nil, rpcError(err)
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
	if err := l.knows(ctx, r.Id); err != nil {
		return err
	}
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

// knows refuses a server that did not join this store, or whose place another has.
func (l *leading) knows(ctx context.Context, id string) error {
	if _, err := l.verifiedIndex(ctx); err != nil { // who leads no more may not have heard of it
		return err
	}
	if l.recordOf(hraft.ServerID(id)) != nil || slices.ContainsFunc(l.raft.GetConfiguration().Configuration().Servers, func(s hraft.Server) bool { return string(s.ID) == id }) {
		return nil
	}
	return &expelled{"is not known to the store, since another has its place, or it was recovered without it"}
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
