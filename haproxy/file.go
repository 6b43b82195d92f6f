package haproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/google/renameio/v2"
)

// fileState is the owner's view of the configuration file. Writing is done in
// a goroutine, one at a time, so that a disk that is slow to sync does not
// hold up a change.
type fileState struct {
	path    string
	dirty   bool
	since   time.Time // dirty; zero until it was noticed
	content []byte    // as last written or found in step, nil: not known
	stat    os.FileInfo
	last    time.Time // of the last write
	busy    bool
	done    chan writeResult
}

type writeResult struct {
	content []byte
	stat    os.FileInfo
	err     error
}

func (f *fileState) init(path string) {
	f.path, f.done = path, make(chan writeResult, 1)
}

// unconfirmed is the file that exists while the configuration file may not be
// what HAProxy runs. An agent that finds it at its start reloads.
func (f *fileState) unconfirmed() string { return f.path + ".unconfirmed" }

// due is when the file is to be written, if it is.
func (f *fileState) due(interval time.Duration) (time.Time, bool) {
	if !f.dirty || f.busy {
		return time.Time{}, false
	}
	if f.since.IsZero() {
		f.since = time.Now()
	}
	at := f.since.Add(writeAfter)
	if next := f.last.Add(interval); next.After(at) {
		at = next
	}
	return at, true
}

// writeAfter lets a change reach HAProxy, here and on nodes that share this
// machine's disk, before that gets busy.
const writeAfter = 20 * time.Millisecond

// begin renders and writes in the background.
func (f *fileState) begin(t *template.Template, cfg Config) {
	f.busy, f.dirty, f.since, f.last = true, false, time.Time{}, time.Now()
	before := f.content
	go func() {
		content, err := render(t, cfg)
		if err == nil && !bytes.Equal(content, before) {
			err = writeFile(f.path, content)
		}
		var stat os.FileInfo
		if err == nil {
			stat, err = os.Stat(f.path)
		}
		f.done <- writeResult{content, stat, err}
	}()
}

// ended takes the result of begin.
func (f *fileState) ended(r writeResult) error {
	f.busy = false
	if r.err != nil {
		f.dirty, f.content, f.last = true, nil, time.Now().Add(time.Second)
		return r.err
	}
	f.content, f.stat = r.content, r.stat
	return nil
}

// wait waits for a write that is under way.
func (f *fileState) wait() error {
	if !f.busy {
		return nil
	}
	return f.ended(<-f.done)
}

// edited says that another changed the file since it was last written.
func (f *fileState) edited() bool {
	if f.busy || f.content == nil || f.stat == nil {
		return false
	}
	st, err := os.Stat(f.path)
	if err != nil {
		return true
	}
	if os.SameFile(st, f.stat) && st.Size() == f.stat.Size() && st.ModTime().Equal(f.stat.ModTime()) {
		return false
	}
	content, err := os.ReadFile(f.path)
	if err == nil && bytes.Equal(content, f.content) {
		f.stat = st
		return false
	}
	return true
}

// set writes the file now, if it is not so already.
func (f *fileState) set(content []byte) error {
	if f.content != nil && bytes.Equal(content, f.content) && !f.edited() {
		f.dirty = false
		return nil
	}
	if err := writeFile(f.path, content); err != nil {
		f.content = nil
		return err
	}
	f.content, f.last, f.dirty, f.since = content, time.Now(), false, time.Time{}
	f.stat, _ = os.Stat(f.path)
	return nil
}

// writeFile replaces the file atomically; it is on disk when this returns.
func writeFile(path string, content []byte) error {
	// Given the directory, renameio need not try out which one will do.
	err := renameio.WriteFile(path, content, 0o644, renameio.WithTempDir(filepath.Dir(path)))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// restore puts a former content back; nil removes the file.
func (f *fileState) restore(content []byte) error {
	if content != nil {
		return f.set(content)
	}
	f.content, f.stat = nil, nil
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// flush begins to write the file if it is due.
func (w *owner) flush(now time.Time) {
	at, due := w.file.due(w.o.FlushInterval)
	if !due || now.Before(at) || w.want == nil || w.running == nil {
		return
	}
	w.file.begin(w.template, w.effective(w.target()))
}

// written takes the result of a write.
func (w *owner) written(r writeResult) {
	err := w.file.ended(r)
	w.fileError = err
	if err != nil {
		w.o.Logger.Error("cannot write haproxy's configuration", "error", err)
		return
	}
	w.setRendered(r.content)
}

func (w *owner) setRendered(content []byte) {
	w.mu.Lock()
	w.rendered = content
	w.mu.Unlock()
}

// flushLast writes what is not yet on disk, before the agent ends.
func (w *owner) flushLast() {
	if err := w.file.wait(); err != nil {
		w.o.Logger.Error("cannot write haproxy's configuration", "error", err)
	}
	w.file.last, w.file.since = time.Time{}, time.Now().Add(-writeAfter)
	w.flush(time.Now())
	if err := w.file.wait(); err != nil {
		w.o.Logger.Error("cannot write haproxy's configuration", "error", err)
	}
}
