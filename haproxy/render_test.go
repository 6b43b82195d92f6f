package haproxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/haproxy"
)

var update = flag.Bool("update", false, "write the golden files anew")

// A golden file holds a Config as JSON, a line of dashes, and its rendering.
func TestRenderGoldens(t *testing.T) {
	files, err := filepath.Glob("testdata/render/*.golden")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".golden"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want, _ := bytes.Cut(text, []byte("\n----------\n"))
			d := json.NewDecoder(bytes.NewReader(in))
			d.DisallowUnknownFields()
			var cfg haproxy.Config
			if err := d.Decode(&cfg); err != nil {
				t.Fatal(err)
			}
			got, err := haproxy.Render(nil, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(string(bytes.TrimSpace(in))+"\n----------\n"+string(got)), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, want) {
				t.Errorf("rendered:\n%s\nwant:\n%s", got, want)
			}
			checkRendering(t, got)
		})
	}
}

// checkRendering has HAProxy check a file, with a certificate where one is
// asked for.
func checkRendering(t *testing.T, content []byte) {
	t.Helper()
	binary := needHAProxy(t)
	dir := t.TempDir()
	pem, err := filepath.Abs("testdata/test.pem")
	if err != nil {
		t.Fatal(err)
	}
	content = bytes.ReplaceAll(content, []byte("/etc/doproxy/site.pem"), []byte(pem))
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := haproxy.CheckFile(context.Background(), binary, file); err != nil {
		t.Error(err)
	}
}

// Names, addresses and options of any kind are refused, or end up in the one
// place that is meant for them: the file has the lines that it has for harmless
// values, and not one word more.
func TestNoInputAddsALine(t *testing.T) {
	harmless := haproxy.Config{
		Global: haproxy.Global{AdminSocket: "/run/a.sock", StatsBind: "127.0.0.1:8404", Log: "/dev/log", LogFacility: "local1", User: "u", Group: "g"},
		Binds:  []haproxy.Bind{{Address: "*:443", Certificate: "/etc/x.pem"}},
		Backends: []haproxy.Backend{{
			Name: "web", Balance: "leastconn", HealthCheckPath: "/h", HealthCheckHost: "example.com", Hosts: []string{"a.com"}, Paths: []string{"/p"},
			Servers: []haproxy.Server{{Name: "www-1", Address: netip.MustParseAddr("10.0.0.1"), Port: 80, Weight: 1, ID: 1, Hostname: "h"}},
		}},
	}
	shape := func(c haproxy.Config) (string, error) {
		out, err := haproxy.Render(nil, c)
		if err != nil {
			return "", err
		}
		var b strings.Builder
		for line := range bytes.Lines(out) {
			fmt.Fprintf(&b, "%d ", len(bytes.Fields(line)))
			if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) && bytes.ContainsAny(line, "\r\x00\"'\\$") {
				return "", fmt.Errorf("the file has the line %q", line)
			}
		}
		return b.String(), nil
	}
	want, err := shape(harmless)
	if err != nil {
		t.Fatal(err)
	}
	piece := rapid.SampledFrom([]string{"\n", "\r", " ", "\t", "#", "\"", "'", "\\", "$", "{", "}", "%", ";", ",", "/", "*", ".", ":", "[", "]", "-", "a", "b9", "é", "\x00", "\u2028", "server x 1.2.3.4:5", "\nglobal\n", "10.0.0.1", "80", "/etc"})
	evil := rapid.Custom(func(t *rapid.T) string {
		if rapid.Bool().Draw(t, "any") {
			return rapid.String().Draw(t, "string")
		}
		return strings.Join(rapid.SliceOfN(piece, 1, 6).Draw(t, "pieces"), "")
	})
	set := []func(*haproxy.Config, string){
		func(c *haproxy.Config, s string) { c.Global.AdminSocket = s },
		func(c *haproxy.Config, s string) { c.Global.AdminSocket = "/run/" + s },
		func(c *haproxy.Config, s string) { c.Global.StatsBind = s },
		func(c *haproxy.Config, s string) { c.Global.StatsBind = "127.0.0.1:" + s },
		func(c *haproxy.Config, s string) { c.Global.Log = s },
		func(c *haproxy.Config, s string) { c.Global.Log = "/dev/" + s },
		func(c *haproxy.Config, s string) { c.Global.LogFacility = s },
		func(c *haproxy.Config, s string) { c.Global.User = s },
		func(c *haproxy.Config, s string) { c.Global.Group = s },
		func(c *haproxy.Config, s string) { c.Binds[0].Address = s },
		func(c *haproxy.Config, s string) { c.Binds[0].Address = s + ":80" },
		func(c *haproxy.Config, s string) { c.Binds[0].Certificate = "/etc/" + s },
		func(c *haproxy.Config, s string) { c.Backends[0].Name = s },
		func(c *haproxy.Config, s string) { c.Backends[0].Balance = s },
		func(c *haproxy.Config, s string) { c.Backends[0].HealthCheckPath = "/" + s },
		func(c *haproxy.Config, s string) { c.Backends[0].HealthCheckHost = s },
		func(c *haproxy.Config, s string) { c.Backends[0].Hosts[0] = s },
		func(c *haproxy.Config, s string) { c.Backends[0].Paths[0] = "/" + s },
		func(c *haproxy.Config, s string) { c.Backends[0].Servers[0].Name = s },
		func(c *haproxy.Config, s string) { c.Backends[0].Servers[0].Hostname = s },
		func(c *haproxy.Config, s string) {
			c.Backends[0].Servers[0].Address = netip.MustParseAddr("fe80::1").WithZone(s)
		},
	}
	rapid.Check(t, func(rt *rapid.T) {
		text := evil.Draw(rt, "text")
		field := rapid.IntRange(0, len(set)-1).Draw(rt, "field")
		c := harmless
		c.Binds = []haproxy.Bind{harmless.Binds[0]}
		b := harmless.Backends[0]
		b.Hosts, b.Paths, b.Servers = []string{b.Hosts[0]}, []string{b.Paths[0]}, []haproxy.Server{b.Servers[0]}
		c.Backends = []haproxy.Backend{b}
		set[field](&c, text)
		if err := c.Validate(); err != nil {
			if _, rerr := haproxy.Render(nil, c); rerr == nil {
				rt.Fatalf("rendered what is not valid: %v", err)
			}
			return
		}
		got, err := shape(c)
		if err != nil {
			rt.Fatal(err)
		}
		// The values that may be empty or have another shape of their own.
		if got != want && text != "" && c.Backends[0].Paths[0] != "/" && c.Global.Log != "stdout" && c.Backends[0].Balance == "leastconn" && c.Backends[0].Hosts[0][0] != '*' {
			rt.Fatalf("another shape:\n%s\nwant\n%s", got, want)
		}
	})
}

func TestValidateNamesFieldAndValue(t *testing.T) {
	good := func() haproxy.Config {
		return haproxy.Config{
			Global: haproxy.Global{AdminSocket: "/run/a.sock"},
			Backends: []haproxy.Backend{{Name: "web", Servers: []haproxy.Server{
				{Name: "www-1", Address: netip.MustParseAddr("10.0.0.1"), Port: 80},
				{Name: "www-2", Address: netip.MustParseAddr("10.0.0.2"), Port: 80},
			}}},
		}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*haproxy.Config){
		`global.admin_socket: "/` + strings.Repeat("x", 120) + `" is 121 bytes long`: func(c *haproxy.Config) { c.Global.AdminSocket = "/" + strings.Repeat("x", 120) },
		`global.stats_bind: "0.0.0.0:80" must be a loopback`:                         func(c *haproxy.Config) { c.Global.StatsBind = "0.0.0.0:80" },
		`backends["web"].balance: "static-rr" must be one of roundrobin`:             func(c *haproxy.Config) { c.Backends[0].Balance = "static-rr" },
		`backends["web"].servers[1].name: "www-1" is there twice`:                    func(c *haproxy.Config) { c.Backends[0].Servers[1].Name = "www-1" },
		`backends["web"].servers[0].weight: "257"`:                                   func(c *haproxy.Config) { c.Backends[0].Servers[0].Weight = 257 },
		`backends["web"].servers[0].address: "invalid IP"`:                           func(c *haproxy.Config) { c.Backends[0].Servers[0].Address = netip.Addr{} },
		`backends[1].name: "web" is there twice`:                                     func(c *haproxy.Config) { c.Backends = append(c.Backends, c.Backends[0]) },
		`binds[0].address: "80"`:                                                     func(c *haproxy.Config) { c.Binds = []haproxy.Bind{{Address: "80"}} },
		`backends["web"].check_inter: "1.5µs"`:                                       func(c *haproxy.Config) { c.Backends[0].CheckInter = 1500 },
	} {
		c := good()
		change(&c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
