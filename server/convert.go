package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// This file and convert_cluster.go are the only ones that turn records into
// messages and back.

// PoolFromProto is what a message wants of a pool: the spec and the number
// desired. It takes the message as it is; ValidatePool says what is wrong with it.
func PoolFromProto(m *pb.Pool) (inventory.PoolSpec, int) {
	t, b, p := m.GetTemplate(), m.GetBackend(), m.GetPolicy()
	return inventory.PoolSpec{
		Name:           strings.TrimPrefix(m.GetName(), "pools/"),
		HostnamePrefix: m.GetHostnamePrefix(),
		Min:            int(m.GetMin()),
		Max:            int(m.GetMax()),
		Template: inventory.Template{
			Region:     t.GetRegion(),
			Size:       t.GetSize(),
			Image:      t.GetImage(),
			SSHKeys:    list(t.GetSshKeys()),
			UserData:   t.GetUserData(),
			VPC:        strings.ToLower(t.GetVpc()),
			IPv6:       t.GetIpv6(),
			Monitoring: t.GetMonitoring(),
			Tags:       list(t.GetTags()),
		},
		Backend: inventory.Backend{
			Port:          uint16(b.GetPort()),
			Balance:       b.GetBalance(),
			HealthPath:    b.GetHealthPath(),
			CheckInterval: duration(b.GetCheckInterval()),
			Fall:          int(b.GetFall()),
			Rise:          int(b.GetRise()),
			MaxConn:       int(b.GetMaxConnections()),
			Hosts:         lowered(b.GetHosts()),
			Paths:         list(b.GetPaths()),
		},
		Policy: inventory.Policy{
			BootDeadline:  duration(p.GetBootDeadline()),
			DrainDeadline: duration(p.GetDrainDeadline()),
		},
	}, int(m.GetDesired())
}

// SpecToProto is a pool as an operator writes it: without output-only fields.
func SpecToProto(s inventory.PoolSpec, desired int) *pb.Pool {
	return &pb.Pool{
		Name:           PoolName(s.Name),
		HostnamePrefix: s.HostnamePrefix,
		Desired:        int32(desired),
		Min:            int32(s.Min),
		Max:            int32(s.Max),
		Template: &pb.Template{
			Region:     s.Template.Region,
			Size:       s.Template.Size,
			Image:      s.Template.Image,
			SshKeys:    s.Template.SSHKeys,
			UserData:   s.Template.UserData,
			Vpc:        s.Template.VPC,
			Ipv6:       s.Template.IPv6,
			Monitoring: s.Template.Monitoring,
			Tags:       s.Template.Tags,
		},
		Backend: &pb.Backend{
			Port:           uint32(s.Backend.Port),
			Balance:        s.Backend.Balance,
			HealthPath:     s.Backend.HealthPath,
			CheckInterval:  durationProto(s.Backend.CheckInterval),
			Fall:           int32(s.Backend.Fall),
			Rise:           int32(s.Backend.Rise),
			MaxConnections: int32(s.Backend.MaxConn),
			Hosts:          s.Backend.Hosts,
			Paths:          s.Backend.Paths,
		},
		Policy: &pb.Policy{
			BootDeadline:  durationProto(s.Policy.BootDeadline),
			DrainDeadline: durationProto(s.Policy.DrainDeadline),
		},
	}
}

// PoolToProto is the whole message; droplets are those of the pool.
func PoolToProto(p *inventory.Pool, droplets []*inventory.Droplet) *pb.Pool {
	m := SpecToProto(p.PoolSpec, p.Desired)
	for _, d := range droplets {
		switch d.Phase {
		case inventory.Serving:
			m.Serving++
		case inventory.Requested, inventory.Booting:
			m.Starting++
		case inventory.Draining, inventory.Deleting:
			m.Leaving++
		}
		m.CostHourly += d.PriceHourly
	}
	m.Reason = p.Reason
	m.RetryTime = timestamp(p.RetryAt)
	m.Etag = PoolETag(p)
	m.CreateTime = timestamp(p.Created)
	m.Failures = int32(p.Failures)
	m.StopTime = timestamp(p.Stopped)
	m.RewoundTime = timestamp(p.Rewound)
	return m
}

// PoolETag changes whenever what is wanted of the pool changes, and not with
// what the leader writes into its record.
func PoolETag(p *inventory.Pool) string {
	wanted, err := json.Marshal(struct {
		Spec    inventory.PoolSpec
		Desired int
		Remove  []string
		Import  []int64
		Created time.Time
	}{p.PoolSpec, p.Desired, p.Remove, p.Import, p.Created})
	if err != nil {
		panic("server: a pool that JSON cannot hold: " + err.Error())
	}
	sum := sha256.Sum256(wanted)
	return hex.EncodeToString(sum[:8])
}

var phases = map[inventory.Phase]pb.Phase{
	inventory.Requested: pb.Phase_PHASE_REQUESTED,
	inventory.Booting:   pb.Phase_PHASE_BOOTING,
	inventory.Serving:   pb.Phase_PHASE_SERVING,
	inventory.Draining:  pb.Phase_PHASE_DRAINING,
	inventory.Deleting:  pb.Phase_PHASE_DELETING,
}

// PhaseToProto is PHASE_UNSPECIFIED for a phase that this program does not know.
func PhaseToProto(p inventory.Phase) pb.Phase { return phases[p] }

// PhaseFromProto is "" for a phase that this program does not know.
func PhaseFromProto(p pb.Phase) inventory.Phase {
	for phase, m := range phases {
		if m == p {
			return phase
		}
	}
	return ""
}

// DropletToProto is a droplet with what the live nodes see of it.
func DropletToProto(d *inventory.Droplet, nodes []*inventory.Node) *pb.Droplet {
	m := &pb.Droplet{
		Name:         DropletName(d.Pool, d.Name),
		Hostname:     d.Name,
		Pool:         PoolName(d.Pool),
		Phase:        PhaseToProto(d.Phase),
		PhaseTime:    timestamp(d.Since),
		Id:           d.ID,
		Status:       d.Status,
		PrivateIpv4:  address(d.PrivateIPv4),
		PublicIpv4:   address(d.PublicIPv4),
		PublicIpv6:   address(d.PublicIPv6),
		Region:       d.Region,
		Size:         d.Size,
		Image:        d.Image,
		PriceHourly:  d.PriceHourly,
		CreateTime:   timestamp(d.Created),
		ServeTime:    timestamp(d.Served),
		Adopted:      d.Adopted,
		Reason:       d.Reason,
		NodesServing: int32(nodesServing(d, nodes)),
		NodesLive:    int32(len(nodes)),
	}
	for _, n := range nodes {
		seen := n.Health(d)
		m.Health = append(m.Health, &pb.ServerHealth{Node: NodeName(n.Name), Health: seen.Health, Sessions: int32(seen.Sessions), Check: seen.Check})
	}
	return m
}

// nodesServing counts the nodes whose HAProxy balances over the droplet.
func nodesServing(d *inventory.Droplet, nodes []*inventory.Node) int {
	if d.Phase != inventory.Serving {
		return 0
	}
	return nodesPast(d, nodes)
}

// nodesPast counts the nodes whose HAProxy runs the droplet's record as it is.
func nodesPast(d *inventory.Droplet, nodes []*inventory.Node) int {
	n := 0
	for _, node := range nodes {
		if node.Applied >= d.Mod {
			n++
		}
	}
	return n
}

// EventToProto is an event. Pool, droplet and node are bare names in it.
func EventToProto(e inventory.Event) *pb.Event {
	return &pb.Event{Id: e.ID, Time: timestamp(e.Time), Type: e.Type, Pool: e.Pool, Droplet: e.Droplet, Node: e.Node, Message: e.Message}
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func durationProto(d inventory.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(time.Duration(d))
}

func duration(m *durationpb.Duration) inventory.Duration { return inventory.Duration(m.AsDuration()) }

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// list copies, so that a record never shares memory with a message, and has one
// form of empty, so that records can be compared.
func list(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	return slices.Clone(s)
}

func lowered(s []string) []string {
	s = list(s)
	for i := range s {
		s[i] = strings.ToLower(s[i])
	}
	return s
}
