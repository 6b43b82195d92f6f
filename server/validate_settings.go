package server

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

const (
	maxLimit       = 1_000_000
	minTTL         = 30 // DigitalOcean API v2, domain records, "ttl"
	maxIngressTime = 24 * time.Hour
)

// ValidateSettings says all that is wrong with settings as an operator wrote
// them. The error has one google.rpc.BadRequest violation a field. Names of
// fields are paths in Settings.
func ValidateSettings(m *pb.Settings) error {
	var v violations
	v.settings(m, "")
	return v.err()
}

// settings checks all fields; at stands before their names: "settings.".
func (v *violations) settings(m *pb.Settings, at string) {
	if m == nil {
		v.check(false, strings.TrimSuffix(at, "."), "", "is missing: give the settings; empty ones set no limit and no entry point")
		return
	}
	l, at := m.GetLimits(), at+"limits."
	limit := func(field string, n int32) {
		v.check(n >= 0 && n <= maxLimit, at+field, n, fmt.Sprintf("must be 1 to %d, or left out for no limit", maxLimit))
	}
	limit("droplets", l.GetDroplets())
	cost := l.GetCostHourly()
	v.check(cost >= 0 && cost <= maxLimit && !math.IsNaN(cost), at+"cost_hourly", cost,
		fmt.Sprintf("must be US dollars an hour, at most %d, or left out for no limit", maxLimit))
	limit("creates_hourly", l.GetCreatesHourly())
	v.check(l.GetLeavePercent() >= 0 && l.GetLeavePercent() <= 100, at+"leave_percent", l.GetLeavePercent(),
		"must be 1 to 100, or left out for no limit")
	v.ingress(m.GetIngress(), strings.TrimSuffix(at, "limits.")+"ingress.")
}

func (v *violations) ingress(m *pb.Ingress, at string) {
	v.check(len(m.GetReservedIps()) <= maxItems, at+"reserved_ips", fmt.Sprintf("%d entries", len(m.GetReservedIps())), fmt.Sprintf("are too many: at most %d", maxItems))
	addresses := map[netip.Addr]bool{}
	for i, text := range m.GetReservedIps() {
		field := fmt.Sprintf("%sreserved_ips[%d]", at, i)
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil || a.Zone() != "":
			v.check(false, field, text, "must be an IPv4 or IPv6 address, such as 203.0.113.7")
		case a.Is4In6():
			v.check(false, field, text, "is an IPv4 address in IPv6 form: write "+a.Unmap().String())
		default:
			v.check(a.IsGlobalUnicast() || a.IsLoopback(), field, text, "must be a reserved IP of the account: no host has this one for clients to call")
			v.check(!addresses[a], field, text, "is there twice: take one away")
			addresses[a] = true
		}
	}
	v.check(len(m.GetDns()) <= maxItems, at+"dns", fmt.Sprintf("%d entries", len(m.GetDns())), fmt.Sprintf("are too many: at most %d", maxItems))
	names := map[string]bool{}
	for i, n := range m.GetDns() {
		field := fmt.Sprintf("%sdns[%d].", at, i)
		domain, name := strings.ToLower(n.GetDomain()), strings.ToLower(n.GetName())
		domainOK := hostname(domain) && strings.Contains(domain, ".")
		nameOK := name == "@" || hostname(name)
		v.check(domainOK, field+"domain", n.GetDomain(), "must be a domain of the account, such as example.com, without a final dot")
		v.check(nameOK, field+"name", n.GetName(), `must be a name within the domain, such as www, or "@" for the domain itself`)
		v.check(n.GetTtl() == 0 || n.GetTtl() >= minTTL, field+"ttl", n.GetTtl(), fmt.Sprintf("must be %d seconds or more, or left out for %d", minTTL, defaultTTL))
		if !domainOK || !nameOK {
			continue
		}
		// a.b in c is b.c's a: one name, whichever domain it is said to be in.
		fqdn := strings.TrimPrefix(name+"."+domain, "@.")
		v.check(len(fqdn) <= 253, field+"name", n.GetName(), "is too long: the whole name has at most 253 characters")
		v.check(!names[fqdn], field+"name", n.GetName(), "gives "+fqdn+", which is there twice: take one away")
		names[fqdn] = true
	}
	for _, d := range []struct {
		field string
		value *durationpb.Duration
	}{{"fail_after", m.GetFailAfter()}, {"settle_after", m.GetSettleAfter()}, {"stale_after", m.GetStaleAfter()}, {"hold_down", m.GetHoldDown()}} {
		v.duration(at+d.field, d.value, time.Millisecond, maxIngressTime)
	}
}

// hostname says whether a name in lower case can be looked up (RFC 1123, 2.1).
func hostname(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > 63 {
			return false
		}
	}
	return len(name) <= 253 && hostPattern.MatchString(name) && !strings.HasPrefix(name, "*")
}
