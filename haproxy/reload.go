package haproxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/template"
	"time"
)

// connect makes sure that HAProxy runs and answers on its runtime socket.
func (w *owner) connect(ctx context.Context, now time.Time) bool {
	if w.connected {
		select {
		case <-w.dead:
			w.lost(ErrClosed)
		default:
			return true
		}
	}
	if now.Before(w.nextConnect) {
		return false
	}
	err := w.bringUp(ctx)
	if err == nil {
		w.starts = 0
		return true
	}
	w.starts++
	pause := min(w.o.RetryMin/10<<min(w.starts, 10), 5*time.Second)
	if w.want == nil {
		pause = min(pause, time.Second)
	}
	w.nextConnect = now.Add(pause)
	if ctx.Err() == nil && !errors.Is(err, errNoConfig) {
		if w.failure == nil || w.failure.Error() != err.Error() {
			w.o.Logger.Error("haproxy does not run", "error", err)
		}
		w.failure = err
	}
	return false
}

// errNoConfig: nothing was applied yet, and an earlier agent left no file.
var errNoConfig = errors.New("there is no configuration yet")

// bringUp finds or starts HAProxy, with a file that is as current as it can be,
// and connects to its worker.
func (w *owner) bringUp(ctx context.Context) error {
	if !w.o.Process.Running(ctx) {
		if w.want != nil {
			return w.startWanted(ctx)
		}
		if _, err := os.Stat(w.file.path); err != nil {
			return errNoConfig
		}
	}
	if err := w.o.Process.Start(ctx); err != nil {
		return err
	}
	return w.attach(ctx)
}

// startWanted writes the wanted configuration and starts HAProxy with it; if
// that cannot be, then with the last good one.
func (w *owner) startWanted(ctx context.Context) error {
	if err := w.file.wait(); err != nil {
		w.o.Logger.Error("cannot write haproxy's configuration", "error", err)
	}
	before, readErr := os.ReadFile(w.file.path)
	if readErr != nil {
		before = nil
	}
	t, content, err := w.prepare(ctx, *w.want)
	if err == nil {
		err = w.file.set(content)
	}
	if err != nil {
		w.note(err)
		if w.running != nil {
			// What HAProxy ran before, with the servers as they are now.
			if content, rerr := render(w.template, w.effective(w.target())); rerr == nil {
				if serr := w.file.set(content); serr == nil {
					before = content
				}
			}
		}
		if before == nil {
			return err
		}
		if serr := w.o.Process.Start(ctx); serr != nil {
			return errors.Join(err, serr)
		}
		w.update(func(s *Status) { s.Starts++ })
		return w.attach(ctx)
	}
	w.setRendered(content)
	if err := w.o.Process.Start(ctx); err != nil {
		if before != nil && !sameSkeleton(before, content) && !errors.Is(err, ErrNotRunning) {
			// -c cannot see everything: an address may be taken.
			w.note(err)
			if rerr := w.file.restore(before); rerr != nil {
				return errors.Join(err, rerr)
			}
			if serr := w.o.Process.Start(ctx); serr != nil {
				return errors.Join(err, serr)
			}
			w.update(func(s *Status) { s.Starts++ })
			return w.attach(ctx)
		}
		return err
	}
	_ = os.Remove(w.file.unconfirmed()) // it began with this file
	w.update(func(s *Status) { s.Starts++ })
	w.took(t)
	return w.attach(ctx)
}

// attach connects to the newest worker's runtime socket.
func (w *owner) attach(ctx context.Context) error {
	w.o.Runtime.Close()
	deadline := time.Now().Add(time.Second)
	for {
		err := w.attachOnce(ctx)
		if err == nil || errors.Is(err, ErrNotRunning) {
			return err
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func (w *owner) attachOnce(ctx context.Context) error {
	proc, err := w.o.Process.Proc(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	info, err := w.o.Runtime.Info(ctx)
	if err != nil {
		return err
	}
	if info.PID != proc.WorkerPID {
		w.o.Runtime.Close()
		return fmt.Errorf("haproxy: worker %d answers instead of %d", info.PID, proc.WorkerPID)
	}
	dead, err := w.o.Runtime.Connect(ctx)
	if err != nil {
		return err
	}
	if w.pid != info.PID {
		// A new worker knows nothing of what was under way with the old one.
		clear(w.leaving)
		w.have = nil
	}
	w.pid, w.dead, w.exited = info.PID, dead, w.o.Process.Exited()
	w.connected = true
	w.nextAudit, w.nextSample = time.Time{}, time.Time{}
	w.previous.at, w.previous.applied = time.Time{}, 0
	w.update(func(s *Status) {
		s.Version, s.PID, s.MasterPID, s.Connected = info.Version, info.PID, proc.MasterPID, true
	})
	w.recognize()
	return nil
}

// recognize finds out whether HAProxy runs what we would give it: its file on
// disk is ours, servers aside, and no reload was broken off.
func (w *owner) recognize() {
	if w.failure != nil && w.failed == nil {
		w.failure = nil // it was that HAProxy did not run
	}
	disk, err := os.ReadFile(w.file.path)
	if err != nil {
		w.force = w.force || w.running != nil
		return
	}
	if _, err := os.Stat(w.file.unconfirmed()); err == nil {
		w.o.Logger.Warn("a reload was broken off: haproxy will reload")
		w.force = true
		return
	}
	if w.running != nil && w.file.content != nil && !sameSkeleton(disk, w.file.content) {
		w.force = true // someone edited the file, and restarted HAProxy
	}
}

// adopt takes a HAProxy that ran before us for one with the wanted
// configuration if its file says so.
func (w *owner) adopt() {
	t, err := w.o.Template()
	if err != nil {
		return // reload will say so
	}
	disk, err := os.ReadFile(w.file.path)
	if err != nil {
		return
	}
	if content, err := Render(t, *w.want); err == nil && sameSkeleton(disk, content) {
		w.took(t)
		w.file.content, w.file.dirty = disk, true
		w.file.stat, _ = os.Stat(w.file.path)
	}
}

// took notes that HAProxy runs the wanted configuration.
func (w *owner) took(t *template.Template) {
	w.running, w.template = w.want, t
	w.force, w.failed, w.failure, w.failures, w.refused = false, nil, nil, 0, false
	w.nextRetry = time.Time{}
}

// note remembers why the wanted configuration could not be had, and when to
// try again.
func (w *owner) note(err error) {
	w.failed, w.failure = w.want, err
	pause := min(w.o.RetryMin<<min(w.failures, 12), w.o.RetryMax)
	w.failures++
	w.nextRetry = time.Now().Add(pause)
	w.o.Logger.Error("haproxy's configuration was not taken", "error", err, "retry_in", pause)
}

// prepare renders the configuration and has HAProxy check it in a file of its
// own.
func (w *owner) prepare(ctx context.Context, cfg Config) (*template.Template, []byte, error) {
	t, err := w.o.Template()
	if err != nil {
		return nil, nil, err
	}
	content, err := Render(t, w.effective(cfg))
	if err != nil {
		return nil, nil, err
	}
	draft := w.file.path + ".new"
	if err := os.WriteFile(draft, content, 0o644); err != nil {
		return nil, nil, err
	}
	defer os.Remove(draft)
	if err := CheckFile(ctx, w.o.Binary, draft); err != nil {
		return nil, nil, err
	}
	return t, content, nil
}

// reloadNow answers a caller of Sync.Reload.
func (w *owner) reloadNow(ctx context.Context) error {
	w.take()
	if w.want == nil {
		return errors.New("there is nothing to load yet: no inventory was seen")
	}
	if !w.connected {
		return ErrNotRunning
	}
	w.force = true
	if err := w.reload(ctx); err != nil {
		return err
	}
	return nil
}

// reload makes HAProxy run the wanted configuration: checked, written,
// reloaded, confirmed. When it fails the last good file is put back, and the
// failure is noted.
func (w *owner) reload(ctx context.Context) error {
	err := w.tryReload(ctx)
	if err != nil && ctx.Err() == nil {
		w.note(err)
	}
	return err
}

func (w *owner) tryReload(ctx context.Context) error {
	if err := w.file.wait(); err != nil {
		w.o.Logger.Error("cannot write haproxy's configuration", "error", err)
	}
	// Servers may just have been ordered away or in: the new worker starts with
	// what the file says, so the file says what is wanted now.
	t, content, err := w.prepare(ctx, *w.want)
	if err != nil {
		return err
	}
	if w.running != nil && !w.force && sameSkeleton(content, w.file.content) {
		// Written in other words, but the same for HAProxy.
		w.took(t)
		return nil
	}
	before, err := os.ReadFile(w.file.path)
	if err != nil {
		before = nil
	}
	if err := os.WriteFile(w.file.unconfirmed(), nil, 0o644); err != nil {
		return err
	}
	if err := w.file.set(content); err != nil {
		return err
	}
	rctx, cancel := context.WithTimeout(ctx, w.o.ReloadTimeout)
	defer cancel()
	if err := w.o.Process.Reload(rctx); err != nil {
		if w.running != nil {
			// The servers have moved on since; the rest is as HAProxy runs it.
			if good, rerr := render(w.template, w.effective(graft(*w.running, *w.want))); rerr == nil {
				before = good
			}
		}
		if rerr := w.file.restore(before); rerr != nil {
			return errors.Join(err, rerr)
		}
		if errors.Is(err, ErrReloadFailed) {
			_ = os.Remove(w.file.unconfirmed())
		} else {
			w.force = true // nobody knows what it runs
		}
		return err
	}
	if err := os.Remove(w.file.unconfirmed()); err != nil {
		w.o.Logger.Warn("cannot remove the mark of a reload", "error", err)
	}
	w.update(func(s *Status) { s.Reloads++ })
	w.took(t)
	w.setRendered(content)
	w.connected = false
	if err := w.attach(ctx); err != nil {
		w.lost(err)
		return nil // HAProxy took it; that it does not answer is for connect
	}
	return w.audit(ctx, time.Now())
}
