package haproxy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// Defaults of a pool's backend, where its record says nothing.
const (
	DefaultPort       = 80
	DefaultHealthPath = "/"
	ServingWeight     = 100
)

// Wanted is base with a backend for each pool and, in it, a server for each of
// the pool's droplets that has an address and is not yet being deleted. Only a
// Serving droplet has a weight.
func Wanted(base Config, pools map[string]*inventory.Pool, droplets map[string]*inventory.Droplet) Config {
	base.Backends = make([]Backend, 0, len(pools))
	servers := make(map[string][]Server, len(pools))
	for _, d := range droplets {
		if s, ok := serverOf(pools, d); ok {
			servers[d.Pool] = append(servers[d.Pool], s)
		}
	}
	for _, p := range pools {
		b := Backend{
			Name:            p.Name,
			Balance:         p.Backend.Balance,
			HealthCheckPath: or(p.Backend.HealthPath, DefaultHealthPath),
			CheckInter:      p.Backend.CheckInterval.Or(2 * time.Second),
			CheckFall:       p.Backend.Fall,
			CheckRise:       p.Backend.Rise,
			Hosts:           p.Backend.Hosts,
			Paths:           p.Backend.Paths,
			MaxConn:         p.Backend.MaxConn,
			Servers:         servers[p.Name],
		}
		slices.SortFunc(b.Servers, func(a, b Server) int { return strings.Compare(a.Name, b.Name) })
		base.Backends = append(base.Backends, b)
	}
	slices.SortFunc(base.Backends, func(a, b Backend) int { return strings.Compare(a.Name, b.Name) })
	return base
}

// serverOf is the server of a droplet that should be in its backend.
func serverOf(pools map[string]*inventory.Pool, d *inventory.Droplet) (Server, bool) {
	p := pools[d.Pool]
	if p == nil || d.Phase == inventory.Requested || d.Phase == inventory.Deleting {
		return Server{}, false
	}
	address, ok := Address(d)
	if !ok {
		return Server{}, false
	}
	s := Server{Name: ServerName(d.ID), Address: address, Port: or(p.Backend.Port, DefaultPort), ID: d.ID, Hostname: d.Name}
	if d.Phase == inventory.Serving {
		s.Weight = ServingWeight
	}
	return s, true
}

// ServerName is that of a droplet's server line, in DOProxy's form.
func ServerName(id int64) string { return "www-" + strconv.FormatInt(id, 10) }

// Address is where a droplet's app is reached: the private address, or the
// public one of a droplet that has no other.
func Address(d *inventory.Droplet) (netip.Addr, bool) {
	if d.ID == 0 {
		return netip.Addr{}, false
	}
	if d.PrivateIPv4.IsValid() {
		return d.PrivateIPv4, true
	}
	return d.PublicIPv4, d.PublicIPv4.IsValid()
}
