package cli

import (
	"fmt"
	"strings"
	"time"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// drainView is a node on its way out of service.
type drainView struct {
	node string
	// drain has clean strings.
	drain *doproxyv1.DrainNodeResponse
	now   time.Time // when it was answered
}

func (v drainView) title() string  { return v.node }
func (v drainView) reason() string { return v.drain.GetReason() }

// dnsLeft is how long clients may still remember a record that is gone.
func (v drainView) dnsLeft() time.Duration {
	if v.drain.GetDnsExpireTime() == nil {
		return 0
	}
	return max(0, v.drain.GetDnsExpireTime().AsTime().Sub(v.now))
}

func (v drainView) plain() string {
	parts := []string{countedAs(len(v.drain.GetReservedIps()), "address", "addresses"), countedAs(len(v.drain.GetDnsRecords()), "DNS record", "DNS records")}
	if left := v.dnsLeft(); left > 0 {
		parts = append(parts, "DNS forgotten in "+short(left))
	}
	parts = append(parts, counted(v.drain.GetSessions(), "session"))
	return v.node + ": " + strings.Join(parts, ", ")
}

func (v drainView) lines(st style, elapsed time.Duration, note string) []string {
	lines := []string{fmt.Sprintf("Draining %s%s", st.bold(v.node), st.dim("  "+short(elapsed))), ""}
	row := func(name, value string, left bool) {
		sign := st.green(st.sign("✓", "+"))
		if left {
			sign = st.yellow(st.sign("…", "."))
		}
		lines = append(lines, fmt.Sprintf("  %s %-11s  %s", sign, name, value))
	}
	row("addresses", noneOr(addressList(v.drain.GetReservedIps())), len(v.drain.GetReservedIps()) > 0)
	row("DNS records", noneOr(recordList(v.drain.GetDnsRecords())), len(v.drain.GetDnsRecords()) > 0)
	if left := v.dnsLeft(); left > 0 {
		row("DNS caches", "forget it in "+short(left), true)
	} else {
		row("DNS caches", "none remembers it", len(v.drain.GetDnsRecords()) > 0)
	}
	row("sessions", counted(v.drain.GetSessions(), "session"), v.drain.GetSessions() > 0)
	for _, ip := range v.drain.GetReservedIps() {
		if ip.GetError() != "" {
			lines = append(lines, st.remark(st.red, fmt.Sprintf("%s %s: %s", st.sign("✗", "!"), ip.GetAddress(), ip.GetError()))...)
		}
	}
	if v.drain.GetReason() != "" {
		lines = append(append(lines, ""), st.heldUp(v.drain.GetReason())...)
	}
	return append(st.noted(lines, note), "")
}

// drainForecast is what a drain would move.
func drainForecast(st style, node string, m *doproxyv1.DrainNodeResponse) string {
	var b strings.Builder
	line := func(format string, args ...any) {
		b.WriteString(wrap(fmt.Sprintf(format, args...), st.width, "  ") + "\n")
	}
	line("Would drain %s.", node)
	var moving []*doproxyv1.ReservedIp
	for _, ip := range m.GetReservedIps() {
		if ip.GetError() == "" {
			moving = append(moving, ip)
		} else {
			line("Held up: %s cannot move: %s", ip.GetAddress(), ip.GetError())
		}
	}
	if list := addressList(moving); list != "" {
		line("Would move %s to other nodes.", list)
	}
	if list := recordList(m.GetDnsRecords()); list != "" {
		line("Would take away %s.", list)
	}
	if n := m.GetSessions(); n > 0 {
		line("%s would be waited for.", counted(n, "session"))
	}
	if m.GetReason() != "" {
		line("Held up: %s", m.GetReason())
	}
	return b.String()
}

func addressList(ips []*doproxyv1.ReservedIp) string {
	list := make([]string, len(ips))
	for i, ip := range ips {
		list[i] = ip.GetAddress()
	}
	return strings.Join(list, ", ")
}

func recordList(records []*doproxyv1.DnsRecord) string {
	list := make([]string, len(records))
	for i, r := range records {
		list[i] = r.GetFqdn() + " " + recordType(r.GetAddress()) + " " + r.GetAddress()
	}
	return strings.Join(list, ", ")
}

func recordType(address string) string {
	if strings.Contains(address, ":") {
		return "AAAA"
	}
	return "A"
}

func noneOr(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func countedAs(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
