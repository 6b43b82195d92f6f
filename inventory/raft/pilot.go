package raft

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

// pilot is what autopilot asks of the store.
type pilot struct {
	*leading
	mu    sync.Mutex
	heard map[hraft.ServerID]heard
}

// heard is when a server answered last, or was looked at first, and what it told.
type heard struct {
	at    time.Time
	stats autopilot.ServerStats
}

func (p *pilot) AutopilotConfig() *autopilot.Config {
	return &autopilot.Config{
		CleanupDeadServers: true, LastContactThreshold: maxSilence, MaxTrailingLogs: maxBehind,
		MinQuorum: minVoters, ServerStabilizationTime: p.opts.stabilize,
	}
}

// NotifyState keeps since when each server is as well, or as ill, as it is.
func (p *pilot) NotifyState(now *autopilot.State) {
	for id, s := range now.Servers {
		was, known := p.health.Load(id)
		switch {
		case known && was.(health).healthy == s.Health.Healthy:
		case !known && s.Health.Healthy:
			p.health.Store(id, health{true, s.Health.StableSince})
		default:
			p.health.Store(id, health{s.Health.Healthy, time.Now()})
		}
	}
}

// health is whether a server is healthy, and since when.
type health struct {
	healthy bool
	since   time.Time
}

func (p *pilot) FetchServerStats(ctx context.Context, servers map[hraft.ServerID]*autopilot.Server) map[hraft.ServerID]*autopilot.ServerStats {
	var mu sync.Mutex
	var work sync.WaitGroup
	all := map[hraft.ServerID]*autopilot.ServerStats{}
	for id, s := range servers {
		work.Go(func() {
			r, err := p.progressOf(ctx, hraft.Server{ID: id, Address: s.Address})
			var stats *autopilot.ServerStats
			if err == nil && r.Id == string(id) {
				stats = &autopilot.ServerStats{LastContact: time.Duration(r.LastContactMs) * time.Millisecond, LastTerm: r.LastTerm, LastIndex: r.LastIndex}
				if string(id) == p.ID {
					stats.LastContact = 0
				}
				p.seen.Store(id, seen{r.Version, r.LastIndex})
			}
			stats = p.hear(id, stats)
			mu.Lock()
			defer mu.Unlock()
			all[id] = stats
		})
	}
	work.Wait()
	return all
}

// hear keeps what a server told. From one that is silent it is what it told last:
// autopilot by itself would take that for new.
func (p *pilot) hear(id hraft.ServerID, now *autopilot.ServerStats) *autopilot.ServerStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.heard[id]
	switch {
	case now != nil:
		h = heard{time.Now(), *now}
	case h.at.IsZero():
		h.at = time.Now()
	default:
		h.stats.LastContact = max(h.stats.LastContact, time.Since(h.at))
	}
	p.heard[id] = h
	return &h.stats
}

// seen is what a server told last.
type seen struct {
	version string
	index   uint64 // of its log's last entry
}

func (p *pilot) KnownServers() map[hraft.ServerID]*autopilot.Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[hraft.ServerID]*autopilot.Server{}
	for _, s := range p.raft.GetConfiguration().Configuration().Servers {
		if p.heard[s.ID].at.IsZero() {
			p.heard[s.ID] = heard{at: time.Now()}
		}
		state := autopilot.NodeAlive
		if time.Since(p.heard[s.ID].at) > p.opts.DeadAfter {
			state = autopilot.NodeFailed
		}
		all[s.ID] = &autopilot.Server{
			ID: s.ID, Name: p.nodeOf(s.ID), Address: s.Address, NodeStatus: state, NodeType: autopilot.NodeVoter, RaftVersion: 3, IsLeader: string(s.ID) == p.ID,
		}
	}
	return all
}

// RemoveFailedServer takes a dead server out; it may come back by itself.
func (p *pilot) RemoveFailedServer(s *autopilot.Server) {
	p.logger.Warn("a member that is dead is removed", "node", s.Name, "id", s.ID, "silent_for", p.opts.DeadAfter)
	go func() {
		p.admitting.Lock()
		defer p.admitting.Unlock()
		left := 0 // another may have been removed since this was decided
		for _, other := range p.raft.GetConfiguration().Configuration().Servers {
			if other.ID != s.ID && other.Suffrage == hraft.Voter {
				left++
			}
		}
		if left < minVoters {
			return
		}
		if err := settled(p.ctx, p.raft.RemoveServer(s.ID, 0, p.opts.Timeout)); err != nil {
			p.logger.Warn("a dead member is not removed yet", "node", s.Name, "error", err)
		}
	}()
}

// promoter makes stable members voters, up to maxVoters.
type promoter struct{ autopilot.StablePromoter }

func (p *promoter) CalculatePromotionsAndDemotions(c *autopilot.Config, s *autopilot.State) autopilot.RaftChanges {
	changes := p.StablePromoter.CalculatePromotionsAndDemotions(c, s)
	slices.Sort(changes.Promotions)
	changes.Promotions = changes.Promotions[:min(len(changes.Promotions), max(0, maxVoters-len(s.Voters)))]
	return changes
}

// pilotRaft is the library for autopilot, which decides by what it saw up to some
// seconds ago, and would bring back a server that was removed since.
type pilotRaft struct {
	*hraft.Raft
	l *leading
}

// AddVoter implements autopilot.Raft: for a server that is in the configuration.
func (r pilotRaft) AddVoter(id hraft.ServerID, _ hraft.ServerAddress, prev uint64, timeout time.Duration) hraft.IndexFuture {
	r.l.admitting.Lock()
	defer r.l.admitting.Unlock()
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.ID == id {
			f := r.Raft.AddVoter(id, s.Address, prev, timeout)
			if err := settled(r.l.ctx, f); err != nil {
				return notDone{err}
			}
			return f
		}
	}
	return notDone{errGone}
}

var errGone = errors.New("it is no member any more")

// notDone is a future that has failed.
type notDone struct{ err error }

func (f notDone) Error() error { return f.err }
func (notDone) Index() uint64  { return 0 }
