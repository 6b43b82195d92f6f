// Package config reads doproxy.yml, DOProxy's own as well as doproxy's, and
// the pool files of `doproxy apply`. Decoding is strict: whatever the program
// would not understand is an error that names file, line, key, value and mend,
// and all errors of a file are reported at once.
package config

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
)

// Config is what an agent runs on: checked, with every default filled in and
// every file name absolute.
type Config struct {
	// File is the name it was read from, absolute.
	File string
	// Warnings are for the operator to read; nothing is broken.
	Warnings []string

	Cluster string
	Node    string

	Token Secret
	// NeverLead: the node only balances, so it needs no token.
	NeverLead bool
	// TokenFrom says where the token is from, for logs: "environment variable
	// DOPROXY_TOKEN", "token_file /etc/doproxy/token" or "token".
	TokenFrom    string
	DigitalOcean DigitalOcean

	// Store is where the inventory is: StoreEtcd or StoreRaft. The other is
	// configured too if its own field is not nil.
	Store     string
	Etcd      *Etcd
	Raft      *Raft
	API       API
	StateDir  string
	LeaseTTL  time.Duration // of the leader; whole seconds
	NodeTTL   time.Duration // of a node's report; whole seconds
	HAProxy   HAProxy
	Fleet     Fleet
	Advertise Advertise

	// Pools are those to create if the cluster does not have them yet.
	Pools []Pool
	// Settings are those to begin with if the cluster has none yet; nil if the
	// file has neither limits nor ingress.
	Settings *inventory.Settings

	// InventoryFile is DOProxy's old inventory, for `doproxy import`; empty if
	// the file names none.
	InventoryFile string
}

type DigitalOcean struct {
	URL string // ends with a slash
}

// The values of Config.Store.
const (
	StoreEtcd = "etcd"
	StoreRaft = "raft" // kept by the agents themselves
)

// Raft is this node's part in the integrated store.
type Raft struct {
	Address   string // host:port where other members reach it
	Listen    string
	Plain     bool // without TLS: loopback only
	DeadAfter time.Duration
}

type Etcd struct {
	Endpoints                 []string
	Username                  string
	Password                  Secret
	CAFile, CertFile, KeyFile string // empty: none
}

type API struct {
	Socket string
	Listen []string // may be empty; TLS is not nil if one is beyond loopback
	HTTP   string   // of /healthz and /metrics; empty: off
	TLS    *TLS
}

// TLS is for the addresses of API.Listen, not for the socket.
type TLS struct {
	CertFile, KeyFile string
	ClientCAFile      string // empty only if every address is loopback
}

// The values of HAProxy.Mode.
const (
	Systemd = "systemd" // systemd supervises HAProxy; the master socket reloads it
	Managed = "managed" // the agent starts HAProxy
)

type HAProxy struct {
	Mode          string
	Binary        string // empty: where haproxy.FindBinary finds it
	ConfigFile    string
	TemplateFile  string // empty: the built-in template
	MasterSocket  string
	PIDFile       string
	AuditInterval time.Duration

	// What goes into the rendered file beside the backends.
	Global   haproxy.Global
	Binds    []haproxy.Bind
	Timeouts haproxy.Timeouts
}

type Fleet struct {
	PollInterval     time.Duration // while something is on its way at the cloud
	PollIntervalIdle time.Duration
	CreateTimeout    time.Duration
	Settle           time.Duration
	RemoveDeadline   time.Duration
	BackoffMin       time.Duration
	BackoffMax       time.Duration
}

// Advertise holds the addresses of this node; an invalid Addr is not set.
type Advertise struct {
	PublicIPv4, PublicIPv6, PrivateIPv4 netip.Addr
	// Droplet is this load balancer's own id at DigitalOcean; zero is not known.
	Droplet int64
}

// Pool is a pool as written. What is left out of Backend and Policy is zero,
// which means the defaults that package inventory names.
type Pool struct {
	inventory.PoolSpec
	// Desired is Min if it is not written.
	Desired    int
	DesiredSet bool // it is written
}

// DefaultMax is a pool's max if it is not written.
const DefaultMax = 20

// world is all that loading asks of the machine.
type world struct {
	env      func(string) (string, bool)
	hostname func() (string, error)
	stat     func(string) (fs.FileInfo, error)
	read     func(string) ([]byte, error)
}

func machine(env func(string) (string, bool)) world {
	if env == nil {
		env = func(string) (string, bool) { return "", false }
	}
	return world{env: env, hostname: os.Hostname, stat: os.Stat, read: os.ReadFile}
}

// Load reads the agent's configuration and the files that it names. env is
// os.LookupEnv, or nil for no environment. The error joins an *Error for each
// thing that is wrong.
func Load(path string, env func(string) (string, bool)) (*Config, error) {
	w := machine(env)
	data, err := w.readFile(path)
	if err != nil {
		return nil, &Error{File: path, Message: "cannot be read: " + err.Error()}
	}
	return parse(path, data, w)
}

// Parse is Load for a file that is read already. Files that it names are
// looked for from the folder of file.
func Parse(file string, data []byte, env func(string) (string, bool)) (*Config, error) {
	return parse(file, data, machine(env))
}

// Decode reads a file as it is written: strictly, but with no defaults and no
// look at the values beyond their types.
func Decode(file string, data []byte) (*File, error) {
	p := newProblems(file)
	f, _ := decodeFile(p, data)
	if err := p.err(); err != nil {
		return nil, err
	}
	return f, nil
}

// decodeFile says whether the file is a mapping in YAML, so that it is worth
// looking at the values, whatever is wrong with them.
func decodeFile(p *problems, data []byte) (f *File, ok bool) {
	f = &File{}
	docs := documents(p, data)
	if len(p.errors) > 0 {
		return nil, false
	}
	if len(docs) > 1 {
		p.addAt(lineOf(docs[1]), "", "begins a second YAML document: a configuration is one")
	}
	if len(docs) > 0 {
		decode(p, docs[0], "", f)
		if _, ok := docs[0].(ast.MapNode); !ok {
			return nil, false
		}
	}
	return f, true
}

func parse(file string, data []byte, w world) (*Config, error) {
	p := newProblems(file)
	f, ok := decodeFile(p, data)
	if !ok {
		return nil, p.err()
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, &Error{File: file, Message: "has no absolute name: " + err.Error()}
	}
	r := &resolver{problems: p, world: w, file: f, dir: filepath.Dir(abs)}
	c := r.config()
	c.File = abs
	c.Warnings = r.warnings
	if err := p.err(); err != nil {
		return nil, err
	}
	return c, nil
}
