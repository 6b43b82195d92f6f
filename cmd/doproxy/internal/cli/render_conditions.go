package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// about is what a condition is about, empty for the cluster.
func about(c *doproxyv1.Condition) string {
	for _, s := range []string{c.GetDroplet(), c.GetPool(), c.GetNode()} {
		if s != "" {
			return s[strings.LastIndexByte(s, '/')+1:]
		}
	}
	return ""
}

// mendOf is what can be done about a condition, empty if its message says it or
// it mends itself.
func mendOf(c *doproxyv1.Condition) string {
	pool := poolID(c.GetPool())
	switch kind := c.GetType(); {
	case strings.Contains(c.GetMessage(), "doproxy "):
		return ""
	case len(c.GetHostnames()) > 0 && pool != "":
		return "let them go with `doproxy confirm " + pool + "`, or say how many are wanted with `doproxy scale " + pool + "=N`"
	case len(c.GetHostnames()) > 0:
		return "let them go with `doproxy confirm`"
	case strings.HasSuffix(kind, ".stopped") && pool != "":
		return "mend the cause, then `doproxy resume " + pool + "`"
	case strings.HasSuffix(kind, ".silent") && c.GetNode() != "":
		return "if it is gone for good: `doproxy node forget " + nodeID(c.GetNode()) + "`"
	case strings.HasSuffix(kind, ".paused"):
		return "go on with `doproxy resume`"
	case strings.Contains(c.GetMessage(), "limits."):
		return "raise it in a file under limits: and run `doproxy apply -f FILE`"
	}
	return ""
}

// conditionPlain is a condition in one line.
func conditionPlain(c *doproxyv1.Condition) string {
	c = cleaned(c)
	line := fmt.Sprintf("held: %s %s", stamp(c.GetTime()), dash(c.GetType()))
	if c.GetNode() != "" && about(c) != nodeID(c.GetNode()) {
		line += " " + nodeID(c.GetNode())
	}
	line += strings.TrimRight(" "+about(c), " ") + ": " + c.GetMessage()
	if len(c.GetHostnames()) > 0 {
		line += " (droplets: " + strings.Join(c.GetHostnames(), " ") + ")"
	}
	if mend := mendOf(c); mend != "" {
		line += " (mend: " + mend + ")"
	}
	return line + "\n"
}

// conditionText is a condition for a terminal: what and since when, which
// droplets, and what to type.
func conditionText(st style, now time.Time, c *doproxyv1.Condition) string {
	c = cleaned(c)
	who := about(c)
	if node := nodeID(c.GetNode()); node != "" && node != who {
		who = node + ", " + who
	}
	head := strings.TrimSpace(st.sign("▲", "!") + " " + who)
	if c.GetTime() != nil {
		head += " for " + ago(now, c.GetTime())
	}
	var b strings.Builder
	b.WriteString(st.yellow(wrap(head+": "+c.GetMessage(), st.width, "  ")) + "\n")
	if names := c.GetHostnames(); len(names) > 0 {
		b.WriteString("  " + wrap(fewNames(names), st.width, "  ") + "\n")
	}
	if mend := mendOf(c); mend != "" {
		b.WriteString("  " + wrap(mend, st.width, "  ") + "\n")
	}
	return b.String()
}

// heldPart is the section of what holds work up in the leader.
func (st style) heldPart(b *strings.Builder, now time.Time, conditions []*doproxyv1.Condition) {
	if len(conditions) == 0 {
		return
	}
	b.WriteString("\n" + st.bold("Held up:") + "\n")
	for _, c := range conditions {
		b.WriteString(conditionText(st, now, c))
	}
}

// standingText is all that a person should know before the events of a cluster,
// empty on a good day.
func standingText(st style, now time.Time, res *doproxyv1.GetStatusResponse) string {
	res = cleaned(res)
	var b strings.Builder
	if res.GetPause() != nil {
		b.WriteString(st.red(wrap(st.sign("✗", "!")+" "+pauseText(now, res.GetPause()), st.width, "  ")) + "\n")
	}
	for _, c := range standing(res) {
		b.WriteString(conditionText(st, now, c))
	}
	for _, n := range res.GetNodes() {
		b.WriteString(st.nodeNotes(now, n))
	}
	for _, p := range res.GetPools() {
		for _, line := range heldLines(now, p) {
			if !toldBy(res.GetConditions(), p) {
				b.WriteString(st.yellow(wrap(st.sign("▲", "!")+" "+line, st.width, "  ")) + "\n")
			}
		}
	}
	return b.String()
}

// standing are the leader's conditions that no other part of a status tells: a
// pause has its banner, a silent node its note.
func standing(res *doproxyv1.GetStatusResponse) (list []*doproxyv1.Condition) {
	for _, c := range res.GetConditions() {
		paused := res.GetPause() != nil && strings.HasSuffix(c.GetType(), ".paused")
		silent := c.GetType() == "node.silent" && slices.ContainsFunc(res.GetNodes(), func(n *doproxyv1.Node) bool {
			return n.GetSilentTime() != nil && nodeID(n.GetName()) == nodeID(c.GetNode())
		})
		if !paused && !silent {
			list = append(list, c)
		}
	}
	return list
}

// toldBy tells whether a condition says of a pool what its own reason does.
func toldBy(conditions []*doproxyv1.Condition, p *doproxyv1.Pool) bool {
	for _, c := range conditions {
		if poolID(c.GetPool()) == poolID(p.GetName()) && p.GetReason() != "" && strings.Contains(c.GetMessage(), p.GetReason()) {
			return true
		}
	}
	return false
}

// pauseText is the banner of a cluster that is paused.
func pauseText(now time.Time, p *doproxyv1.Pause) string {
	line := "Paused"
	if p.GetTime() != nil {
		line += " for " + ago(now, p.GetTime())
	}
	if p.GetNode() != "" {
		line += ", asked at " + nodeID(p.GetNode())
	}
	if p.GetReason() != "" {
		line += ": " + strings.TrimRight(p.GetReason(), ".")
	}
	return line + ". Nothing changes at DigitalOcean until `doproxy resume`."
}

// usageText is what is spent, and what of the limits is used.
func usageText(res *doproxyv1.GetStatusResponse) string {
	u, limits := res.GetUsage(), res.GetSettings().GetLimits()
	cost, droplets := res.GetCostHourly(), int32(0)
	for _, p := range res.GetPools() {
		droplets += p.GetServing() + p.GetStarting() + p.GetLeaving()
	}
	if u != nil {
		droplets = u.GetDroplets()
		cost = max(cost, u.GetCostHourly())
	}
	spent := money(cost) + " an hour"
	if limits.GetCostHourly() > 0 {
		spent += " of " + money(limits.GetCostHourly())
	}
	parts := []string{spent, ofLimit(droplets, limits.GetDroplets(), "droplet")}
	if u.GetCreates() > 0 || limits.GetCreatesHourly() > 0 {
		parts = append(parts, ofLimit(u.GetCreates(), limits.GetCreatesHourly(), "create")+" in this hour")
	}
	if u.GetApiLimit() > 0 {
		parts = append(parts, fmt.Sprintf("API %s of %s calls left", grouped(count(u.GetApiRemaining())), grouped(count(u.GetApiLimit()))))
	}
	return strings.Join(parts, ", ")
}

// ofLimit counts a thing, of how many if there is a limit.
func ofLimit(n, limit int32, noun string) string {
	if limit == 0 {
		return counted(n, noun)
	}
	return fmt.Sprintf("%d of %s", n, counted(limit, noun))
}
