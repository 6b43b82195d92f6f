package dosim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Sim is a running simulator. Its HTTP handler may be served by any server;
// the droplets' own servers belong to the Sim.
type Sim struct {
	options Options
	log     *slog.Logger
	guard   net.Listener
	prefix  byte
	handler http.Handler

	// mu guards everything below. API calls hold it for as long as they work:
	// none of them waits for anything.
	mu       sync.Mutex
	state    *state
	limiter  *limiter
	calls    *callCounts
	timeline *timeline
	assigns  []Assign
	closed   bool

	entry *entry
	saver *saver // nil when the state is not kept

	// ctx ends with Close; calls that hang wait for it.
	ctx    context.Context
	cancel context.CancelFunc
}

// New starts a simulator: it claims its droplets' addresses, reads the state
// file if there is one and brings up the droplets in it. The caller calls
// Close.
func New(o Options) (*Sim, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("simulator options: %w", err)
	}
	o = o.withDefaults()
	var kept *state
	if o.StateFile != "" {
		var err error
		if kept, err = readState(o.StateFile); err != nil {
			return nil, err
		}
	}
	prefix := o.DropletPrefix
	if kept != nil && prefix == AutoPrefix {
		prefix = fmt.Sprintf("127.%d", kept.Prefix) // the droplets' addresses are known to others by now
	}
	x, guard, err := claimPrefix(prefix, o.DropletPort)
	if err != nil {
		return nil, err
	}
	if kept != nil && kept.Prefix != int(x) {
		return nil, errors.Join(fmt.Errorf("state file %s has droplets in 127.%d and DropletPrefix is %s: give the same prefix, or another state file",
			o.StateFile, kept.Prefix, o.DropletPrefix), guard.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sim{
		options: o, log: o.Logger, guard: guard, prefix: x, ctx: ctx, cancel: cancel,
		state:    kept,
		limiter:  newLimiter(o.RateLimitHour, o.RateLimitMinute),
		calls:    newCallCounts(),
		timeline: newTimeline(),
		entry:    newEntry(o.EntryPorts, o.CutOnMove),
	}
	if s.state == nil {
		s.state = newState(x)
	}
	s.handler = s.routes()
	if o.StateFile != "" {
		s.saver = newSaver(o.StateFile, s.snapshot, s.log)
	}
	s.mu.Lock()
	s.resume(time.Now())
	err = s.openEntry()
	s.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.log.Info("simulator started", "droplets", fmt.Sprintf("127.%d.0.0/16", x), "port", o.DropletPort)
	return s, nil
}

// Handler answers the API under /v2/ and the simulator's own calls under /_sim/.
func (s *Sim) Handler() http.Handler { return s.handler }

// DropletPrefix is the /16 of the droplets' addresses, written "127.64".
func (s *Sim) DropletPrefix() string { return fmt.Sprintf("127.%d", s.prefix) }

// DropletPort is the port of the droplets' HTTP servers.
func (s *Sim) DropletPort() int { return s.options.DropletPort }

// Close ends all droplets' servers and the entry ports, lets go of calls that hang and writes the
// state file. The caller shuts the server that serves Handler down itself,
// after Close when calls may hang.
func (s *Sim) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.timeline.close()
	s.mu.Lock()
	for _, d := range s.state.Droplets {
		s.closeApp(d)
	}
	s.mu.Unlock()
	s.entry.close()
	var err error
	if s.saver != nil {
		err = s.saver.close()
	}
	if e := s.guard.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("release the droplet prefix: %w", e))
	}
	return err
}

// resume plans what is yet to happen to the droplets and actions of a state file.
func (s *Sim) resume(now time.Time) {
	for _, d := range s.state.Droplets {
		s.settle(d, now)
	}
	for _, a := range s.state.Actions {
		s.planAction(a)
	}
}

// changed is called with mu held after the state has changed.
func (s *Sim) changed() {
	if s.saver != nil {
		s.saver.request()
	}
}
