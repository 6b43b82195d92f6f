package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

const (
	docsPage = "../../../../docs/configuration.md"
	example  = "../../../../deploy/doproxy.yml"
)

// docsWorld has every file that the documentation names.
func docsWorld() world {
	return testWorld(map[string]string{
		"token": testToken, "etcd-password": "p", "web.yml": "#cloud-config\n", "user-data.yml": "#cloud-config\n",
		"inventory": "4202645\n", "haproxy.cfg.erb": "<% %>", "haproxy.tmpl": "global\n",
	})
}

// The example is a whole configuration, and what it comments out is the
// default: taking every # away changes nothing.
func TestExample(t *testing.T) {
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	// doproxy-node-setup adds the addresses.
	got := mustParse(t, string(data)+"\nadvertise: {private_ipv4: 10.132.0.2}\n", docsWorld())
	want := defaults()
	want.Store, want.Etcd = StoreRaft, nil
	want.Raft = &Raft{Address: "10.132.0.2:7477", Listen: "10.132.0.2:7477", DeadAfter: 10 * time.Minute}
	want.Advertise.PrivateIPv4 = netip.MustParseAddr("10.132.0.2")
	want.TokenFrom = "token_file /etc/doproxy/token"
	web := inventory.PoolSpec{Name: "web", HostnamePrefix: "web", Max: DefaultMax, Template: inventory.Template{
		Region: "nyc3", Size: "s-1vcpu-1gb", Image: "debian-12-x64", UserData: "#cloud-config\npackages: [nginx]\n",
	}}
	want.Pools = []Pool{{PoolSpec: web}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}

	option := regexp.MustCompile(`(?m)^( *)#((?: *- |(?:  +)?[a-z_0-9]+:).*|  +#.*)$`)
	text := option.ReplaceAllString(string(data), "$1$2")
	for _, key := range keysOf(reflect.TypeFor[File](), "") {
		last := key[strings.LastIndex(key, ".")+1:]
		if !slices.Contains(oldKeys, strings.SplitN(key, ".", 2)[0]) && key != "token" && last != "user_data_file" && !regexp.MustCompile(`(?m)^[- ]*`+last+`:`).MatchString(text) {
			t.Errorf("the example lacks %s", key)
		}
	}
	got = mustParse(t, text, docsWorld())
	// What the defaults of a pool mean is package inventory's; here they are written out.
	b := got.Pools[0].Backend
	if b.Port != 80 || b.Balance != "roundrobin" || b.HealthPath != "/" || b.CheckInterval.String() != "2s" || b.Fall != 3 || b.Rise != 2 {
		t.Errorf("backend is %+v", b)
	}
	if p := got.Pools[0].Policy; p.BootDeadline.String() != "10m0s" || p.DrainDeadline.String() != "5m0s" {
		t.Errorf("policy is %+v", p)
	}
	if !got.Pools[0].DesiredSet || got.Pools[0].Desired != 0 {
		t.Errorf("desired is %+v", got.Pools[0])
	}
	wantSettings := &inventory.Settings{
		Limits: inventory.Limits{LeavePercent: 100},
		Ingress: inventory.Ingress{
			ReservedIPs: []netip.Addr{netip.MustParseAddr("203.0.113.10")},
			DNS:         []inventory.DNSName{{Domain: "example.com", Name: "www", TTL: 60}},
			FailAfter:   inventory.Duration(300 * time.Millisecond), SettleAfter: inventory.Duration(30 * time.Second),
			StaleAfter: inventory.Duration(15 * time.Second), HoldDown: inventory.Duration(5 * time.Second),
		},
	}
	if !reflect.DeepEqual(got.Settings, wantSettings) {
		t.Errorf("settings are %+v", got.Settings)
	}
	got.Pools, want.Pools, got.Settings, got.Etcd = nil, nil, nil, nil // with its key there, etcd is configured too
	if !reflect.DeepEqual(got, want) {
		t.Errorf("with every # away:\n got %+v\nwant %+v\n%s", got, want, text)
	}
}

var oldKeys = []string{"ssh_key_ids", "userdata_file", "haproxy_cfg_path", "haproxy_cfg_file", "haproxy_template_file", "inventory_file", "droplet_options"}

// keysOf lists the keys that hold values, dotted.
func keysOf(t reflect.Type, path string) (keys []string) {
	for f := range t.Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		at := join(path, key)
		switch ft := f.Type; {
		case ft.Kind() == reflect.Struct:
			keys = append(keys, keysOf(ft, at)...)
		case ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct:
			keys = append(keys, keysOf(ft.Elem(), at+"[]")...)
		default:
			keys = append(keys, at)
		}
	}
	return keys
}

// The documentation names every key and no other, and all of its YAML loads.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile(docsPage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	keys := keysOf(reflect.TypeFor[File](), "")
	for _, key := range keys {
		// The table of a pool leaves pools[]. out.
		if !strings.Contains(page, "\n| `"+strings.TrimPrefix(key, "pools[].")+"` |") {
			t.Errorf("docs/configuration.md has no row for %s", key)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(page, -1) {
		if !slices.Contains(keys, row[1]) && !slices.Contains(keys, "pools[]."+row[1]) && row[1] != strings.ToUpper(row[1]) {
			t.Errorf("docs/configuration.md has a row for %s, which is no key", row[1])
		}
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1)
	if len(blocks) < 4 {
		t.Errorf("docs/configuration.md has %d blocks of YAML", len(blocks))
	}
	for _, b := range blocks {
		if strings.Contains(b[1], "# pools.yml") {
			if _, err := parseDocument(filepath.Dir(file)+"/pools.yml", []byte(b[1]), docsWorld()); err != nil {
				t.Errorf("%v\n%s", err, b[1])
			}
			continue
		}
		if _, err := parse(file, []byte(b[1]), docsWorld()); err != nil {
			t.Errorf("%v\n%s", err, b[1])
		}
	}
}
