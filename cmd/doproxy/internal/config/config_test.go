package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
)

const testToken = "dop_v1_0123456789abcdef"

// testWorld has these files in /etc/doproxy, and the token in its environment.
func testWorld(files map[string]string) world {
	root := fstest.MapFS{}
	for name, data := range files {
		mode := fs.FileMode(0o600)
		if strings.HasPrefix(name, "open-") {
			mode = 0o644
		}
		root["etc/doproxy/"+name] = &fstest.MapFile{Data: []byte(data), Mode: mode}
	}
	at := func(name string) string { return strings.TrimPrefix(name, "/") }
	return world{
		env: func(name string) (string, bool) {
			return testToken, name == "DIGITALOCEAN_TOKEN"
		},
		hostname: func() (string, error) { return "LB-1.example.com", nil },
		stat:     func(name string) (fs.FileInfo, error) { return fs.Stat(root, at(name)) },
		read:     func(name string) ([]byte, error) { return fs.ReadFile(root, at(name)) },
	}
}

const file = "/etc/doproxy/doproxy.yml"

func mustParse(t *testing.T, text string, w world) *Config {
	t.Helper()
	c, err := parse(file, []byte(text), w)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return c
}

func defaults() *Config {
	return &Config{
		File: file, Cluster: "default", Node: "lb-1",
		Token: testToken, TokenFrom: "environment variable DIGITALOCEAN_TOKEN",
		DigitalOcean: DigitalOcean{URL: "https://api.digitalocean.com/"},
		Store:        StoreEtcd,
		Etcd:         &Etcd{Endpoints: []string{"http://127.0.0.1:2379"}},
		API:          API{Socket: "/run/doproxy/doproxy.sock", Listen: []string{"127.0.0.1:7475"}, HTTP: "127.0.0.1:7476"},
		StateDir:     "/var/lib/doproxy",
		LeaseTTL:     2 * time.Second,
		NodeTTL:      2 * time.Second,
		HAProxy: HAProxy{
			Mode: Systemd, ConfigFile: "/etc/haproxy/haproxy.cfg", MasterSocket: "/run/haproxy-master.sock",
			PIDFile: "/run/haproxy.pid", AuditInterval: 10 * time.Second,
			Global: haproxy.Global{
				AdminSocket: "/run/haproxy/admin.sock", StatsBind: "127.0.0.1:8404", Log: "/dev/log", LogFacility: "local0",
				User: "haproxy", Group: "haproxy", HardStopAfter: 5 * time.Minute,
			},
			Binds: []haproxy.Bind{{Address: "*:80"}},
			Timeouts: haproxy.Timeouts{
				Connect: 4 * time.Second, Client: 30 * time.Second, Server: 30 * time.Second, Queue: 10 * time.Second,
				HTTPRequest: 10 * time.Second, KeepAlive: 30 * time.Second, Tunnel: time.Hour, Check: 5 * time.Second,
			},
		},
		Fleet: Fleet{
			PollInterval: 5 * time.Second, PollIntervalIdle: time.Minute, CreateTimeout: 30 * time.Second,
			Settle: 30 * time.Second, RemoveDeadline: 30 * time.Second, BackoffMin: 5 * time.Second, BackoffMax: 5 * time.Minute,
		},
		Pools: []Pool{},
	}
}

func TestDefaults(t *testing.T) {
	for _, text := range []string{"", "---\n", "# nothing\n", "~\n", "&a\nnode: lb-1", "pools:\n", "node: lb-1\netcd:\n  endpoints: []\n"} {
		got := mustParse(t, text, testWorld(nil))
		if want := defaults(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n got %+v\nwant %+v", text, got, want)
		}
	}
	if err := (haproxy.Config{Global: defaults().HAProxy.Global, Binds: defaults().HAProxy.Binds, Timeouts: defaults().HAProxy.Timeouts}).Validate(); err != nil {
		t.Errorf("HAProxy could not have the defaults: %v", err)
	}
}

func TestEverySetting(t *testing.T) {
	got := mustParse(t, `
cluster: prod
node: lb-7
token_file: secrets/token
digitalocean: {url: "http://127.0.0.1:8080"}
etcd:
  endpoints: ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]
  username: root
  password_file: password
  ca_file: ca.pem
  cert_file: etcd.pem
  key_file: /keys/etcd.key
api:
  socket: run.sock
  listen: ["127.0.0.1:1", "[::1]:2", "10.0.0.5:7475"]
  http: off
  tls: {cert_file: api.pem, key_file: api.key, client_ca_file: clients.pem}
state_dir: state
lease_ttl: 10s
node_ttl: 1m
haproxy:
  mode: managed
  binary: /opt/haproxy
  template: my.tmpl
  bind: "*:8080"
  bind_tls: ["*:8443"]
  certificate: site.pem
  stats: off
  log: off
  maxconn: 1000
  audit_interval: 1s
  timeouts: {client: 1500ms}
fleet: {poll_interval: 1s, backoff_min: 1m, backoff_max: 1h}
advertise: {public_ipv4: 203.0.113.5, public_ipv6: "2001:db8::5", private_ipv4: 10.0.0.5, droplet_id: 4202644}
limits: {droplets: 60, cost_hourly: 1.25, creates_hourly: 100, leave_percent: 25}
ingress:
  reserved_ips: [203.0.113.10, "2001:db8::10"]
  dns:
    - {domain: example.com, name: www, ttl: 30}
    - {domain: example.com, name: "@"}
  fail_after: 500ms
  settle_after: 1m
  stale_after: 20s
  hold_down: 10s
pools:
  - name: web
    hostname_prefix: Web.prod
    desired: 3
    min: 2
    max: 50
    template:
      region: nyc3
      size: s-1vcpu-1gb
      image: 4202645
      ssh_keys: [163420, "3b:16:bf:e4:8b:00:8b:b8:59:8c:a9:d3:f0:19:45:fa"]
      user_data_file: web.yml
      vpc: 5a4981aa-9653-4bd1-bef5-d6bff52042e4
      ipv6: true
      monitoring: true
      tags: [web, "env:prod"]
    backend:
      port: 8080
      balance: leastconn
      health_path: /healthz
      check_interval: 500ms
      fall: 5
      rise: 1
      maxconn: 100
      hosts: [www.example.com, "*.example.org"]
      paths: [/api]
    policy: {boot_deadline: 3m, drain_deadline: 30s}
`, func() world {
		w := testWorld(map[string]string{"secrets/token": testToken + "x\n", "password": "pass word\n", "my.tmpl": "global\n", "site.pem": "PEM\n", "web.yml": "#cloud-config\n"})
		w.env = func(string) (string, bool) { return "", false }
		return w
	}())
	want := defaults()
	want.Cluster, want.Node = "prod", "lb-7"
	want.Token, want.TokenFrom = testToken+"x", "token_file /etc/doproxy/secrets/token"
	want.DigitalOcean.URL = "http://127.0.0.1:8080/"
	want.Etcd = &Etcd{
		Endpoints: []string{"https://10.0.0.1:2379", "https://10.0.0.2:2379"}, Username: "root", Password: "pass word",
		CAFile: "/etc/doproxy/ca.pem", CertFile: "/etc/doproxy/etcd.pem", KeyFile: "/keys/etcd.key",
	}
	want.API = API{
		Socket: "/etc/doproxy/run.sock", Listen: []string{"127.0.0.1:1", "[::1]:2", "10.0.0.5:7475"},
		TLS: &TLS{"/etc/doproxy/api.pem", "/etc/doproxy/api.key", "/etc/doproxy/clients.pem"},
	}
	want.StateDir, want.LeaseTTL, want.NodeTTL = "/etc/doproxy/state", 10*time.Second, time.Minute
	want.HAProxy = HAProxy{
		Mode: Managed, Binary: "/opt/haproxy", TemplateFile: "/etc/doproxy/my.tmpl", ConfigFile: "/etc/doproxy/state/haproxy.cfg",
		MasterSocket: "/etc/doproxy/state/haproxy-master.sock", PIDFile: "/etc/doproxy/state/haproxy.pid", AuditInterval: time.Second,
		Global:   haproxy.Global{AdminSocket: "/etc/doproxy/state/haproxy.sock", MaxConn: 1000, LogFacility: "local0", HardStopAfter: 5 * time.Minute},
		Binds:    []haproxy.Bind{{Address: "*:8080"}, {Address: "*:8443", Certificate: "/etc/doproxy/site.pem"}},
		Timeouts: want.HAProxy.Timeouts,
	}
	want.HAProxy.Timeouts.Client = 1500 * time.Millisecond
	want.Fleet.PollInterval, want.Fleet.BackoffMin, want.Fleet.BackoffMax = time.Second, time.Minute, time.Hour
	want.Advertise = got.Advertise
	if s := fmt.Sprint(got.Advertise); s != "{203.0.113.5 2001:db8::5 10.0.0.5 4202644}" {
		t.Errorf("advertise is %s", s)
	}
	want.Settings = &inventory.Settings{
		Limits: inventory.Limits{Droplets: 60, CostHourly: 1.25, CreatesHourly: 100, LeavePercent: 25},
		Ingress: inventory.Ingress{
			ReservedIPs: []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8::10")},
			DNS:         []inventory.DNSName{{Domain: "example.com", Name: "www", TTL: 30}, {Domain: "example.com", Name: "@"}},
			FailAfter:   inventory.Duration(500 * time.Millisecond), SettleAfter: inventory.Duration(time.Minute),
			StaleAfter: inventory.Duration(20 * time.Second), HoldDown: inventory.Duration(10 * time.Second),
		},
	}
	want.Pools = []Pool{{
		Desired: 3, DesiredSet: true,
		PoolSpec: inventory.PoolSpec{
			Name: "web", HostnamePrefix: "Web.prod", Min: 2, Max: 50,
			Template: inventory.Template{
				Region: "nyc3", Size: "s-1vcpu-1gb", Image: "4202645",
				SSHKeys:  []string{"163420", "3b:16:bf:e4:8b:00:8b:b8:59:8c:a9:d3:f0:19:45:fa"},
				UserData: "#cloud-config\n", VPC: "5a4981aa-9653-4bd1-bef5-d6bff52042e4", IPv6: true, Monitoring: true,
				Tags: []string{"web", "env:prod"},
			},
			Backend: inventory.Backend{
				Port: 8080, Balance: "leastconn", HealthPath: "/healthz", CheckInterval: inventory.Duration(500 * time.Millisecond),
				Fall: 5, Rise: 1, MaxConn: 100, Hosts: []string{"www.example.com", "*.example.org"}, Paths: []string{"/api"},
			},
			Policy: inventory.Policy{BootDeadline: inventory.Duration(3 * time.Minute), DrainDeadline: inventory.Duration(30 * time.Second)},
		},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func TestToken(t *testing.T) {
	files := map[string]string{"token": "from-token-file\n"}
	for _, c := range []struct {
		name, text string
		env        map[string]string
		want, from string
	}{
		{"file", "token: from-the-file\n", nil, "from-the-file", "token"},
		{"digits", "token: 12345678\n", nil, "12345678", "token"},
		{"like a float", "token: 1234e5678\n", nil, "1234e5678", "token"},
		{"token file", "token_file: token\n", nil, "from-token-file", "token_file /etc/doproxy/token"},
		{"DigitalOcean's variable", "node: a\n", map[string]string{"DIGITALOCEAN_TOKEN": "from-digitalocean"}, "from-digitalocean", "environment variable DIGITALOCEAN_TOKEN"},
		{"one left over", "token_file: token\n", map[string]string{"DIGITALOCEAN_TOKEN": "from-digitalocean"}, "from-token-file", "token_file /etc/doproxy/token"},
		{"doproxy's variable", "token_file: missing\n", map[string]string{"DIGITALOCEAN_TOKEN": "from-digitalocean", "DOPROXY_TOKEN": "from-doproxy"}, "from-doproxy", "environment variable DOPROXY_TOKEN"},
		{"empty variable", "token: from-the-file\n", map[string]string{"DIGITALOCEAN_TOKEN": ""}, "from-the-file", "token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := testWorld(files)
			w.env = func(k string) (string, bool) { v, ok := c.env[k]; return v, ok }
			got := mustParse(t, c.text, w)
			if got.Token.Reveal() != c.want || got.TokenFrom != c.from {
				t.Errorf("the token is %q from %q", got.Token.Reveal(), got.TokenFrom)
			}
			if s := fmt.Sprintf("%v %+v %#v %s %q", got, *got, *got, got.Token, got.Token); strings.Contains(s, c.want) {
				t.Errorf("the configuration prints the token: %s", s)
			}
		})
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, err := parse(file, []byte(`pools:
  - name: Web
    template: {region: nyc3, size: s-1vcpu-1gb, image: a}
    max: 5000
haproxy:
  bnid: x
cluster: [a]
lease_ttl: 1s
`), testWorld(nil))
	const want = `/etc/doproxy/doproxy.yml:2: pools[0].name: "Web" is not a name: use 1 to 40 of a-z, 0-9 and inner hyphens
/etc/doproxy/doproxy.yml:4: pools[0].max: 5000 is out of range: use 0 to 1000
/etc/doproxy/doproxy.yml:6: haproxy.bnid: unknown key: did you mean bind?
/etc/doproxy/doproxy.yml:7: cluster: a list is not text: write one value
/etc/doproxy/doproxy.yml:8: lease_ttl: 1s is out of range: use 2s to 1m`
	if fmt.Sprint(err) != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.File != file || e.Line != 2 || e.Key != "pools[0].name" {
		t.Errorf("the first error is %#v", e)
	}
}

func TestNoToken(t *testing.T) {
	w := testWorld(badFiles)
	w.env = func(string) (string, bool) { return "", false }
	for text, want := range map[string]string{
		"":                          ": there is no DigitalOcean token: set token_file (or token, or the environment variable DIGITALOCEAN_TOKEN), or never_lead on a node that is only to balance",
		"token_file: missing\n":     `:1: token_file: cannot read "/etc/doproxy/missing": file does not exist`,
		"token_file: open-secret\n": `:1: token_file: "/etc/doproxy/open-secret" can be read by every user of this machine: run chmod o= /etc/doproxy/open-secret`,
	} {
		if _, err := parse(file, []byte(text), w); fmt.Sprint(err) != file+want {
			t.Errorf("%q: %v", text, err)
		}
	}
	if c, err := parse(file, []byte("never_lead: true\n"), w); err != nil || !c.NeverLead {
		t.Errorf("never_lead needs no token: %v", err)
	}
	w.env = func(k string) (string, bool) { return "not a token", true }
	if _, err := parse(file, nil, w); fmt.Sprint(err) != file+": the environment variable DOPROXY_TOKEN does not hold a DigitalOcean token: set it to one, or unset it" {
		t.Errorf("%v", err)
	}
}

func TestHostnameThatIsNoName(t *testing.T) {
	w := testWorld(nil)
	w.hostname = func() (string, error) { return "my_host", nil }
	_, err := parse(file, nil, w)
	if want := file + `: node: is not set, and this machine's hostname "my_host" is no name for a node: set node to 1 to 40 of a-z, 0-9 and inner hyphens`; fmt.Sprint(err) != want {
		t.Errorf("%v", err)
	}
}

// No error repeats a token, wherever it was written.
func TestErrorsHideTokens(t *testing.T) {
	const secret = "dop_v1_f00dfeedf00dfeedf00dfeedf00dfeedf00dfeedf00dfeedf00dfeedf00dfeed"
	for _, text := range []string{
		"tokn: " + secret, "token: " + secret + " x", "token: \"" + secret, "token: [" + secret + "]", "token: {" + secret + ": a}",
		secret, "- " + secret, secret + ": a", "digitalocean: " + secret, "cluster: " + secret, "lease_ttl: " + secret,
		"token: @" + secret, "token: *" + secret, "token: !" + secret + " a", "pools: " + secret, pool("max: " + secret), "token_file: " + secret,
		"api: {listen: " + secret + "}", "token: a\ntoken: " + secret, "token:\n\t" + secret, "token: |x\n  " + secret, "etcd: {endpoints: '" + secret + "'}",
	} {
		w := testWorld(nil)
		w.env = func(string) (string, bool) { return "", false }
		_, err := parse(file, []byte(text), w)
		if err == nil {
			t.Errorf("%q: no error", text)
		} else if strings.Contains(err.Error(), "f00d") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	for text, want := range map[string]string{
		"api: {http: '0.0.0.0:9100'}\n":                `:1: api.http: "0.0.0.0:9100" can be reached from other machines: whoever reaches it can read the metrics`,
		"digitalocean:\n  url: http://10.0.0.1:8080\n": `:2: digitalocean.url: "http://10.0.0.1:8080" sends the token unencrypted: use https`,
		"inventory_file: inventory\n":                  ":1: inventory_file: \"inventory\" lists droplets: take them over once with `doproxy import /etc/doproxy/inventory`, then remove this key",
		"haproxy_template_file: old\n":                 `:1: haproxy_template_file: "old" is an ERB template of DOProxy's, which doproxy does not run; the built-in template is used: carry your changes over to a Go template (docs/configuration.md, "HAProxy's template"), name it in haproxy.template and remove this key`,
	} {
		c := mustParse(t, text, testWorld(map[string]string{"inventory": "1\n", "old": "<%= x %>"}))
		if len(c.Warnings) != 1 || c.Warnings[0] != file+want {
			t.Errorf("%q:\n got %q\nwant %q", text, c.Warnings, file+want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "doproxy.yml")
	if _, err := Load(path, nil); fmt.Sprint(err) != path+": cannot be read: no such file or directory" {
		t.Errorf("%v", err)
	}
	if _, err := Load(dir, nil); fmt.Sprint(err) != dir+": cannot be read: it is a folder" {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(path, []byte("node: lb\ntoken: "+testToken+"\nstate_dir: state\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.File != path || c.StateDir != filepath.Join(dir, "state") || c.Token != testToken {
		t.Errorf("%+v", c)
	}
	if want := path + ":2: token: the file can be read by every user of this machine: run chmod o= " + path + ", or move the token to a token_file"; len(c.Warnings) != 1 || c.Warnings[0] != want {
		t.Errorf("warnings are %q", c.Warnings)
	}
}

func TestAnchors(t *testing.T) {
	c := mustParse(t, `
pools:
  - name: web
    template: &small {region: nyc3, size: s-1vcpu-1gb, image: debian-12-x64, tags: [a, b]}
  - name: api
    template:
      <<: *small
      size: s-2vcpu-2gb
      tags: [c]
`, testWorld(nil))
	want := inventory.Template{Region: "nyc3", Size: "s-2vcpu-2gb", Image: "debian-12-x64", Tags: []string{"c"}}
	if got := c.Pools[1].Template; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestAliasesThatMultiply(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x]\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d]\n", i, i, i-1, i-1)
	}
	b.WriteString("pools: *a29\nnode: &n [*n]\n")
	if _, err := parse(file, []byte(b.String()), testWorld(nil)); err == nil {
		t.Error("no error")
	}
}
