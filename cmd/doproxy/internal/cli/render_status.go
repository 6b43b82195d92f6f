package cli

import (
	"fmt"
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

// statusPlain is the status for a program that reads lines: each begins with
// what it is about.
func statusPlain(now time.Time, res *doproxyv1.GetStatusResponse) string {
	res = cleaned(res)
	var b strings.Builder
	if res.GetPause() != nil {
		fmt.Fprintf(&b, "paused: since %s (asked: %s, reason: %s)\n", stamp(res.GetPause().GetTime()), dash(nodeID(res.GetPause().GetNode())), dash(res.GetPause().GetReason()))
	}
	fmt.Fprintf(&b, "cluster: %s (uid: %s, store: %s, revision: %d, cost: %s, asked: %s)\n", dash(res.GetCluster()), dash(res.GetUid()), dash(res.GetStore()), res.GetRevision(), dollars(res.GetCostHourly()), dash(nodeID(res.GetNode())))
	fmt.Fprintf(&b, "usage: %s\n", usageText(res))
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
	for _, c := range res.GetConditions() {
		b.WriteString(conditionPlain(c))
	}
	b.WriteString(nodesPlain(now, res.GetNodes()))
	b.WriteString(entryOf(res).plain())
	for _, p := range res.GetPools() {
		fmt.Fprintf(&b, "pool: %s (wanted: %d, serving: %d, starting: %d, leaving: %d, min: %d, max: %d", poolID(p.GetName()), p.GetDesired(), p.GetServing(), p.GetStarting(), p.GetLeaving(), p.GetMin(), p.GetMax())
		if p.GetReason() != "" {
			fmt.Fprintf(&b, ", held back: %s", heldReason(now, p))
		}
		if p.GetStopTime() != nil {
			fmt.Fprintf(&b, ", stopped since: %s, failures: %d", stamp(p.GetStopTime()), p.GetFailures())
		}
		if p.GetRewoundTime() != nil {
			fmt.Fprintf(&b, ", rewound since: %s", stamp(p.GetRewoundTime()))
		}
		b.WriteString(")\n")
	}
	for _, e := range res.GetEvents() {
		b.WriteString("event: " + eventPlain(e) + "\n")
	}
	return b.String()
}

// statusTable is the status for a terminal.
func statusTable(st style, now time.Time, res *doproxyv1.GetStatusResponse) string {
	res = cleaned(res)
	var b strings.Builder
	if res.GetPause() != nil {
		b.WriteString(st.red(wrap(st.sign("✗", "!")+" "+pauseText(now, res.GetPause()), st.width, "  ")) + "\n\n")
	}
	head := []string{"cluster " + st.bold(dash(res.GetCluster())), "leader " + st.leader(res), fmt.Sprintf("revision %d", res.GetRevision())}
	if res.GetStore() != "" {
		head = append(head, "store "+res.GetStore())
	}
	b.WriteString(strings.Join(head, st.dim("  "+st.dot()+"  ")) + "\n")
	b.WriteString(wrap(usageText(res), st.width, "  ") + "\n")
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
	st.heldPart(&b, now, standing(res))
	b.WriteString("\n" + st.nodesTable(now, res.GetNodes(), res.GetInventoryRevision()))
	st.entryPart(&b, now, entryOf(res))
	st.poolsPart(&b, now, res)
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

// clipLines cuts each line to the style's width.
func (st style) clipLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(st.clip(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return b.String()
}

func (st style) poolsPart(b *strings.Builder, now time.Time, res *doproxyv1.GetStatusResponse) {
	pools := res.GetPools()
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
		for _, line := range heldLines(now, p) {
			if !toldBy(res.GetConditions(), p) {
				b.WriteString(st.yellow(wrap(st.sign("▲", "!")+" "+line, st.width, "  ")) + "\n")
			}
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
