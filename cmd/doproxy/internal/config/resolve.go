package config

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
)

func (r *resolver) config() *Config {
	f := r.file
	c := &Config{
		Cluster:  or(f.Cluster, "default"),
		Node:     f.Node,
		StateDir: r.path(or(f.StateDir, "/var/lib/doproxy")),
		LeaseTTL: r.seconds("lease_ttl", f.LeaseTTL, 2*time.Second, time.Minute, 2*time.Second),
		NodeTTL:  r.seconds("node_ttl", f.NodeTTL, 2*time.Second, time.Minute, 2*time.Second),
	}
	r.valid("cluster", c.Cluster, inventory.ValidName)
	if c.Node == "" {
		host, err := r.hostname()
		name, _, _ := strings.Cut(host, ".")
		c.Node = strings.ToLower(name)
		if err != nil || inventory.ValidName(c.Node) != nil {
			r.addf("node", "is not set, and this machine's hostname %s is no name for a node: set node to 1 to 40 of a-z, 0-9 and inner hyphens", show(host))
		}
	} else {
		r.valid("node", c.Node, inventory.ValidName)
	}
	c.NeverLead = f.NeverLead
	c.Token, c.TokenFrom = r.token()
	c.DigitalOcean = r.digitalOcean()
	c.Store, c.Etcd, c.Raft = r.store()
	c.API = r.api()
	c.HAProxy = r.haproxy(c.StateDir)
	c.Fleet = r.fleet()
	c.Advertise = Advertise{
		PublicIPv4:  r.addr("advertise.public_ipv4", f.Advertise.PublicIPv4, "IPv4", netip.Addr.Is4),
		PublicIPv6:  r.addr("advertise.public_ipv6", f.Advertise.PublicIPv6, "IPv6", is6),
		PrivateIPv4: r.addr("advertise.private_ipv4", f.Advertise.PrivateIPv4, "IPv4", netip.Addr.Is4),
		Droplet:     r.dropletID("advertise.droplet_id", f.Advertise.DropletID),
	}
	c.Pools = r.pools()
	c.Settings = r.settings()
	c.InventoryFile = r.oldInventory()
	return c
}

func is6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }

// token is the first of DOPROXY_TOKEN, the file's, and DIGITALOCEAN_TOKEN:
// that variable is many programs', so one left over in the environment must
// not replace what the file says.
func (r *resolver) token() (Secret, string) {
	f := r.file
	if f.Token != "" {
		if !tokenPattern.MatchString(f.Token.Reveal()) {
			r.addf("token", "the value is not a DigitalOcean token: paste one from %s", tokensPage)
		}
		if info, err := r.stat(r.problems.file); err == nil && info.Mode().Perm()&0o004 != 0 {
			r.warnf("token", "the file can be read by every user of this machine: run chmod o= %s, or move the token to a token_file", r.problems.file)
		}
		if f.TokenFile != "" {
			r.addf("token_file", "%s is set beside token: keep one of them", show(f.TokenFile))
		}
	}
	if t, ok := r.variable("DOPROXY_TOKEN"); ok {
		return t, "environment variable DOPROXY_TOKEN"
	}
	if f.TokenFile != "" {
		t, ok := r.secretFile("token_file", f.TokenFile)
		if ok && !tokenPattern.MatchString(t.Reveal()) {
			r.addf("token_file", "%s does not hold a DigitalOcean token: paste one from %s", show(r.path(f.TokenFile)), tokensPage)
		}
		return t, "token_file " + r.path(f.TokenFile)
	}
	if f.Token != "" || r.has("token") || r.has("token_file") {
		return f.Token, "token"
	}
	if t, ok := r.variable("DIGITALOCEAN_TOKEN"); ok {
		return t, "environment variable DIGITALOCEAN_TOKEN"
	}
	if !f.NeverLead {
		r.addAt(0, "", "there is no DigitalOcean token: set token_file (or token, or the environment variable DIGITALOCEAN_TOKEN), or never_lead on a node that is only to balance")
	}
	return "", ""
}

const tokensPage = "https://cloud.digitalocean.com/account/api/tokens"

// variable is a token from the environment; an empty one is none.
func (r *resolver) variable(name string) (Secret, bool) {
	v, ok := r.env(name)
	if !ok || v == "" {
		return "", false
	}
	if !tokenPattern.MatchString(v) {
		r.addAt(0, "", "the environment variable "+name+" does not hold a DigitalOcean token: set it to one, or unset it")
	}
	return Secret(v), true
}

func (r *resolver) digitalOcean() DigitalOcean {
	key, raw := "digitalocean.url", or(r.file.DigitalOcean.URL, "https://api.digitalocean.com/")
	u := r.url(key, raw, "https://api.digitalocean.com/")
	if u == nil {
		return DigitalOcean{}
	}
	if u.Scheme == "http" && !loopbackHost(u.Hostname()) {
		r.warnf(key, "%s sends the token unencrypted: use https", show(raw))
	}
	return DigitalOcean{URL: strings.TrimSuffix(u.String(), "/") + "/"}
}

// url checks an http or https URL; nil after an error.
func (r *resolver) url(key, raw, example string) *url.URL {
	u, err := url.Parse(raw)
	switch {
	case err == nil && u.User != nil:
		r.addf(key, "the value holds a user name or password: leave them out")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		r.addf(key, "%s is not a URL that can be used here: write one such as %s", show(raw), example)
	default:
		return u
	}
	return nil
}

func loopbackHost(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// store resolves which store is used, and each that is configured.
func (r *resolver) store() (kind string, etcd *Etcd, raft *Raft) {
	kind = or(r.file.Store, StoreEtcd)
	switch kind {
	case StoreEtcd, StoreRaft:
	default:
		r.addf("store", "%s is unknown: use raft (kept by the agents themselves) or etcd", show(kind))
	}
	if kind == StoreEtcd || r.has("etcd") {
		e := r.etcd()
		etcd = &e
	}
	if kind == StoreRaft || r.has("raft") {
		raft = r.raft()
	}
	return kind, etcd, raft
}

// raftPort is where members reach each other if nothing else is said.
const raftPort = "7477"

func (r *resolver) raft() *Raft {
	f := r.file.Raft
	c := &Raft{Address: f.Address, Plain: f.Plain, DeadAfter: r.duration("raft.dead_after", f.DeadAfter, time.Second, 30*24*time.Hour, 10*time.Minute)}
	if c.Address == "" {
		private := r.file.Advertise.PrivateIPv4
		if private == "" {
			key := "raft.address"
			if !r.has("raft") {
				key = "store"
			}
			r.addf(key, "the integrated store must know where the other members reach this node: set raft.address, such as 10.132.0.2:%s, or advertise.private_ipv4", raftPort)
			return c
		}
		c.Address = net.JoinHostPort(private, raftPort)
	}
	c.Listen = or(f.Listen, c.Address)
	host, port, err := net.SplitHostPort(c.Address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	address, notIP := netip.ParseAddr(host)
	switch {
	case err != nil, portErr != nil, number == 0, host == "":
		r.addf("raft.address", "%s is not host:port: write where the other members reach this node, such as 10.132.0.2:%s", show(c.Address), raftPort)
		return c
	case notIP == nil && address.IsUnspecified():
		r.addf("raft.address", "%s is no address that others can reach: write this node's own, such as 10.132.0.2:%s, and set raft.listen to %s", show(c.Address), raftPort, c.Address)
		return c
	}
	loopback := loopbackHost(host)
	if f.Listen != "" {
		listens, ok := r.address("raft.listen", f.Listen, "10.132.0.2:"+raftPort)
		loopback = loopback && (listens || !ok)
	}
	if f.Plain && !loopback {
		r.addf("raft.plain", "%s can be reached from other machines, and what members say to each other holds secrets: leave raft.plain out", show(c.Listen))
	}
	return c
}

func (r *resolver) etcd() Etcd {
	f := r.file.Etcd
	e := Etcd{
		Endpoints: f.Endpoints,
		Username:  f.Username,
		CAFile:    r.path(f.CAFile),
		CertFile:  r.path(f.CertFile),
		KeyFile:   r.path(f.KeyFile),
	}
	if len(e.Endpoints) == 0 {
		e.Endpoints = []string{"http://127.0.0.1:2379"}
	}
	for i, raw := range e.Endpoints {
		r.url(index("etcd.endpoints", i), raw, "http://127.0.0.1:2379")
	}
	if f.Username != "" && f.PasswordFile == "" {
		r.addf("etcd.username", "%s has no password: set etcd.password_file", show(f.Username))
	}
	if f.Username == "" && f.PasswordFile != "" {
		r.addf("etcd.password_file", "%s is of no user: set etcd.username", show(f.PasswordFile))
	}
	r.pair("etcd.cert_file", f.CertFile, "etcd.key_file", f.KeyFile)
	if f.PasswordFile != "" {
		e.Password, _ = r.secretFile("etcd.password_file", f.PasswordFile)
	}
	return e
}

// pair checks that a certificate and its key come together.
func (r *resolver) pair(certKey, cert, keyKey, key string) {
	if cert != "" && key == "" {
		r.addf(certKey, "%s has no key: set %s", show(cert), keyKey)
	}
	if cert == "" && key != "" {
		r.addf(keyKey, "%s has no certificate: set %s", show(key), certKey)
	}
}

func (r *resolver) api() API {
	f := r.file.API
	a := API{
		Socket: r.socketPath("api.socket", or(f.Socket, "/run/doproxy/doproxy.sock")),
		Listen: f.Listen,
		HTTP:   or(f.HTTP, "127.0.0.1:7476"),
	}
	if f.Listen == nil {
		a.Listen = []string{"127.0.0.1:7475"}
	}
	tls := f.TLS
	r.pair("api.tls.cert_file", tls.CertFile, "api.tls.key_file", tls.KeyFile)
	if tls.CertFile != "" {
		a.TLS = &TLS{r.path(tls.CertFile), r.path(tls.KeyFile), r.path(tls.ClientCAFile)}
	} else if tls.ClientCAFile != "" {
		r.addf("api.tls.client_ca_file", "%s is of no use without a certificate: set api.tls.cert_file and api.tls.key_file", show(tls.ClientCAFile))
	}
	taken := make(map[string]string)
	for i, l := range a.Listen {
		key := index("api.listen", i)
		loopback, ok := r.address(key, l, "127.0.0.1:7475")
		if !ok {
			continue
		}
		if other, twice := taken[l]; twice {
			r.addf(key, "%s is taken by %s: use another port", show(l), other)
		}
		if !strings.HasSuffix(l, ":0") { // the kernel chooses the port
			taken[l] = key
		}
		switch {
		case loopback:
		case a.TLS == nil:
			r.addf(key, "%s can be reached from other machines, and who reaches it can create and delete droplets: set api.tls (cert_file, key_file, client_ca_file), or listen on 127.0.0.1", show(l))
		case a.TLS.ClientCAFile == "":
			r.addf(key, "%s can be reached from other machines, and without client certificates anyone there can create and delete droplets: set api.tls.client_ca_file, or listen on 127.0.0.1", show(l))
		}
	}
	if a.HTTP == off {
		a.HTTP = ""
		return a
	}
	loopback, ok := r.address("api.http", a.HTTP, "127.0.0.1:7476")
	if other, twice := taken[a.HTTP]; ok && twice {
		r.addf("api.http", "%s is taken by %s: use another port", show(a.HTTP), other)
	}
	if ok && !loopback {
		r.warnf("api.http", "%s can be reached from other machines: whoever reaches it can read the metrics", show(a.HTTP))
	}
	return a
}

func (r *resolver) haproxy(stateDir string) HAProxy {
	f := r.file.HAProxy
	at := func(key string) string { return "haproxy." + key }
	h := HAProxy{Mode: or(f.Mode, Systemd)}
	config, admin, master, pid, user := "/etc/haproxy/haproxy.cfg", "/run/haproxy/admin.sock", "/run/haproxy-master.sock", "/run/haproxy.pid", "haproxy"
	switch h.Mode {
	case Systemd:
	case Managed:
		config, admin, master, pid, user = filepath.Join(stateDir, "haproxy.cfg"), filepath.Join(stateDir, "haproxy.sock"), filepath.Join(stateDir, "haproxy-master.sock"), filepath.Join(stateDir, "haproxy.pid"), ""
	default:
		r.addf(at("mode"), "%s is unknown: use systemd or managed", show(f.Mode))
	}
	h.Binary = r.path(f.Binary)
	key, old := at("config_file"), r.oldConfigFile()
	if old != "" {
		key = firstOf([]string{"haproxy_cfg_file", "haproxy_cfg_path"}, r.has)
	}
	h.ConfigFile = r.haproxyPath(key, or(or(f.ConfigFile, old), config))
	h.TemplateFile = r.template()
	h.MasterSocket = r.socketPath(at("master_socket"), or(f.MasterSocket, master))
	h.PIDFile = r.path(or(f.PIDFile, pid))
	h.AuditInterval = r.duration(at("audit_interval"), f.AuditInterval, time.Second, time.Hour, 10*time.Second)
	h.Global = haproxy.Global{
		AdminSocket:   r.socketPath(at("admin_socket"), or(f.AdminSocket, admin)),
		StatsBind:     or(f.Stats, "127.0.0.1:8404"),
		MaxConn:       r.integer(at("maxconn"), f.MaxConn, 0, 10_000_000, 0),
		Log:           or(f.Log, "/dev/log"),
		LogFacility:   or(f.LogFacility, "local0"),
		User:          or(f.User, user),
		Group:         or(f.Group, user),
		HardStopAfter: r.duration(at("hard_stop_after"), f.HardStopAfter, time.Second, 24*time.Hour, 5*time.Minute),
	}
	g := &h.Global
	if g.StatsBind == off {
		g.StatsBind = ""
	}
	if g.Log == off {
		g.Log = ""
	}
	if !inHAProxy(haproxy.Config{Global: haproxy.Global{StatsBind: g.StatsBind}}) {
		r.addf(at("stats"), "%s is not a loopback address with a port: write one such as 127.0.0.1:8404, or off", show(g.StatsBind))
	}
	if !inHAProxy(haproxy.Config{Global: haproxy.Global{Log: g.Log}}) {
		r.addf(at("log"), "%s is no place for log lines: use the absolute path of a syslog socket, address:port, stdout, stderr or off", show(g.Log))
	}
	if !inHAProxy(haproxy.Config{Global: haproxy.Global{LogFacility: g.LogFacility}}) {
		r.addf(at("log_facility"), "%s is not a syslog facility: use one such as local0", show(g.LogFacility))
	}
	if !inHAProxy(haproxy.Config{Global: haproxy.Global{User: g.User}}) {
		r.addf(at("user"), "%s is not a user's name: use letters, digits and ._-", show(g.User))
	}
	if !inHAProxy(haproxy.Config{Global: haproxy.Global{Group: g.Group}}) {
		r.addf(at("group"), "%s is not a group's name: use letters, digits and ._-", show(g.Group))
	}
	h.Binds = r.binds()
	t := f.Timeouts
	timeout := func(key string, value, otherwise time.Duration) time.Duration {
		return r.duration(at("timeouts."+key), value, time.Millisecond, 24*24*time.Hour, otherwise)
	}
	h.Timeouts = haproxy.Timeouts{
		Connect:     timeout("connect", t.Connect, 4*time.Second),
		Client:      timeout("client", t.Client, 30*time.Second),
		Server:      timeout("server", t.Server, 30*time.Second),
		Queue:       timeout("queue", t.Queue, 10*time.Second),
		HTTPRequest: timeout("http_request", t.HTTPRequest, 10*time.Second),
		KeepAlive:   timeout("keep_alive", t.KeepAlive, 30*time.Second),
		Tunnel:      timeout("tunnel", t.Tunnel, time.Hour),
		Check:       timeout("check", t.Check, 5*time.Second),
	}
	return h
}

func (r *resolver) binds() (binds []haproxy.Bind) {
	f := r.file.HAProxy
	plain, tls := f.Bind, f.BindTLS
	if plain == nil {
		plain = []string{"*:80"}
	}
	certificate := r.haproxyPath("haproxy.certificate", f.Certificate)
	if certificate != "" {
		if _, err := r.stat(certificate); errors.Is(err, fs.ErrNotExist) {
			r.warnf("haproxy.certificate", "there is no %s, and HAProxy will not start with it: put a PEM file with chain and key there", show(certificate))
		}
	}
	if tls == nil && f.Certificate != "" {
		tls = []string{"*:443"}
	}
	if len(tls) > 0 && f.Certificate == "" {
		r.addf("haproxy.bind_tls", "needs a certificate: set haproxy.certificate to a PEM file with chain and key")
	}
	add := func(key string, addresses []string, certificate string) {
		for i, a := range addresses {
			b := haproxy.Bind{Address: a, Certificate: certificate}
			if !inHAProxy(haproxy.Config{Binds: []haproxy.Bind{{Address: a}}}) {
				r.addf(index(key, i), "%s is not an address to bind to: write an IP address (or *) and a port, such as *:80 or [::]:80", show(a))
				continue
			}
			binds = append(binds, b)
		}
	}
	add("haproxy.bind", plain, "")
	add("haproxy.bind_tls", tls, certificate)
	return binds
}

func (r *resolver) fleet() Fleet {
	f := r.file.Fleet
	d := func(key string, value, low, high, otherwise time.Duration) time.Duration {
		return r.duration("fleet."+key, value, low, high, otherwise)
	}
	const least = 10 * time.Millisecond
	out := Fleet{
		PollInterval:     d("poll_interval", f.PollInterval, least, time.Minute, 5*time.Second),
		PollIntervalIdle: d("poll_interval_idle", f.PollIntervalIdle, least, time.Hour, time.Minute),
		CreateTimeout:    d("create_timeout", f.CreateTimeout, time.Second, 10*time.Minute, 30*time.Second),
		Settle:           d("settle", f.Settle, least, time.Hour, 30*time.Second),
		RemoveDeadline:   d("remove_deadline", f.RemoveDeadline, least, time.Hour, 30*time.Second),
		BackoffMin:       d("backoff_min", f.BackoffMin, least, time.Hour, 5*time.Second),
		BackoffMax:       d("backoff_max", f.BackoffMax, least, 24*time.Hour, 5*time.Minute),
	}
	if out.PollIntervalIdle < out.PollInterval {
		r.addf("fleet.poll_interval_idle", "%s is below fleet.poll_interval, %s: use at least that", short(out.PollIntervalIdle), short(out.PollInterval))
	}
	if out.BackoffMax < out.BackoffMin {
		r.addf("fleet.backoff_max", "%s is below fleet.backoff_min, %s: use at least that", short(out.BackoffMax), short(out.BackoffMin))
	}
	return out
}
