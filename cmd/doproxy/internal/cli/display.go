package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// display shows how work comes along, on stderr: stdout is for its outcome. In
// a terminal it draws over itself; elsewhere it writes a line when something
// changed. Close it before anything else is written.
type display struct {
	s    *session
	kind workKind

	mu      sync.Mutex
	now     work   // nil before the first answer
	note    string // what is wrong with following it
	start   time.Time
	written string // the last plain line
	reason  string // the last plain reason
	area    *area  // nil when not live
	quiet   bool
	stop    chan struct{}
	stopped chan struct{}
}

// work is a moment of what a display shows. Its strings are clean.
type work interface {
	// title names the work, such as its pool.
	title() string
	// plain is where it stands, in one line.
	plain() string
	// reason is what holds it up, empty if nothing does.
	reason() string
	// lines are the live display.
	lines(st style, elapsed time.Duration, note string) []string
}

func (s *session) display(kind workKind) *display {
	d := &display{s: s, kind: kind, start: s.opts.Now()}
	d.quiet = s.flags.noProgress || s.format == "json"
	if !d.quiet && s.errStyle.live {
		d.area = &area{w: s.err}
		d.stop, d.stopped = make(chan struct{}), make(chan struct{})
		go d.tick()
	}
	return d
}

// tick keeps the clock of a live display going.
func (d *display) tick() {
	defer close(d.stopped)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-t.C:
			d.mu.Lock()
			d.draw()
			d.mu.Unlock()
		}
	}
}

func (d *display) progress(p *doproxyv1.Progress) {
	d.show(progressView{kind: d.kind, progress: cleaned(p)})
}

func (d *display) show(w work) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now, d.note = w, ""
	if d.quiet {
		return
	}
	if d.area != nil {
		d.draw()
		return
	}
	if line := w.plain(); line != d.written {
		d.line(line)
		d.written = line
	}
	if reason := w.reason(); reason != d.reason {
		if reason != "" {
			d.line(w.title() + ": held up: " + reason)
		}
		d.reason = reason
	}
}

// lost says that contact is sought again. It takes part in an effort.
func (d *display) lost(err error, left time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := d.note == ""
	why := (&Failure{Err: err}).Error()
	d.note = clean(why) + "; trying again"
	if d.area != nil {
		d.draw()
	} else if first {
		d.line(fmt.Sprintf("doproxy: %s; trying again for %s", clean(why), short(left)))
	}
}

func (d *display) line(text string) { _, _ = io.WriteString(d.s.err, text+"\n") }

func (d *display) draw() {
	if d.now == nil && d.note == "" {
		return
	}
	st := d.s.errStyle
	if width, height, ok := d.s.opts.Terminal(d.s.err); ok {
		st.width, st.height = width, height
	}
	w := d.now
	if w == nil {
		w = progressView{kind: d.kind}
	}
	d.area.draw(st, w.lines(st, d.s.opts.Now().Sub(d.start), d.note))
}

// close ends the display; what it last drew stays.
func (d *display) close() {
	if d.area == nil {
		return
	}
	close(d.stop)
	<-d.stopped
	d.area.end()
	d.area = nil
}

// area is the part of a terminal that is drawn over and over.
type area struct {
	w     io.Writer
	lines int
}

// draw replaces what the area shows. Lines past the terminal's height or width
// are cut: they could not be drawn over.
func (a *area) draw(st style, lines []string) {
	var b strings.Builder
	b.WriteString("\x1b[?25l") // no cursor while drawing
	if a.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", a.lines)
	}
	if st.height > 1 && len(lines) > st.height-1 {
		lines = lines[:st.height-1]
	}
	for _, line := range lines {
		b.WriteString("\r\x1b[2K" + st.clip(line) + "\n")
	}
	b.WriteString("\x1b[J\x1b[?25h")
	a.lines = len(lines)
	_, _ = io.WriteString(a.w, b.String())
}

// end leaves what was drawn, and takes away what the terminal itself may have
// put behind it: the ^C of an interrupt.
func (a *area) end() {
	a.lines = 0
	_, _ = io.WriteString(a.w, "\r\x1b[2K")
}
