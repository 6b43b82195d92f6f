package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// entry is where clients come in, with what the settings name and nobody holds yet.
type entry struct {
	ips     []*doproxyv1.ReservedIp
	records []*doproxyv1.DnsRecord
	ttl     map[string]int32 // seconds by full name
}

func entryOf(res *doproxyv1.GetStatusResponse) entry {
	e := entry{ips: slices.Clone(res.GetReservedIps()), records: slices.Clone(res.GetDnsRecords()), ttl: map[string]int32{}}
	for _, address := range res.GetSettings().GetIngress().GetReservedIps() {
		if !slices.ContainsFunc(e.ips, func(ip *doproxyv1.ReservedIp) bool { return ip.GetAddress() == address }) {
			e.ips = append(e.ips, &doproxyv1.ReservedIp{Address: address})
		}
	}
	for _, n := range res.GetSettings().GetIngress().GetDns() {
		name := n.GetDomain()
		if n.GetName() != "" && n.GetName() != "@" {
			name = n.GetName() + "." + name
		}
		e.ttl[name] = n.GetTtl()
		if n.GetTtl() == 0 {
			e.ttl[name] = 60
		}
		if !slices.ContainsFunc(e.records, func(r *doproxyv1.DnsRecord) bool { return r.GetFqdn() == name }) {
			e.records = append(e.records, &doproxyv1.DnsRecord{Fqdn: name})
		}
	}
	slices.SortStableFunc(e.records, func(a, b *doproxyv1.DnsRecord) int { return strings.Compare(a.GetFqdn(), b.GetFqdn()) })
	return e
}

// ipState says in words how far an address has come.
func ipState(ip *doproxyv1.ReservedIp) string {
	switch want := ip.GetWant(); {
	case want == "*":
		return "asked away"
	case want != "":
		return "asked to " + nodeID(want)
	case ip.GetNode() == "":
		return "no holder"
	case ip.GetVerifyTime() == nil:
		return "moving"
	}
	return "verified"
}

// kind is A or AAAA, "-" while there is no record.
func kind(r *doproxyv1.DnsRecord) string {
	if r.GetAddress() == "" {
		return "-"
	}
	return recordType(r.GetAddress())
}

func recordState(r *doproxyv1.DnsRecord) string {
	switch {
	case r.GetAddress() == "":
		return "no record yet"
	case r.GetLeaving() && r.GetReason() != "":
		return "leaving: " + r.GetReason()
	case r.GetLeaving():
		return "leaving"
	case r.GetId() == 0:
		return "being made"
	}
	return "stands"
}

// why is the reason of the last move, and where the address was before.
func why(ip *doproxyv1.ReservedIp) string {
	if ip.GetFrom() == "" {
		return ip.GetReason()
	}
	return joined("from "+nodeID(ip.GetFrom()), ip.GetReason())
}

func (e entry) plain() string {
	var b strings.Builder
	for _, ip := range e.ips {
		fmt.Fprintf(&b, "reserved-ip: %s (holder: %s, since: %s, state: %s", ip.GetAddress(), dash(nodeID(ip.GetNode())), stamp(ip.GetTime()), ipState(ip))
		if w := why(ip); w != "" {
			fmt.Fprintf(&b, ", why: %s", w)
		}
		if ip.GetError() != "" {
			fmt.Fprintf(&b, ", error: %s", ip.GetError())
		}
		b.WriteString(")\n")
	}
	for _, r := range e.records {
		fmt.Fprintf(&b, "dns: %s %s %s (node: %s, since: %s, state: %s", r.GetFqdn(), kind(r), dash(r.GetAddress()), dash(nodeID(r.GetNode())), stamp(r.GetTime()), recordState(r))
		if ttl := e.ttl[r.GetFqdn()]; ttl > 0 {
			fmt.Fprintf(&b, ", ttl: %ds", ttl)
		}
		if r.GetError() != "" {
			fmt.Fprintf(&b, ", error: %s", r.GetError())
		}
		b.WriteString(")\n")
	}
	return b.String()
}

// entryPart is the section of the entry point, nothing if there is none.
func (st style) entryPart(b *strings.Builder, now time.Time, e entry) {
	if len(e.ips) > 0 {
		g := &grid{st: st, head: []string{"RESERVED IP", "HOLDER", "SINCE", "STATE"}, right: []int{2}}
		for _, ip := range e.ips {
			state := ipState(ip)
			paint := st.yellow
			switch {
			case state == "verified":
				paint = st.green
			case state == "no holder", ip.GetError() != "":
				paint = st.red
			}
			g.add(st.bold(ip.GetAddress()), dash(nodeID(ip.GetNode())), ago(now, ip.GetTime()), paint(state))
		}
		b.WriteString("\n" + st.withMessages(g, "WHY", func(i int) string { return why(e.ips[i]) }))
		for _, ip := range e.ips {
			if ip.GetError() != "" {
				b.WriteString(st.red(wrap(fmt.Sprintf("%s %s: %s", st.sign("✗", "!"), ip.GetAddress(), ip.GetError()), st.width, "  ")) + "\n")
			}
		}
	}
	if len(e.records) == 0 {
		return
	}
	g := &grid{st: st, head: []string{"DNS NAME", "TTL", "TYPE", "ADDRESS", "NODE", "SINCE", "STATE"}, right: []int{1, 5}}
	errors := map[string]string{}
	for i, r := range e.records {
		name, ttl := st.bold(r.GetFqdn()), "-"
		if t := e.ttl[r.GetFqdn()]; t > 0 {
			ttl = fmt.Sprintf("%ds", t)
		}
		if i > 0 && e.records[i-1].GetFqdn() == r.GetFqdn() {
			name, ttl = "", ""
		}
		state := recordState(r)
		paint := st.yellow
		if state == "stands" {
			paint = st.green
		}
		g.add(name, ttl, kind(r), dash(r.GetAddress()), dash(nodeID(r.GetNode())), ago(now, r.GetTime()), paint(state))
		if r.GetError() != "" {
			errors[r.GetFqdn()] = r.GetError()
		}
	}
	b.WriteString("\n" + st.clipLines(g.String()))
	for i, r := range e.records {
		if err := errors[r.GetFqdn()]; err != "" && (i == 0 || e.records[i-1].GetFqdn() != r.GetFqdn()) {
			b.WriteString(st.red(wrap(fmt.Sprintf("%s %s: %s", st.sign("✗", "!"), r.GetFqdn(), err), st.width, "  ")) + "\n")
		}
	}
}
