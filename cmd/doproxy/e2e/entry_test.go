package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/digitalocean/godo"
	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// full is what `doproxy status -o json` tells, whole.
func (c *cluster) full(i int) (*pb.GetStatusResponse, error) {
	r := c.run(i, "status", "-o", "json", "--events", "200")
	if r.code != 0 {
		return nil, fmt.Errorf("status: exit code %d: %s", r.code, r.stderr)
	}
	s := &pb.GetStatusResponse{}
	return s, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(r.stdout), s)
}

// shows waits until the status is as ok wants it.
func (c *cluster) shows(i int, what string, ok func(*pb.GetStatusResponse) error) {
	c.t.Helper()
	eventually(c.t, what, func() error {
		s, err := c.full(i)
		if err != nil {
			return err
		}
		return ok(s)
	})
}

type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// api is the account as its owner sees it, beside doproxy.
func (c *cluster) api() *godo.Client {
	c.t.Helper()
	api, err := godo.New(&http.Client{Transport: bearer(c.DigitalOcean.Token)}, godo.SetBaseURL(c.DigitalOcean.URL))
	if err != nil {
		c.t.Fatal(err)
	}
	return api
}

// entry is the address of a reserved IP.
func (c *cluster) entry(i int) string {
	c.t.Helper()
	u, err := url.Parse(c.Entry[i])
	if err != nil {
		c.t.Fatal(err)
	}
	return u.Hostname()
}

// holder is the node that DigitalOcean has a reserved IP at, "" if none.
func (c *cluster) holder(address string) (string, error) {
	ip, _, err := c.api().ReservedIPs.Get(context.Background(), address)
	if err != nil || ip.Droplet == nil {
		return "", err
	}
	return ip.Droplet.Name, nil
}

// settled waits until DigitalOcean and the cluster agree who holds an address,
// and it is none of the nodes named; it returns the index of the holder.
func (c *cluster) settled(ask int, address string, not ...string) (at int) {
	c.t.Helper()
	c.shows(ask, address+" is held by another than "+strings.Join(not, ", "), func(s *pb.GetStatusResponse) error {
		there, err := c.holder(address)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(s.ReservedIps, func(r *pb.ReservedIp) bool { return r.Address == address })
		if i < 0 {
			return fmt.Errorf("status does not have it")
		}
		r := s.ReservedIps[i]
		if r.Node != there || r.VerifyTime == nil || r.Node == "" || slices.Contains(not, there) {
			return fmt.Errorf("at DigitalOcean %q, in the status %v", there, r)
		}
		at = slices.IndexFunc(c.Nodes, func(n node) bool { return n.Name == there })
		return nil
	})
	return at
}

// unassign takes an address from its holder behind doproxy's back.
func (c *cluster) unassign(address string) {
	c.t.Helper()
	eventually(c.t, "another unassigns "+address, func() error { // not while an action is under way
		_, _, err := c.api().ReservedIPActions.Unassign(context.Background(), address)
		return err
	})
}

// records are the addresses under the cluster's name, sorted.
func (c *cluster) records() (addresses []string, err error) {
	name, domain, _ := strings.Cut(c.Name, ".")
	all, _, err := c.api().Domains.Records(context.Background(), domain, &godo.ListOptions{PerPage: 200})
	for _, r := range all {
		if r.Name == name && (r.Type == "A" || r.Type == "AAAA") {
			addresses = append(addresses, r.Data)
		}
	}
	slices.Sort(addresses)
	return addresses, err
}

// recorded waits until exactly the nodes with these indexes, and the further
// addresses, are in DNS.
func (c *cluster) recorded(nodes []int, others ...string) {
	c.t.Helper()
	want := slices.Clone(others)
	for _, i := range nodes {
		want = append(want, c.address(i))
	}
	slices.Sort(want)
	eventually(c.t, fmt.Sprintf("DNS has %v", want), func() error {
		got, err := c.records()
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("it has %v", got)
		}
		return err
	})
}

func (c *cluster) address(i int) string {
	host, _, _ := net.SplitHostPort(c.Nodes[i].GRPC)
	return host
}

// byName is a client that looks the cluster's name up for each connection.
func (c *cluster) byName() node {
	c.t.Helper()
	u, err := url.Parse(c.Nodes[0].HTTP)
	if err != nil {
		c.t.Fatal(err)
	}
	port := u.Port()
	return node{Name: "by name", HTTP: "http://" + c.Name, dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		addresses, err := c.records()
		if err != nil || len(addresses) == 0 {
			return nil, fmt.Errorf("%s has no address: %w", c.Name, err)
		}
		var d net.Dialer
		return d.DialContext(ctx, network, net.JoinHostPort(addresses[rand.IntN(len(addresses))], port))
	}}
}

// killNode kills a node's agent and HAProxy together, as a dying machine would.
func (c *cluster) killNode(i int) {
	c.t.Helper()
	kill(c.t, c.Nodes[i].PID, syscall.SIGKILL)
	kill(c.t, c.haproxy(i), syscall.SIGKILL)
	c.gone(c.Nodes[i].PID)
}

// haproxy is the process of a node's HAProxy, the master.
func (c *cluster) haproxy(i int) (pid int) {
	c.t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(c.Nodes[i].ConfigFile), "haproxy.pid"))
	if err == nil {
		_, err = fmt.Sscan(string(data), &pid)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return pid
}

// TestEntry: reserved IP and DNS name follow the nodes that are fit.
func TestEntry(t *testing.T) {
	c := start(t)
	c.follows(3)
	address := c.entry(0)
	first := c.settled(0, address)
	c.recorded([]int{0, 1, 2})
	if _, err := answers(node{HTTP: c.Entry[0]}, 6); err != nil {
		t.Errorf("through the reserved IP: %v", err)
	}
	name, domain, _ := strings.Cut(c.Name, ".")
	foreign := c.address(0)[:strings.LastIndex(c.address(0), ".")] + ".99"
	if _, _, err := c.api().Domains.CreateRecord(t.Context(), domain, &godo.DomainRecordEditRequest{Type: "A", Name: name, Data: foreign, TTL: 300}); err != nil {
		t.Fatal(err)
	}

	// By hand, and not back by itself.
	second := (first + 1) % 3
	out := c.ok(0, "failover", address, "--to", c.Nodes[second].Name)
	if !strings.Contains(out, c.Nodes[second].Name) {
		t.Errorf("failover printed %q", out)
	}
	if at := c.settled(0, address); at != second {
		t.Errorf("failover --to %s: it is at %s", c.Nodes[second].Name, c.Nodes[at].Name)
	}
	if r := c.run(0, "failover", address, "--to", "lb-9"); r.code == 0 || !strings.Contains(r.stderr, "lb-9") {
		t.Errorf("failover to a node that is not: %+v", r)
	}
	if r := c.run(0, "failover", "192.0.2.1"); r.code == 0 || !strings.Contains(r.stderr, "192.0.2.1") {
		t.Errorf("failover of an address that is not ours: %+v", r)
	}

	// What another changes at the API is repaired.
	c.unassign(address)
	c.run(0, "verify", "--repair")
	if at := c.settled(0, address); at != second {
		t.Errorf("after another unassigned it: at %s", c.Nodes[at].Name)
	}

	// A node dies.
	c.killNode(second)
	ask := (second + 1) % 3
	third := c.settled(ask, address, c.Nodes[second].Name)
	rest := []int{ask, (second + 2) % 3}
	c.recorded(rest, foreign)
	if _, err := answers(node{HTTP: c.Entry[0]}, 6); err != nil {
		t.Errorf("through the reserved IP after its node died: %v", err)
	}
	c.shows(ask, "the status tells of the node and of the move", func(s *pb.GetStatusResponse) error {
		i := slices.IndexFunc(s.Nodes, func(n *pb.Node) bool { return n.Name == "nodes/"+c.Nodes[second].Name })
		if i < 0 || s.Nodes[i].SilentTime == nil {
			return fmt.Errorf("%s is not shown as silent: %v", c.Nodes[second].Name, s.Nodes)
		}
		if r := s.ReservedIps[0]; r.From != c.Nodes[second].Name || r.Reason == "" {
			return fmt.Errorf("%v", r)
		}
		return nil
	})

	// It comes back, and nothing moves for that.
	c.restart(second)
	c.shows(ask, "the node is back", func(s *pb.GetStatusResponse) error {
		for _, n := range s.Nodes {
			if n.SilentTime != nil || n.Haproxy != "running" {
				return fmt.Errorf("%v", n)
			}
		}
		return nil
	})
	if at := c.settled(ask, address); at != third {
		t.Errorf("the address moved to %s though its node was well", c.Nodes[at].Name)
	}
}

// TestLastRecordStays: with every HAProxy dead for good, the name keeps what it
// has and the address stays where it is.
func TestLastRecordStays(t *testing.T) {
	wrapper := breakable(t)
	c := start(t, "--haproxy", wrapper.path, "--nodes", "2")
	c.follows(3)
	address := c.entry(0)
	first := c.settled(0, address)
	c.recorded([]int{0, 1})
	wrapper.breakIt()
	kill(t, c.Nodes[first].HAProxyPID, syscall.SIGKILL)
	other := 1 - first
	c.settled(0, address, c.Nodes[first].Name)
	c.recorded([]int{other})
	kill(t, c.Nodes[other].HAProxyPID, syscall.SIGKILL)
	c.shows(0, "both are down", func(s *pb.GetStatusResponse) error {
		for _, n := range s.Nodes {
			if n.Haproxy == "running" {
				return fmt.Errorf("%s runs", n.Name)
			}
		}
		return nil
	})
	c.shows(0, "the status says that no node is fit", func(s *pb.GetStatusResponse) error {
		if !slices.ContainsFunc(s.Conditions, func(x *pb.Condition) bool {
			return strings.HasPrefix(x.Type, "ingress.") || strings.HasPrefix(x.Type, "dns.")
		}) {
			return fmt.Errorf("%v", s.Conditions)
		}
		return nil
	})
	c.recorded([]int{other})
}

// breakableHAProxy is a HAProxy that a test can keep from starting.
type breakableHAProxy struct {
	t    testing.TB
	path string
	flag string
}

func breakable(t testing.TB) *breakableHAProxy {
	t.Helper()
	dir := t.TempDir()
	b := &breakableHAProxy{t: t, path: filepath.Join(dir, "haproxy"), flag: filepath.Join(dir, "broken")}
	script := "#!/bin/sh\n[ -e " + b.flag + " ] && exit 1\nexec /usr/sbin/haproxy \"$@\"\n"
	if err := os.WriteFile(b.path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *breakableHAProxy) breakIt() {
	if err := os.WriteFile(b.flag, nil, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *breakableHAProxy) mend() {
	if err := os.Remove(b.flag); err != nil {
		b.t.Fatal(err)
	}
}

// TestRollingRestart drains, stops and starts three nodes, agents and HAProxies,
// one after the other, while clients come by the reserved IP and by name over
// kept connections: no request fails.
func TestRollingRestart(t *testing.T) {
	c := start(t)
	c.follows(3)
	c.settled(0, c.entry(0))
	c.recorded([]int{0, 1, 2})
	l := startLoad(t, []node{{Name: "reserved IP", HTTP: c.Entry[0]}, c.byName()}, 100)
	for i := range c.Nodes {
		name, ask := c.Nodes[i].Name, (i+1)%3
		c.ok(ask, "node", "drain", name, "--reason", "upgrade")
		c.settled(ask, c.entry(0), name)
		kill(t, c.Nodes[i].PID, syscall.SIGTERM)
		c.gone(c.Nodes[i].PID)
		proxy := c.haproxy(i)
		kill(t, proxy, syscall.SIGUSR1)
		c.gone(proxy)
		c.restart(i)
		eventually(t, name+" is ready", func() error { return ready(c.Nodes[i]) })
		c.ok(ask, "node", "undrain", name)
		c.recorded([]int{0, 1, 2})
		l.more(100)
	}
	l.end()
	c.follows(3)
}

func (c *cluster) gone(pid int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("process %d ends", pid), func() error {
		if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(data) > 0 {
			return fmt.Errorf("it runs")
		}
		return nil
	})
}

func ready(n node) error {
	r, err := http.Get(n.Health + "/readyz")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", r.Status)
	}
	return nil
}

// TestReservedIPv6: an IPv6 address is kept as an IPv4 one is; and an address that
// cannot be had holds nothing up.
func TestReservedIPv6(t *testing.T) {
	c := start(t, "--nodes", "2")
	c.follows(3)
	first := c.settled(0, c.entry(0))
	six, _, err := c.api().ReservedIPV6s.Create(t.Context(), &godo.ReservedIPV6CreateRequest{Region: "nyc3"})
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddr(six.IP).String()
	file := filepath.Join(c.dir, "ingress.yml")
	if err := os.WriteFile(file, []byte("ingress:\n  reserved_ips: [\""+c.entry(0)+"\", \""+address+"\", 192.0.2.7]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := c.ok(0, "apply", "-f", file); !strings.Contains(out, address) {
		t.Errorf("apply printed %q", out)
	}
	c.shows(0, "the IPv6 address is held, and the missing one is told of", func(s *pb.GetStatusResponse) error {
		r6, _, err := c.api().ReservedIPV6s.Get(t.Context(), six.IP)
		if err != nil || r6.Droplet == nil {
			return fmt.Errorf("%v %v", r6, err)
		}
		if !slices.ContainsFunc(s.ReservedIps, func(r *pb.ReservedIp) bool { return r.Address == address && r.VerifyTime != nil }) {
			return fmt.Errorf("%v", s.ReservedIps)
		}
		out := c.ok(0, "status")
		if !strings.Contains(out, "192.0.2.7") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if at := c.settled(0, c.entry(0)); at != first {
		t.Errorf("the IPv4 address moved for that")
	}
	c.ok(0, "failover", address)
}

// TestForeignReservedIP: an address that a droplet of somebody else holds is left
// there and told, until it is asked for.
func TestForeignReservedIP(t *testing.T) {
	c := start(t, "--nodes", "2")
	c.follows(3)
	first := c.settled(0, c.entry(0))
	all, _, err := c.api().Droplets.List(t.Context(), &godo.ListOptions{PerPage: 200})
	if err != nil {
		t.Fatal(err)
	}
	other := slices.IndexFunc(all, func(d godo.Droplet) bool { return !strings.HasPrefix(d.Name, "lb-") })
	ip, _, err := c.api().ReservedIPs.Create(t.Context(), &godo.ReservedIPCreateRequest{DropletID: all[other].ID})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.dir, "ingress.yml")
	if err := os.WriteFile(file, []byte("ingress:\n  reserved_ips: [\""+c.entry(0)+"\", \""+ip.IP+"\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.ok(0, "apply", "-f", file)
	told := fmt.Sprintf("%s is held by droplet %d, which is no node of this cluster: if it is to come here, `doproxy failover %[1]s`", ip.IP, all[other].ID)
	c.shows(0, "it is told whose the address is", func(s *pb.GetStatusResponse) error {
		if !slices.ContainsFunc(s.Conditions, func(x *pb.Condition) bool { return x.Message == told }) {
			return fmt.Errorf("%v", s.Conditions)
		}
		return nil
	})
	if there, err := c.holder(ip.IP); err != nil || there != all[other].Name {
		t.Errorf("the address is at %q, %v", there, err)
	}
	r := c.run(0, "failover", ip.IP)
	if r.code != 0 || strings.Contains(r.stderr, "is held by") {
		t.Errorf("failover: %+v", r)
	}
	if at := c.settled(0, ip.IP); at == first {
		t.Errorf("both addresses are at %s", c.Nodes[at].Name)
	}
	c.shows(0, "nothing is told any more", func(s *pb.GetStatusResponse) error {
		if len(s.Conditions) > 0 {
			return fmt.Errorf("%v", s.Conditions)
		}
		return nil
	})
}
