package raft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/raft/pki"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// maxVoters is how many members make the quorum; more only slow it down. The
// rest follow, and take a voter's place when it is removed.
const maxVoters = 5

// minVoters: a dead member is not removed from fewer than these, so that two of
// three members never become one of one without an operator.
const minVoters = 3

func (m *member) banned(id string) bool { return m.outcast(id) != nil }

// nodeOf is the name of a server's node.
func (m *member) nodeOf(id hraft.ServerID) string {
	if r := m.recordOf(id); r != nil {
		return r.Node
	}
	if i := strings.LastIndexByte(string(id), '-'); i > 0 {
		return string(id)[:i]
	}
	return string(id)
}

func (m *member) recordOf(id hraft.ServerID) *storev1.MemberRecord {
	key := memberPrefix + string(id)
	r := new(storev1.MemberRecord)
	if v := valueOf(m.machine.list(key), key); v == nil || proto.Unmarshal(v, r) != nil {
		return nil
	}
	return r
}

func (m *member) progressOf(ctx context.Context, s hraft.Server) (*storev1.GetProgressResponse, error) {
	if string(s.ID) == m.ID {
		return m.progress(), nil
	}
	peer, err := m.peer(string(s.Address))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return peer.GetProgress(ctx, &storev1.GetProgressRequest{})
}

// change writes keys of the store's own.
func (l *leading) change(ctx context.Context, ops ...inventory.Op) error {
	txn := &storev1.Txn{}
	for _, op := range ops {
		txn.Ops = append(txn.Ops, &storev1.Op{Key: op.Key, Value: op.Value, Delete: op.Delete})
	}
	_, _, err := l.enter(ctx, &storev1.Command{Kind: &storev1.Command_Txn{Txn: txn}})
	return err
}

// removeServer takes a server out for good: its certificate is no use any more.
func (l *leading) removeServer(ctx context.Context, id hraft.ServerID, why string) error {
	err := l.change(ctx,
		inventory.Op{Key: removedPrefix + string(id), Value: []byte(why)},
		inventory.Op{Key: memberPrefix + string(id), Delete: true})
	if err == nil {
		err = settled(ctx, l.raft.RemoveServer(id, 0, l.opts.Timeout))
	}
	if err != nil && !errors.Is(err, inventory.ErrUnavailable) {
		err = fmt.Errorf("%w: removing %s: %w", inventory.ErrUnavailable, id, err)
	}
	return err
}

// administer keeps the members in order while this one leads.
func (l *leading) administer() {
	for l.settle() != nil {
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	interval := min(time.Second, l.opts.stabilize)
	p := &pilot{leading: l, heard: map[hraft.ServerID]heard{}}
	a := autopilot.New(pilotRaft{l.raft, l}, p, autopilot.WithLogger(l.library), autopilot.WithPromoter(new(promoter)),
		autopilot.WithUpdateInterval(interval), autopilot.WithReconcileInterval(interval))
	a.Start(l.ctx)
	<-l.ctx.Done()
	a.Stop()
}

// settle puts into the store what this member had to keep until it led.
func (l *leading) settle() error {
	recovered := l.recovered()
	if len(recovered) > 0 {
		branch := &storev1.Branch{Revisions: branchRevisions}
		if _, _, err := l.enter(l.ctx, &storev1.Command{Kind: &storev1.Command_Branch{Branch: branch}}); err != nil {
			return err
		}
	}
	for _, id := range recovered {
		if err := l.change(l.ctx, inventory.Op{Key: removedPrefix + id, Value: []byte(leftOut)},
			inventory.Op{Key: memberPrefix + id, Delete: true}); err != nil {
			return err
		}
	}
	if len(recovered) > 0 {
		l.identityMu.Lock()
		l.Recovered = nil
		err := writeFiles(l.opts.Dir, l.identity.file())
		l.identityMu.Unlock()
		if err != nil {
			return err
		}
	}
	at := filepath.Join(l.opts.Dir, caKeyFile)
	key, err := os.ReadFile(at)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	cert, err := os.ReadFile(filepath.Join(l.opts.Dir, caFile))
	if err != nil {
		return err
	}
	if valueOf(l.machine.list(caKeyKey), caKeyKey) == nil {
		if _, err := pki.ParseAuthority(cert, key); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if err := l.change(l.ctx, inventory.Op{Key: caCertKey, Value: cert}, inventory.Op{Key: caKeyKey, Value: key}); err != nil {
			return err
		}
	}
	return os.Remove(at)
}

// branchRevisions is more than a store makes while some of its members are away.
const branchRevisions = 1_000_000_000

// recovered are the servers that this member must still see refused.
func (m *member) recovered() []string {
	m.identityMu.Lock()
	defer m.identityMu.Unlock()
	return m.Recovered
}

// Members are the servers of the store, by node, as the leader sees them.
func (n *Node) Members(ctx context.Context) (inventory.Membership, error) {
	var all inventory.Membership
	err := n.retry(ctx, "asking for the members", func(ctx context.Context, m *member) error {
		var r *storev1.ListMembersResponse
		var err error
		if l := m.leading.Load(); l != nil {
			r = l.list(ctx)
		} else {
			r, _, err = call(ctx, m, func(ctx context.Context, leader storev1.MemberServiceClient) (*storev1.ListMembersResponse, error) {
				return leader.ListMembers(ctx, &storev1.ListMembersRequest{})
			})
		}
		if err != nil {
			return err
		}
		all = inventory.Membership{Cluster: m.Cluster, Tolerates: int(r.Tolerates)}
		for _, s := range r.Members {
			x := inventory.StoreMember{
				ID: s.Id, Node: s.Node, Address: s.Address, Version: s.Version, Leader: s.Leader, Voter: s.Voter,
				Healthy: s.Healthy, Behind: s.Behind,
			}
			if s.SinceMs != 0 {
				x.Since = time.UnixMilli(s.SinceMs)
			}
			all.Members = append(all.Members, x)
		}
		return nil
	})
	return all, err
}

func (s memberService) ListMembers(ctx context.Context, _ *storev1.ListMembersRequest) (*storev1.ListMembersResponse, error) {
	l := s.leading.Load()
	if l == nil {
		return nil, rpcError(errNoLeader)
	}
	return l.list(ctx), nil
}

// list is the members as they are now.
func (l *leading) list(ctx context.Context) *storev1.ListMembersResponse {
	members := l.probe(ctx)
	voters, healthy := 0, 0
	for _, s := range members {
		if s.Voter {
			voters++
			if s.Healthy {
				healthy++
			}
		}
	}
	return &storev1.ListMembersResponse{Members: members, Tolerates: int32(max(0, healthy-(voters/2+1)))}
}

// probe asks all members: what autopilot knows is of some time ago. They are by id.
func (l *leading) probe(ctx context.Context) []*storev1.MemberState {
	var all []*storev1.MemberState
	var work sync.WaitGroup
	for _, s := range l.raft.GetConfiguration().Configuration().Servers {
		x := &storev1.MemberState{
			Id: string(s.ID), Node: l.nodeOf(s.ID), Address: string(s.Address),
			Leader: string(s.ID) == l.ID, Voter: s.Suffrage == hraft.Voter, Behind: -1,
		}
		all = append(all, x)
		work.Go(func() { l.look(ctx, s, x) })
	}
	work.Wait()
	slices.SortFunc(all, func(a, b *storev1.MemberState) int { return strings.Compare(a.Id, b.Id) })
	return all
}

// look fills in how a server is now, and since when.
func (l *leading) look(ctx context.Context, s hraft.Server, x *storev1.MemberState) {
	behind := func(index uint64) int64 { return max(0, int64(l.raft.LastIndex())-int64(index)) }
	if p, err := l.progressOf(ctx, s); err == nil && p.Id == x.Id {
		x.Version, x.Behind = p.Version, behind(p.LastIndex)
		hears := p.LastContactMs >= 0 && p.LastContactMs < maxSilence.Milliseconds() && p.LastTerm == l.term
		x.Healthy = x.Leader || hears && x.Behind <= maxBehind
	} else if v, ok := l.seen.Load(s.ID); ok { // it is silent, and lacks all that came since
		x.Version, x.Behind = v.(seen).version, behind(v.(seen).index)
	}
	if h, ok := l.health.Load(s.ID); ok && !h.(health).since.IsZero() {
		x.SinceMs = h.(health).since.UnixMilli()
		if h.(health).healthy != x.Healthy { // autopilot is about to see it
			x.SinceMs = time.Now().UnixMilli()
		}
	}
}

// A healthy member has an entry of the term, lacks no more than maxBehind entries,
// and heard of a leader within maxSilence: as autopilot has it.
const (
	maxBehind  = 1000
	maxSilence = 2 * time.Second
)

// Remove takes a node's member out for good. It is refused, unless forced, where
// those that are left would be no quorum.
func (n *Node) Remove(ctx context.Context, node string, force bool) error {
	return n.retry(ctx, "removing member "+node, func(ctx context.Context, m *member) error {
		if l := m.leading.Load(); l != nil {
			return l.remove(ctx, node, force)
		}
		_, _, err := call(ctx, m, func(ctx context.Context, leader storev1.MemberServiceClient) (*storev1.RemoveMemberResponse, error) {
			return leader.RemoveMember(ctx, &storev1.RemoveMemberRequest{Node: node, Force: force})
		})
		return err
	})
}

func (s memberService) RemoveMember(ctx context.Context, r *storev1.RemoveMemberRequest) (*storev1.RemoveMemberResponse, error) {
	l := s.leading.Load()
	if l == nil {
		return nil, rpcError(errNoLeader)
	}
	if err := l.remove(ctx, r.Node, r.Force); err != nil {
		return nil, rpcError(err)
	}
	return &storev1.RemoveMemberResponse{}, nil
}

func (l *leading) remove(ctx context.Context, node string, force bool) error {
	l.admitting.Lock() // else two removals could each count on what the other takes away
	defer l.admitting.Unlock()
	all := l.probe(ctx)
	i := slices.IndexFunc(all, func(s *storev1.MemberState) bool { return s.Node == node || s.Id == node })
	if i < 0 {
		var nodes []string
		for _, s := range all {
			nodes = append(nodes, s.Node)
		}
		return inventory.Refuse("no member %q: there are %s", node, strings.Join(nodes, ", "))
	}
	gone := all[i]
	voters, healthy := 0, 0
	for _, s := range slices.Delete(slices.Clone(all), i, i+1) {
		if s.Voter {
			voters++
			if s.Healthy {
				healthy++
			}
		}
	}
	switch {
	case voters == 0:
		return inventory.Refuse("%s is the only voter: the store would be gone", gone.Node)
	case healthy < voters/2+1 && !force:
		return inventory.Refuse("without %s, %d of %d voters are healthy, which is no quorum: mend or replace the others first, or use --force", gone.Node, healthy, voters)
	case gone.Leader:
		if err := l.stepDown(); err != nil {
			return err
		}
		return errNoLeader // the next leader does it
	}
	return l.removeServer(ctx, hraft.ServerID(gone.Id), "was removed at "+time.Now().UTC().Format(time.DateTime))
}

// StepDown hands the store's leadership to another member, best to one whose
// agent may lead.
func (n *Node) StepDown(ctx context.Context) error {
	return n.retry(ctx, "stepping down", func(ctx context.Context, m *member) error {
		if l := m.leading.Load(); l != nil {
			return l.stepDown()
		}
		_, _, err := call(ctx, m, func(ctx context.Context, leader storev1.MemberServiceClient) (*storev1.StepDownResponse, error) {
			return leader.StepDown(ctx, &storev1.StepDownRequest{})
		})
		return err
	})
}

func (s memberService) StepDown(context.Context, *storev1.StepDownRequest) (*storev1.StepDownResponse, error) {
	l := s.leading.Load()
	if l == nil {
		return nil, rpcError(errNoLeader)
	}
	if err := l.stepDown(); err != nil {
		return nil, rpcError(err)
	}
	return &storev1.StepDownResponse{}, nil
}

func (l *leading) stepDown() error { return l.transfer(false) }

// transfer hands the leadership to a voter that keeps up; with onlyAble, to one
// whose agent may lead, or to none. They were asked just before, and have followed:
// to one that is away, or has a disk that hangs, the library (raft 1.8.0,
// leadershipTransfer) would not hand on, but might wait for it for as long as it
// is, and take no writes meanwhile; tried twice, for ever.
func (l *leading) transfer(onlyAble bool) error {
	var able, others, slow []*storev1.MemberState
	ctx, cancel := context.WithTimeout(l.ctx, l.opts.Timeout)
	defer cancel()
	members := l.probe(ctx)
	// In turn, so that by stepping down again and again each comes to lead.
	next := slices.IndexFunc(members, func(s *storev1.MemberState) bool { return s.Leader }) + 1
	for _, s := range append(slices.Clone(members[next:]), members[:next]...) {
		if s.Leader || !s.Voter || !s.Healthy {
			continue
		}
		if !l.verify.trans.follows(hraft.ServerID(s.Id)) {
			slow = append(slow, s)
		} else if r := l.recordOf(hraft.ServerID(s.Id)); r != nil && r.NeverLead {
			others = append(others, s)
		} else {
			able = append(able, s)
		}
	}
	if !onlyAble {
		able = append(able, others...)
	}
	switch {
	case len(able) == 0 && len(slow) > 0:
		return fmt.Errorf("%w: no other voter that may lead keeps up: %s does not", inventory.ErrUnavailable, slow[0].Node)
	case len(able) == 0:
		return inventory.Refuse("no other voter is there to lead")
	}
	var errs error
	for _, s := range able {
		err := settled(l.member.ctx, l.raft.LeadershipTransferToServer(hraft.ServerID(s.Id), hraft.ServerAddress(s.Address)))
		if err == nil {
			return nil
		}
		errs = errors.Join(errs, fmt.Errorf("%s: %w", s.Node, err))
	}
	return fmt.Errorf("%w: %w", inventory.ErrUnavailable, errs)
}

// Yield hands the store's leadership, if this node has it, to a node that may
// act as leader. It is refused if there is none.
func (n *Node) Yield() error {
	m, err := n.running()
	if err != nil {
		return err
	}
	if l := m.leading.Load(); l != nil {
		return l.transfer(true)
	}
	return nil
}
