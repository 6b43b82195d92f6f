package haproxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxSocketPath is the longest path of a Unix socket: sun_path has 108 bytes
// with its terminator, and HAProxy binds "<path>.<pid>.tmp" first.
const maxSocketPath = 107 - len(".4194304.tmp")

// Validate says what in the configuration HAProxy would refuse, or would take
// for something else: every value is limited to characters that can end
// neither a word nor a line of the file. Each error names field and value.
func (c Config) Validate() error {
	var v validation
	g := c.Global
	v.check(CheckSocketPath(g.AdminSocket) == nil, "global.admin_socket", g.AdminSocket, errText(CheckSocketPath(g.AdminSocket)))
	if g.StatsBind != "" {
		host, ok := bindHost(g.StatsBind)
		a, err := netip.ParseAddr(host)
		v.check(ok && err == nil && a.IsLoopback(), "global.stats_bind", g.StatsBind, "must be a loopback address with a port, such as 127.0.0.1:8404")
	}
	v.check(g.MaxConn >= 0 && g.MaxConn <= 10_000_000, "global.maxconn", g.MaxConn, "must be 0 to 10000000")
	v.check(validLog(g.Log), "global.log", g.Log, "must be an absolute path, address:port, stdout or stderr")
	v.check(g.LogFacility == "" || word(g.LogFacility, 16), "global.log_facility", g.LogFacility, "must be a syslog facility such as local0")
	v.check(g.User == "" || word(g.User, 32), "global.user", g.User, "must be a user name")
	v.check(g.Group == "" || word(g.Group, 32), "global.group", g.Group, "must be a group name")
	v.duration("global.hard_stop_after", g.HardStopAfter)
	for i, b := range c.Binds {
		at := func(f string) string { return "binds[" + strconv.Itoa(i) + "]." + f }
		_, ok := bindHost(b.Address)
		v.check(ok, at("address"), b.Address, "must be an IP address (or * or nothing) and a port, such as *:80 or [::]:443")
		v.check(b.Certificate == "" || filePath(b.Certificate), at("certificate"), b.Certificate, "must be an absolute path of letters, digits and ._-+@/")
	}
	t := c.Timeouts
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"connect", t.Connect}, {"client", t.Client}, {"server", t.Server}, {"queue", t.Queue},
		{"http_request", t.HTTPRequest}, {"keep_alive", t.KeepAlive}, {"tunnel", t.Tunnel}, {"check", t.Check},
	} {
		v.duration("timeouts."+d.field, d.value)
	}
	seen := make(map[string]bool, len(c.Backends))
	for i := range c.Backends {
		b := &c.Backends[i]
		v.check(!seen[b.Name], "backends["+strconv.Itoa(i)+"].name", b.Name, "is there twice")
		seen[b.Name] = true
		v.backend(b)
	}
	return errors.Join(v...)
}

// validateChange is Validate for a configuration that follows a valid one: a
// server that was there before is not looked at again.
func validateChange(before *Config, c Config) error {
	if before == nil || !sameButServers(*before, c) {
		return c.Validate()
	}
	changed := c
	changed.Backends = slices.Clone(c.Backends)
	for i := range changed.Backends {
		was, is := before.Backends[i].Servers, c.Backends[i].Servers
		var look []Server
		for len(is) > 0 {
			for len(was) > 0 && was[0].Name < is[0].Name {
				was = was[1:]
			}
			if len(was) == 0 || was[0] != is[0] {
				look = append(look, is[0])
			}
			if len(is) > 1 && is[0].Name >= is[1].Name {
				return c.Validate() // says which
			}
			is = is[1:]
		}
		changed.Backends[i].Servers = look
	}
	return changed.Validate()
}

func (v *validation) backend(b *Backend) {
	at := func(f string) string { return "backends[" + strconv.Quote(b.Name) + "]." + f }
	v.check(word(b.Name, 64), at("name"), b.Name, "must be 1 to 64 letters, digits and ._-")
	v.check(b.Balance == "" || slices.Contains(Balances, b.Balance), at("balance"), b.Balance, "must be one of "+strings.Join(Balances, ", "))
	v.check(b.HealthCheckPath == "" || uri(b.HealthCheckPath), at("health_check_path"), b.HealthCheckPath, "must be a path such as /healthz: it starts with / and has no blank, quote, backslash, # or control character")
	v.check(b.HealthCheckHost == "" || hostName(b.HealthCheckHost), at("health_check_host"), b.HealthCheckHost, "must be a host name")
	v.check(b.CheckFall >= 0 && b.CheckFall <= 1000, at("check_fall"), b.CheckFall, "must be 0 to 1000")
	v.check(b.CheckRise >= 0 && b.CheckRise <= 1000, at("check_rise"), b.CheckRise, "must be 0 to 1000")
	v.check(b.MaxConn >= 0 && b.MaxConn <= 10_000_000, at("maxconn"), b.MaxConn, "must be 0 to 10000000")
	v.duration(at("check_inter"), b.CheckInter)
	v.duration(at("slow_start"), b.SlowStart)
	v.duration(at("timeout_connect"), b.TimeoutConnect)
	v.duration(at("timeout_server"), b.TimeoutServer)
	v.duration(at("timeout_queue"), b.TimeoutQueue)
	for _, h := range b.Hosts {
		v.check(hostName(strings.TrimPrefix(h, "*.")), at("hosts"), h, "must be a host name without a port; it may begin with *.")
	}
	for _, p := range b.Paths {
		v.check(uri(p) && !strings.Contains(p, "?") && !strings.Contains(p, "//"), at("paths"), p, "must be a path such as /api: it starts with / and has no //, blank, quote, backslash, #, ? or control character")
	}
	for i := range b.Servers {
		s := &b.Servers[i]
		if i > 0 && s.Name <= b.Servers[i-1].Name {
			v.check(false, at("servers["+strconv.Itoa(i)+"].name"), s.Name, "is there twice or not in the order of names")
		}
		if s.valid() {
			continue
		}
		at := func(f string) string { return at("servers[" + strconv.Itoa(i) + "]." + f) }
		v.check(word(s.Name, 64), at("name"), s.Name, "must be 1 to 64 letters, digits and ._-")
		v.check(validAddr(s.Address), at("address"), s.Address, "must be a unicast IP address without a zone")
		v.check(s.Port != 0, at("port"), s.Port, "must be 1 to 65535")
		v.check(s.Weight <= 256, at("weight"), s.Weight, "must be 0 to 256")
		v.check(validComment(s.Hostname), at("hostname"), s.Hostname, "must be a host name")
	}
}

func (s *Server) valid() bool {
	return word(s.Name, 64) && validAddr(s.Address) && s.Port != 0 && s.Weight <= 256 && validComment(s.Hostname)
}

// CheckSocketPath says whether a Unix socket can have this path.
func CheckSocketPath(path string) error {
	switch {
	case !filePath(path):
		return errors.New("must be an absolute path of letters, digits and ._-+@/")
	case len(path) > maxSocketPath:
		return fmt.Errorf("is %d bytes long, but the path of a Unix socket may have only %d here: choose a shorter directory", len(path), maxSocketPath)
	}
	return nil
}

type validation []error

func (v *validation) check(ok bool, field string, value any, mend string) {
	if !ok {
		*v = append(*v, fmt.Errorf("%s: %q %s", field, fmt.Sprint(value), mend))
	}
}

// maxDuration keeps below HAProxy's own limit: 2^31 ms.
const maxDuration = 24 * 24 * time.Hour

func (v *validation) duration(field string, d time.Duration) {
	v.check(d >= 0 && d <= maxDuration && d%time.Millisecond == 0, field, d, "must be whole milliseconds, 0 to 24 days")
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func validAddr(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.Is4In6()
}

func validLog(s string) bool {
	if s == "" || s == "stdout" || s == "stderr" || filePath(s) {
		return true
	}
	host, ok := bindHost(s)
	return ok && host != "" && host != "*"
}

// bindHost splits address:port and says whether both can stand in the file.
func bindHost(s string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(s)
	if err != nil || len(port) > 5 {
		return "", false
	}
	for i := range len(port) {
		if port[i] < '0' || port[i] > '9' {
			return "", false
		}
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 {
		return "", false
	}
	if host == "" || host == "*" {
		return host, true
	}
	a, err := netip.ParseAddr(host)
	return host, err == nil && a.Zone() == ""
}

func all(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func word(s string, longest int) bool {
	return s != "" && len(s) <= longest && all(s, func(c byte) bool { return alnum(c) || c == '.' || c == '_' || c == '-' })
}

func hostName(s string) bool { return word(s, 253) }

func validComment(s string) bool { return s == "" || hostName(s) }

func filePath(s string) bool {
	return filepath.IsAbs(s) && filepath.Clean(s) == s && all(s, func(c byte) bool { return alnum(c) || strings.IndexByte("._-+@/", c) >= 0 })
}

// uri is the path (and query) of a request: what HAProxy's parser takes as one
// plain word in which nothing is expanded. A percent sign is refused because
// HAProxy may read it as a log-format sign.
func uri(s string) bool {
	return strings.HasPrefix(s, "/") && len(s) <= 512 && all(s, func(c byte) bool {
		return alnum(c) || strings.IndexByte("/._~-!&()*+,;=:@?", c) >= 0
	})
}
