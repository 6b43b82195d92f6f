package server

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/doproxy/doproxy/inventory"
)

// Resource names (AIP-122).

// PoolName is the resource name of a pool: "pools/web".
func PoolName(pool string) string { return "pools/" + pool }

// DropletName is the resource name of a droplet: "pools/web/droplets/web-0".
func DropletName(pool, hostname string) string { return "pools/" + pool + "/droplets/" + hostname }

// NodeName is the resource name of a node: "nodes/lb1".
func NodeName(node string) string { return "nodes/" + node }

// ReservedIPName is the resource name of a reserved IP: "reservedIps/203.0.113.7".
func ReservedIPName(a netip.Addr) string { return "reservedIps/" + a.String() }

// parseNode reads "nodes/{node}" from the request's field.
func parseNode(field, name string) (string, error) {
	node, ok := strings.CutPrefix(name, "nodes/")
	switch {
	case name == "":
		return "", invalid(field, name, `is missing: write "nodes/" and the node's name, such as nodes/lb-1`)
	case !ok || inventory.ValidName(node) != nil:
		return "", invalid(field, name, `must be "nodes/" and a name of 1 to 40 of a-z, 0-9 and inner hyphens`)
	}
	return node, nil
}

// parseReservedIP reads "reservedIps/{address}" or an address.
func parseReservedIP(field, name string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimPrefix(name, "reservedIps/"))
	if err != nil || a.Zone() != "" {
		return a, invalid(field, name, "must be a reserved IP, such as 203.0.113.7 or reservedIps/203.0.113.7")
	}
	return a.Unmap(), nil
}

// parsePool reads "pools/{pool}" from the request's field.
func parsePool(field, name string) (string, error) {
	pool, ok := strings.CutPrefix(name, "pools/")
	switch {
	case name == "":
		return "", invalid(field, name, `is missing: write "pools/" and the pool's name, such as pools/web`)
	case !ok:
		return "", invalid(field, name, fmt.Sprintf("must be a resource name such as %q", PoolName(lastPart(name))))
	}
	if err := inventory.ValidName(pool); err != nil {
		return "", invalid(field, name, `must be "pools/" and a name of 1 to 40 of a-z, 0-9 and inner hyphens`)
	}
	return pool, nil
}

func lastPart(name string) string {
	last := name[strings.LastIndexByte(name, '/')+1:]
	if inventory.ValidName(last) != nil {
		return "web"
	}
	return last
}

// dropletRef is one way to name a droplet: exactly one of hostname and id is set.
type dropletRef struct {
	text     string // as it was given
	pool     string // empty: any
	hostname string
	id       int64
}

// parseDroplet reads "pools/{pool}/droplets/{hostname}", where "-" as {pool}
// means any; with short also a hostname or an id in decimal.
func parseDroplet(field, name string, short bool) (dropletRef, error) {
	ref := dropletRef{text: name}
	mend := `must be a resource name such as pools/web/droplets/web-0; "-" as the pool means any`
	if short {
		mend = "must be a droplet's hostname, its id in decimal, or a resource name such as pools/web/droplets/web-0"
	}
	parts := strings.Split(name, "/")
	switch {
	case len(parts) == 4 && parts[0] == "pools" && parts[2] == "droplets":
		if parts[1] != "-" {
			if inventory.ValidName(parts[1]) != nil {
				return ref, invalid(field, name, mend)
			}
			ref.pool = parts[1]
		}
		ref.hostname = parts[3]
	case len(parts) == 1 && short:
		if id, err := strconv.ParseInt(name, 10, 64); err == nil {
			if id <= 0 || strconv.FormatInt(id, 10) != name {
				return ref, invalid(field, name, mend)
			}
			ref.id = id
			return ref, nil
		}
		ref.hostname = name
	default:
		return ref, invalid(field, name, mend)
	}
	if ref.hostname == "" || len(ref.hostname) > 255 || !printable(ref.hostname) {
		return ref, invalid(field, name, mend)
	}
	return ref, nil
}

// enumerate writes names for people, the first ones if there are many.
func enumerate(names []string) string {
	const most = 50
	if over := len(names) - most; over > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), over)
	}
	return strings.Join(names, ", ")
}

func printable(s string) bool {
	for _, r := range s {
		if r <= ' ' || r == 0x7f {
			return false
		}
	}
	return true
}
