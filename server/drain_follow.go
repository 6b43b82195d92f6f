package server

import (
	"fmt"
	"time"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

const (
	// defaultTTL of a DNS name, in seconds.
	defaultTTL = 60
)

// ttl is how long clients may remember a name's addresses.
func ttl(st *inventory.State, fqdn string) time.Duration {
	for _, n := range st.Settings.Ingress.DNS {
		if n.FQDN() == fqdn {
			return time.Duration(or(n.TTL, defaultTTL)) * time.Second
		}
	}
	return defaultTTL * time.Second
}

func longestTTL(st *inventory.State) time.Duration {
	var longest time.Duration
	for _, n := range st.Settings.Ingress.DNS {
		longest = max(longest, ttl(st, n.FQDN()))
	}
	return longest
}

// drainFollower tells how far the drain of a node has come.
type drainFollower struct {
	name    string
	asked   bool                     // this stream asked for the drain; else it was before
	records map[string]time.Duration // TTL by name, of those that had a record of it when last looked
	expire  time.Time                // when the last client may have forgotten the records that are gone; zero is there were none
}

// note looks which names have records of the node, and since when others have
// none any more.
func (f *drainFollower) note(st *inventory.State, now time.Time) {
	there := map[string]time.Duration{}
	for fqdn, d := range st.DNS {
		for _, r := range d.Records {
			if r.Node == f.name {
				there[fqdn] = ttl(st, fqdn)
			}
		}
	}
	for fqdn, ttl := range f.records {
		if _, still := there[fqdn]; !still {
			if at := now.Add(ttl); at.After(f.expire) {
				f.expire = at
			}
		}
	}
	f.records = there
}

// picture is what stands between the node and a restart that disturbs nobody.
func (f *drainFollower) picture(st *inventory.State, now time.Time) *pb.DrainNodeResponse {
	f.note(st, now)
	m := &pb.DrainNodeResponse{Node: NodeToProto(st, f.name), DnsRecords: dnsRecords(st, f.name)}
	for _, address := range sortedAddresses(st.Assignments) {
		a := st.Assignments[address]
		// One on its way to another node is here until the cloud says otherwise.
		if a.Node == f.name || a.From == f.name && a.Verified.IsZero() {
			m.ReservedIps = append(m.ReservedIps, reservedIPToProto(address, a))
		}
	}
	if len(m.DnsRecords) == 0 {
		m.DnsExpireTime = timestamp(f.expire.Truncate(time.Second))
	}
	m.Sessions = m.Node.Sessions
	return m
}

// progress is the picture, and when it changes without a change of the state.
func (f *drainFollower) progress(st *inventory.State, now time.Time) (m *pb.DrainNodeResponse, next time.Time, err error) {
	member := st.Members[f.name]
	if member == nil {
		return nil, next, nodeNotFound(f.name, sortedKeys(st.Members))
	}
	if member.Drained.IsZero() {
		return nil, next, undrained(f.name)
	}
	m = f.picture(st, now)
	node := st.Nodes[f.name]
	away := len(m.ReservedIps) == 0 && len(m.DnsRecords) == 0
	switch stuck := holdup(st, nil); {
	case stuck != "" && (!away || st.Err != nil):
		m.Reason = stuck
	case len(m.ReservedIps) > 0:
		m.Reason = waitsForAddress(st, m.ReservedIps[0])
	case len(m.DnsRecords) > 0:
		r := m.DnsRecords[0]
		m.Reason = fmt.Sprintf("the DNS record %s of %s is to go%s", r.Address, r.Fqdn, because(or(r.Error, r.Reason)))
	case now.Before(f.expire):
		m.Reason = "clients may remember its address until " + f.expire.UTC().Format(time.RFC3339)
		next = f.expire
	case node == nil:
		m.Reason = f.name + " is silent: its sessions are not known"
	case !node.Drained:
		m.Reason = f.name + " has not told its sessions yet"
	case node.Sessions > 0:
		m.Reason = fmt.Sprintf("%d sessions are open", node.Sessions)
	default:
		m.Done = true
	}
	return m, next, nil
}

func waitsForAddress(st *inventory.State, ip *pb.ReservedIp) string {
	if ip.Error == "" {
		ip.Error = addressCondition(st, ip.Address)
	}
	if ip.Error != "" {
		return fmt.Sprintf("reserved IP %s cannot move: %s", ip.Address, ip.Error)
	}
	return fmt.Sprintf("reserved IP %s is to move", ip.Address)
}
