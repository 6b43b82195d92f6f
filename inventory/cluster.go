package inventory

import (
	"net/netip"
	"time"
)

// Settings are the operator's, for the whole cluster.
type Settings struct {
	Limits  Limits  `json:"limits,omitzero"`
	Ingress Ingress `json:"ingress,omitzero"`

	Mod Revision `json:"-"`

	unknown unknown
}

// Limits bound what the leader may do. Zero is no limit. That of a pool's own
// droplets is its Max.
type Limits struct {
	// Droplets of all pools together, whatever their phase.
	Droplets int `json:"droplets,omitempty"`
	// CostHourly of all droplets together, in US dollars.
	CostHourly float64 `json:"cost_hourly,omitempty"`
	// CreatesHourly is how many droplets may be created in any hour.
	CreatesHourly int `json:"creates_hourly,omitempty"`
	// LeavePercent is the share of a pool's droplets that may be on their way
	// out at once, 1 to 100. At least one always may.
	LeavePercent int `json:"leave_percent,omitempty"`
}

// Ingress is where clients come in: addresses that the leader keeps on nodes
// that are fit to serve. Zero durations mean the defaults named.
type Ingress struct {
	// ReservedIPs of the account, IPv4 and IPv6.
	ReservedIPs []netip.Addr `json:"reserved_ips,omitempty"`
	DNS         []DNSName    `json:"dns,omitempty"`

	// FailAfter is how long a node must have been unfit before it loses
	// addresses and records. Default 300ms.
	FailAfter Duration `json:"fail_after,omitempty"`
	// SettleAfter is how long a node that was unfit must have been fit before it
	// gets addresses or records again. Default 30s.
	SettleAfter Duration `json:"settle_after,omitempty"`
	// StaleAfter is how long a node may lag behind the inventory and be fit.
	// Default 15s.
	StaleAfter Duration `json:"stale_after,omitempty"`
	// HoldDown is the least time between two moves of one address that nobody
	// asked for, doubled with each further one. The first is never held. Default 5s.
	HoldDown Duration `json:"hold_down,omitempty"`
}

// DNSName is a name whose A and AAAA records are the fit nodes' public addresses.
type DNSName struct {
	Domain string `json:"domain"`        // as DigitalOcean knows it, such as example.com
	Name   string `json:"name"`          // within it, such as www; "@" is the domain itself
	TTL    int    `json:"ttl,omitempty"` // seconds, at least 30; default 60
}

// FQDN is the whole name, without a final dot.
func (n DNSName) FQDN() string {
	if n.Name == "@" || n.Name == "" {
		return n.Domain
	}
	return n.Name + "." + n.Domain
}

// Assignment is the intended holder of a reserved IP.
type Assignment struct {
	Address netip.Addr `json:"address"`
	// Node that is to hold it, by its droplet; empty while none can.
	Node    string `json:"node,omitempty"`
	Droplet int64  `json:"droplet,omitempty"`
	// Since when, why it came there, and from which node.
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
	From   string    `json:"from,omitempty"`
	// Verified is when the cloud first confirmed this holder; zero is not yet.
	Verified time.Time `json:"verified,omitzero"`
	// Moves that nobody asked for, the last ones, oldest first.
	Moves []time.Time `json:"moves,omitempty"`
	// Error of the last attempt, in the cloud's words; empty once verified.
	Error string `json:"error,omitempty"`

	// Want is the request of an operator that the leader has not carried out:
	// the node that is to hold the address, or AnyNode for another than now.
	Want string `json:"want,omitempty"`

	Mod Revision `json:"-"`

	unknown unknown
}

// AnyNode in Assignment.Want asks for any node but the present holder.
const AnyNode = "*"

// DNSRecords are the records that the leader keeps of one name. Records under
// that name that are not here are others', and not touched.
type DNSRecords struct {
	FQDN    string      `json:"fqdn"`
	Domain  string      `json:"domain"`
	Records []DNSRecord `json:"records,omitempty"`
	Error   string      `json:"error,omitempty"` // of the last attempt

	Mod Revision `json:"-"`

	unknown unknown
}

// DNSRecord is one A or AAAA record, by the form of its address.
type DNSRecord struct {
	Address netip.Addr `json:"address"`
	Node    string     `json:"node"`
	// ID is the cloud's; zero while it is not known whether the record exists.
	ID int64 `json:"id,omitempty"`
	// Asked is when the create in flight was sent or is about to be.
	Asked time.Time `json:"asked,omitzero"`
	Since time.Time `json:"since"`
	// Leaving says that the record is to go; Reason says why.
	Leaving bool   `json:"leaving,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Member is a node that the cluster knows, alive or not.
type Member struct {
	Name   string    `json:"name"`
	Joined time.Time `json:"joined"`
	// Silent is since when the leader misses its report; zero while it has it.
	Silent time.Time `json:"silent,omitzero"`
	// Drained is since when an operator wants it without clients; zero is not.
	Drained time.Time `json:"drained,omitzero"`
	Reason  string    `json:"reason,omitempty"` // of the drain

	Mod Revision `json:"-"`

	unknown unknown
}

// Pause stops every change at the cloud while its record is there.
type Pause struct {
	Since  time.Time `json:"since"`
	Node   string    `json:"node"` // that took the request
	Reason string    `json:"reason,omitempty"`

	Mod Revision `json:"-"`
}

// Confirm lets go what the wipe guard holds of a pool. Its record expires.
type Confirm struct {
	Pool  string    `json:"pool"`
	Names []string  `json:"names"` // of droplets, sorted
	Since time.Time `json:"since"`

	Mod Revision `json:"-"`
}

// Verify asks the leader and every node to look now and tell what differs.
type Verify struct {
	ID     string    `json:"id"` // ULID
	Time   time.Time `json:"time"`
	Repair bool      `json:"repair,omitempty"` // and to mend it now rather than when due

	Mod Revision `json:"-"`
}

// Report is what the leader has to tell.
type Report struct {
	Node string `json:"node"`
	// Conditions that stand now, by Key.
	Conditions []Condition        `json:"conditions,omitempty"`
	Usage      Usage              `json:"usage"`
	Prices     map[string]float64 `json:"prices,omitempty"` // of sizes by slug, US dollars an hour
	CloudError string             `json:"cloud_error,omitempty"`

	// Verified is the id of the last Verify that is done, Differences what it found.
	Verified    string       `json:"verified,omitempty"`
	Differences []Difference `json:"differences,omitempty"`

	Mod Revision `json:"-"`

	unknown unknown
}

// Condition is something that holds work up, or that a person should know.
type Condition struct {
	Key     string    `json:"key"`  // the same for as long as it stands
	Type    string    `json:"type"` // dotted, as an event's
	Pool    string    `json:"pool,omitempty"`
	Droplet string    `json:"droplet,omitempty"`
	Node    string    `json:"node,omitempty"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
	// Names of droplets that `doproxy confirm` would let go, sorted; none when no
	// confirmation helps.
	Names []string `json:"names,omitempty"`
}

// Usage is what of the limits is used.
type Usage struct {
	Droplets   int     `json:"droplets"`
	CostHourly float64 `json:"cost_hourly"`
	Creates    int     `json:"creates"` // in the last hour
	// The account's budget of API calls as the cloud last told it; Limit zero is
	// not known.
	APILimit     int       `json:"api_limit,omitempty"` // an hour
	APIRemaining int       `json:"api_remaining,omitempty"`
	APIReset     time.Time `json:"api_reset,omitzero"`
	APIMinute    int       `json:"api_minute,omitempty"` // own calls in the last minute
}

// Difference is one thing that two of store, cloud and HAProxy tell otherwise.
type Difference struct {
	Kind    string `json:"kind"`    // dotted, such as droplet.missing
	Subject string `json:"subject"` // a droplet, an address, a server
	Node    string `json:"node,omitempty"`
	Message string `json:"message"`
}

// Count is how many happened in the minute that begins at Time.
type Count struct {
	Time time.Time `json:"time"`
	N    int       `json:"n"`
}
