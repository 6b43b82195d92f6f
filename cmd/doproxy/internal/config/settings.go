package config

import (
	"net/netip"
	"strings"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

const (
	maxLimit    = 1_000_000 // droplets, creates an hour, US dollars an hour
	maxEntries  = 100       // reserved IPs, and DNS names
	maxPatience = 24 * time.Hour
	minTTL      = 30  // seconds; DigitalOcean API v2, domain records, "ttl"
	maxFQDN     = 253 // RFC 1035, 2.3.4, less a length byte and the root
	maxLabel    = 63
)

// settings are those of the keys limits and ingress; nil if the file has
// neither.
func (r *resolver) settings() *inventory.Settings {
	if !r.has("limits") && !r.has("ingress") {
		return nil
	}
	return &inventory.Settings{Limits: r.limits(), Ingress: r.ingress()}
}

func (r *resolver) limits() inventory.Limits {
	f := r.file.Limits
	l := inventory.Limits{
		Droplets:      r.integer("limits.droplets", f.Droplets, 0, maxLimit, 0),
		CostHourly:    f.CostHourly,
		CreatesHourly: r.integer("limits.creates_hourly", f.CreatesHourly, 0, maxLimit, 0),
		LeavePercent:  r.integer("limits.leave_percent", f.LeavePercent, 1, 100, 0),
	}
	if !(f.CostHourly >= 0 && f.CostHourly <= maxLimit) {
		r.addf("limits.cost_hourly", "%v is out of range: use 0 to %d US dollars an hour", f.CostHourly, maxLimit)
	}
	return l
}

func (r *resolver) ingress() inventory.Ingress {
	f := r.file.Ingress
	patience := func(key string, value time.Duration) inventory.Duration {
		return inventory.Duration(r.duration("ingress."+key, value, 0, maxPatience, 0))
	}
	return inventory.Ingress{
		ReservedIPs: r.reservedIPs(),
		DNS:         r.dnsNames(),
		FailAfter:   patience("fail_after", f.FailAfter),
		SettleAfter: patience("settle_after", f.SettleAfter),
		StaleAfter:  patience("stale_after", f.StaleAfter),
		HoldDown:    patience("hold_down", f.HoldDown),
	}
}

func (r *resolver) reservedIPs() (out []netip.Addr) {
	const list = "ingress.reserved_ips"
	values := r.file.Ingress.ReservedIPs
	if len(values) > maxEntries {
		r.addf(list, "%d entries are too many: at most %d", len(values), maxEntries)
	}
	first := make(map[netip.Addr]string)
	for i, value := range values {
		key := index(list, i)
		a, err := netip.ParseAddr(value)
		switch other, twice := first[a]; {
		case err != nil || a.Zone() != "":
			r.addf(key, "%s is not an IP address: write one such as 203.0.113.10", show(value))
		case a.Is4In6():
			r.addf(key, "%s is an IPv4 address written as IPv6: write %s", show(value), a.Unmap())
		case !a.IsGlobalUnicast() && !a.IsLoopback():
			r.addf(key, "%s is no address for clients to call: write a reserved IP of the account", show(value))
		case twice:
			r.addf(key, "%s is there twice, first as %s: remove one", show(value), other)
		default:
			first[a] = key
			out = append(out, a)
		}
	}
	return out
}

func (r *resolver) dnsNames() (out []inventory.DNSName) {
	const list = "ingress.dns"
	names := r.file.Ingress.DNS
	if len(names) > maxEntries {
		r.addf(list, "%d entries are too many: at most %d", len(names), maxEntries)
	}
	first := make(map[string]string)
	for i, f := range names {
		at := func(key string) string { return join(index(list, i), key) }
		n := inventory.DNSName{Domain: strings.ToLower(f.Domain), Name: strings.ToLower(f.Name), TTL: f.TTL}
		before := len(r.errors)
		switch {
		case f.Domain == "":
			r.addf(at("domain"), "is not set: write one of the account's domains, such as example.com")
		case !hostname(n.Domain) || !strings.Contains(n.Domain, "."):
			r.addf(at("domain"), "%s is not a domain: write one of the account's, such as example.com, without a final dot", show(f.Domain))
		}
		switch {
		case f.Name == "":
			r.addf(at("name"), "is not set: write one within the domain, such as www, or \"@\" for the domain itself")
		case f.Name != "@" && !hostname(n.Name):
			r.addf(at("name"), "%s is not a name within the domain: write one such as www, or \"@\" for the domain itself", show(f.Name))
		}
		if r.has(at("ttl")) && f.TTL < minTTL {
			r.addf(at("ttl"), "%d is out of range: use %d seconds or more", f.TTL, minTTL)
		}
		fqdn := n.FQDN()
		other, twice := first[fqdn]
		switch {
		case len(r.errors) > before:
			continue
		case len(fqdn) > maxFQDN:
			r.addf(at("name"), "%s is %d bytes long, but a name has at most %d: choose a shorter one", show(fqdn), len(fqdn), maxFQDN)
		case twice:
			r.addf(at("name"), "%s is there twice, first as %s: remove one", show(fqdn), other)
		}
		first[fqdn] = index(list, i)
		out = append(out, n)
	}
	return out
}

// hostname says whether a name in lower case can be looked up (RFC 1123, 2.1).
func hostname(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > maxLabel {
			return false
		}
	}
	return inventory.ValidHostname(name) == nil
}

// dropletID checks an id of a droplet; zero is not known.
func (r *resolver) dropletID(key string, id int64) int64 {
	if id < 0 {
		r.addf(key, "%d is not the id of a droplet: write this load balancer's, as in `doctl compute droplet list`", id)
		return 0
	}
	return id
}
