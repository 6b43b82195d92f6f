package raft

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

// announcer tells the followers at once what is committed. The library would
// tell them with the next entry, or after commitTimeout; every node's HAProxy
// waits for that.
type announcer struct {
	index atomic.Uint64
	mu    sync.Mutex
	to    map[hraft.ServerID]*told
}

// told is what a server was told last.
type told struct {
	index atomic.Uint64
	wake  chan struct{} // has room for one
}

func (t *told) again() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (a *announcer) tell(index uint64) {
	a.index.Store(index)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.to {
		t.again()
	}
}

// repeat tells a server again, which may have been started since.
func (a *announcer) repeat(id hraft.ServerID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.to[id]; t != nil {
		t.index.Store(0)
		t.again()
	}
}

// announceAll keeps an announcement going for each other server.
func (l *leading) announceAll() {
	a := &l.announce
	ends := map[hraft.Server]context.CancelFunc{}
	for {
		present := map[hraft.Server]bool{}
		for _, s := range l.raft.GetConfiguration().Configuration().Servers {
			if string(s.ID) == l.ID {
				continue
			}
			s.Suffrage = 0 // whether it votes does not matter here
			present[s] = true
			if ends[s] != nil {
				continue
			}
			ctx, cancel := context.WithCancel(l.ctx)
			t := &told{wake: make(chan struct{}, 1)}
			t.again() // of what was applied before
			a.mu.Lock()
			if a.to == nil {
				a.to = map[hraft.ServerID]*told{}
			}
			a.to[s.ID] = t
			a.mu.Unlock()
			ends[s] = cancel
			// Not waited for by the next term: one may hang in a dead connection.
			l.work.Go(func() { l.announceTo(ctx, s, t) })
		}
		for s, end := range ends {
			if !present[s] {
				end()
				delete(ends, s)
			}
		}
		select {
		case <-l.ctx.Done():
			for _, end := range ends {
				end()
			}
			return
		case <-time.After(time.Second):
		}
	}
}

// announceTo sends entries' requests without entries, which are valid whatever
// becomes of them: they name an entry that is committed in this leader's term.
func (l *leading) announceTo(ctx context.Context, s hraft.Server, t *told) {
	self := l.trans.EncodePeer(hraft.ServerID(l.ID), l.trans.LocalAddr())
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		for try := 0; ctx.Err() == nil; try++ {
			index := l.announce.index.Load()
			if index == t.index.Load() {
				break
			}
			var r hraft.AppendEntriesResponse
			err := l.trans.AppendEntries(s.ID, s.Address, &hraft.AppendEntriesRequest{
				RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(l.ID), Addr: self},
				Term:      l.term, Leader: self,
				PrevLogEntry: index, PrevLogTerm: l.term, LeaderCommitIndex: index,
			}, &r)
			if err != nil {
				time.Sleep(50 * time.Millisecond) // it is away: replication goes on by itself
				break
			}
			if r.Success {
				t.index.Store(index)
				continue
			}
			if r.Term > l.term || try > 20 {
				break
			}
			time.Sleep(500 * time.Microsecond) // the entry is still on its way there
		}
	}
}
