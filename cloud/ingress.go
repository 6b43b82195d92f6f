package cloud

import (
	"context"
	"net/netip"
)

// ReservedIP is an address of the account, as the cloud tells it.
type ReservedIP struct {
	Address netip.Addr // IPv4 or IPv6
	Region  string
	Droplet int64 // zero when it is not assigned
	Locked  bool  // an action on it is under way
}

// ReservedIPs are the account's addresses that may move between droplets. Every
// call obeys its context and sends its requests once.
type ReservedIPs interface {
	// ReservedIPs returns all of both families, or an error: never a part.
	ReservedIPs(ctx context.Context) ([]ReservedIP, error)
	// ReservedIP asks for one. Errors: ErrNotFound.
	ReservedIP(ctx context.Context, address netip.Addr) (ReservedIP, error)
	// Assign gives an address to a droplet, taking it from any other. Who must be
	// sure asks for the address afterwards. Errors: ErrNotFound, *Refused,
	// ErrThrottled, ErrAmbiguous.
	Assign(ctx context.Context, address netip.Addr, droplet int64) error
}

// DNSRecord is one record of a domain.
type DNSRecord struct {
	ID   int64
	Type string // A, AAAA, …
	Name string // within the domain; "@" is the domain itself
	Data string
	TTL  int // seconds
}

// DNS are the records of the account's domains. Every call obeys its context
// and sends its requests once.
type DNS interface {
	// Records returns all A and AAAA records of a name within a domain, or an
	// error: never a part. Errors: ErrNotFound, the account has no such domain.
	Records(ctx context.Context, domain, name string) ([]DNSRecord, error)
	// CreateRecord makes one and returns it with its id. Errors: ErrNotFound,
	// *Refused, ErrThrottled, ErrAmbiguous.
	CreateRecord(ctx context.Context, domain string, r DNSRecord) (DNSRecord, error)
	// SetTTL changes a record's. Errors: as CreateRecord.
	SetTTL(ctx context.Context, domain string, r DNSRecord) error
	// DeleteRecord deletes one. ErrNotFound: it is gone already.
	DeleteRecord(ctx context.Context, domain string, id int64) error
}

// Prices are what droplets cost.
type Prices interface {
	// Prices of all sizes by slug, in US dollars an hour.
	Prices(ctx context.Context) (map[string]float64, error)
}
