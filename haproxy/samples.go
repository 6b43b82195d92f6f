package haproxy

import (
	"context"
	"errors"
	"strings"
	"time"
)

const (
	// settleTime is how long a revision must have been in effect before a
	// sample may vouch for it.
	settleTime = 50 * time.Millisecond
	// holdInterval is that of samples while a server should serve but waits
	// for its first check.
	holdInterval = 50 * time.Millisecond
)

// heldWithoutSample says that a server should serve whose first check may have
// ended since the last sample.
func (w *owner) heldWithoutSample() bool {
	return len(w.unconfirmed) > 0 && w.held() > 0 && time.Since(w.previous.at) >= holdInterval
}

// takeSample asks for the figures, releases servers whose first check has
// ended, and looks whether this is still the worker that takes connections.
func (w *owner) takeSample(ctx context.Context, now time.Time) error {
	if !w.connected {
		return ErrNotRunning
	}
	info, err := w.o.Runtime.Info(ctx)
	if err != nil {
		return err
	}
	if info.Stopping {
		return errReplaced
	}
	s, err := w.sampler.sample(ctx, w.o.Runtime)
	if err != nil {
		return err
	}
	s.Revision = w.previous.applied
	if now.Sub(w.previous.at) >= settleTime {
		w.previous.at, w.previous.applied = now, w.Status().Applied
	}
	w.mu.Lock()
	w.sample = s
	w.mu.Unlock()
	w.o.OnSample(s)
	released := w.release(s, now)

	interval := w.o.StatsInterval
	switch {
	case w.held() > 0:
		interval = holdInterval
	case w.moving():
		interval = w.o.FastStatsInterval
	}
	w.nextSample = now.Add(interval)
	if released && w.want != nil {
		if err := w.converge(ctx, now); err != nil {
			w.nextAudit = time.Time{}
			var answer *CommandError
			if !errors.As(err, &answer) {
				return err
			}
		}
	}
	return nil
}

var errReplaced = errors.New("the worker was replaced by a reload that was not ours")

// release ends the hold of servers whose first check has ended. One that is
// down needs no hold: HAProxy itself keeps sessions from it until it is up.
func (w *owner) release(s Sample, now time.Time) bool {
	released := false
	for key, since := range w.unconfirmed {
		h, ok := s.Servers[key]
		if ok && (h.Up || strings.HasPrefix(h.Status, "DOWN")) || now.Sub(since) >= w.o.HoldDeadline {
			delete(w.unconfirmed, key)
			if w.wantedWeight(key) > 0 {
				w.file.dirty, released = true, true
			}
		}
	}
	return released
}

// moving says that a wanted server has weight 0: it boots or drains.
func (w *owner) moving() bool {
	if w.want == nil {
		return false
	}
	for i := range w.want.Backends {
		for j := range w.want.Backends[i].Servers {
			if w.want.Backends[i].Servers[j].Weight == 0 {
				return true
			}
		}
	}
	return false
}
