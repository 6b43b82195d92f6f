package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/doproxy/doproxy/cloud/dosim"
	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
)

// The simulator holds a /16 of loopback addresses for itself, so that several
// clusters run side by side. Its droplets have the low addresses; the cluster's
// own parts have these, with the ports that they would have anywhere.
const (
	nodeNet   = ".255." // nodes: 127.x.255.1 and on
	memberNet = ".254." // members of etcd
	grpcPort  = "7475"
	httpPort  = "7476" // the agent's own
	raftPort  = "7477"
	statsPort = "8404" // HAProxy's
)

// simulator is what dosim's ready file tells.
type simulator struct {
	URL    string `json:"url"`
	Token  string `json:"token"`
	Prefix string `json:"droplet_prefix"` // such as 127.64
	Port   int    `json:"droplet_port"`
}

func startSimulator(ctx context.Context, o Options, programs programs, s *supervisor) (simulator, error) {
	readyFile := filepath.Join(o.StateDir, "dosim", "ready.json")
	if err := os.RemoveAll(readyFile); err != nil {
		return simulator{}, err
	}
	args := []string{
		"--ready-file", readyFile,
		"--boot-delay", o.BootDelay.String(), "--app-delay", o.AppDelay.String(),
		"--delete-delay", o.DeleteDelay.String(), "--list-lag", o.ListLag.String(),
		"--entry-port", strconv.Itoa(dosim.DefaultDropletPort),
	}
	p, err := s.start("dosim", programs.dosim, append(args, o.SimArgs...)...)
	if err != nil {
		return simulator{}, err
	}
	var sim simulator
	err = p.await(ctx, "the simulator", func() error {
		data, err := os.ReadFile(readyFile)
		if err != nil {
			return err
		}
		return json.Unmarshal(data, &sim)
	})
	return sim, err
}

func startEtcd(ctx context.Context, o Options, programs programs, s *supervisor, prefix string) ([]string, error) {
	var members, clients []string
	for i := range o.Members {
		address := prefix + memberNet + strconv.Itoa(i+1)
		members = append(members, fmt.Sprintf("etcd-%d=http://%s:2380", i+1, address))
		clients = append(clients, "http://"+address+":2379")
	}
	var started []*process
	for i := range o.Members {
		name := "etcd-" + strconv.Itoa(i+1)
		peer := strings.SplitN(members[i], "=", 2)[1]
		data := filepath.Join(o.StateDir, name, "data")
		// The addresses may differ from the last run's, so nothing is kept.
		if err := os.RemoveAll(data); err != nil {
			return nil, err
		}
		p, err := s.start(name, programs.etcd,
			"--name", name, "--data-dir", data, "--log-level", "warn",
			"--listen-client-urls", clients[i], "--advertise-client-urls", clients[i],
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(members, ","), "--initial-cluster-state", "new",
			"--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1h")
		if err != nil {
			return nil, err
		}
		started = append(started, p)
	}
	for i, p := range started {
		if err := p.await(ctx, "etcd", func() error { return get(clients[i] + "/health") }); err != nil {
			return nil, err
		}
	}
	return clients, nil
}

// entryName is the name of the cluster's own in the account's domain.
const entryName = "www"

func startNode(o Options, programs programs, s *supervisor, sim simulator, acc account, etcd []string, i int) (Node, error) {
	name := nodeName(i)
	dir := filepath.Join(o.StateDir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Node{}, err
	}
	at := func(file string) string { return filepath.Join(dir, file) }
	address := sim.Prefix + nodeNet + strconv.Itoa(i+1)
	serve := net.JoinHostPort(address, strconv.Itoa(sim.Port))
	node := Node{
		Name:          name,
		GRPC:          net.JoinHostPort(address, grpcPort),
		HTTP:          "http://" + serve,
		RuntimeSocket: at("admin.sock"),
		ConfigFile:    at("haproxy.cfg"),
		AgentConfig:   at("doproxy.yml"),
		Socket:        at("doproxy.sock"),
		Health:        "http://" + net.JoinHostPort(address, httpPort),
	}
	maximum := maxDroplets
	desired := 0
	file := config.File{
		Cluster:      "dev",
		Node:         name,
		Token:        config.Secret(sim.Token),
		DigitalOcean: config.DigitalOceanFile{URL: sim.URL},
		Store:        o.Store,
		API: config.APIFile{
			Socket: node.Socket, Listen: []string{node.GRPC}, HTTP: net.JoinHostPort(address, httpPort),
		},
		StateDir:  dir,
		Advertise: config.AdvertiseFile{PublicIPv4: address, PrivateIPv4: address, DropletID: acc.droplets[i]},
		Ingress: config.IngressFile{
			DNS:         []config.DNSNameFile{{Domain: domain, Name: entryName, TTL: 30}},
			SettleAfter: 5 * time.Second,
		},
		HAProxy: config.HAProxyFile{
			Mode: "managed", Binary: programs.haproxy,
			ConfigFile: node.ConfigFile, AdminSocket: node.RuntimeSocket,
			MasterSocket: at("master.sock"), PIDFile: at("haproxy.pid"),
			Bind: []string{serve}, BindTLS: []string{}, Stats: net.JoinHostPort(address, statsPort),
		},
		// Droplets boot in seconds here; nobody waits for a real DigitalOcean.
		Fleet: config.FleetFile{
			PollInterval: time.Second, CreateTimeout: 5 * time.Second, Settle: 5 * time.Second,
			BackoffMin: time.Second, BackoffMax: 30 * time.Second,
		},
		Pools: []config.PoolFile{{
			Name: "web", HostnamePrefix: "web", Desired: &desired, Max: &maximum,
			Template: config.TemplateFile{Region: region, Size: size, Image: image},
			Backend:  config.BackendFile{Port: sim.Port, HealthPath: "/health", CheckInterval: time.Second},
			Policy:   config.PolicyFile{BootDeadline: 2 * time.Minute, DrainDeadline: time.Minute},
		}},
	}
	if o.Store == config.StoreEtcd {
		file.Etcd = config.EtcdFile{Endpoints: etcd}
	} else {
		file.Raft = config.RaftFile{Address: net.JoinHostPort(address, raftPort)}
	}
	for _, a := range acc.reserved {
		file.Ingress.ReservedIPs = append(file.Ingress.ReservedIPs, a.String())
	}
	data, err := file.YAML()
	if err != nil {
		return Node{}, err
	}
	if err := os.WriteFile(node.AgentConfig, data, 0o600); err != nil {
		return Node{}, err
	}
	// What an earlier cluster left would be another's inventory.
	for _, stale := range []string{"inventory.json", "haproxy.cfg", "raft"} {
		if err := os.RemoveAll(at(stale)); err != nil {
			return Node{}, err
		}
	}
	s.pids = append(s.pids, at("haproxy.pid"))
	p, err := s.start(name, programs.doproxy, "agent", "--config", node.AgentConfig)
	if err != nil {
		return Node{}, err
	}
	node.PID = p.cmd.Process.Pid
	return node, nil
}

// wait returns when the node is ready: in touch with the store, HAProxy running.
func (n *Node) wait(ctx context.Context, s *supervisor) error { return n.await(ctx, s, "/readyz") }

// answers returns when the node's agent takes requests.
func (n *Node) answers(ctx context.Context, s *supervisor) error { return n.await(ctx, s, "/healthz") }

func (n *Node) await(ctx context.Context, s *supervisor, path string) error {
	for _, p := range s.running {
		if p.name == n.Name {
			return p.await(ctx, n.Name, func() error { return get(n.Health + path) })
		}
	}
	return errors.New("no process of node " + n.Name)
}

func get(url string) error {
	client := http.Client{Timeout: 2 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}
