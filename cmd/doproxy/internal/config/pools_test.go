package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/doproxy/doproxy/inventory"
)

const template1 = "template: {region: nyc3, size: s-1vcpu-1gb, image: debian-12-x64}\n"

func TestParsePools(t *testing.T) {
	spec := func(name string) Pool {
		return Pool{PoolSpec: inventory.PoolSpec{
			Name: name, HostnamePrefix: name, Max: DefaultMax,
			Template: inventory.Template{Region: "nyc3", Size: "s-1vcpu-1gb", Image: "debian-12-x64"},
		}}
	}
	withDesired := spec("web")
	withDesired.Desired, withDesired.DesiredSet = 3, true
	for _, c := range []struct {
		name, text string
		want       []Pool
	}{
		{"one pool", "name: web\ndesired: 3\n" + template1, []Pool{withDesired}},
		{"a list", "pools:\n- name: web\n  " + template1 + "- name: api\n  " + template1, []Pool{spec("web"), spec("api")}},
		{"documents", "---\nname: web\n" + template1 + "---\nname: api\n" + template1 + "---\n", []Pool{spec("web"), spec("api")}},
		{"a whole configuration", "cluster: x\ntoken_file: nowhere\npools:\n- name: web\n  " + template1, []Pool{spec("web")}},
	} {
		got, err := parseDocument("p.yml", []byte(c.text), testWorld(nil))
		if want := (&Document{Pools: c.want}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", c.name, err, got, want)
		}
	}
}

func TestParsePoolsBad(t *testing.T) {
	for _, c := range []problem{
		{"", "p.yml: holds nothing to apply: write a pool, beginning with name:, or limits: or ingress:"},
		{"pools: []\n", "p.yml: holds nothing to apply: write a pool, beginning with name:, or limits: or ingress:"},
		{"web\n", `p.yml:1: "web" is not a mapping: write keys below it, such as name:`},
		{"name: web\nmax: 5000\n" + template1, "p.yml:2: max: 5000 is out of range: use 0 to 1000"},
		{"name: web\ncolor: red\n" + template1, "p.yml:2: color: unknown key: use one of name, hostname_prefix, desired, min, max, template, backend, policy"},
		{"name: web\n" + template1 + "---\nname: web\n" + template1, `p.yml:4: name: "web" is the name of two pools, the first in line 1: rename one`},
		{"name: web\nmax: x\n" + template1 + "---\nname: api\nmax: -1\n" + template1, "p.yml:2: max: \"x\" is not a whole number: write one such as 20\np.yml:6: max: -1 is out of range: use 0 to 1000"},
		{"limits: {droplets: 5}\n---\nlimits: {droplets: 6}\n", "p.yml:3: limits: is there twice, first in line 1: remove one"},
		{"limits: {leave_percent: 101}\n---\nname: web\nmax: -1\n" + template1, "p.yml:1: limits.leave_percent: 101 is out of range: use 1 to 100\np.yml:4: max: -1 is out of range: use 0 to 1000"},
	} {
		_, err := parseDocument("p.yml", []byte(c.text), testWorld(nil))
		if fmt.Sprint(err) != c.want {
			t.Errorf("%q:\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

func TestParseSettings(t *testing.T) {
	limits := inventory.Limits{Droplets: 60, CostHourly: 1.5}
	ingress := inventory.Ingress{ReservedIPs: []netip.Addr{netip.MustParseAddr("203.0.113.10")}}
	const limitsText, ingressText = "limits: {droplets: 60, cost_hourly: 1.5}\n", "ingress:\n  reserved_ips: 203.0.113.10\n"
	web := []Pool{{PoolSpec: inventory.PoolSpec{
		Name: "web", HostnamePrefix: "web", Max: DefaultMax,
		Template: inventory.Template{Region: "nyc3", Size: "s-1vcpu-1gb", Image: "debian-12-x64"},
	}}}
	for _, c := range []struct {
		name, text string
		want       Document
	}{
		{"limits alone", limitsText, Document{Settings: &inventory.Settings{Limits: limits}, HasLimits: true}},
		{"ingress alone", ingressText, Document{Settings: &inventory.Settings{Ingress: ingress}, HasIngress: true}},
		{"none", "limits: {}\ningress: {}\n", Document{Settings: &inventory.Settings{}, HasLimits: true, HasIngress: true}},
		{"a key without a value", "limits:\nname: web\n", Document{}},
		{"beside pools", limitsText + "pools:\n- name: web\n  " + template1, Document{Pools: web, Settings: &inventory.Settings{Limits: limits}, HasLimits: true}},
		{"documents", limitsText + "---\nname: web\n" + template1 + "---\n" + ingressText, Document{Pools: web, Settings: &inventory.Settings{Limits: limits, Ingress: ingress}, HasLimits: true, HasIngress: true}},
	} {
		got, err := parseDocument("p.yml", []byte(c.text), testWorld(nil))
		if c.name == "a key without a value" {
			if err == nil {
				t.Errorf("%s: no error", c.name)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, &c.want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", c.name, err, got, c.want)
		}
	}
}

// oldFile is DOProxy's own sample, filled in as its README says.
const oldFile = `---
token: 878a490235d53e34b44369b8e78
ssh_key_ids:           # DigitalOcean ID for your SSH Key
  - 163420
userdata_file: user-data.yml

haproxy_cfg_file: haproxy.cfg
haproxy_cfg_path: /etc/haproxy
haproxy_template_file: haproxy.cfg.erb


inventory_file: inventory

droplet_options:
  hostname_prefix: auto-nginx
  region: nyc3
  size: 1gb
  image: ubuntu-14-04-x64
`

func TestOldFile(t *testing.T) {
	w := testWorld(map[string]string{"user-data.yml": "#cloud-config\n", "inventory": "", "haproxy.cfg.erb": "<% %>"})
	w.env = func(string) (string, bool) { return "", false }
	got := mustParse(t, oldFile, w)
	if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "ERB template") {
		t.Errorf("warnings are %q", got.Warnings)
	}
	want := defaults()
	want.Warnings = got.Warnings
	want.Token, want.TokenFrom = "878a490235d53e34b44369b8e78", "token"
	want.InventoryFile = "/etc/doproxy/inventory"
	want.Pools = []Pool{{PoolSpec: inventory.PoolSpec{
		Name: "web", HostnamePrefix: "auto-nginx", Max: 20,
		Template: inventory.Template{Region: "nyc3", Size: "1gb", Image: "ubuntu-14-04-x64", SSHKeys: []string{"163420"}, UserData: "#cloud-config\n"},
	}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func TestOldConfigFile(t *testing.T) {
	for text, want := range map[string]string{
		"haproxy_cfg_path: /opt/haproxy\n":                           "/opt/haproxy/haproxy.cfg",
		"haproxy_cfg_file: lb.cfg\n":                                 "/etc/haproxy/lb.cfg",
		"haproxy_cfg_file: /opt/lb.cfg\n":                            "/opt/lb.cfg",
		"haproxy_cfg_file: lb.cfg\nhaproxy_cfg_path: /opt/haproxy\n": "/opt/haproxy/lb.cfg",
		"haproxy_cfg_path: here\n":                                   "/etc/doproxy/here/haproxy.cfg",
	} {
		if got := mustParse(t, text, testWorld(nil)).HAProxy.ConfigFile; got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestParseInventory(t *testing.T) {
	got, err := ParseInventory("inventory", []byte("4202645\n\n# old\n 4202646 \r\n4202647"))
	if want := []int64{4202645, 4202646, 4202647}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	_, err = ParseInventory("inventory", []byte("1\nweb-1\n2\n1\n-5\n"))
	const want = `inventory:2: "web-1" is not the id of a droplet: write one number a line, such as 4202645
inventory:4: 1 is there twice, first in line 1: remove one
inventory:5: "-5" is not the id of a droplet: write one number a line, such as 4202645`
	if fmt.Sprint(err) != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
