package haproxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Sync keeps one HAProxy in a wanted state. All that touches HAProxy happens
// in the goroutine of Run, so an apply and a reload never interleave.
type Sync struct {
	o       Options
	wake    chan struct{} // something is pending
	reloads chan request
	samples chan request
	audits  chan auditRequest
	stopped chan struct{} // closed when Run has ended

	mu       sync.Mutex // guards the rest; held for copies only
	pending  *wanted
	status   Status
	sample   Sample
	rendered []byte
	changed  chan struct{} // closed and replaced when status changes
}

type wanted struct {
	cfg      Config
	revision int64
}

// request is a caller who waits for the owner: it has room for one answer.
type request chan error

// auditRequest is a caller who waits for an audit: it has room for one answer.
type auditRequest chan audited

type audited struct {
	drift []Drift
	err   error
}

// New returns a Sync that does nothing until Run.
func New(o Options) (*Sync, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("haproxy: %w", err)
	}
	return &Sync{
		o:       o.withDefaults(),
		wake:    make(chan struct{}, 1),
		reloads: make(chan request),
		samples: make(chan request),
		audits:  make(chan auditRequest),
		stopped: make(chan struct{}),
		status:  Status{State: Starting},
		changed: make(chan struct{}),
	}, nil
}

// Apply makes cfg what is wanted and returns at once; of several the last one
// counts. The caller must not change cfg or what it points to afterwards. The
// revision appears in Status.Applied when it has taken effect.
func (s *Sync) Apply(cfg Config, revision int64) {
	s.mu.Lock()
	s.pending = &wanted{cfg, revision}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Status returns how it stands.
func (s *Sync) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Wait blocks until ok says yes to the status.
func (s *Sync) Wait(ctx context.Context, ok func(Status) bool) (Status, error) {
	for {
		s.mu.Lock()
		status, changed := s.status, s.changed
		s.mu.Unlock()
		if ok(status) {
			return status, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status, context.Cause(ctx)
		}
	}
}

// Rendered returns the file that describes what HAProxy should run now, nil
// before the first Apply. Nothing is touched.
func (s *Sync) Rendered() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rendered
}

// Sample returns the last sample.
func (s *Sync) Sample() Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sample
}

// Stats takes a sample now.
func (s *Sync) Stats(ctx context.Context) (Sample, error) {
	if err := s.ask(ctx, s.samples); err != nil {
		return Sample{}, fmt.Errorf("haproxy: stats: %w", err)
	}
	return s.Sample(), nil
}

// Reload reads the template again, renders, checks and reloads, even if
// nothing changed, and says how it went. A context that ends stops the waiting,
// not the reload.
func (s *Sync) Reload(ctx context.Context) error {
	if err := s.ask(ctx, s.reloads); err != nil {
		return fmt.Errorf("haproxy: reload: %w", err)
	}
	return nil
}

// Audit compares HAProxy's own answer with what it was left with, now, and
// returns what differed. That is mended at once, as in every audit. The error
// says that HAProxy does not answer.
func (s *Sync) Audit(ctx context.Context) ([]Drift, error) {
	r := make(auditRequest, 1)
	select {
	case s.audits <- r:
	case <-s.stopped:
		return nil, fmt.Errorf("haproxy: audit: %w", errStopped)
	case <-ctx.Done():
		return nil, fmt.Errorf("haproxy: audit: %w", context.Cause(ctx))
	}
	select {
	case a := <-r:
		if a.err != nil {
			return nil, fmt.Errorf("haproxy: audit: %w", a.err)
		}
		return a.drift, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("haproxy: audit: %w", context.Cause(ctx))
	}
}

func (s *Sync) ask(ctx context.Context, to chan request) error {
	r := make(request, 1)
	select {
	case to <- r:
	case <-s.stopped:
		return errStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-r:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errStopped is what callers get who ask when Run has ended.
var errStopped = errors.New("the agent is stopping")

// update changes the status under the lock and tells who wants to know, if
// anything changed.
func (s *Sync) update(f func(*Status)) {
	s.mu.Lock()
	before := s.status
	f(&s.status)
	after := s.status
	if before == after {
		s.mu.Unlock()
		return
	}
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.o.OnStatus(after)
}
