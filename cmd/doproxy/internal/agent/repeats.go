package agent

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// repeatAfter is how long a warning that comes again and again is not logged again.
const repeatAfter = time.Minute

// repeats is a log whose warnings and errors are told once a minute if they are
// the same to the letter: what waits for a store tries it again for as long as it
// is away. At level debug nothing is left out.
type repeats struct {
	slog.Handler
	of   string // attributes that all records of this logger have
	told *told
}

type told struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newRepeats(h slog.Handler) slog.Handler {
	if h.Enabled(context.Background(), slog.LevelDebug) {
		return h
	}
	return repeats{Handler: h, told: &told{last: map[string]time.Time{}}}
}

// Handle implements slog.Handler.
func (r repeats) Handle(ctx context.Context, rec slog.Record) error {
	if rec.Level >= slog.LevelWarn {
		var text strings.Builder
		text.WriteString(r.of + rec.Message)
		rec.Attrs(func(a slog.Attr) bool {
			text.WriteString(" " + a.String())
			return true
		})
		if r.told.lately(text.String(), rec.Time) {
			return nil
		}
	}
	return r.Handler.Handle(ctx, rec)
}

// lately says whether a text was told less than repeatAfter ago; else it is now.
func (t *told) lately(text string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.last[text]; ok && now.Sub(at) < repeatAfter {
		return true
	}
	if len(t.last) >= 1000 {
		clear(t.last)
	}
	t.last[text] = now
	return false
}

// WithAttrs implements slog.Handler.
func (r repeats) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		r.of += a.String() + " "
	}
	r.Handler = r.Handler.WithAttrs(attrs)
	return r
}

// WithGroup implements slog.Handler.
func (r repeats) WithGroup(name string) slog.Handler {
	r.of += name + "."
	r.Handler = r.Handler.WithGroup(name)
	return r
}
