package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func memberRole(m *doproxyv1.Member) string {
	switch {
	case m.GetLeader():
		return "leader"
	case m.GetVoter():
		return "voter"
	}
	return "non-voter"
}

// memberState is role and health in words.
func memberState(now time.Time, m *doproxyv1.Member) string {
	if m.GetHealthy() {
		return memberRole(m) + ", healthy"
	}
	return memberRole(m) + ", unhealthy" + forHowLong(now, m)
}

func forHowLong(now time.Time, m *doproxyv1.Member) string {
	if m.GetSince() == nil {
		return ""
	}
	return " for " + ago(now, m.GetSince())
}

func behindText(m *doproxyv1.Member) string {
	if m.GetBehind() < 0 {
		return "-"
	}
	return strconv.FormatInt(m.GetBehind(), 10)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func votersOf(m *doproxyv1.Membership) (voters, healthy int) {
	for _, one := range m.GetMembers() {
		if one.GetVoter() {
			voters++
			if one.GetHealthy() {
				healthy++
			}
		}
	}
	return voters, healthy
}

// voterSummary says in a sentence what the store can lose.
func voterSummary(m *doproxyv1.Membership) string {
	voters, healthy := votersOf(m)
	have, lost := countedAs(voters, "voter", "voters"), "of them"
	if healthy < voters {
		have += fmt.Sprintf(", %d of them unhealthy", voters-healthy)
		lost = "more"
	}
	switch n := m.GetTolerates(); {
	case healthy <= voters/2:
		return have + "; the store has stopped: more than half of them must be healthy"
	case n > 0:
		return fmt.Sprintf("%s; the store goes on with %d %s lost", have, n, lost)
	case voters == 1:
		return have + "; the store stops when it is lost"
	case healthy == voters:
		return have + "; the store stops when one of them is lost"
	}
	return have + "; the store stops with the next one lost"
}

// voterAdvice is what is wrong with the number of voters; empty if nothing is.
func voterAdvice(m *doproxyv1.Membership) string {
	voters, _ := votersOf(m)
	if voters == 0 || voters%2 == 1 && voters > 1 {
		return ""
	}
	var coming []string
	for _, one := range m.GetMembers() {
		if !one.GetVoter() && one.GetHealthy() {
			coming = append(coming, nodeID(one.GetNode()))
		}
	}
	switch {
	case len(coming) == 1:
		return coming[0] + " does not vote yet: it does once it has been stable for a while"
	case len(coming) > 1:
		return listed(coming) + " do not vote yet: they do once they have been stable for a while"
	case voters == 1:
		return "with one voter nothing may be lost: have two more nodes join, each with a token of `doproxy cluster token`"
	}
	loss, fewer := "none", "1 voter does"
	if voters > 2 {
		loss, fewer = strconv.Itoa(voters/2-1), fmt.Sprintf("%d voters do", voters-1)
	}
	return fmt.Sprintf("%d voters tolerate the loss of %s, no more than %s: have another node join (`doproxy cluster token`)", voters, loss, fewer)
}

// voterText is the summary, with advice if there is any.
func voterText(st style, m *doproxyv1.Membership) string {
	m = cleaned(m)
	var b strings.Builder
	if advice := voterAdvice(m); advice != "" {
		b.WriteString(st.warning(advice))
	}
	return b.String() + wrap(voterSummary(m)+".", st.width, "  ") + "\n"
}

// warning is a line that begins with a sign in a terminal, else with a word.
func (st style) warning(words string) string {
	if !st.terminal {
		return "warning: " + words + "\n"
	}
	return st.yellow(wrap(st.sign("▲", "!")+" "+words, st.width, "  ")) + "\n"
}

func (st style) alarm(words string) string {
	if !st.terminal {
		return "warning: " + words + "\n"
	}
	return st.red(wrap(st.sign("✗", "!")+" "+words, st.width, "  ")) + "\n"
}

// memberNotes are what is wrong, and what to type.
func (st style) memberNotes(now time.Time, m *doproxyv1.Membership) string {
	var b strings.Builder
	for _, one := range m.GetMembers() {
		if !one.GetHealthy() {
			id := nodeID(one.GetNode())
			b.WriteString(st.alarm(fmt.Sprintf("%s is unhealthy%s: is its agent running (`systemctl status doproxy` there)? If it is gone for good: `doproxy cluster remove %s`", id, forHowLong(now, one), id)))
		}
	}
	if !slices.ContainsFunc(m.GetMembers(), (*doproxyv1.Member).GetLeader) {
		b.WriteString(st.alarm("no member leads: nothing can be changed until one does"))
	}
	return b.String()
}

// membersPlain is one line a member, what is wrong, and what the store can lose.
func membersPlain(now time.Time, m *doproxyv1.Membership) string {
	m = cleaned(m)
	var b strings.Builder
	for _, one := range m.GetMembers() {
		fmt.Fprintf(&b, "member: %s (role: %s, healthy: %s, since: %s, behind: %s, address: %s, version: %s, id: %s)\n", nodeID(one.GetNode()), memberRole(one),
			yesNo(one.GetHealthy()), stamp(one.GetSince()), behindText(one), dash(one.GetAddress()), dash(one.GetVersion()), dash(one.GetId()))
	}
	return b.String() + style{}.memberNotes(now, m) + voterText(style{}, m)
}

// membersTable is the same for a terminal. Where it is too narrow, the columns
// that say least go first.
func (st style) membersTable(now time.Time, m *doproxyv1.Membership) string {
	m = cleaned(m)
	head := []string{"NODE", "ADDRESS", "ROLE", "HEALTHY", "BEHIND", "SINCE", "VERSION", "ID"}
	var g *grid
	for columns := len(head); ; columns-- {
		g = &grid{st: st, head: head[:columns], right: []int{4, 5}}
		for _, one := range m.GetMembers() {
			name, healthy := st.bold(nodeID(one.GetNode())), st.green("yes")
			if one.GetLeader() {
				name += st.cyan(" " + st.sign("★", "*"))
			}
			if !one.GetHealthy() {
				healthy = st.red("no")
			}
			g.add([]string{name, dash(one.GetAddress()), memberRole(one), healthy, behindText(one), ago(now, one.GetSince()), dash(one.GetVersion()), dash(one.GetId())}[:columns]...)
		}
		if st.width == 0 || g.width() <= st.width || columns == 6 {
			break
		}
	}
	return st.clipLines(g.String()) + st.memberNotes(now, m) + "\n" + voterText(st, m)
}

// removalText is what a removal leaves.
func removalText(st style, now time.Time, plan *doproxyv1.RemoveMemberResponse) string {
	plan = cleaned(plan)
	gone, left := plan.GetRemoved(), plan.GetLeft()
	id := nodeID(gone.GetNode())
	names := make([]string, len(left.GetMembers()))
	for i, one := range left.GetMembers() {
		names[i] = nodeID(one.GetNode())
	}
	var b strings.Builder
	b.WriteString(wrap(fmt.Sprintf("%s (%s) leaves the store; left: %s.", st.bold(id), memberState(now, gone), noneOr(listed(names))), st.width, "  ") + "\n")
	if gone.GetLeader() {
		b.WriteString(st.warning(id + " leads the store: another member takes over first"))
	}
	if gone.GetHealthy() {
		b.WriteString(st.warning(id + " is healthy: once removed, its agent has no store until it joins anew"))
	}
	if plan.GetStops() {
		b.WriteString(st.alarm("the store stops by it, until more than half of its voters are healthy"))
	}
	return b.String() + voterText(st, left)
}
