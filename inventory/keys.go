package inventory

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Keys builds the keys of one cluster, below /doproxy/<cluster>/.
type Keys struct{ prefix string }

// KeysOf returns the keys of the cluster with this name, which ValidName accepts.
func KeysOf(cluster string) Keys { return Keys{prefix: "/doproxy/" + cluster + "/"} }

// Prefix is that of every key of the cluster; it ends with a slash.
func (k Keys) Prefix() string { return k.prefix }

func (k Keys) Meta() string { return k.prefix + "meta" }

// Migration is there while the inventory is moved into a store.
func (k Keys) Migration() string                { return k.prefix + "migration" }
func (k Keys) Pool(name string) string          { return k.prefix + "pools/" + name }
func (k Keys) Droplet(pool, name string) string { return k.prefix + "droplets/" + pool + "/" + name }
func (k Keys) droplets() string                 { return k.prefix + "droplets/" }
func (k Keys) Node(name string) string          { return k.prefix + "nodes/" + name }
func (k Keys) Leader() string                   { return k.prefix + "election/leader" }
func (k Keys) Event(id string) string           { return k.prefix + "events/" + id }

// Ordinal keeps the next ordinal of a hostname prefix whose pool was deleted, so
// that a new pool with this prefix goes on from there.
func (k Keys) Ordinal(prefix string) string { return k.prefix + "ordinals/" + prefix }

// Reload holds the id of the last reload asked of all nodes.
func (k Keys) Reload() string { return k.prefix + "reload" }

// Settings, Pause, Report and Verify are the keys of the records of these names.
func (k Keys) Settings() string { return k.prefix + "settings" }
func (k Keys) Pause() string    { return k.prefix + "pause" }
func (k Keys) Report() string   { return k.prefix + "report" }
func (k Keys) Verify() string   { return k.prefix + "verify" }

func (k Keys) Member(node string) string      { return k.prefix + "members/" + node }
func (k Keys) Confirm(pool string) string     { return k.prefix + "confirms/" + pool }
func (k Keys) Assignment(a netip.Addr) string { return k.assignments() + a.String() }
func (k Keys) DNS(fqdn string) string         { return k.dns() + fqdn }
func (k Keys) assignments() string            { return k.prefix + "ingress/ip/" }
func (k Keys) dns() string                    { return k.prefix + "ingress/dns/" }
func (k Keys) Request(id string) string       { return k.prefix + "requests/" + id }

var (
	namePattern     = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	hostnamePattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`)
)

// ValidName accepts names of clusters, pools and nodes: 1 to 40 lower-case
// letters, digits and inner hyphens. Such a name is safe in a key, in a tag and
// in a line of haproxy.cfg.
func ValidName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%q is not a name: use 1 to 40 of a-z, 0-9 and inner hyphens", name)
	}
	return nil
}

// ValidHostname accepts a droplet's name as DigitalOcean does: letters, digits,
// hyphens and dots (API v2, POST /v2/droplets, "name"), as a hostname up to 200
// characters, which leaves room for an ordinal.
func ValidHostname(name string) error {
	if len(name) > 200 || !hostnamePattern.MatchString(name) {
		return fmt.Errorf("%q is not a hostname: use up to 200 letters, digits, inner hyphens and dots", name)
	}
	return nil
}

// DropletName is the name with this ordinal in a pool.
func DropletName(prefix string, ordinal int64) string {
	return prefix + "-" + strconv.FormatInt(ordinal, 10)
}

// Ordinal is the number at the end of a name that DropletName made from prefix.
func Ordinal(prefix, name string) (int64, bool) {
	digits, ok := strings.CutPrefix(name, prefix+"-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil && n >= 0 && DropletName(prefix, n) == name
}

func compareDroplets(a, b *Droplet) int {
	return cmp.Or(
		cmp.Compare(a.Pool, b.Pool),
		a.Created.Compare(b.Created),
		cmp.Compare(len(a.Name), len(b.Name)), // ordinals grow: web-9 before web-10
		cmp.Compare(a.Name, b.Name),
	)
}
