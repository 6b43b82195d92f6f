package haproxy

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Config is the whole wanted state of one HAProxy. The zero values of its
// options mean the defaults named beside them.
type Config struct {
	Global   Global
	Binds    []Bind
	Timeouts Timeouts
	// Backends are rendered in the given order. The first one without Hosts and
	// Paths takes the requests that no other backend wants.
	Backends []Backend
	// Closing ends each client's connection with its next answer, so that clients
	// that kept one open find their way elsewhere: the node is being drained.
	// HTTP/2 connections are asked to end by the reload that begins this.
	Closing bool
}

// Global holds the settings of the process.
type Global struct {
	// AdminSocket is the absolute path of the runtime API's socket. Required.
	AdminSocket string
	// StatsBind is the loopback address of the statistics page, such as
	// "127.0.0.1:8404". Empty: no page.
	StatsBind string
	// Prometheus adds /metrics to the statistics page. It needs a HAProxy that
	// was built with the exporter; Detect tells.
	Prometheus bool
	// MaxConn limits the process's connections. 0: HAProxy's own limit.
	MaxConn int
	// Log is where log lines go: an absolute path of a syslog socket, an
	// address:port, "stdout" or "stderr". Empty: no log.
	Log string
	// LogFacility is a syslog facility. Empty: local0.
	LogFacility string
	// User and Group are what HAProxy changes to after it has bound. Empty: it
	// stays who it is.
	User, Group string
	// HardStopAfter bounds how long a worker that was replaced by a reload may
	// linger. 0: 5 minutes.
	HardStopAfter time.Duration
}

// Bind is an address that clients connect to.
type Bind struct {
	// Address is host:port; the host is an IP address, "*" or empty for all.
	Address string
	// Certificate is the absolute path of a PEM file (or a directory of them)
	// with chain and key. If set, the address speaks TLS, HTTP/2 and HTTP/1.1.
	Certificate string
}

// Timeouts are those of HAProxy's "defaults" section.
type Timeouts struct {
	Connect     time.Duration // 0: 4 s
	Client      time.Duration // 0: 30 s
	Server      time.Duration // 0: 30 s
	Queue       time.Duration // 0: 10 s
	HTTPRequest time.Duration // 0: 10 s
	KeepAlive   time.Duration // 0: 30 s
	Tunnel      time.Duration // 0: 1 h
	Check       time.Duration // 0: 5 s
}

// Backend is one pool of servers.
type Backend struct {
	// Name is the pool's name.
	Name string
	// Balance is one of Balances. Empty: roundrobin.
	Balance string
	// HealthCheckPath is what a server is asked by GET; an answer of 2xx or 3xx
	// is healthy. Empty: a TCP connection is enough.
	HealthCheckPath string
	// HealthCheckHost is the Host header of that request. Empty: localhost.
	HealthCheckHost string
	// CheckInter is the interval of checks. 0: 2 s.
	CheckInter time.Duration
	// CheckFall checks must fail before a server is down. 0: 3.
	CheckFall int
	// CheckRise checks must pass before it is up again. 0: 2.
	CheckRise int
	// Hosts and Paths route requests here: a host may begin with "*."; a path
	// stands for itself and all below it. If both are given, both must match.
	Hosts []string
	Paths []string
	// MaxConn limits the connections to each server; requests beyond wait in
	// the queue. 0: no limit.
	MaxConn int
	// SlowStart is the time over which a server that came back up gets its
	// whole weight. 0: at once.
	SlowStart time.Duration
	// TimeoutConnect, TimeoutServer and TimeoutQueue override Timeouts if set.
	TimeoutConnect, TimeoutServer, TimeoutQueue time.Duration
	// Servers must be sorted by name.
	Servers []Server
}

// Server is one line of a backend.
type Server struct {
	// Name is unique in its backend, in DOProxy's form "www-<droplet id>".
	Name    string
	Address netip.Addr
	Port    uint16
	// Weight is 0 to 256. With 0 the server takes no new sessions; it is
	// checked all the same.
	Weight uint16
	// ID and Hostname end up in the line's comment, for the reader.
	ID       int64
	Hostname string
}

// Balances are the algorithms that take servers at run time.
var Balances = []string{"roundrobin", "leastconn", "random", "first", "source"}

func (g Global) withDefaults() Global {
	g.LogFacility = or(g.LogFacility, "local0")
	g.HardStopAfter = or(g.HardStopAfter, 5*time.Minute)
	return g
}

func (t Timeouts) withDefaults() Timeouts {
	t.Connect = or(t.Connect, 4*time.Second)
	t.Client = or(t.Client, 30*time.Second)
	t.Server = or(t.Server, 30*time.Second)
	t.Queue = or(t.Queue, 10*time.Second)
	t.HTTPRequest = or(t.HTTPRequest, 10*time.Second)
	t.KeepAlive = or(t.KeepAlive, 30*time.Second)
	t.Tunnel = or(t.Tunnel, time.Hour)
	t.Check = or(t.Check, 5*time.Second)
	return t
}

func (b Backend) withDefaults() Backend {
	b.Balance = or(b.Balance, "roundrobin")
	b.HealthCheckHost = or(b.HealthCheckHost, "localhost")
	b.CheckInter = or(b.CheckInter, 2*time.Second)
	b.CheckFall = or(b.CheckFall, 3)
	b.CheckRise = or(b.CheckRise, 2)
	return b
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// backend returns the backend of that name, or nil.
func (c *Config) backend(name string) *Backend {
	for i := range c.Backends {
		if c.Backends[i].Name == name {
			return &c.Backends[i]
		}
	}
	return nil
}

// withoutServers returns a copy whose backends have no servers.
func (c Config) withoutServers() Config {
	c.Backends = slices.Clone(c.Backends)
	for i := range c.Backends {
		c.Backends[i].Servers = nil
	}
	return c
}

// sameButServers says that the configurations differ in servers only.
func sameButServers(a, b Config) bool {
	return len(a.Backends) == len(b.Backends) && reflect.DeepEqual(a.withoutServers(), b.withoutServers())
}

// graft returns the configuration base with the servers that want has for
// backends of the same name. It is what can be had at run time while the rest
// of want cannot.
func graft(base, want Config) Config {
	out := base
	out.Backends = slices.Clone(base.Backends)
	for i := range out.Backends {
		if b := want.backend(out.Backends[i].Name); b != nil {
			out.Backends[i].Servers = b.Servers
		} else {
			out.Backends[i].Servers = nil
		}
	}
	return out
}

// route is one line of the shared frontend: which requests go to a backend.
type route struct {
	Backend string
	HasHost bool
	Path    string // empty: any
}

// routes orders the ways into the backends from the most to the least
// specific: host and path, host alone, path alone; longer paths first.
func routes(backends []Backend) []route {
	var out []route
	for _, b := range backends {
		hasHost := len(b.Hosts) > 0
		for _, p := range b.Paths {
			out = append(out, route{b.Name, hasHost, p})
		}
		if hasHost && len(b.Paths) == 0 {
			out = append(out, route{b.Name, true, ""})
		}
	}
	rank := func(r route) int {
		switch {
		case r.HasHost && r.Path != "":
			return 0
		case r.HasHost:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(out, func(a, b route) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		if d := len(b.Path) - len(a.Path); d != 0 {
			return d
		}
		return strings.Compare(a.Backend, b.Backend)
	})
	return out
}
