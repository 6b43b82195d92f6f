package raft

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

// transport carries the library's messages, some again and again where the library
// would be slow to send them anew, and knows who followed this member when.
type transport struct {
	*hraft.NetworkTransport
	member *member
	raft   atomic.Pointer[hraft.Raft]
	// asked is since when the library owes this member an answer, in nanoseconds;
	// 0 if it owes none.
	asked atomic.Int64

	mu       sync.Mutex
	echoes   map[hraft.ServerID]echo
	echoed   chan struct{}                // closed, and replaced, with each
	answered map[hraft.ServerID]time.Time // what is no heartbeat: with its disk
}

// hangsAfter is how long the library may owe an answer. It waits for the disk in
// the same goroutine.
const hangsAfter = time.Second

// errHangs: heartbeats, which the library sends from goroutines of their own, would
// keep a leader leading that has a disk which hangs, and does nothing any more.
var errHangs = errors.New("this member's disk hangs")

func (t *transport) hangs() bool {
	asked := t.asked.Load()
	return asked != 0 && time.Since(time.Unix(0, asked)) > hangsAfter
}

// echo is when the last message was sent that a server took as one of the leader
// of that term.
type echo struct {
	term uint64
	sent time.Time
}

const sendAgain = 100 * time.Millisecond

// AppendEntries implements raft.Transport. To a member that does not answer it
// gives an entry again and again: the library itself (raft 1.8.0, replicateTo)
// would leave a member that was away for long without entries for ten seconds
// after it is back.
func (t *transport) AppendEntries(id hraft.ServerID, address hraft.ServerAddress, args *hraft.AppendEntriesRequest, answer *hraft.AppendEntriesResponse) error {
	for {
		if t.hangs() {
			return errHangs
		}
		sent := time.Now()
		err := t.NetworkTransport.AppendEntries(id, address, args, answer)
		heartbeat := args.PrevLogEntry == 0 && len(args.Entries) == 0
		if err == nil {
			t.note(id, args.Term, sent, heartbeat, answer.Success)
		}
		if err == nil || heartbeat || !t.owes(id, address, args.Term) {
			return err
		}
		select {
		case <-time.After(sendAgain):
		case <-t.member.ctx.Done():
			return err
		}
	}
}

// note is of an answer to what was sent to a server.
func (t *transport) note(id hraft.ServerID, term uint64, sent time.Time, heartbeat, success bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !heartbeat {
		t.answered[id] = time.Now()
	} else if success {
		t.echoes[id] = echo{term, sent}
		close(t.echoed)
		t.echoed = make(chan struct{})
	}
}

// follows says whether a server has answered lately with its disk, which hears of
// the leader every commitTimeout.
func (t *transport) follows(id hraft.ServerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.answered[id]) < electionTimeout
}

// RequestPreVote implements raft.WithPreVote. It asks again for as long as an
// election may take: who is asked refuses as long as it has not missed the leader
// itself, or has been started anew since the last message; and the library (raft
// 1.8.0, runCandidate) would ask it next after another electionTimeout or two.
func (t *transport) RequestPreVote(id hraft.ServerID, address hraft.ServerAddress, args *hraft.RequestPreVoteRequest, answer *hraft.RequestPreVoteResponse) error {
	over := time.After(electionTimeout)
	for {
		err := t.NetworkTransport.RequestPreVote(id, address, args, answer)
		if err == nil && (answer.Granted || answer.Term > args.Term) {
			return nil
		}
		select {
		case <-time.After(sendAgain):
		case <-over:
			return err
		case <-t.member.ctx.Done():
			return err
		}
		if r := t.raft.Load(); r == nil || r.State() != hraft.Candidate || r.CurrentTerm() >= args.Term {
			return err
		}
	}
}

// owes says whether this member is, in that term, to bring entries to a server.
func (t *transport) owes(id hraft.ServerID, address hraft.ServerAddress, term uint64) bool {
	r := t.raft.Load()
	return r != nil && r.State() == hraft.Leader && r.CurrentTerm() == term &&
		slices.ContainsFunc(r.GetConfiguration().Configuration().Servers, func(s hraft.Server) bool {
			return s.ID == id && s.Address == address
		})
}

// heard says whether this member and others that it sent a message to after a
// time, and that followed it in that term then, are more than half of the voters;
// more is closed with the next that does.
func (t *transport) heard(term uint64, after time.Time) (enough bool, more <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	voters, follow := 0, 0
	for _, s := range t.raft.Load().GetConfiguration().Configuration().Servers {
		if s.Suffrage != hraft.Voter {
			continue
		}
		voters++
		if e := t.echoes[s.ID]; string(s.ID) == t.member.ID || e.term == term && e.sent.After(after) {
			follow++
		}
	}
	return follow > voters/2, t.echoed
}
