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
	// sampleTimeout is how long HAProxy may take for a sample before it is held
	// for hung.
	sampleTimeout = 2 * time.Second
)

// sampling asks for figures in a goroutine and on a connection of its own: what
// HAProxy has to say of a thousand servers must not hold up a change.
type sampling struct {
	runtime *Runtime
	sampler sampler // the goroutine's while busy
	busy    bool
	done    chan sampled // has room for one
	waiting []request
}

// sampled is what one look brought.
type sampled struct {
	worker int // the pid that was connected when it began
	info   Info
	sample Sample
	err    error
}

func newSampling(o Options) sampling {
	return sampling{runtime: NewRuntime(o.Runtime.path), done: make(chan sampled, 1)}
}

// heldWithoutSample says that a server should serve whose first check may have
// ended since the last sample.
func (w *owner) heldWithoutSample() bool {
	return len(w.unconfirmed) > 0 && w.held() > 0 && time.Since(w.previous.at) >= holdInterval
}

// beginSample begins to ask, unless that is under way.
func (w *owner) beginSample(ctx context.Context, now time.Time) {
	if w.sampling.busy {
		return
	}
	w.sampling.busy = true
	r := sampled{worker: w.pid}
	revision := w.previous.applied
	if now.Sub(w.previous.at) >= settleTime {
		w.previous.at, w.previous.applied = now, w.Status().Applied
	}
	runtime, sampler, done := w.sampling.runtime, &w.sampling.sampler, w.sampling.done
	go func() {
		ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
		defer cancel()
		if r.info, r.err = runtime.Info(ctx); r.err == nil && r.info.PID != r.worker {
			runtime.Close() // that was a worker from before a reload
			r.info, r.err = runtime.Info(ctx)
		}
		if r.err == nil {
			r.sample, r.err = sampler.sample(ctx, runtime)
			r.sample.Revision = revision
		}
		done <- r
	}()
}

// sampled takes in what beginSample brought: it releases servers whose first
// check has ended, and looks whether this is still the worker that takes
// connections.
func (w *owner) sampled(r sampled, now time.Time) {
	w.sampling.busy = false
	err := r.err
	switch {
	case err == nil && r.info.PID != w.pid || !w.connected:
		err = errReplaced
	case err == nil && r.info.Stopping:
		err = errReplaced
	}
	for _, waiting := range w.sampling.waiting {
		waiting <- err
	}
	w.sampling.waiting = nil
	if err != nil {
		w.sampling.runtime.Close()
		w.nextSample = now.Add(holdInterval)
		if w.connected && r.worker == w.pid {
			w.lost(err)
		}
		return
	}
	w.mu.Lock()
	w.sample = r.sample
	w.mu.Unlock()
	w.o.OnSample(r.sample)
	w.release(r.sample, now)

	interval := w.o.StatsInterval
	switch {
	case w.held() > 0:
		interval = holdInterval
	case w.moving():
		interval = w.o.FastStatsInterval
	}
	w.nextSample = now.Add(interval)
}

// endSampling waits for the goroutine and tells those who wait for a sample.
func (w *owner) endSampling() {
	if w.sampling.busy {
		<-w.sampling.done
	}
	w.sampling.runtime.Close()
	for _, waiting := range w.sampling.waiting {
		waiting <- errStopped
	}
}

var errReplaced = errors.New("the worker was replaced by a reload that was not ours")

// release ends the hold of servers whose first check has ended. One that is
// down needs no hold: HAProxy itself keeps sessions from it until it is up.
func (w *owner) release(s Sample, now time.Time) {
	for key, since := range w.unconfirmed {
		h, ok := s.Servers[key]
		if ok && (h.Up || strings.HasPrefix(h.Status, "DOWN")) || now.Sub(since) >= w.o.HoldDeadline {
			delete(w.unconfirmed, key)
			if w.wantedWeight(key) > 0 {
				w.file.dirty = true
			}
		}
	}
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
