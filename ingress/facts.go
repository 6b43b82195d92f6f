package ingress

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// Facts are what the leader learned from the cloud and of the nodes in this
// term, and which of its calls are under way. They live in memory only: all that
// must outlive a leader is on record, and the next one finds out the rest anew.
//
// Its methods are the only ones to change it. A call is noted with a Start
// method before it is sent, and with the matching End method once it is over.
type Facts struct {
	// Term is when this leader's term began.
	Term time.Time
	// Hold is the moment before which the cloud wants no call.
	Hold time.Time

	nodes     map[string]health
	began     bool // the nodes were seen once
	inventory inventory.Revision
	changed   inventory.Revision // what lastChange made of that

	addresses    map[netip.Addr]address
	listing      bool
	listed       time.Time         // when the last whole list was sent; zero before the first
	listTried    time.Time         // when the last one was sent
	listEnded    time.Time         // and when it was over
	listFailures int               // in a row
	listError    string            // of the last; empty when it went well
	others       map[int64]holding // addresses that the last list shows at a droplet

	names map[string]records // by FQDN

	verify     string // the id of the last inventory.Verify seen
	verifySeen time.Time
	verified   string // and of the last one done
}

// holding are the addresses that the cloud shows at one droplet.
type holding []netip.Addr

// NewFacts knows nothing yet. now is when the term began.
func NewFacts(now time.Time) *Facts {
	return &Facts{
		Term:      now,
		nodes:     map[string]health{},
		addresses: map[netip.Addr]address{},
		names:     map[string]records{},
	}
}

// address is what is known of one reserved IP.
type address struct {
	calling bool // an assign or a look is under way
	seen    sighting
	// tried is the last assign; looks counts those since.
	tried        attempt
	looks        int
	lookTried    time.Time
	lookFailures int
	lookError    string
	// refused are nodes that the cloud refused the address lately.
	refused map[string]refusal
}

// sighting is what the cloud said of an address.
type sighting struct {
	sent    time.Time // the call; zero: it was never seen
	sure    bool      // by the address's own call, not by a list that may lag
	droplet int64
	locked  bool
	missing bool // the account has no such address
}

// outcome of a call that changes something at the cloud.
type outcome uint8

const (
	unknown  outcome = iota
	accepted         // the cloud took it
	refused          // a definite no, because of what was asked
	failed           // a definite no, for another reason
)

type attempt struct {
	node    string
	droplet int64
	count   int // calls for this droplet in a row
	ended   time.Time
	outcome outcome
	message string // why it did not go well
}

// refusal is why the cloud did not give an address to a node, and when.
type refusal struct {
	at      time.Time
	message string
}

// StartAssign notes an assign that is about to be sent.
func (f *Facts) StartAssign(a Assign) {
	ip := f.addresses[a.Address]
	ip.calling = true
	if ip.tried.droplet != a.Droplet {
		ip.tried = attempt{droplet: a.Droplet, ended: ip.tried.ended}
	}
	ip.tried.node = a.Node
	ip.tried.count++
	ip.looks, ip.lookFailures, ip.lookTried = 0, 0, time.Time{}
	f.addresses[a.Address] = ip
}

// EndAssign takes in what became of an assign.
func (f *Facts) EndAssign(a Assign, now time.Time, err error) {
	ip := f.addresses[a.Address]
	ip.calling = false
	ip.tried.ended = now
	ip.tried.outcome, ip.tried.message = f.judge(err)
	f.addresses[a.Address] = ip
}

// StartLook notes that an address is about to be asked for.
func (f *Facts) StartLook(a netip.Addr, now time.Time) {
	ip := f.addresses[a]
	ip.calling = true
	ip.looks++
	ip.lookTried = now
	f.addresses[a] = ip
}

// EndLook takes in what the cloud said of an address when asked at sent.
func (f *Facts) EndLook(a netip.Addr, sent time.Time, got cloud.ReservedIP, err error) {
	ip := f.addresses[a]
	ip.calling = false
	switch {
	case err == nil:
		ip.seen = sighting{sent: sent, sure: true, droplet: got.Droplet, locked: got.Locked}
	case errors.Is(err, cloud.ErrNotFound):
		ip.seen = sighting{sent: sent, sure: true, missing: true}
	default:
		_, ip.lookError = f.judge(err)
		ip.lookFailures++
		f.addresses[a] = ip
		return
	}
	ip.lookFailures, ip.lookError = 0, ""
	if !ip.seen.missing && ip.seen.droplet == ip.tried.droplet {
		ip.tried = attempt{ended: ip.tried.ended} // it is done; one for a repair begins anew
	}
	if t := ip.tried; t.outcome == refused && !ip.seen.locked && !ip.seen.missing && ip.seen.droplet != t.droplet {
		// Only now is it sure that the call was not refused for being needless, or
		// because of another one that was under way.
		all := own(ip.refused)
		all[t.node] = refusal{sent, t.message}
		ip.refused = all
	}
	f.addresses[a] = ip
}

// StartList notes that a list of all reserved IPs is about to be sent.
func (f *Facts) StartList(now time.Time) { f.listing, f.listTried = true, now }

// EndList takes in a whole list sent at a moment, or why there is none.
func (f *Facts) EndList(sent, now time.Time, all []cloud.ReservedIP, err error) {
	f.listing, f.listEnded = false, now
	if err != nil {
		f.listFailures++
		_, f.listError = f.judge(err)
		return
	}
	f.listed, f.listFailures, f.listError = sent, 0, ""
	f.others = map[int64]holding{}
	there := map[netip.Addr]bool{}
	for _, r := range all {
		there[r.Address] = true
		if r.Droplet != 0 {
			f.others[r.Droplet] = append(f.others[r.Droplet], r.Address)
		}
		f.sight(r.Address, sighting{sent: sent, droplet: r.Droplet, locked: r.Locked})
	}
	for a := range f.addresses {
		if !there[a] {
			f.sight(a, sighting{sent: sent, missing: true})
		}
	}
}

// sight takes over what a list says unless something newer is known. What it
// confirms stays as sure as it was.
func (f *Facts) sight(a netip.Addr, s sighting) {
	ip := f.addresses[a]
	if s.sent.Before(ip.seen.sent) {
		return
	}
	s.sure = ip.seen.sure && ip.seen.droplet == s.droplet && ip.seen.missing == s.missing && !ip.seen.sent.Before(ip.tried.ended)
	ip.seen = s
	f.addresses[a] = ip
}

// EndVerify notes that a Verify is done.
func (f *Facts) EndVerify(id string) { f.verified = id }

// Prune forgets what has no use any more: addresses and names that are neither
// wanted nor on record.
func (f *Facts) Prune(s *inventory.State) {
	if !trusted(s) {
		return
	}
	wanted := map[netip.Addr]bool{}
	for _, a := range s.Settings.Ingress.ReservedIPs {
		wanted[a] = true
	}
	for a, ip := range f.addresses {
		if !wanted[a] && s.Assignments[a] == nil && !ip.calling {
			delete(f.addresses, a)
		}
	}
	names := map[string]bool{}
	for _, n := range s.Settings.Ingress.DNS {
		names[n.FQDN()] = true
	}
	for fqdn, r := range f.names {
		if !names[fqdn] && s.DNS[fqdn] == nil && !r.busy() {
			delete(f.names, fqdn)
		}
	}
}

// eager drops what holds calls back.
func (f *Facts) eager() {
	for a, ip := range f.addresses {
		ip.refused = nil
		ip.tried.count = min(ip.tried.count, 1)
		ip.lookFailures = 0
		f.addresses[a] = ip
	}
	f.listFailures = 0
	for fqdn, r := range f.names {
		r.listFailures = 0
		r.creates = nil
		r.eager = true
		f.names[fqdn] = r
	}
}

// judge says what an error means for the call that it came of.
func (f *Facts) judge(err error) (outcome, string) {
	var no *cloud.Refused
	var throttled *cloud.Throttled
	switch {
	case err == nil:
		return accepted, ""
	case errors.As(err, &throttled):
		if throttled.Until.After(f.Hold) {
			f.Hold = throttled.Until
		}
		return failed, cloud.ErrThrottled.Error()
	case errors.Is(err, cloud.ErrNotFound):
		return refused, "DigitalOcean does not know it"
	case errors.As(err, &no):
		message := no.Message
		if message == "" {
			message = no.ID
		}
		switch no.Status {
		case 400, 404, 409, 412, 422:
			return refused, message
		}
		return failed, message // such as a token that is not valid
	}
	return unknown, err.Error()
}

// trouble is why the last list failed; empty when the last ones went well.
func (f *Facts) trouble() string {
	if f.listError != "" {
		return "listing reserved IPs: " + f.listError
	}
	for _, fqdn := range slices.Sorted(maps.Keys(f.names)) {
		if why := f.names[fqdn].listError; why != "" {
			return "listing the DNS records of " + fqdn + ": " + why
		}
	}
	return ""
}
