package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

func nodeID(name string) string { return strings.TrimPrefix(name, "nodes/") }

// statusPlain is the status for a program that reads lines: each begins with
// what it is about.
func statusPlain(now time.Time, res *doproxyv1.GetStatusResponse) string {
	res = cleaned(res)
	var b strings.Builder
	fmt.Fprintf(&b, "cluster: %s (uid: %s, revision: %d, cost: %s, asked: %s)\n", dash(res.GetCluster()), dash(res.GetUid()), res.GetRevision(), dollars(res.GetCostHourly()), dash(nodeID(res.GetNode())))
	if res.GetStoreError() != "" {
		fmt.Fprintf(&b, "store: out of reach since %s: %s\n", stamp(res.GetStoreErrorTime()), res.GetStoreError())
	}
	leader := res.GetLeader()
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(&b, "leader: %s\n", nodeID(leader))
	if res.GetCloudError() != "" {
		fmt.Fprintf(&b, "cloud: %s\n", res.GetCloudError())
	}
	for _, u := range res.GetUnreadable() {
		fmt.Fprintf(&b, "unreadable: %s: %s\n", u.GetKey(), u.GetError())
	}
	for _, n := range res.GetNodes() {
		fmt.Fprintf(&b, "node: %s (haproxy: %s %s, applied revision: %d, reloads: %d, up: %s, addresses: %s", nodeID(n.GetName()),
			dash(n.GetHaproxy()), dash(n.GetHaproxyVersion()), n.GetAppliedRevision(), n.GetReloads(), ago(now, n.GetStartTime()), dash(strings.Join(n.GetAddresses(), " ")))
		if n.GetError() != "" {
			fmt.Fprintf(&b, ", error: %s", n.GetError())
		}
		b.WriteString(")\n")
	}
	for _, p := range res.GetPools() {
		fmt.Fprintf(&b, "pool: %s (wanted: %d, serving: %d, starting: %d, leaving: %d, min: %d, max: %d", poolID(p.GetName()), p.GetDesired(), p.GetServing(), p.GetStarting(), p.GetLeaving(), p.GetMin(), p.GetMax())
		if p.GetReason() != "" {
			fmt.Fprintf(&b, ", held back: %s", heldReason(now, p))
		}
		b.WriteString(")\n")
	}
	for _, e := range res.GetEvents() {
		b.WriteString("event: " + eventPlain(e) + "\n")
	}
	return b.String()
}

// eventPlain is one event in one line: time, type, what it is about, message.
func eventPlain(e *doproxyv1.Event) string {
	e = cleaned(e)
	return strings.TrimSuffix(fmt.Sprintf("%s %s %s: %s", stamp(e.GetTime()), e.GetType(), subject(e), e.GetMessage()), ": ")
}

// subject is what an event is about: a droplet, else a pool, else a node.
func subject(e *doproxyv1.Event) string {
	for _, s := range []string{e.GetDroplet(), e.GetPool(), e.GetNode()} {
		if s != "" {
			return s[strings.LastIndexByte(s, '/')+1:]
		}
	}
	return "cluster"
}

// eventLine is one event for a terminal, of which it takes one line.
func eventLine(st style, e *doproxyv1.Event) string {
	e = cleaned(e)
	line := st.dim(clock(e.GetTime())) + "  " + st.eventType(pad(e.GetType(), 25)) + "  " + st.bold(pad(subject(e), 12))
	if e.GetMessage() != "" {
		line += "  " + e.GetMessage()
	}
	return st.clip(line)
}

func pad(s string, width int) string {
	if n := width - len([]rune(s)); n > 0 {
		return s + strings.Repeat(" ", n)
	}
	return s
}

func clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return "--:--:--"
	}
	return t.AsTime().Local().Format(time.TimeOnly)
}

func (st style) eventType(t string) string {
	word := strings.TrimSpace(t[strings.LastIndexByte(t, '.')+1:])
	switch {
	case slices.ContainsFunc([]string{"fail", "error", "refused", "lost", "dead", "unreachable"}, func(bad string) bool { return strings.Contains(word, bad) }):
		return st.red(t)
	case strings.Contains(word, "serving"), strings.Contains(word, "elected"):
		return st.green(t)
	case strings.Contains(word, "drain"), strings.Contains(word, "delet"):
		return st.yellow(t)
	}
	return st.cyan(t)
}

// statusTable is the status for a terminal.
func statusTable(st style, now time.Time, res *doproxyv1.GetStatusResponse) string {
	res = cleaned(res)
	var b strings.Builder
	head := []string{"cluster " + st.bold(dash(res.GetCluster())), "leader " + st.leader(res), fmt.Sprintf("revision %d", res.GetRevision())}
	if res.GetCostHourly() > 0 {
		head = append(head, dollars(res.GetCostHourly()))
	}
	b.WriteString(strings.Join(head, st.dim("  "+st.dot()+"  ")) + "\n")
	alert := func(paint func(string) string, words string) {
		b.WriteString("\n" + paint(wrap(words, st.width, "  ")) + "\n")
	}
	if res.GetStoreError() != "" {
		since := ""
		if res.GetStoreErrorTime() != nil {
			since = " for " + ago(now, res.GetStoreErrorTime())
		}
		alert(st.red, fmt.Sprintf("%s The store is out of reach%s: %s", st.sign("✗", "!"), since, res.GetStoreError()))
		b.WriteString("  This is what " + dash(nodeID(res.GetNode())) + " saw last. Traffic is served; changes are refused.\n")
	}
	if res.GetCloudError() != "" {
		alert(st.red, st.sign("✗", "!")+" DigitalOcean: "+res.GetCloudError())
	}
	for _, u := range res.GetUnreadable() {
		alert(st.yellow, fmt.Sprintf("%s record set aside: %s: %s", st.sign("▲", "!"), u.GetKey(), u.GetError()))
	}
	st.nodesPart(&b, now, res)
	st.poolsPart(&b, now, res.GetPools())
	if len(res.GetEvents()) > 0 {
		b.WriteString("\n")
		for _, e := range res.GetEvents() {
			b.WriteString(eventLine(st, e) + "\n")
		}
	}
	return b.String()
}

func (st style) leader(res *doproxyv1.GetStatusResponse) string {
	if res.GetLeader() == "" {
		return st.red("none")
	}
	return st.bold(nodeID(res.GetLeader()))
}

func (st style) nodesPart(b *strings.Builder, now time.Time, res *doproxyv1.GetStatusResponse) {
	nodes := res.GetNodes()
	if len(nodes) == 0 {
		b.WriteString("\n" + st.yellow("No node is live.") + "\n")
		return
	}
	g := &grid{st: st, head: []string{"NODE", "HAPROXY", "APPLIED", "RELOADS", "UP", "SERVES AT"}, right: []int{3, 4}}
	var errors []string
	for _, n := range nodes {
		name := st.bold(nodeID(n.GetName()))
		if n.GetLeader() {
			name += st.cyan(" " + st.sign("★", "*"))
		}
		haproxy := strings.TrimSpace(dash(n.GetHaproxy()) + " " + upstream(n.GetHaproxyVersion()))
		switch n.GetHaproxy() {
		case "running":
			haproxy = st.green(haproxy)
		case "starting":
			haproxy = st.yellow(haproxy)
		default:
			haproxy = st.red(haproxy)
		}
		applied := strconv.FormatInt(n.GetAppliedRevision(), 10)
		if n.GetAppliedRevision() < res.GetInventoryRevision() {
			applied = st.yellow(applied + " behind")
		}
		g.add(name, haproxy, applied, strconv.FormatInt(n.GetReloads(), 10), ago(now, n.GetStartTime()), dash(strings.Join(n.GetAddresses(), " ")))
		if n.GetError() != "" {
			errors = append(errors, fmt.Sprintf("%s %s: %s", st.sign("✗", "!"), nodeID(n.GetName()), n.GetError()))
		}
	}
	b.WriteString("\n" + st.clipLines(g.String()))
	for _, e := range errors {
		b.WriteString(st.red(wrap(e, st.width, "  ")) + "\n")
	}
}

// upstream is a version without what a distribution adds.
func upstream(version string) string {
	if i := strings.IndexAny(version, "-+"); i > 0 {
		return version[:i]
	}
	return version
}

// clipLines cuts each line to the style's width.
func (st style) clipLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(st.clip(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return b.String()
}

func (st style) poolsPart(b *strings.Builder, now time.Time, pools []*doproxyv1.Pool) {
	if len(pools) == 0 {
		b.WriteString("\nThere is no pool. Define one in a file and run doproxy apply -f FILE.\n")
		return
	}
	g := &grid{st: st, head: []string{"POOL", "SERVING", "", "STARTING", "LEAVING", "BOUNDS", "COST"}, right: []int{3, 4, 6}}
	for _, p := range pools {
		g.add(st.bold(poolID(p.GetName())), st.bar(int(p.GetServing()), int(p.GetDesired()), 16), fmt.Sprintf("%d of %d", p.GetServing(), p.GetDesired()),
			some(p.GetStarting()), some(p.GetLeaving()), bounds(st, p), dollars(p.GetCostHourly()))
	}
	b.WriteString("\n" + st.clipLines(g.String()))
	for _, p := range pools {
		if p.GetReason() != "" {
			line := fmt.Sprintf("%s creates in %s are held back: %s", st.sign("▲", "!"), poolID(p.GetName()), heldReason(now, p))
			b.WriteString(st.yellow(wrap(line, st.width, "  ")) + "\n")
		}
	}
}

// some is empty for none, so that what is there stands out.
func some(n int32) string {
	if n == 0 {
		return "-"
	}
	return count(n)
}
