package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// workKind is what is being followed.
type workKind int

const (
	creating workKind = iota
	deleting
	scaling
	draining
	moving
	rebuilding
)

// progressView is all that a display of work shows.
type progressView struct {
	kind workKind
	// progress has clean strings; nil before the first answer.
	progress *doproxyv1.Progress
	elapsed  time.Duration
	// note is what is wrong with following it.
	note string
}

func (v progressView) title() string  { return progressPool(v) }
func (v progressView) plain() string  { return progressPlain(v) }
func (v progressView) reason() string { return v.progress.GetReason() }

func (v progressView) lines(st style, elapsed time.Duration, note string) []string {
	v.elapsed, v.note = elapsed, note
	return progressLines(st, v)
}

// stages are the counts of the work, in order.
func (v progressView) stages() []stage {
	p := v.progress
	if v.kind == deleting {
		return []stage{{"draining", p.GetDraining()}, {"removed", p.GetRemoved()}, {"deleted", p.GetDeleted()}}
	}
	return []stage{{"requested", p.GetRequested()}, {"active", p.GetActive()}, {"healthy", p.GetHealthy()}, {"serving", p.GetServing()}}
}

type stage struct {
	name  string
	count int32
}

func progressPool(v progressView) string {
	if name := poolID(v.progress.GetPool().GetName()); name != "" {
		return name
	}
	if v.kind == deleting {
		return "delete"
	}
	return "create"
}

// progressPlain is where the work stands, in one line.
func progressPlain(v progressView) string {
	p := v.progress
	parts := make([]string, 0, 5)
	for _, s := range v.stages() {
		parts = append(parts, fmt.Sprintf("%s %d/%d", s.name, s.count, p.GetTotal()))
	}
	line := progressPool(v) + ": " + strings.Join(parts, ", ")
	switch {
	case v.kind == deleting:
	default:
		line += " on " + counted(p.GetNodesLive(), "node")
	}
	if leaving := v.leaving(); leaving > 0 {
		line += fmt.Sprintf(", leaving %d", leaving)
	}
	return line
}

// leaving counts the droplets on their way out while a pool is scaled.
func (v progressView) leaving() (n int) {
	if v.kind != scaling {
		return 0
	}
	for _, d := range v.progress.GetDroplets() {
		if isLeaving(d) {
			n++
		}
	}
	return n
}

func isLeaving(d *doproxyv1.Droplet) bool {
	return d.GetPhase() == doproxyv1.Phase_PHASE_DRAINING || d.GetPhase() == doproxyv1.Phase_PHASE_DELETING
}

func counted(n int32, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// progressLines is the live display: a bar a stage, then the droplets that are
// not there yet, then what holds the work up.
func progressLines(st style, v progressView) []string {
	var lines []string
	if p := v.progress; p != nil {
		lines = append(lines, st.title(v), "")
		width := min(40, max(10, st.width-24))
		digits := len(strconv.Itoa(int(p.GetTotal())))
		for i, s := range v.stages() {
			count := fmt.Sprintf("%*d/%d", digits, s.count, p.GetTotal())
			if s.count >= p.GetTotal() {
				count = st.green(count)
			}
			line := fmt.Sprintf("  %-9s  %s  %s", s.name, st.bar(int(s.count), int(p.GetTotal()), width), count)
			if i == len(v.stages())-1 && v.kind != deleting {
				line += st.dim("  on " + counted(p.GetNodesLive(), "node"))
			}
			lines = append(lines, line)
		}
		if rows := st.waitingFor(v); len(rows) > 0 {
			lines = append(append(lines, ""), rows...)
		}
		if p.GetReason() != "" {
			lines = append(lines, "")
			lines = append(lines, st.heldUp(p.GetReason())...)
		}
	}
	return append(st.noted(lines, v.note), "")
}

// noted adds what is wrong with following the work.
func (st style) noted(lines []string, note string) []string {
	if note == "" {
		return lines
	}
	if len(lines) > 0 {
		lines = append(lines, "")
	}
	return append(lines, st.remark(st.red, st.sign("✗", "!")+" "+note)...)
}

func (st style) heldUp(reason string) []string {
	return st.remark(st.yellow, st.sign("▲", "!")+" held up: "+reason)
}

// remark is words below the bars, as many lines as they need.
func (st style) remark(paint func(string) string, words string) (lines []string) {
	for line := range strings.SplitSeq(wrap(words, st.width-2, "  "), "\n") {
		lines = append(lines, paint("  "+line))
	}
	return lines
}

func (st style) title(v progressView) string {
	p, pool := v.progress, st.bold(progressPool(v))
	took := st.dim("  " + short(v.elapsed))
	switch v.kind {
	case deleting:
		return fmt.Sprintf("Deleting %s from %s%s", counted(p.GetTotal(), "droplet"), pool, took)
	case scaling:
		return fmt.Sprintf("Scaling %s to %s%s", pool, counted(p.GetTotal(), "droplet"), took)
	default:
		return fmt.Sprintf("Creating %s in %s%s", counted(p.GetTotal(), "droplet"), pool, took)
	}
}

// mostRows is how many droplets a display names.
const mostRows = 8

// waitingFor names the droplets that the work still waits for, and how far
// each has come.
func (st style) waitingFor(v progressView) []string {
	g := &grid{st: st, indent: "  "}
	more := 0
	for _, d := range v.progress.GetDroplets() {
		if v.progress.GetDone() || v.kind != deleting && onAll(d) {
			continue
		}
		if len(g.rows) == mostRows {
			more++
			continue
		}
		g.add(st.bold(d.GetHostname()), idOf(d.GetId()), dash(d.GetPrivateIpv4()), st.standing(d))
	}
	if len(g.rows) == 0 {
		return nil
	}
	rows := strings.Split(strings.TrimRight(g.String(), "\n"), "\n")
	if more > 0 {
		rows = append(rows, st.dim(fmt.Sprintf("  and %d more", more)))
	}
	return rows
}

// onAll tells whether a droplet serves on all live nodes.
func onAll(d *doproxyv1.Droplet) bool {
	return d.GetPhase() == doproxyv1.Phase_PHASE_SERVING && d.GetNodesServing() >= d.GetNodesLive()
}

// standing says how far one droplet is, in words.
func (st style) standing(d *doproxyv1.Droplet) string {
	if isLeaving(d) && d.GetReason() != "" {
		return st.yellow(phaseWord(d.GetPhase()) + ": " + d.GetReason())
	}
	up, sessions := 0, int32(0)
	for _, h := range d.GetHealth() {
		if h.GetHealth() == "up" {
			up++
		}
		sessions += h.GetSessions()
	}
	switch d.GetPhase() {
	case doproxyv1.Phase_PHASE_REQUESTED:
		return st.dim("requested")
	case doproxyv1.Phase_PHASE_BOOTING:
		if d.GetStatus() != "active" {
			return st.dim("booting")
		}
		return st.cyan(fmt.Sprintf("active, healthy on %d/%d", up, d.GetNodesLive()))
	case doproxyv1.Phase_PHASE_SERVING:
		return st.cyan(fmt.Sprintf("serving on %d/%d", d.GetNodesServing(), d.GetNodesLive()))
	case doproxyv1.Phase_PHASE_DRAINING:
		return st.yellow("draining, " + counted(sessions, "session"))
	default:
		return st.yellow(phaseWord(d.GetPhase()))
	}
}

// successLines are DOProxy's: one a droplet.
func successLines(st style, droplets []*doproxyv1.Droplet, verb string) string {
	var b strings.Builder
	for _, d := range droplets {
		who := clean(d.GetHostname())
		if d.GetId() != 0 {
			who = idOf(d.GetId())
		}
		fmt.Fprintf(&b, "%s %s %s backend.\n", st.green("Success:"), who, verb)
	}
	return b.String()
}

const (
	createdVerb = "created and added to"
	deletedVerb = "deleted and removed from"
)

// deletedDroplets are those that a finished delete took away.
func deletedDroplets(p *doproxyv1.Progress) []*doproxyv1.Droplet {
	names, ids := p.GetDeletedHostnames(), p.GetDeletedIds()
	list := make([]*doproxyv1.Droplet, max(len(names), len(ids)))
	for i := range list {
		list[i] = &doproxyv1.Droplet{}
		if i < len(names) {
			list[i].Hostname = names[i]
		}
		if i < len(ids) {
			list[i].Id = ids[i]
		}
	}
	return list
}
