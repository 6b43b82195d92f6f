package server

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/doproxy/doproxy/fleet"
	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// SettingsFromProto is what a message wants of the settings. It leaves out
// addresses that are none; ValidateSettings says what is wrong with a message.
func SettingsFromProto(m *pb.Settings) inventory.Settings {
	l, i := m.GetLimits(), m.GetIngress()
	s := inventory.Settings{
		Limits: inventory.Limits{
			Droplets:      int(l.GetDroplets()),
			CostHourly:    l.GetCostHourly(),
			CreatesHourly: int(l.GetCreatesHourly()),
			LeavePercent:  int(l.GetLeavePercent()),
		},
		Ingress: inventory.Ingress{
			FailAfter:   duration(i.GetFailAfter()),
			SettleAfter: duration(i.GetSettleAfter()),
			StaleAfter:  duration(i.GetStaleAfter()),
			HoldDown:    duration(i.GetHoldDown()),
		},
	}
	for _, text := range i.GetReservedIps() {
		if a, err := netip.ParseAddr(text); err == nil {
			s.Ingress.ReservedIPs = append(s.Ingress.ReservedIPs, a)
		}
	}
	for _, n := range i.GetDns() {
		s.Ingress.DNS = append(s.Ingress.DNS, inventory.DNSName{
			Domain: strings.ToLower(n.GetDomain()), Name: strings.ToLower(n.GetName()), TTL: int(n.GetTtl())})
	}
	return s
}

// SettingsToProto is the whole message.
func SettingsToProto(s *inventory.Settings) *pb.Settings {
	i := s.Ingress
	m := &pb.Settings{
		Limits: &pb.Limits{
			Droplets:      int32(s.Limits.Droplets),
			CostHourly:    s.Limits.CostHourly,
			CreatesHourly: int32(s.Limits.CreatesHourly),
			LeavePercent:  int32(s.Limits.LeavePercent),
		},
		Ingress: &pb.Ingress{
			FailAfter:   durationProto(i.FailAfter),
			SettleAfter: durationProto(i.SettleAfter),
			StaleAfter:  durationProto(i.StaleAfter),
			HoldDown:    durationProto(i.HoldDown),
		},
		Etag: SettingsETag(s),
	}
	for _, a := range i.ReservedIPs {
		m.Ingress.ReservedIps = append(m.Ingress.ReservedIps, a.String())
	}
	for _, n := range i.DNS {
		m.Ingress.Dns = append(m.Ingress.Dns, &pb.DnsName{Domain: n.Domain, Name: n.Name, Ttl: int32(n.TTL)})
	}
	return m
}

// SettingsETag changes whenever the settings do.
func SettingsETag(s *inventory.Settings) string {
	wanted, err := json.Marshal(struct {
		Limits  inventory.Limits
		Ingress inventory.Ingress
	}{s.Limits, s.Ingress})
	if err != nil {
		panic("server: settings that JSON cannot hold: " + err.Error())
	}
	sum := sha256.Sum256(wanted)
	return hex.EncodeToString(sum[:8])
}

// nodeNames are the nodes to show, sorted: those that are alive, and those that
// the cluster knows and hears nothing of. What was read from disk says nothing
// of who is alive.
func nodeNames(st *inventory.State) []string {
	names := slices.Collect(maps.Keys(st.Nodes))
	for name, m := range st.Members {
		if st.Nodes[name] == nil && (st.Listed || !m.Silent.IsZero()) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// NodeToProto is what the state knows of a node, alive or silent.
func NodeToProto(st *inventory.State, name string) *pb.Node {
	m := &pb.Node{Name: NodeName(name), Leader: name == st.Leader.Name}
	if n := st.Nodes[name]; n != nil {
		m.Version = n.Version
		m.StartTime = timestamp(n.Started)
		m.AppliedRevision = int64(n.Applied)
		m.Haproxy = n.HAProxy
		m.HaproxyVersion = n.HAProxyVersion
		m.HaproxyPid = int32(n.HAProxyPID)
		m.HaproxyStartTime = timestamp(n.HAProxySince)
		m.Reloads = n.Reloads
		m.Error = n.Error
		m.Addresses = n.HTTP
		m.Sessions = int32(n.Sessions)
		m.DropletId = n.Droplet
		m.PublicIpv4 = address(n.PublicIPv4)
		m.PublicIpv6 = address(n.PublicIPv6)
		m.Conditions = conditionsToProto(n.Conditions)
	}
	if member := st.Members[name]; member != nil {
		m.DrainTime = timestamp(member.Drained)
		m.DrainReason = member.Reason
		if st.Nodes[name] == nil {
			// Until the leader has noted since when, it is since now.
			m.SilentTime = timestamp(or(member.Silent, time.Now().UTC().Truncate(time.Second)))
		}
	}
	for _, a := range sortedAddresses(st.Assignments) {
		if st.Assignments[a].Node == name {
			m.Holds = append(m.Holds, a.String())
		}
	}
	return m
}

// ConditionToProto is a condition.
func ConditionToProto(c inventory.Condition) *pb.Condition {
	return &pb.Condition{Key: c.Key, Type: c.Type, Pool: c.Pool, Droplet: c.Droplet, Node: c.Node, Message: c.Message,
		Time: timestamp(c.Since), Hostnames: c.Names}
}

func conditionsToProto(cs []inventory.Condition) []*pb.Condition {
	var out []*pb.Condition
	for _, c := range cs {
		out = append(out, ConditionToProto(c))
	}
	return out
}

// usageToProto is what the leader last told, or what the records tell.
func usageToProto(st *inventory.State) *pb.Usage {
	if st.Report == nil {
		m := &pb.Usage{Droplets: int32(len(st.Droplets))}
		for _, d := range st.Droplets {
			m.CostHourly += d.PriceHourly
		}
		return m
	}
	u := st.Report.Usage
	return &pb.Usage{
		Droplets:     int32(u.Droplets),
		CostHourly:   u.CostHourly,
		Creates:      int32(u.Creates),
		ApiLimit:     int32(u.APILimit),
		ApiRemaining: int32(u.APIRemaining),
		ApiResetTime: timestamp(u.APIReset),
		ApiMinute:    int32(u.APIMinute),
	}
}

// DifferenceToProto is a difference that node found, if a node did.
func DifferenceToProto(d inventory.Difference, node string) *pb.Difference {
	return &pb.Difference{Kind: d.Kind, Subject: d.Subject, Node: or(d.Node, node), Message: d.Message}
}

// PauseToProto is nil for none.
func PauseToProto(p *inventory.Pause) *pb.Pause {
	if p == nil {
		return nil
	}
	return &pb.Pause{Time: timestamp(p.Since), Node: p.Node, Reason: p.Reason}
}

// reservedIPToProto is an address of the settings or of a record; a is nil while
// there is no record.
func reservedIPToProto(address netip.Addr, a *inventory.Assignment) *pb.ReservedIp {
	m := &pb.ReservedIp{Name: ReservedIPName(address), Address: address.String()}
	if a != nil {
		m.Node = a.Node
		m.DropletId = a.Droplet
		m.Time = timestamp(a.Since)
		m.Reason = a.Reason
		m.From = a.From
		m.VerifyTime = timestamp(a.Verified)
		m.Error = a.Error
		m.Want = a.Want
	}
	return m
}

// reservedIPs are the addresses that the settings or records name, sorted.
func reservedIPs(st *inventory.State) []*pb.ReservedIp {
	all := maps.Clone(st.Assignments)
	if all == nil {
		all = map[netip.Addr]*inventory.Assignment{}
	}
	for _, a := range st.Settings.Ingress.ReservedIPs {
		all[a] = st.Assignments[a]
	}
	var out []*pb.ReservedIp
	for _, a := range sortedAddresses(all) {
		out = append(out, reservedIPToProto(a, all[a]))
	}
	return out
}

func sortedAddresses[V any](m map[netip.Addr]V) []netip.Addr {
	return slices.SortedFunc(maps.Keys(m), netip.Addr.Compare)
}

// dnsRecords are those kept, of one node if it is named.
func dnsRecords(st *inventory.State, node string) []*pb.DnsRecord {
	var out []*pb.DnsRecord
	for _, fqdn := range sortedKeys(st.DNS) {
		name := st.DNS[fqdn]
		for _, r := range name.Records {
			if node != "" && r.Node != node {
				continue
			}
			out = append(out, &pb.DnsRecord{Fqdn: fqdn, Address: address(r.Address), Node: r.Node, Id: r.ID, Time: timestamp(r.Since),
				Leaving: r.Leaving, Reason: r.Reason, Error: name.Error})
		}
	}
	slices.SortStableFunc(out, func(a, b *pb.DnsRecord) int {
		return cmp.Or(cmp.Compare(a.Fqdn, b.Fqdn), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Address, b.Address))
	})
	return out
}

// forecast is what the planner would make of the state with some pools changed.
func forecast(st *inventory.State, changed ...*inventory.Pool) *pb.Forecast {
	after := *st
	after.Pools = make(map[string]*inventory.Pool, len(st.Pools)+len(changed))
	maps.Copy(after.Pools, st.Pools)
	for _, p := range changed {
		after.Pools[p.Name] = p
	}
	p := fleet.Predict(time.Now().UTC(), st, &after)
	return &pb.Forecast{
		Creates: p.Creates, Drains: p.Drains, Deletes: p.Deletes,
		CostHourlyBefore: p.CostBefore, CostHourlyAfter: p.CostAfter,
		UnpricedSizes: p.Unpriced, Holds: p.Holds,
	}
}

func recordToProto(kv inventory.KV, why string) *pb.Record {
	return &pb.Record{
		Key: kv.Key, Value: kv.Value, Size: int64(len(kv.Value)), Revision: int64(kv.Mod), Leased: kv.Lease != 0,
		SetAside: strings.TrimPrefix(why, kv.Key+": "),
	}
}
