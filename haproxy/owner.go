package haproxy

import (
	"context"
	"errors"
	"text/template"
	"time"
)

// owner is the state of the goroutine that owns HAProxy. Nobody else reads it.
type owner struct {
	*Sync

	want    *Config // nil before the first Apply
	wantRev int64

	// running is what HAProxy runs, its servers aside, and the template it was
	// rendered with. Nil: not known.
	running  *Config
	template *template.Template
	// force asks for a reload though nothing but servers differs.
	force bool
	// failed is the configuration of the last failed attempt: one that differs
	// from it in more than servers is tried at once.
	failed   *Config
	failures int
	failure  error
	// invalid is why the configuration last applied was refused outright; what
	// was wanted before still is.
	invalid error
	// fileError is why the file is behind what HAProxy runs.
	fileError error

	connected bool
	dead      <-chan struct{} // closed when the runtime connection ends
	exited    <-chan struct{} // closed when the process ends
	pid       int
	starts    int // failed ones in a row

	have        map[string][]ServerState
	unconfirmed map[string]time.Time // backend/server: added at, first check not seen
	leaving     map[string]leaving
	refused     bool // the runtime API refused a change, even after an audit
	stubborn    int  // reloads for that reason in a row

	file     fileState
	sampling sampling
	auditing []auditRequest // wait for the next audit
	previous struct {       // the sample before
		at      time.Time
		applied int64
	}

	nextConnect, nextRetry, nextAudit, nextSample time.Time
}

// leaving is a server in maintenance that still has connections.
type leaving struct {
	since, next time.Time
	pause       time.Duration
}

// Run keeps HAProxy in the wanted state until the context ends; then it writes
// what is not yet on disk and returns nil. HAProxy runs on. Run may be called
// once.
func (s *Sync) Run(ctx context.Context) error {
	defer close(s.stopped)
	w := &owner{
		Sync:        s,
		unconfirmed: map[string]time.Time{},
		leaving:     map[string]leaving{},
		sampling:    newSampling(s.o),
	}
	w.file.init(s.o.ConfigFile)
	s.update(func(st *Status) { *st = Status{State: Starting, Since: time.Now(), Wanted: st.Wanted} })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-timer.C:
		case <-w.dead:
		case <-w.exited:
			w.lost(ErrClosed)
		case result := <-w.file.done:
			w.written(result)
		case r := <-s.reloads:
			r <- w.reloadNow(ctx)
		case r := <-s.samples:
			if !w.connected {
				r <- ErrNotRunning
				break
			}
			w.sampling.waiting = append(w.sampling.waiting, r)
			w.beginSample(ctx, time.Now())
		case r := <-s.audits:
			w.auditing = append(w.auditing, r)
			w.nextAudit = time.Time{}
		case r := <-w.sampling.done:
			w.sampled(r, time.Now())
		}
		if ctx.Err() != nil {
			break
		}
		timer.Reset(time.Until(w.step(ctx, time.Now())))
		w.endAudits(ErrNotRunning) // none was to be had
	}
	w.flushLast()
	w.endSampling()
	w.endAudits(errStopped)
	s.o.Runtime.Close()
	s.o.Process.Close()
	return nil
}

// endAudits tells those who wait for an audit that there was none.
func (w *owner) endAudits(err error) {
	for _, waiting := range w.auditing {
		waiting <- audited{nil, err}
	}
	w.auditing = nil
}

// step does what is due and returns when it is to be called again at the
// latest.
func (w *owner) step(ctx context.Context, now time.Time) time.Time {
	w.take()
	if w.connect(ctx, now) {
		w.settle(ctx, now)
	}
	w.flush(time.Now())
	w.publish()
	return w.next()
}

// take makes the last applied configuration the wanted one.
func (w *owner) take() {
	w.mu.Lock()
	p := w.pending
	w.pending = nil
	w.mu.Unlock()
	if p == nil {
		return
	}
	// Nothing that is not valid gets further than this: neither into the file
	// nor into a command.
	if w.invalid = validateChange(w.want, p.cfg); w.invalid != nil {
		w.wantRev = p.revision
		w.o.Logger.Error("refusing an invalid configuration of haproxy", "revision", p.revision, "error", w.invalid)
		return
	}
	if w.want == nil {
		w.nextConnect = time.Time{}
	}
	w.want, w.wantRev = &p.cfg, p.revision
	w.file.dirty = true
	if w.failed != nil && !sameButServers(*w.failed, *w.want) {
		w.nextRetry = time.Time{}
	}
}

// settle does what is due while HAProxy answers.
func (w *owner) settle(ctx context.Context, now time.Time) {
	// Twice at most: when a change is refused, HAProxy is asked what it has,
	// and the change is worked out again.
	for range 2 {
		if !now.Before(w.nextAudit) {
			if err := w.audit(ctx, now); err != nil {
				w.lost(err)
				return
			}
		}
		if w.want == nil {
			break
		}
		if w.running == nil && w.failed == nil && !w.force {
			w.adopt()
		}
		if w.mustReload() && !now.Before(w.nextRetry) {
			_ = w.reload(ctx) // noted in failure
			if !w.connected {
				return
			}
		}
		err := w.converge(ctx, now)
		if err == nil {
			w.refused, w.stubborn = false, 0
			break
		}
		var answer *CommandError
		if !errors.As(err, &answer) {
			w.lost(err)
			return
		}
		w.o.Logger.Warn("haproxy refused a change at run time", "command", answer.Command, "answer", answer.Answer)
		if w.refused {
			w.force = true
			if w.stubborn > 0 { // a reload has not helped
				w.failure = err
				w.nextRetry = now.Add(min(w.o.RetryMin<<min(w.stubborn, 12), w.o.RetryMax))
			}
			w.stubborn++
		}
		w.refused = true
		w.nextAudit = now
	}
	if !now.Before(w.nextSample) || w.heldWithoutSample() {
		w.beginSample(ctx, now)
	}
}

// mustReload says that something other than servers differs from what HAProxy
// runs.
func (w *owner) mustReload() bool {
	return w.force || w.failure != nil || !w.inPlace()
}

// inPlace says that HAProxy runs the wanted configuration, servers aside.
func (w *owner) inPlace() bool {
	if w.running == nil {
		return false
	}
	return sameButServers(*w.running, *w.want)
}

// target is what can be had at run time: what is wanted, or as much of it as
// fits into the configuration that HAProxy runs.
func (w *owner) target() Config {
	switch {
	case w.running == nil:
		return w.known(*w.want)
	case w.inPlace():
		return *w.want
	}
	return graft(*w.running, *w.want)
}

// known leaves out the backends that HAProxy does not have.
func (w *owner) known(cfg Config) Config {
	var backends []Backend
	for _, b := range cfg.Backends {
		if len(w.have[b.Name]) > 0 {
			backends = append(backends, b)
		}
	}
	cfg.Backends = backends
	return cfg
}

// next is when step must be called again.
func (w *owner) next() time.Time {
	next := w.nextConnect
	if w.connected {
		next = w.nextAudit
		earlier := func(t time.Time) {
			if t.Before(next) {
				next = t
			}
		}
		if !w.sampling.busy {
			earlier(w.nextSample)
		}
		for _, l := range w.leaving {
			earlier(l.next)
		}
		if w.want != nil && w.mustReload() {
			earlier(w.nextRetry)
		}
		if at, ok := w.file.due(w.o.FlushInterval); ok && w.running != nil {
			earlier(at)
		}
	}
	return next
}

// publish brings Status up to date.
func (w *owner) publish() {
	now := time.Now()
	held := 0
	if w.want != nil && len(w.unconfirmed) > 0 {
		held = w.held()
	}
	w.update(func(s *Status) {
		state := Starting
		switch {
		case w.failure != nil || w.invalid != nil || !w.connected && s.Starts > 0:
			state = Failed
		case w.connected:
			state = Running
		}
		if s.State != state {
			s.State, s.Since = state, now
		}
		text := ""
		if err := or(or(w.invalid, w.failure), w.fileError); err != nil {
			text = err.Error()
		}
		if s.Error != text {
			s.Error, s.ErrorAt = text, now
		}
		s.Wanted, s.Held, s.Connected = w.wantRev, held, w.connected
	})
}

// lost notes that HAProxy does not answer any more.
func (w *owner) lost(err error) {
	if w.connected {
		w.o.Logger.Warn("lost haproxy", "error", err)
	}
	w.connected, w.dead, w.exited = false, nil, nil
	w.o.Runtime.Close()
	w.nextConnect = time.Time{}
	if !errors.Is(err, ErrClosed) {
		w.nextConnect = time.Now().Add(100 * time.Millisecond)
	}
}
