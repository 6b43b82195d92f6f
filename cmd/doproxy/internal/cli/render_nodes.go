package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func nodeID(name string) string { return strings.TrimPrefix(name, "nodes/") }

// nodeState says in words whether a node is there for clients.
func nodeState(now time.Time, n *doproxyv1.Node) string {
	switch {
	case n.GetSilentTime() != nil:
		return "silent for " + ago(now, n.GetSilentTime())
	case n.GetDrainTime() != nil:
		return "drained for " + ago(now, n.GetDrainTime())
	case n.GetHaproxy() != "running":
		return "haproxy " + dash(n.GetHaproxy())
	}
	return "in service"
}

// nodesPlain is one line a node, and one for each condition.
func nodesPlain(now time.Time, nodes []*doproxyv1.Node) string {
	var b strings.Builder
	for _, n := range nodes {
		n = cleaned(n)
		fmt.Fprintf(&b, "node: %s (haproxy: %s %s, applied revision: %d, reloads: %d, up: %s, addresses: %s", nodeID(n.GetName()),
			dash(n.GetHaproxy()), dash(n.GetHaproxyVersion()), n.GetAppliedRevision(), n.GetReloads(), ago(now, n.GetStartTime()), dash(strings.Join(n.GetAddresses(), " ")))
		if len(n.GetHolds()) > 0 {
			fmt.Fprintf(&b, ", holds: %s", strings.Join(n.GetHolds(), " "))
		}
		if n.GetSilentTime() != nil {
			fmt.Fprintf(&b, ", silent since: %s", stamp(n.GetSilentTime()))
		}
		if n.GetDrainTime() != nil {
			fmt.Fprintf(&b, ", drained since: %s, sessions: %d", stamp(n.GetDrainTime()), n.GetSessions())
			if n.GetDrainReason() != "" {
				fmt.Fprintf(&b, ", drained for: %s", n.GetDrainReason())
			}
		}
		if n.GetError() != "" {
			fmt.Fprintf(&b, ", error: %s", n.GetError())
		}
		b.WriteString(")\n")
		for _, c := range n.GetConditions() {
			b.WriteString(conditionPlain(onNode(c, n)))
		}
	}
	return b.String()
}

// onNode is a condition that names its node.
func onNode(c *doproxyv1.Condition, n *doproxyv1.Node) *doproxyv1.Condition {
	c = cleaned(c)
	c.Node = nodeID(n.GetName())
	return c
}

// nodeColumn is one column of the nodes' table.
type nodeColumn struct {
	head  string
	right bool
	cell  func(n *doproxyv1.Node) string
}

func (st style) nodeColumns(now time.Time, nodes []*doproxyv1.Node, revision int64) []nodeColumn {
	columns := []nodeColumn{
		{"NODE", false, st.nodeCell},
		{"HAPROXY", false, st.haproxyCell},
		{"APPLIED", false, func(n *doproxyv1.Node) string {
			applied := strconv.FormatInt(n.GetAppliedRevision(), 10)
			switch {
			case n.GetSilentTime() != nil:
				return "-"
			case n.GetAppliedRevision() < revision:
				return st.yellow(applied + " behind")
			}
			return applied
		}},
		{"RELOADS", true, func(n *doproxyv1.Node) string { return strconv.FormatInt(n.GetReloads(), 10) }},
		{"UP", true, func(n *doproxyv1.Node) string { return ago(now, n.GetStartTime()) }},
		{"HOLDS", false, func(n *doproxyv1.Node) string { return st.holds(n.GetHolds()) }},
		{"SERVES AT", false, func(n *doproxyv1.Node) string { return dash(strings.Join(n.GetAddresses(), " ")) }},
	}
	if !slices.ContainsFunc(nodes, func(n *doproxyv1.Node) bool { return len(n.GetHolds()) > 0 }) {
		columns = slices.DeleteFunc(columns, func(c nodeColumn) bool { return c.head == "HOLDS" })
	}
	return columns
}

func (st style) nodeCell(n *doproxyv1.Node) string {
	name := st.bold(nodeID(n.GetName()))
	if n.GetLeader() {
		name += st.cyan(" " + st.sign("★", "*"))
	}
	switch {
	case n.GetSilentTime() != nil:
		name += st.red(" silent")
	case n.GetDrainTime() != nil:
		name += st.yellow(" drained")
	}
	return name
}

func (st style) haproxyCell(n *doproxyv1.Node) string {
	haproxy := strings.TrimSpace(dash(n.GetHaproxy()) + " " + upstream(n.GetHaproxyVersion()))
	switch {
	case n.GetSilentTime() != nil:
		return st.dim(haproxy)
	case n.GetHaproxy() == "running":
		return st.green(haproxy)
	case n.GetHaproxy() == "starting":
		return st.yellow(haproxy)
	}
	return st.red(haproxy)
}

// holds is the first address and how many more.
func (st style) holds(addresses []string) string {
	if len(addresses) == 0 {
		return "-"
	}
	first := st.clipTo(addresses[0], 26)
	if more := len(addresses) - 1; more > 0 {
		return fmt.Sprintf("%s +%d", first, more)
	}
	return first
}

// nodesTable shows nodes, and below what a person should know of each. Where it
// is too narrow, the columns that say least go first. A node is behind if it
// runs less than revision.
func (st style) nodesTable(now time.Time, nodes []*doproxyv1.Node, revision int64) string {
	if len(nodes) == 0 {
		return st.yellow("No node is live.") + "\n"
	}
	list := make([]*doproxyv1.Node, len(nodes))
	for i, n := range nodes {
		list[i] = cleaned(n)
	}
	columns, drop := st.nodeColumns(now, list, revision), []string{"RELOADS", "UP"}
	var g *grid
	for {
		g = &grid{st: st}
		for i, c := range columns {
			g.head = append(g.head, c.head)
			if c.right {
				g.right = append(g.right, i)
			}
		}
		for _, n := range list {
			cells := make([]string, len(columns))
			for i, c := range columns {
				cells[i] = c.cell(n)
			}
			g.add(cells...)
		}
		if st.width == 0 || len(drop) == 0 || g.width() <= st.width {
			break
		}
		columns = slices.DeleteFunc(columns, func(c nodeColumn) bool { return c.head == drop[0] })
		drop = drop[1:]
	}
	var b strings.Builder
	b.WriteString(st.clipLines(g.String()))
	for _, n := range list {
		b.WriteString(st.nodeNotes(now, n))
	}
	return b.String()
}

// nodeNotes is what stands in a node's way, and what to type.
func (st style) nodeNotes(now time.Time, n *doproxyv1.Node) string {
	var b strings.Builder
	id := nodeID(n.GetName())
	note := func(paint func(string) string, sign, format string, args ...any) {
		b.WriteString(paint(wrap(sign+" "+fmt.Sprintf(format, args...), st.width, "  ")) + "\n")
	}
	if n.GetSilentTime() != nil {
		note(st.red, st.sign("✗", "!"), "%s is silent for %s: is its agent running (`systemctl status doproxy` there)? If it is gone for good: `doproxy node forget %s`", id, ago(now, n.GetSilentTime()), id)
	}
	if n.GetDrainTime() != nil {
		why := ""
		if n.GetDrainReason() != "" {
			why = " (" + n.GetDrainReason() + ")"
		}
		note(st.yellow, st.sign("▲", "!"), "%s is drained for %s%s, %s left; put it back with `doproxy node undrain %s`", id, ago(now, n.GetDrainTime()), why, counted(n.GetSessions(), "session"), id)
	}
	if n.GetError() != "" {
		note(st.red, st.sign("✗", "!"), "%s: %s", id, n.GetError())
	}
	for _, c := range n.GetConditions() {
		b.WriteString(conditionText(st, now, onNode(c, n)))
	}
	return b.String()
}

// upstream is a version without what a distribution adds.
func upstream(version string) string {
	if i := strings.IndexAny(version, "-+"); i > 0 {
		return version[:i]
	}
	return version
}
