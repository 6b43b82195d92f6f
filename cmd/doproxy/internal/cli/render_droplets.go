package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// dash stands for a value that is not known yet.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func idOf(id int64) string {
	if id == 0 {
		return "-"
	}
	return strconv.FormatInt(id, 10)
}

func phaseWord(p doproxyv1.Phase) string { return enumWord(p.Descriptor(), p.Number()) }

// dropletsPlain is the inventory in DOProxy's form, one line a droplet. A
// droplet that is not in service has its phase, and why, after the id.
func dropletsPlain(droplets []*doproxyv1.Droplet) string {
	var b strings.Builder
	for i, d := range droplets {
		d = cleaned(d)
		fmt.Fprintf(&b, "%d) %s (pvt ip: %s, status: %s, id: %s", i, d.GetHostname(), dash(d.GetPrivateIpv4()), dash(d.GetStatus()), idOf(d.GetId()))
		if d.GetPhase() != doproxyv1.Phase_PHASE_SERVING {
			fmt.Fprintf(&b, ", phase: %s", phaseWord(d.GetPhase()))
		}
		if d.GetReason() != "" {
			fmt.Fprintf(&b, ", reason: %s", d.GetReason())
		}
		b.WriteString(")\n")
	}
	if len(droplets) == 0 {
		b.WriteString("The inventory is empty. Use the create command.\n")
	}
	return b.String()
}

// dropletColumn is one column of the inventory's table.
type dropletColumn struct {
	head  string
	right bool
	cell  func(i int, d *doproxyv1.Droplet) string
}

// dropletsTable is the inventory for a terminal. Where it is too narrow, the
// columns that say least go first; index, name, phase, address, id and health
// stay.
func dropletsTable(st style, now time.Time, droplets []*doproxyv1.Droplet, held []*doproxyv1.Pool, stale string) string {
	list := make([]*doproxyv1.Droplet, len(droplets))
	for i, d := range droplets {
		list[i] = cleaned(d)
	}
	var b strings.Builder
	if stale != "" {
		b.WriteString(st.red(wrap(st.sign("✗", "!")+" the store is out of reach, this is the inventory as last seen: "+clean(stale), st.width, "  ")) + "\n\n")
	}
	if len(list) == 0 {
		b.WriteString("The inventory is empty. Use the create command.\n")
		heldUp(&b, st, now, held)
		return b.String()
	}
	nodes := nodesOf(list)
	wide := st.fits(list, now, nodes, true)
	b.WriteString(st.clipLines(wide.String()))
	heldUp(&b, st, now, held)
	for _, d := range list {
		if d.GetReason() != "" && !heldBy(held, d) {
			b.WriteString("\n" + st.yellow(wrap(st.sign("▲", "!")+" "+d.GetHostname()+": "+d.GetReason(), st.width, "  ")) + "\n")
		}
	}
	b.WriteString("\n" + wrap(spentText(list), st.width, "  ") + "\n")
	if len(nodes) > 0 {
		legend := fmt.Sprintf("health on %s: %s up  %s down  %s unchecked", strings.Join(nodes, ", "), st.health("up"), st.health("down"), st.health("unchecked"))
		b.WriteString(wrap(legend, st.width, "  ") + "\n")
	}
	return b.String()
}

// spentText is what droplets cost together.
func spentText(droplets []*doproxyv1.Droplet) string {
	cost, unknown := spent(droplets)
	text := fmt.Sprintf("%s: %s an hour, about %s a month", countedAs(len(droplets), "droplet", "droplets"), money(cost), monthly(cost))
	if unknown > 0 {
		text += fmt.Sprintf(", and %d of unknown price", unknown)
	}
	return text
}

// spent adds up prices an hour, in US dollars, and counts the droplets without one.
func spent(droplets []*doproxyv1.Droplet) (cost float64, unknown int) {
	for _, d := range droplets {
		cost += d.GetPriceHourly()
		if d.GetPriceHourly() == 0 {
			unknown++
		}
	}
	return cost, unknown
}

// fits is the table with as many columns as the width holds.
func (st style) fits(list []*doproxyv1.Droplet, now time.Time, nodes []string, color bool) *grid {
	drop := []string{"STATUS", "POOL", "REGION", "SIZE", "AGE"}
	if severalPools(list) {
		drop = []string{"STATUS", "REGION", "SIZE", "AGE", "POOL"}
	}
	columns := st.dropletColumns(now, nodes)
	for {
		g := &grid{st: st}
		for i, c := range columns {
			g.head = append(g.head, c.head)
			if c.right {
				g.right = append(g.right, i)
			}
		}
		for i, d := range list {
			cells := make([]string, len(columns))
			for j, c := range columns {
				cells[j] = c.cell(i, d)
			}
			g.add(cells...)
		}
		if st.width == 0 || len(drop) == 0 || g.width() <= st.width {
			return g
		}
		columns = slices.DeleteFunc(columns, func(c dropletColumn) bool { return c.head == drop[0] })
		drop = drop[1:]
	}
}

func (st style) dropletColumns(now time.Time, nodes []string) []dropletColumn {
	return []dropletColumn{
		{"#", true, func(i int, _ *doproxyv1.Droplet) string { return strconv.Itoa(i) }},
		{"NAME", false, func(_ int, d *doproxyv1.Droplet) string { return st.bold(d.GetHostname()) }},
		{"POOL", false, func(_ int, d *doproxyv1.Droplet) string { return poolID(d.GetPool()) }},
		{"PHASE", false, func(_ int, d *doproxyv1.Droplet) string { return st.phase(d) }},
		{"STATUS", false, func(_ int, d *doproxyv1.Droplet) string { return dash(d.GetStatus()) }},
		{"PRIVATE IP", false, func(_ int, d *doproxyv1.Droplet) string { return dash(d.GetPrivateIpv4()) }},
		{"SIZE", false, func(_ int, d *doproxyv1.Droplet) string { return dash(d.GetSize()) }},
		{"REGION", false, func(_ int, d *doproxyv1.Droplet) string { return dash(d.GetRegion()) }},
		{"AGE", true, func(_ int, d *doproxyv1.Droplet) string { return ago(now, d.GetCreateTime()) }},
		{"ID", true, func(_ int, d *doproxyv1.Droplet) string { return idOf(d.GetId()) }},
		{"HEALTH", false, func(_ int, d *doproxyv1.Droplet) string { return st.healthRow(d, nodes) }},
	}
}

// phase colours a droplet's phase; one that does not serve everywhere says so.
func (st style) phase(d *doproxyv1.Droplet) string {
	word := phaseWord(d.GetPhase())
	switch d.GetPhase() {
	case doproxyv1.Phase_PHASE_SERVING:
		if d.GetNodesServing() < d.GetNodesLive() {
			return st.yellow(fmt.Sprintf("%s %d/%d", word, d.GetNodesServing(), d.GetNodesLive()))
		}
		return st.green(word)
	case doproxyv1.Phase_PHASE_REQUESTED, doproxyv1.Phase_PHASE_BOOTING:
		return st.cyan(word)
	default:
		return st.yellow(word)
	}
}

func (st style) health(word string) string {
	switch word {
	case "up":
		return st.green(st.sign("●", "+"))
	case "down":
		return st.red(st.sign("✗", "x"))
	default:
		return st.dim(st.sign("○", "."))
	}
}

// healthRow is one sign a node, in the order of nodes.
func (st style) healthRow(d *doproxyv1.Droplet, nodes []string) string {
	seen := map[string]string{}
	for _, h := range d.GetHealth() {
		seen[nodeID(h.GetNode())] = h.GetHealth()
	}
	signs := make([]string, len(nodes))
	for i, n := range nodes {
		signs[i] = " "
		if h, ok := seen[n]; ok {
			signs[i] = st.health(h)
		}
	}
	return strings.Join(signs, " ")
}

// nodesOf are the names of all nodes that see any of the droplets, in order.
func nodesOf(droplets []*doproxyv1.Droplet) []string {
	var nodes []string
	for _, d := range droplets {
		for _, h := range d.GetHealth() {
			if name := nodeID(h.GetNode()); !slices.Contains(nodes, name) {
				nodes = append(nodes, name)
			}
		}
	}
	slices.Sort(nodes)
	return nodes
}

func severalPools(droplets []*doproxyv1.Droplet) bool {
	return slices.ContainsFunc(droplets, func(d *doproxyv1.Droplet) bool { return d.GetPool() != droplets[0].GetPool() })
}

func heldBy(held []*doproxyv1.Pool, d *doproxyv1.Droplet) bool {
	return slices.ContainsFunc(held, func(p *doproxyv1.Pool) bool {
		return poolID(p.GetName()) == poolID(d.GetPool()) && p.GetReason() == d.GetReason()
	})
}

// heldUp tells why pools cannot grow or shrink.
func heldUp(b *strings.Builder, st style, now time.Time, pools []*doproxyv1.Pool) {
	for _, p := range pools {
		for _, line := range heldLines(now, p) {
			b.WriteString("\n" + st.yellow(wrap(st.sign("▲", "!")+" "+line, st.width, "  ")) + "\n")
		}
	}
}

// heldLines are what holds a pool up, a sentence each; none if nothing does.
func heldLines(now time.Time, p *doproxyv1.Pool) (lines []string) {
	name := poolID(clean(p.GetName()))
	switch {
	case p.GetStopTime() != nil:
		line := fmt.Sprintf("%s creates nothing any more for %s", name, ago(now, p.GetStopTime()))
		reason := clean(p.GetReason())
		if !strings.Contains(reason, "in a row") {
			line += fmt.Sprintf(", after %d failures in a row", p.GetFailures())
		}
		if reason != "" {
			line += ": " + reason
		}
		if !strings.Contains(reason, "doproxy resume") {
			line += "; let it try again with `doproxy resume " + name + "`"
		}
		lines = append(lines, line)
	case p.GetReason() != "":
		lines = append(lines, fmt.Sprintf("creates in %s are held back: %s", name, heldReason(now, p)))
	}
	if p.GetRewoundTime() != nil {
		lines = append(lines, fmt.Sprintf("%s: its record is older than its droplets (found %s ago): none goes for being surplus until `doproxy scale %s=N` or `doproxy confirm %s`", name, ago(now, p.GetRewoundTime()), name, name))
	}
	return lines
}

// heldReason is the cloud's words and when the next try comes.
func heldReason(now time.Time, p *doproxyv1.Pool) string {
	reason := clean(p.GetReason())
	if t := p.GetRetryTime(); t != nil && t.AsTime().After(now) {
		reason += fmt.Sprintf(" (next try in %s)", short(t.AsTime().Sub(now)))
	}
	return reason
}

// poolID is the last part of "pools/{pool}".
func poolID(name string) string { return strings.TrimPrefix(name, "pools/") }
