// Package inventory owns what doproxy knows: pools, their droplets, the nodes
// that balance for them, and events; the keys and the form under which a Store
// keeps them; and Mirror, a node's own copy of it all. It imports no SDK:
// adapters to stores import it.
package inventory

import (
	"net/netip"
	"slices"
	"time"
)

// Phase is where a droplet stands in its life. See docs/architecture.md.
type Phase string

const (
	// Requested: the name is on record; the cloud has not yet confirmed it.
	Requested Phase = "requested"
	// Booting: the cloud knows it; it is not yet healthy on a quorum of nodes.
	Booting Phase = "booting"
	// Serving: nodes send it new sessions.
	Serving Phase = "serving"
	// Draining: no new sessions; those that it has may end.
	Draining Phase = "draining"
	// Deleting: out of every HAProxy; the cloud is asked to delete it until it
	// says that it is gone.
	Deleting Phase = "deleting"
)

// Leaving says that the phase leads only out.
func (p Phase) Leaving() bool { return p == Draining || p == Deleting }

// Template is what a pool's new droplets are made from. Slugs are DigitalOcean's.
type Template struct {
	Region     string   `json:"region"`
	Size       string   `json:"size"`
	Image      string   `json:"image"`              // slug, or the decimal id of a private image
	SSHKeys    []string `json:"ssh_keys,omitempty"` // ids in decimal, or fingerprints
	UserData   string   `json:"user_data,omitempty"`
	VPC        string   `json:"vpc,omitempty"` // UUID; empty is the region's default
	IPv6       bool     `json:"ipv6,omitempty"`
	Monitoring bool     `json:"monitoring,omitempty"`
	Tags       []string `json:"tags,omitempty"` // beside doproxy's own
}

// Backend says how HAProxy balances over a pool. Zero values mean the defaults
// named; the haproxy package refuses what cannot be.
type Backend struct {
	Port          uint16   `json:"port,omitempty"`           // of the app on each droplet; default 80
	Balance       string   `json:"balance,omitempty"`        // default roundrobin
	HealthPath    string   `json:"health_path,omitempty"`    // default "/"
	CheckInterval Duration `json:"check_interval,omitempty"` // default 2s
	Fall          int      `json:"fall,omitempty"`           // failed checks until down; default 3
	Rise          int      `json:"rise,omitempty"`           // good checks until up; default 2
	MaxConn       int      `json:"maxconn,omitempty"`        // a server; default no limit
	Hosts         []string `json:"hosts,omitempty"`          // requests with these Host names; none is any
	Paths         []string `json:"paths,omitempty"`          // requests below these path prefixes; none is any
}

// Policy bounds how a pool may change. Zero values mean the defaults named.
type Policy struct {
	BootDeadline  Duration `json:"boot_deadline,omitempty"`  // from create to healthy; default 10m
	DrainDeadline Duration `json:"drain_deadline,omitempty"` // until sessions are cut; default 5m
}

// PoolSpec is what an operator writes about a pool.
type PoolSpec struct {
	Name           string   `json:"name"`
	HostnamePrefix string   `json:"hostname_prefix"`
	Min            int      `json:"min"`
	Max            int      `json:"max"`
	Template       Template `json:"template"`
	Backend        Backend  `json:"backend"`
	Policy         Policy   `json:"policy"`
}

// Pool is what is wanted of one tier of droplets, and how far that has come.
type Pool struct {
	PoolSpec
	// Desired droplets, within Min and Max.
	Desired int `json:"desired"`
	// Remove names droplets asked away by name; the leader takes exactly these
	// and strikes them off when they are gone. Sorted.
	Remove []string `json:"remove,omitempty"`
	// Import lists ids of droplets made elsewhere to take into the pool; the
	// leader tags them at the cloud, adopts them and strikes them off. Sorted.
	Import []int64 `json:"import,omitempty"`

	// The rest is the leader's.

	// NextOrdinal is the number of the next name. Names are never used again.
	NextOrdinal int64 `json:"next_ordinal"`
	// Failures counts creates refused, and droplets that did not become healthy,
	// since the last one that did. No create before RetryAt.
	Failures int       `json:"failures,omitempty"`
	RetryAt  time.Time `json:"retry_at,omitzero"`
	Reason   string    `json:"reason,omitempty"` // why creates are held back, in the cloud's own words
	// Stopped is when the leader gave up creating after too many failures, until
	// an operator asks for more. Zero is not.
	Stopped time.Time `json:"stopped,omitzero"`
	// Creates are the droplets put on record in the last hour, by minute.
	Creates []Count `json:"creates,omitempty"`
	// Rewound is when the leader found that this record is older than the
	// droplets at the cloud: the store was restored from an old copy. Until an
	// operator scales or confirms, no droplet is let go for being surplus.
	Rewound time.Time `json:"rewound,omitzero"`

	// Release is how many surplus droplets requests have let go. A server sets
	// it with Desired; the leader counts it down. See docs/operations.md, the
	// wipe guard.
	Release int `json:"release,omitempty"`

	Created time.Time `json:"created,omitzero"`

	Mod Revision `json:"-"` // of the record as read; zero is not yet written

	unknown unknown
}

// Droplet is the whole record of one droplet, all that `print` shows.
type Droplet struct {
	Name  string    `json:"name"`
	Pool  string    `json:"pool"`
	Phase Phase     `json:"phase"`
	Since time.Time `json:"since"` // in this phase

	// ID is the cloud's, zero until it is known.
	ID           int64      `json:"id,omitempty"`
	Status       string     `json:"status,omitempty"` // the cloud's word: new, active, off, archive
	PrivateIPv4  netip.Addr `json:"private_ipv4,omitzero"`
	PublicIPv4   netip.Addr `json:"public_ipv4,omitzero"`
	PublicIPv6   netip.Addr `json:"public_ipv6,omitzero"`
	Region       string     `json:"region"`
	Size         string     `json:"size"`
	Image        string     `json:"image"`
	PriceHourly  float64    `json:"price_hourly,omitempty"` // US dollars
	TemplateHash string     `json:"template_hash"`

	// Asked is when the create call in flight was sent or is about to be; zero
	// says that none is, so that one may be.
	Asked   time.Time `json:"asked,omitzero"`
	Created time.Time `json:"created"` // the record
	Active  time.Time `json:"active,omitzero"`
	Served  time.Time `json:"served,omitzero"`   // first became Serving
	Adopted bool      `json:"adopted,omitempty"` // found at the cloud, not created from this record

	// Reason says why the droplet is leaving or cannot come to be.
	Reason string `json:"reason,omitempty"`

	Mod Revision `json:"-"`

	unknown unknown
}

// ServerState is what one node's HAProxy sees of one droplet.
type ServerState struct {
	// Health is "up", "down", or "unchecked" before the first check is done.
	Health string `json:"health"`
	// Sessions open on it now.
	Sessions int `json:"sessions"`
	// Check is HAProxy's own account of the last check, for people.
	Check string `json:"check,omitempty"`
}

// The values of ServerState.Health.
const (
	Up        = "up"
	Down      = "down"
	Unchecked = "unchecked"
)

// Node is what one load balancer reports of itself. The record lives on the
// node's lease: there is one for each live node.
type Node struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`        // the agent
	GRPC    string    `json:"grpc,omitempty"` // address that other machines may call, if any
	HTTP    []string  `json:"http,omitempty"` // addresses that HAProxy serves on

	PublicIPv4  netip.Addr `json:"public_ipv4,omitzero"`
	PublicIPv6  netip.Addr `json:"public_ipv6,omitzero"`
	PrivateIPv4 netip.Addr `json:"private_ipv4,omitzero"`
	// Droplet is this load balancer's own id at the cloud, to which reserved IPs
	// are assigned; zero is not known.
	Droplet int64 `json:"droplet,omitempty"`

	// Applied: HAProxy runs the inventory as of this revision, which is that of a
	// change to a pool or a droplet.
	Applied Revision `json:"applied"`
	// HAProxy is "running", "starting", "failed" or "stopped".
	HAProxy        string    `json:"haproxy"`
	HAProxyVersion string    `json:"haproxy_version,omitempty"`
	HAProxyPID     int       `json:"haproxy_pid,omitempty"`
	HAProxySince   time.Time `json:"haproxy_since,omitzero"`
	Reloads        int64     `json:"reloads"`
	Error          string    `json:"error,omitempty"` // of the last apply, empty once one succeeds

	// Reloaded is the id of the last reload asked of all nodes that is done.
	Reloaded string `json:"reloaded,omitempty"`

	// Seen is the revision that HAProxy ran before Servers was sampled, so that
	// zero sessions on a server drained by then are final.
	Seen Revision `json:"seen"`
	// Servers has every droplet that is Booting or Draining, and of those
	// Serving only the ones that are not up: the report's size follows what is
	// unusual, not the inventory.
	Servers map[string]ServerState `json:"servers,omitempty"`

	// Drained says that the node knows that it is drained.
	Drained bool `json:"drained,omitempty"`
	// Sessions of clients now, told only while the node is drained.
	Sessions int `json:"sessions,omitempty"`
	// Conditions of this node, such as servers that its wipe guard holds.
	Conditions []Condition `json:"conditions,omitempty"`
	// Verified is the id of the last Verify that is done, Differences what it found.
	Verified    string       `json:"verified,omitempty"`
	Differences []Difference `json:"differences,omitempty"`

	Mod Revision `json:"-"`

	unknown unknown
}

// Health of a droplet as this node sees it: that of its report, or up for a
// Serving droplet that the node has applied and does not report otherwise.
func (n *Node) Health(d *Droplet) ServerState {
	if s, ok := n.Servers[d.Name]; ok {
		return s
	}
	if d.Phase == Serving && n.Applied >= d.Mod && n.HAProxy == "running" {
		return ServerState{Health: Up}
	}
	return ServerState{Health: Unchecked}
}

// Event is what happened and why.
type Event struct {
	ID      string    `json:"id"` // ULID: in order of time
	Time    time.Time `json:"time"`
	Type    string    `json:"type"` // dotted, such as droplet.serving
	Pool    string    `json:"pool,omitempty"`
	Droplet string    `json:"droplet,omitempty"`
	Node    string    `json:"node,omitempty"`
	Message string    `json:"message"`
}

// Meta names the cluster. The first agent writes it, once.
type Meta struct {
	UID    string `json:"uid"` // in the tag of every droplet of this cluster
	Schema int    `json:"schema"`
	// Moved: the inventory is in another store now, or about to be. Schema is then
	// one that no doproxy knows, so that an older one keeps its hands off too.
	Moved   *Move     `json:"moved,omitempty"`
	Created time.Time `json:"created"`
	// Rebuilt is when the inventory was begun anew from the cloud's tags.
	Rebuilt time.Time `json:"rebuilt,omitzero"`

	Mod Revision `json:"-"`
}

// Move says where an inventory went.
type Move struct {
	From string    `json:"from,omitempty"`
	To   string    `json:"to"` // "etcd" or "raft"
	At   time.Time `json:"at"`
	By   string    `json:"by,omitempty"` // the run of the move that says so
	// Pending: it is not there yet.
	Pending bool `json:"pending,omitempty"`
}

// Schema is the version of the records that this program writes.
const Schema = 1

// SortDroplets puts droplets in the order of `print`: by pool, then by age.
func SortDroplets(ds []*Droplet) {
	slices.SortFunc(ds, compareDroplets)
}
