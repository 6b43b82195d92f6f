package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/etcd"
	"github.com/doproxy/doproxy/inventory/inventorytest"
	"github.com/doproxy/doproxy/inventory/raft"
)

// changes is how many each row measures.
const changes = 100

// BenchmarkPropagation measures from the moment at which the store write that
// makes a droplet Serving is sent to the first answer from that droplet through
// a node's HAProxy. The droplet is alone in a pool of its own, so that round
// robin's turns do not count; all others are in a second pool. Beside it: the
// floor, a bare weight on the runtime socket, and what every tool pays that
// reloads: check and reload, nothing else.
func BenchmarkPropagation(b *testing.B) {
	fmt.Printf("%-10s %-34s %8s %8s %8s\n", "servers", "from write to first answer (ms)", "median", "p99", "max")
	for _, servers := range []int{10, 1000} {
		row := func(name string, took []time.Duration) {
			slices.Sort(took)
			fmt.Printf("%-10d %-34s %8.1f %8.1f %8.1f\n", servers, name, ms(took[len(took)/2]), ms(took[(len(took)*99+99)/100-1]), ms(took[len(took)-1]))
		}
		for _, store := range stores {
			b.Run(fmt.Sprintf("one-node-%d-%s", servers, store), func(b *testing.B) {
				one := newTier(b, store, servers, 1)
				row("doproxy, one node, "+store, one.propagate(changes))
				if store == config.StoreEtcd { // the same for both
					row("floor: runtime socket", one.floor(changes))
					row("haproxy -c and reload", one.reloads(changes/5))
				}
			})
			b.Run(fmt.Sprintf("three-nodes-%d-%s", servers, store), func(b *testing.B) {
				row("doproxy, last of three nodes, "+store, newTier(b, store, servers, 3).propagate(changes))
			})
		}
	}
}

var stores = []string{config.StoreEtcd, config.StoreRaft}

// BenchmarkAgent measures what an agent uses: CPU a change, with the programs
// that it runs, and CPU and memory at rest. On raft the agent is a member of the
// store; the member of etcd beside it, the mean of three, is in a row of its own.
func BenchmarkAgent(b *testing.B) {
	fmt.Printf("%-10s %-16s %22s %16s %14s\n", "servers", "", "CPU a change (ms)", "at rest (% core)", "memory (MB)")
	for _, servers := range []int{10, 1000} {
		for _, store := range stores {
			b.Run(fmt.Sprintf("%d-%s", servers, store), func(b *testing.B) { measureAgent(b, store, servers) })
		}
	}
}

func measureAgent(b *testing.B, store string, servers int) {
	bench := newTier(b, store, servers, 1)
	rows := []struct {
		name string
		pids []int
		cpu  [4]time.Duration
	}{{name: "agent, " + store, pids: []int{bench.nodes[0].cmd.Process.Pid}}, {name: "etcd's member"}}
	if bench.etcd != nil {
		for _, m := range bench.etcd.Members {
			rows[1].pids = append(rows[1].pids, m.PID())
		}
	}
	look := func(at int) {
		for i, r := range rows {
			for _, pid := range r.pids {
				rows[i].cpu[at] += cpu(b, pid) / time.Duration(len(r.pids))
			}
		}
	}
	look(0)
	bench.propagate(changes)
	look(1)
	bench.setPhase(inventory.Serving) // nothing is on its way
	bench.all(http.StatusOK)
	const rest = 30 * time.Second
	look(2)
	time.Sleep(rest)
	look(3)
	for _, r := range rows {
		memory := 0.0
		for _, pid := range r.pids {
			memory += rssMB(b, pid) / float64(len(r.pids))
		}
		if len(r.pids) > 0 { // each round of propagate is two changes
			fmt.Printf("%-10d %-16s %22.2f %16.2f %14.0f\n", servers, r.name, ms(r.cpu[1]-r.cpu[0])/(2*changes), 100*(r.cpu[3]-r.cpu[2]).Seconds()/rest.Seconds(), memory)
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// tier is agents without a token, so that nobody acts as leader and the
// benchmark alone writes the records: to three members of etcd, or as the leading
// member of the store that it forms with the agents.
type tier struct {
	b     *testing.B
	store inventory.Store
	raft  *raft.Node
	etcd  *inventorytest.Etcd
	keys  inventory.Keys
	probe *inventory.Droplet
	nodes []*benchNode
}

type benchNode struct {
	name, url, dir string
	cmd            *exec.Cmd
	client         *http.Client
}

const probeHost = "probe.test"

func newTier(b *testing.B, store string, servers, nodes int) *tier {
	b.Helper()
	t := &tier{b: b, keys: inventory.KeysOf("bench")}
	ctx := context.Background()
	if store == config.StoreEtcd {
		t.etcd = inventorytest.StartEtcd(b, 3, "--unsafe-no-fsync=false")
		s, err := etcd.Dial(etcd.Config{Endpoints: t.etcd.Endpoints})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		t.store = s
	} else {
		n, err := raft.Open(raft.Options{
			Dir: filepath.Join(b.TempDir(), "raft"), Name: "bench", Address: freeAddress(b), Plain: true,
			Version: "bench", Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { n.Close() })
		if _, err := n.Init(ctx); err != nil {
			b.Fatal(err)
		}
		t.store, t.raft = n, n
	}
	if _, err := inventory.EnsureMeta(ctx, t.store, t.keys); err != nil {
		b.Fatal(err)
	}
	port := t.backends(servers)
	for _, p := range []*inventory.Pool{
		{PoolSpec: inventory.PoolSpec{Name: "bulk", HostnamePrefix: "bulk", Max: 2000}},
		{PoolSpec: inventory.PoolSpec{Name: "probe", HostnamePrefix: "probe", Max: 1, Backend: inventory.Backend{Hosts: []string{probeHost}}}},
	} {
		p.Backend.Port = port
		p.Backend.CheckInterval = inventory.Duration(10 * time.Second)
		t.put(inventory.PutPool(t.keys, p))
	}
	for i := range servers - 1 {
		t.put(inventory.PutDroplet(t.keys, benchDroplet("bulk", i, inventory.Serving)))
	}
	t.probe = benchDroplet("probe", servers-1, inventory.Booting)
	t.put(inventory.PutDroplet(t.keys, t.probe))
	for i := range nodes {
		t.nodes = append(t.nodes, t.node(i))
	}
	for _, n := range t.nodes {
		eventually(b, n.name+" is ready and has checked all servers", func() error {
			return t.settled(n, servers-1)
		})
	}
	return t
}

func (t *tier) put(g inventory.Guard, op inventory.Op) inventory.Revision {
	t.b.Helper()
	rev, err := t.store.Commit(context.Background(), inventory.Txn{Guards: []inventory.Guard{g}, Ops: []inventory.Op{op}})
	if err != nil {
		t.b.Fatal(err)
	}
	return rev
}

// benchAddress gives each server an address of its own, as droplets have.
func benchAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 60, byte(i / 250), byte(i%250 + 1)})
}

func benchDroplet(pool string, i int, phase inventory.Phase) *inventory.Droplet {
	return &inventory.Droplet{
		Name: fmt.Sprintf("%s-%d", pool, i), Pool: pool, Phase: phase, Since: time.Now().UTC(), Created: time.Now().UTC(),
		ID: int64(400000000 + i), Status: "active", PrivateIPv4: benchAddress(i),
		Region: "nyc3", Size: "s-1vcpu-1gb", Image: "debian-12-x64", TemplateHash: "0123456789ab",
	}
}

// backends serves all addresses from one listener on every address of a port.
func (t *tier) backends(int) uint16 {
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(listener) })
	t.b.Cleanup(func() { srv.Close(); wg.Wait() })
	return uint16(listener.Addr().(*net.TCPAddr).Port)
}

func (t *tier) node(i int) *benchNode {
	t.b.Helper()
	dir, err := os.MkdirTemp("", "dpb")
	if err != nil {
		t.b.Fatal(err)
	}
	name := "lb-" + strconv.Itoa(i+1)
	serve := freeAddress(t.b)
	at := func(file string) string { return filepath.Join(dir, file) }
	file := config.File{
		Cluster: "bench", Node: name, NeverLead: true, StateDir: dir,
		API: config.APIFile{Socket: at("api.sock"), Listen: []string{}, HTTP: freeAddress(t.b)},
		HAProxy: config.HAProxyFile{
			Mode: "managed", ConfigFile: at("haproxy.cfg"), AdminSocket: at("admin.sock"),
			MasterSocket: at("master.sock"), PIDFile: at("haproxy.pid"),
			Bind: []string{serve}, BindTLS: []string{}, Stats: freeAddress(t.b),
		},
	}
	if t.raft == nil {
		file.Etcd = config.EtcdFile{Endpoints: t.etcd.Endpoints}
	} else {
		file.Store, file.Raft = config.StoreRaft, config.RaftFile{Address: freeAddress(t.b), Plain: true}
	}
	data, err := file.YAML()
	if err != nil {
		t.b.Fatal(err)
	}
	if err := os.WriteFile(at("doproxy.yml"), data, 0o600); err != nil {
		t.b.Fatal(err)
	}
	log, err := os.Create(at("log"))
	if err != nil {
		t.b.Fatal(err)
	}
	n := &benchNode{name: name, url: "http://" + serve, dir: dir}
	n.cmd = exec.Command(program(t.b, "doproxy"), "agent", "--config", at("doproxy.yml"))
	n.cmd.Stdout, n.cmd.Stderr = log, log
	transport := &http.Transport{}
	n.client = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	if err := n.cmd.Start(); err != nil {
		t.b.Fatal(err)
	}
	t.b.Cleanup(func() {
		if t.b.Failed() {
			text, _ := os.ReadFile(at("log"))
			t.b.Logf("%s:\n%s", name, text)
		}
		_ = n.cmd.Process.Signal(os.Interrupt)
		_ = n.cmd.Wait()
		transport.CloseIdleConnections()
		if pid, err := os.ReadFile(at("haproxy.pid")); err == nil {
			if p, err := strconv.Atoi(strings.TrimSpace(string(pid))); err == nil {
				if process, err := os.FindProcess(p); err == nil {
					_ = process.Signal(os.Interrupt)
				}
			}
		}
		log.Close()
		os.RemoveAll(dir)
	})
	if t.raft != nil {
		t.join(name, at("api.sock"))
	}
	return n
}

// join has a node join the store, and waits until it votes.
func (t *tier) join(name, socket string) {
	t.b.Helper()
	ctx := context.Background()
	eventually(t.b, name+" joins the store", func() error {
		token, _, err := t.raft.Token(ctx, time.Hour)
		if err != nil {
			return err
		}
		out, err := exec.Command(program(t.b, "doproxy"), "--server", "unix://"+socket, "cluster", "join", token).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "already") {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	eventually(t.b, name+" votes", func() error {
		all, err := t.raft.Members(ctx)
		if err != nil {
			return err
		}
		for _, m := range all.Members {
			if m.Node == name && m.Voter && m.Healthy {
				return nil
			}
		}
		return fmt.Errorf("%+v", all.Members)
	})
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// settled says whether a node's HAProxy has all servers checked and serving,
// and refuses requests for the probe.
func (t *tier) settled(n *benchNode, serving int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	runtime := haproxy.NewRuntime(filepath.Join(n.dir, "admin.sock"))
	defer runtime.Close()
	sample, err := runtime.Stat(ctx)
	if err != nil {
		return err
	}
	ready := 0
	for _, s := range sample.Servers {
		if s.Checked && s.Up && (s.Weight > 0 || s.Backend == "probe") {
			ready++
		}
	}
	if ready != serving+1 {
		return fmt.Errorf("%d of %d servers are ready", ready, serving+1)
	}
	if code, err := n.ask(); err != nil || code != http.StatusServiceUnavailable {
		return fmt.Errorf("the probe answers %d %w", code, err)
	}
	return nil
}

func (n *benchNode) ask() (int, error) {
	request, err := http.NewRequest("GET", n.url, nil)
	if err != nil {
		return 0, err
	}
	request.Host = probeHost
	response, err := n.client.Do(request)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return response.StatusCode, err
}

// until asks until the node answers with this code, and returns when it did.
func (t *tier) until(n *benchNode, code int) time.Time {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Microsecond) {
		if got, err := n.ask(); err == nil && got == code {
			return time.Now()
		}
	}
	t.b.Errorf("%s never answers %d", n.name, code)
	return time.Now()
}

// propagate makes the probe Serving and Booting in turn and measures, each
// time, until the last of the nodes answers from it.
func (t *tier) propagate(times int) []time.Duration {
	var took []time.Duration
	for range times {
		sent := t.setPhase(inventory.Serving)
		took = append(took, t.all(http.StatusOK).Sub(sent))
		t.setPhase(inventory.Draining)
		t.all(http.StatusServiceUnavailable)
		time.Sleep(20 * time.Millisecond)
	}
	return took
}

// all waits for all nodes and returns when the last one answered so.
func (t *tier) all(code int) time.Time {
	at := make([]time.Time, len(t.nodes))
	var wg sync.WaitGroup
	for i, n := range t.nodes {
		wg.Go(func() { at[i] = t.until(n, code) })
	}
	wg.Wait()
	return slices.MaxFunc(at, time.Time.Compare)
}

func (t *tier) setPhase(phase inventory.Phase) (sent time.Time) {
	kv, err := inventory.Get(context.Background(), t.store, t.keys.Droplet("probe", t.probe.Name))
	if err != nil {
		t.b.Fatal(err)
	}
	d, err := inventory.DecodeDroplet(t.keys, kv)
	if err != nil {
		t.b.Fatal(err)
	}
	d.Phase = phase
	sent = time.Now()
	t.put(inventory.PutDroplet(t.keys, d))
	return sent
}

// floor does the same by a bare command on the runtime socket.
func (t *tier) floor(times int) []time.Duration {
	n := t.nodes[0]
	runtime := haproxy.NewRuntime(filepath.Join(n.dir, "admin.sock"))
	defer runtime.Close()
	server := haproxy.ServerName(t.probe.ID)
	var took []time.Duration
	for range times {
		sent := time.Now()
		for i, weight := range []uint16{haproxy.ServingWeight, 0} {
			if err := runtime.SetWeight(context.Background(), "probe", server, weight); err != nil {
				t.b.Fatal(err)
			}
			at := t.until(n, []int{http.StatusOK, http.StatusServiceUnavailable}[i])
			if i == 0 {
				took = append(took, at.Sub(sent))
			}
		}
	}
	return took
}

// reloads checks the file and reloads HAProxy, and measures until the new
// worker has taken over.
func (t *tier) reloads(times int) []time.Duration {
	n := t.nodes[0]
	process := haproxy.NewExternal(filepath.Join(n.dir, "master.sock"))
	defer process.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	var took []time.Duration
	for range times {
		sent := time.Now()
		if err := haproxy.CheckFile(ctx, haproxy.FindBinary(), filepath.Join(n.dir, "haproxy.cfg")); err != nil {
			t.b.Fatal(err)
		}
		if err := process.Reload(ctx); err != nil {
			t.b.Fatal(err)
		}
		took = append(took, time.Since(sent))
	}
	return took
}

// cpu is what a process and its ended children have used.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	var total time.Duration
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		var ns int64
		fmt.Sscan(string(data), &ns)
		total += time.Duration(ns)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	for _, children := range fields[13:15] { // cutime and cstime, in ticks of 10 ms
		ticks, _ := strconv.Atoi(children)
		total += time.Duration(ticks) * 10 * time.Millisecond
	}
	return total
}

func rssMB(t testing.TB, pid int) float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	var kb float64
	fmt.Sscan(rest, &kb)
	return kb / 1024
}
