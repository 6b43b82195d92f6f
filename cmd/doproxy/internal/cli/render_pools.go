package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// applyText is what one apply changes, or would.
func applyText(st style, res *doproxyv1.ApplyPoolResponse, dryRun bool) string {
	pool := st.bold(poolID(clean(res.GetPool().GetName())))
	switch {
	case res.GetCreated() && dryRun:
		return fmt.Sprintf("%s: would be created\n", pool) + changesText(st, res.GetChanges())
	case res.GetCreated():
		return fmt.Sprintf("%s: created\n", pool) + changesText(st, res.GetChanges())
	case len(res.GetChanges()) == 0:
		return fmt.Sprintf("%s: unchanged\n", pool)
	case dryRun:
		return fmt.Sprintf("%s: would change\n", pool) + changesText(st, res.GetChanges())
	default:
		return fmt.Sprintf("%s: changed\n", pool) + changesText(st, res.GetChanges())
	}
}

// settingsText is what one apply changes of the settings, or would.
func settingsText(st style, res *doproxyv1.ApplySettingsResponse, dryRun bool) string {
	changes := make([]*doproxyv1.FieldChange, len(res.GetChanges()))
	for i, c := range res.GetChanges() {
		changes[i] = &doproxyv1.FieldChange{Field: c.GetField(), Before: c.GetBefore(), After: c.GetAfter()}
	}
	word := "changed"
	switch {
	case len(changes) == 0:
		word = "unchanged"
	case dryRun:
		word = "would change"
	}
	return st.bold("settings") + ": " + word + "\n" + changesText(st, changes)
}

func changesText(st style, changes []*doproxyv1.FieldChange) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "  %s: %s %s %s\n", clean(c.GetField()), st.red(value(st, c.GetBefore())), st.arrow(), st.green(value(st, c.GetAfter())))
	}
	return b.String()
}

// value shows one side of a change: empty and long texts in words, so that a
// change stays on its line.
func value(st style, s string) string {
	most := max(20, (st.width-30)/2)
	switch lines := strings.Count(strings.TrimRight(s, "\n"), "\n") + 1; {
	case s == "":
		return "(none)"
	case lines > 1:
		return fmt.Sprintf("(%d lines, %d bytes)", lines, len(s))
	case st.terminal && len(s) > most:
		return st.clipTo(clean(s), most)
	}
	return clean(s)
}

func dollars(perHour float64) string {
	if perHour == 0 {
		return "-"
	}
	return "$" + strconv.FormatFloat(perHour, 'f', 4, 64) + "/h"
}

func count(n int32) string { return strconv.Itoa(int(n)) }

// poolsPlain is one line a pool.
func poolsPlain(now time.Time, pools []*doproxyv1.Pool) string {
	var b strings.Builder
	for _, p := range pools {
		p = cleaned(p)
		fmt.Fprintf(&b, "%s: wanted %d, serving %d, starting %d, leaving %d, min %d, max %d, region %s, size %s, image %s, cost %s\n",
			poolID(p.GetName()), p.GetDesired(), p.GetServing(), p.GetStarting(), p.GetLeaving(), p.GetMin(), p.GetMax(),
			dash(p.GetTemplate().GetRegion()), dash(p.GetTemplate().GetSize()), dash(p.GetTemplate().GetImage()), dollars(p.GetCostHourly()))
		if p.GetReason() != "" && p.GetStopTime() == nil {
			fmt.Fprintf(&b, "%s: creates are held back: %s\n", poolID(p.GetName()), heldReason(now, p))
			p.Reason = ""
		}
		for _, line := range heldLines(now, p) {
			fmt.Fprintf(&b, "%s\n", line)
		}
	}
	if len(pools) == 0 {
		b.WriteString("There is no pool. Define one in a file and run doproxy apply -f FILE.\n")
	}
	return b.String()
}

func poolsTable(st style, now time.Time, pools []*doproxyv1.Pool) string {
	if len(pools) == 0 {
		return poolsPlain(now, pools)
	}
	g := &grid{st: st, head: []string{"POOL", "WANTED", "SERVING", "STARTING", "LEAVING", "BOUNDS", "REGION", "SIZE", "COST"}, right: []int{1, 2, 3, 4, 8}}
	var held []*doproxyv1.Pool
	for _, p := range pools {
		p = cleaned(p)
		g.add(st.bold(poolID(p.GetName())), count(p.GetDesired()), st.served(p), count(p.GetStarting()), count(p.GetLeaving()),
			bounds(st, p), dash(p.GetTemplate().GetRegion()), dash(p.GetTemplate().GetSize()), dollars(p.GetCostHourly()))
		held = append(held, p)
	}
	var b strings.Builder
	b.WriteString(st.clipLines(g.String()))
	heldUp(&b, st, now, held)
	return b.String()
}

func bounds(st style, p *doproxyv1.Pool) string {
	return fmt.Sprintf("%d%s%d", p.GetMin(), st.sign("–", "-"), p.GetMax())
}

func (st style) served(p *doproxyv1.Pool) string {
	if p.GetServing() >= p.GetDesired() {
		return st.green(count(p.GetServing()))
	}
	return st.yellow(count(p.GetServing()))
}

// poolText is all of one pool, a line a field.
func poolText(st style, now time.Time, p *doproxyv1.Pool) string {
	g := &grid{st: st}
	var walk func(prefix string, m protoreflect.Message)
	walk = func(prefix string, m protoreflect.Message) {
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			fd := fields.Get(i)
			if !m.Has(fd) {
				continue
			}
			name, v := prefix+string(fd.Name()), m.Get(fd)
			if fd.Kind() == protoreflect.MessageKind && !fd.IsList() && strings.HasPrefix(string(fd.Message().FullName()), "doproxy.") {
				walk(name+".", v.Message())
				continue
			}
			shown := strings.Trim(string(fieldJSON(fd, m)), `"`)
			if fd.Kind() == protoreflect.StringKind && !fd.IsList() {
				shown = value(st, v.String())
			}
			if name == "cost_hourly" {
				shown = dollars(p.GetCostHourly())
			}
			g.add(st.dim(name), clean(shown))
		}
	}
	walk("", p.ProtoReflect())
	var b strings.Builder
	b.WriteString(g.String())
	heldUp(&b, st, now, []*doproxyv1.Pool{p})
	return b.String()
}
