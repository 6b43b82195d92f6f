package ingress

import (
	"net/netip"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// Input is all that Plan looks at. Plan changes none of it.
type Input struct {
	Now      time.Time
	Settings Settings
	// UID is the cluster's as it was when the term began.
	UID   string
	State *inventory.State
	Facts *Facts // that have seen State
	// Budget is what the account lets each class of calls do now; nil is no bound.
	Budget *cloud.Allowances
}

// Decision is what to do next: commit each group's writes, then make its create;
// meanwhile the other calls. All of it is safe to do in part.
type Decision struct {
	Groups  []Group
	Assigns []Assign
	Looks   []netip.Addr // reserved IPs to ask for
	List    bool         // list all reserved IPs
	Names   []Name       // names whose records to list
	Deletes []Change     // DNS records to delete
	TTLs    []Change     // DNS records whose TTL to set
	// Next is when to plan again though nothing was heard; zero is never.
	Next time.Time
	// Notes are conditions that stand, for people. Held says that nothing can be
	// said now: those told before stand.
	Notes []Note
	Held  bool
	// Verified is the id of an inventory.Verify that is done with this, and
	// Differences what it found.
	Verified    string
	Differences []inventory.Difference
}

// Group is one transaction, and what may be done once it is committed.
type Group struct {
	Writes  []Write
	Creates []Create
	Events  []inventory.Event
}

// Write replaces or deletes one record, guarded by the Mod of the value.
// Exactly one of Assignment and DNS is set.
type Write struct {
	Assignment *inventory.Assignment
	DNS        *inventory.DNSRecords
	Delete     bool
}

// Assign gives an address to a node's droplet.
type Assign struct {
	Address netip.Addr
	Node    string
	Droplet int64
}

// Name is a name as the cloud's calls take it.
type Name struct {
	FQDN   string
	Domain string
	Name   string // within the domain
}

// Create makes a DNS record that is on record with this Asked by then. The call
// must be over at Asked plus Settings.CallTimeout.
type Create struct {
	Name
	Address netip.Addr
	TTL     int // seconds
	Asked   time.Time
}

// Change deletes a DNS record or sets its TTL.
type Change struct {
	Name
	Record cloud.DNSRecord // as it is to be; a delete looks at the ID only
}

// Note is a condition that stands. Its Key tells it from others; it is worth an
// event when it first appears.
type Note struct {
	Key string
	inventory.Event
}

// News is what the leader has to tell; see inventory.Report.
type News struct {
	// Conditions that stand, by Key, each with the time since when.
	Conditions []inventory.Condition
	// CloudError is that of the last list that failed, empty when the last ones
	// went well.
	CloudError string
	// Verified is the id of the last inventory.Verify that is done, Differences
	// what it found.
	Verified    string
	Differences []inventory.Difference
}

// recordType is that of a DNS record for an address.
func recordType(a netip.Addr) string {
	if a.Is4() {
		return "A"
	}
	return "AAAA"
}

// wanted is the record that a create asks for.
func (c Create) wanted() cloud.DNSRecord {
	return cloud.DNSRecord{Type: recordType(c.Address), Name: c.Name.Name, Data: c.Address.String(), TTL: c.TTL}
}
