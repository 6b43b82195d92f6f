package raft

import (
	"slices"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

// transport carries the library's messages. To a member that does not answer it
// gives an entry again and again: the library itself (raft 1.8.0, replicateTo)
// would leave a member that was away for long without entries for ten seconds
// after it is back.
type transport struct {
	*hraft.NetworkTransport
	member *member
	raft   atomic.Pointer[hraft.Raft]
}

const sendAgain = 100 * time.Millisecond

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id hraft.ServerID, address hraft.ServerAddress, args *hraft.AppendEntriesRequest, answer *hraft.AppendEntriesResponse) error {
	for {
		err := t.NetworkTransport.AppendEntries(id, address, args, answer)
		if heartbeat := args.PrevLogEntry == 0 && len(args.Entries) == 0; err == nil || heartbeat || !t.owes(id, address, args.Term) {
			return err
		}
		select {
		case <-time.After(sendAgain):
		case <-t.member.ctx.Done():
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
