// Package deploy_test runs what an operator installs.
package deploy_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const droplet = "/metadata/v1/"

// metadata answers as DigitalOcean's service does, whose paths have no final
// slash and give text without a newline.
func metadata(t *testing.T, without ...string) string {
	values := map[string]string{
		"id": "4202644", "hostname": "LB-2.example.com", "region": "nyc3",
		"interfaces/public/0/ipv4/address":        "192.0.2.20",
		"interfaces/public/0/ipv6/address":        "2001:0DB8:0800:0010:0000:0000:017D:2001",
		"interfaces/public/0/anchor_ipv4/address": "10.17.0.6",
		"interfaces/private/0/ipv4/address":       "10.132.0.5",
		"reserved_ip/ipv4/active":                 "true",
		"reserved_ip/ipv4/ip_address":             "203.0.113.10",
	}
	maps.DeleteFunc(values, func(k, _ string) bool {
		for _, w := range without {
			if strings.Contains(k, w) {
				return true
			}
		}
		return false
	})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, ok := values[strings.TrimPrefix(r.URL.Path, droplet)]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(value))
	}))
	t.Cleanup(s.Close)
	return s.URL + droplet
}

// setup runs the script and returns what it prints and what it says.
func setup(t *testing.T, url string, args ...string) (out, said string, err error) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"./doproxy-node-setup"}, args...)...)
	cmd.Env = append(os.Environ(), "METADATA_URL="+url)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

func mustSetup(t *testing.T, url string, args ...string) string {
	t.Helper()
	_, said, err := setup(t, url, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, said)
	}
	return said
}

// root is a folder with this doproxy.yml, or none if it is empty.
func root(t *testing.T, text string) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "etc/doproxy/doproxy.yml")
	if text != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return dir, file
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const advertise = `advertise:
  public_ipv4: 192.0.2.20
  public_ipv6: "2001:0DB8:0800:0010:0000:0000:017D:2001"
  private_ipv4: 10.132.0.5
  droplet_id: 4202644
`

const fresh = `# The configuration of doproxy's agent: see docs/configuration.md.
token_file: /etc/doproxy/token
node: lb-2
` + advertise

func TestPrintTouchesNothing(t *testing.T) {
	dir, _ := root(t, "")
	out, said, err := setup(t, metadata(t), "--print", "--root", dir)
	if want := "==> /etc/doproxy/doproxy.yml\n" + fresh + "\n"; err != nil || out != want {
		t.Errorf("%v\n%s\n got %s\nwant %s", err, said, out, want)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
	if !strings.Contains(said, "droplet 4202644 in nyc3 is node lb-2\n") || !strings.Contains(said, "it holds 203.0.113.10 now\n") {
		t.Errorf("it says %s", said)
	}
}

func TestFreshNode(t *testing.T) {
	dir, file := root(t, "")
	url := metadata(t)
	mustSetup(t, url, "--root", dir)
	if got := read(t, file); got != fresh {
		t.Errorf("got %s", got)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if said := mustSetup(t, url, "--root", dir); !strings.Contains(said, file+" is as it should be") {
		t.Errorf("the second run says %s", said)
	}
	mustSetup(t, url, "--root", dir, "--node", "edge-1")
	mustSetup(t, url, "--root", dir) // keeps the name
	if got := read(t, file); !strings.Contains(got, "\nnode: edge-1\n") || strings.Contains(got, "lb-2") {
		t.Errorf("got %s", got)
	}
}

// What the operator wrote stays.
func TestFileThatIsThere(t *testing.T) {
	dir, file := root(t, `# Ours.
cluster: prod
node: "edge-7" # by hand
advertise: # old
  public_ipv4: 198.51.100.1

  # moved
  droplet_id: 1
# The servers.
haproxy:
    # where clients connect
    maxconn: 1000
    timeouts:
        bind: no key of this name
    certificate: /etc/ssl/site.pem
pools:
- name: web
`)
	url := metadata(t, "ipv6", "private")
	said := mustSetup(t, url, "--root", dir, "--reserved-ipv6", "2001:db8::10", "--reserved-ipv6", "2001:db8::11")
	const want = `# Ours.
cluster: prod
node: edge-7
advertise:
  public_ipv4: 192.0.2.20
  droplet_id: 4202644

# The servers.
haproxy:
    bind_tls: ["*:443", "[::]:443"] # doproxy-node-setup
    bind: ["*:80", "[::]:80"] # doproxy-node-setup
    # where clients connect
    maxconn: 1000
    timeouts:
        bind: no key of this name
    certificate: /etc/ssl/site.pem
pools:
- name: web
`
	if got := read(t, file); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if !strings.Contains(said, "warning: there is no private IPv4 address") {
		t.Errorf("it says %s", said)
	}
	unit := read(t, filepath.Join(dir, "etc/systemd/system/doproxy-reserved-ipv6.service"))
	for _, line := range []string{
		"ExecStart=ip -6 route replace local 2001:db8::10/128 dev lo\n",
		"ExecStart=ip -6 route replace local 2001:db8::11/128 dev lo\n",
		"Before=haproxy.service doproxy.service\n", "WantedBy=multi-user.target\n",
	} {
		if !strings.Contains(unit, line) {
			t.Errorf("the unit lacks %q:\n%s", line, unit)
		}
	}
	// A run that names no address leaves binds and unit.
	mustSetup(t, url, "--root", dir)
	if got := read(t, file); got != want {
		t.Errorf("the second run gives %s", got)
	}
	mustSetup(t, url, "--root", dir, "--reserved-only", "--reserved-ipv6", "2001:db8::10")
	got := strings.NewReplacer(`["*:443", "[::]:443"]`, `["10.17.0.6:443", "[2001:db8::10]:443"]`, `["*:80", "[::]:80"]`, `["10.17.0.6:80", "[2001:db8::10]:80"]`).Replace(want)
	if text := read(t, file); text != got {
		t.Errorf("with --reserved-only got %s\nwant %s", text, got)
	}
	if text := read(t, filepath.Join(dir, "etc/sysctl.d/90-doproxy.conf")); !strings.Contains(text, "net.ipv6.ip_nonlocal_bind = 1\n") {
		t.Errorf("got %s", text)
	}
}

func TestBindsOfOthersStay(t *testing.T) {
	const text = "haproxy:\n  bind:\n    - 192.0.2.20:80\n"
	dir, file := root(t, text)
	said := mustSetup(t, metadata(t), "--root", dir, "--reserved-ipv6", "2001:db8::10")
	if got := read(t, file); got != text+"node: lb-2\n"+advertise {
		t.Errorf("got %s", got)
	}
	if !strings.Contains(said, `warning: haproxy.bind is set by hand in `+file+` and stays: see that it takes ["*:80", "[::]:80"]`) {
		t.Errorf("it says %s", said)
	}
}

// The example and what the script makes of it differ in these keys only.
func TestExample(t *testing.T) {
	text := read(t, "doproxy.yml")
	dir, file := root(t, text)
	mustSetup(t, metadata(t), "--root", dir, "--reserved-ipv6", "2001:db8::10")
	var before, after map[string]any
	if err := yaml.Unmarshal([]byte(text), &before); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(read(t, file)), &after); err != nil {
		t.Fatalf("%v\n%s", err, read(t, file))
	}
	before["node"] = "lb-2"
	before["advertise"] = map[string]any{"public_ipv4": "192.0.2.20", "public_ipv6": "2001:0DB8:0800:0010:0000:0000:017D:2001", "private_ipv4": "10.132.0.5", "droplet_id": uint64(4202644)}
	before["haproxy"] = map[string]any{"bind": []any{"*:80", "[::]:80"}}
	if !reflect.DeepEqual(after, before) {
		t.Errorf("\n got %v\nwant %v", after, before)
	}
}

func TestRefused(t *testing.T) {
	url := metadata(t)
	for _, c := range []struct {
		name, url, file, want string
		args                  []string
	}{
		{"argument", url, "", `unknown argument "--frce": see --help`, []string{"--frce"}},
		{"no value", url, "", "--node needs a value", []string{"--node"}},
		{"node", url, "", `"Lb_1" is not a name for a node: give --node with 1 to 40 of a-z, 0-9 and inner hyphens`, []string{"--node", "Lb_1"}},
		{"address", url, "", `--reserved-ipv6 "203.0.113.10" is not an IPv6 address: write one such as 2001:db8::10`, []string{"--reserved-ipv6", "203.0.113.10"}},
		{"no droplet", metadata(t, "id"), "", `the metadata service gives no droplet id, but "": is this a DigitalOcean droplet?`, nil},
		{"no anchor", metadata(t, "anchor"), "", "--reserved-only: there is no anchor address to bind to: leave it out", []string{"--reserved-only"}},
		{"one line", url, "haproxy: {maxconn: 1}\n", "has haproxy: on one line: write its keys below it, one a line", []string{"--reserved-only"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, file := root(t, c.file)
			out, said, err := setup(t, c.url, append([]string{"--root", dir}, c.args...)...)
			if err == nil || !strings.Contains(said, c.want) || out != "" {
				t.Errorf("%v, %s%s\nwant %s", err, out, said, c.want)
			}
			if data, err := os.ReadFile(file); err == nil && string(data) != c.file {
				t.Errorf("the file is %s", data)
			}
		})
	}
}
