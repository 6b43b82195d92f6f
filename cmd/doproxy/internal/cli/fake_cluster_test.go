package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// clusterFake is what a fake has beside pools and droplets.
type clusterFake struct {
	settings   *doproxyv1.Settings
	usage      *doproxyv1.Usage
	paused     *doproxyv1.Pause
	stopped    map[string]bool // pools that create nothing
	conditions []*doproxyv1.Condition
	ips        []*doproxyv1.ReservedIp
	records    []*doproxyv1.DnsRecord
	forecast   *doproxyv1.Forecast // of every request that is only checked
	verified   *doproxyv1.VerifyResponse
	lost       string // the uid that a node without a store remembers
	adopts     int    // droplets that a rebuild finds
	expects    int32  // droplets that it expects
}

func newClusterFake() clusterFake {
	return clusterFake{
		settings: &doproxyv1.Settings{Etag: "s1"}, stopped: map[string]bool{},
		verified: &doproxyv1.VerifyResponse{Droplets: 12, Nodes: 3},
	}
}

// guard is a condition of the wipe guard.
func guard(names ...string) *doproxyv1.Condition {
	return &doproxyv1.Condition{
		Key: "surplus/web", Type: "fleet.held", Pool: "pools/web", Time: timestamppb.New(epoch.Add(-12 * time.Minute)), Hostnames: names,
		Message: fmt.Sprintf("%d of 8 serving droplets are surplus although nobody asked for it", len(names)),
	}
}

// entry fills the entry point of a fake.
func (f *fake) entry() {
	f.settings = &doproxyv1.Settings{
		Limits: &doproxyv1.Limits{Droplets: 50, CostHourly: 0.5, CreatesHourly: 20},
		Ingress: &doproxyv1.Ingress{
			ReservedIps: []string{"45.55.96.47", "45.55.96.48", "2604:a880:800:14::42"},
			Dns:         []*doproxyv1.DnsName{{Domain: "example.com", Name: "www"}, {Domain: "example.com", Name: "@", Ttl: 30}},
			FailAfter:   durationpb.New(time.Second),
		}, Etag: "s1",
	}
	f.usage = &doproxyv1.Usage{Droplets: 14, CostHourly: 0.12, Creates: 3, ApiLimit: 5000, ApiRemaining: 4812}
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(epoch.Add(-d)) }
	f.ips = []*doproxyv1.ReservedIp{
		{Name: "reservedIps/45.55.96.47", Address: "45.55.96.47", Node: "nodes/lb1", Time: at(12 * time.Minute), From: "nodes/lb2", Reason: "HAProxy of lb2 failed", VerifyTime: at(12 * time.Minute)},
		{Name: "reservedIps/45.55.96.48", Address: "45.55.96.48", Node: "nodes/lb3", Time: at(3 * time.Second), Reason: "asked for", Want: "nodes/lb3", Error: "422 The droplet is locked by another event"},
	}
	f.records = []*doproxyv1.DnsRecord{
		{Fqdn: "www.example.com", Address: "104.131.0.1", Node: "nodes/lb1", Id: 1, Time: at(3 * time.Hour)},
		{Fqdn: "www.example.com", Address: "104.131.0.2", Node: "nodes/lb2", Id: 2, Time: at(3 * time.Hour), Leaving: true, Reason: "lb2 is drained", Error: "429 Too many requests"},
	}
	f.nodes[0].Holds = []string{"45.55.96.47", "45.55.96.49"}
}

func (f *fake) fillStatus(res *doproxyv1.GetStatusResponse) {
	res.Conditions, res.Usage, res.Settings, res.Pause = f.conditions, f.usage, f.settings, f.paused
	res.ReservedIps, res.DnsRecords = f.ips, f.records
}

func (f *fake) told(validate bool) *doproxyv1.Forecast {
	if validate {
		return f.forecast
	}
	return nil
}

func (f *fake) ListNodes(_ context.Context, req *doproxyv1.ListNodesRequest) (*doproxyv1.ListNodesResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if req.GetPageToken() == "" && len(f.nodes) > 1 {
		return &doproxyv1.ListNodesResponse{Nodes: f.nodes[:1], NextPageToken: "1"}, nil
	}
	return &doproxyv1.ListNodesResponse{Nodes: f.nodes[min(1, len(f.nodes)-1):]}, nil
}

func (f *fake) node(name string) (*doproxyv1.Node, error) {
	for _, n := range f.nodes {
		if n.GetName() == name {
			return n, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "there is no node %q", nodeID(name))
}

func (f *fake) DrainNode(req *doproxyv1.DrainNodeRequest, stream grpc.ServerStreamingServer[doproxyv1.DrainNodeResponse]) error {
	if err := f.begin(req); err != nil {
		return err
	}
	node, err := f.node(req.GetName())
	if err != nil {
		return err
	}
	m := &doproxyv1.DrainNodeResponse{
		Node: node, Sessions: 12, DnsExpireTime: timestamppb.New(f.now().Add(43 * time.Second)),
		ReservedIps: []*doproxyv1.ReservedIp{{Address: "45.55.96.47", Node: node.GetName()}},
		DnsRecords:  []*doproxyv1.DnsRecord{{Fqdn: "www.example.com", Address: "104.131.0.2", Node: node.GetName()}},
	}
	for n := range 4 {
		if f.step != nil {
			if err := f.step(n); err != nil {
				return err
			}
		}
		switch n {
		case 1:
			m.ReservedIps, m.DnsRecords, m.Reason = nil, nil, "1 WebSocket is open"
		case 2:
			m.Sessions, m.Reason = 1, ""
		case 3:
			m.Sessions, m.DnsExpireTime, m.Done = 0, nil, true
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		if req.GetNoWait() || req.GetValidateOnly() {
			return nil
		}
		if !f.rest(stream.Context()) {
			return stream.Context().Err()
		}
	}
	return nil
}

func (f *fake) UndrainNode(_ context.Context, req *doproxyv1.UndrainNodeRequest) (*doproxyv1.UndrainNodeResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	node, err := f.node(req.GetName())
	return &doproxyv1.UndrainNodeResponse{Node: node}, err
}

func (f *fake) ForgetNode(_ context.Context, req *doproxyv1.ForgetNodeRequest) (*doproxyv1.ForgetNodeResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	node, err := f.node(req.GetName())
	if err == nil && node.GetSilentTime() == nil {
		err = refusal(codes.FailedPrecondition, "NODE_ALIVE", nodeID(req.GetName())+" is alive", "name", "end its agent first, or drain it")
	}
	return &doproxyv1.ForgetNodeResponse{}, err
}

func (f *fake) Failover(req *doproxyv1.FailoverRequest, stream grpc.ServerStreamingServer[doproxyv1.FailoverResponse]) error {
	if err := f.begin(req); err != nil {
		return err
	}
	f.mu.Lock()
	i := slices.IndexFunc(f.ips, func(ip *doproxyv1.ReservedIp) bool { return ip.GetName() == req.GetName() })
	if i < 0 {
		f.mu.Unlock()
		return status.Errorf(codes.NotFound, "there is no reserved IP %s", req.GetName())
	}
	ip, to := f.ips[i], req.GetTo()
	if to == "" {
		to = "nodes/lb2"
	}
	f.mu.Unlock()
	for n := range 3 {
		if f.step != nil {
			if err := f.step(n); err != nil {
				return err
			}
		}
		f.mu.Lock()
		switch {
		case req.GetValidateOnly():
		case n == 0:
			ip.Want = "*"
			if req.GetTo() != "" {
				ip.Want = req.GetTo()
			}
		case n == 1:
			ip.Want, ip.From, ip.Node, ip.VerifyTime, ip.Error = "", ip.Node, to, nil, ""
		default:
			ip.VerifyTime = timestamppb.New(f.now())
		}
		m := &doproxyv1.FailoverResponse{ReservedIp: proto.Clone(ip).(*doproxyv1.ReservedIp), Done: n == 2}
		f.mu.Unlock()
		if req.GetValidateOnly() {
			m.Target = to
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		if req.GetNoWait() || req.GetValidateOnly() {
			return nil
		}
		if !f.rest(stream.Context()) {
			return stream.Context().Err()
		}
	}
	return nil
}

func (f *fake) GetSettings(_ context.Context, req *doproxyv1.GetSettingsRequest) (*doproxyv1.GetSettingsResponse, error) {
	return &doproxyv1.GetSettingsResponse{Settings: f.settings}, f.begin(req)
}

func (f *fake) ApplySettings(_ context.Context, req *doproxyv1.ApplySettingsRequest) (*doproxyv1.ApplySettingsResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if req.GetEtag() != "" && req.GetEtag() != f.settings.GetEtag() {
		return nil, status.Error(codes.Aborted, "the settings changed")
	}
	res := &doproxyv1.ApplySettingsResponse{Settings: req.GetSettings()}
	if a, b := f.settings.GetLimits().GetDroplets(), req.GetSettings().GetLimits().GetDroplets(); a != b {
		res.Changes = append(res.Changes, &doproxyv1.SettingChange{Field: "limits.droplets", Before: count(a), After: count(b)})
	}
	if a, b := len(f.settings.GetIngress().GetReservedIps()), len(req.GetSettings().GetIngress().GetReservedIps()); a != b {
		res.Changes = append(res.Changes, &doproxyv1.SettingChange{Field: "ingress.reserved_ips", Before: fmt.Sprint(a), After: fmt.Sprint(b)})
	}
	if !req.GetValidateOnly() {
		f.settings = proto.Clone(req.GetSettings()).(*doproxyv1.Settings)
		f.settings.Etag = "s2"
	}
	return res, nil
}

func (f *fake) Pause(_ context.Context, req *doproxyv1.PauseRequest) (*doproxyv1.PauseResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	pause := &doproxyv1.Pause{Time: timestamppb.New(f.now()), Node: "nodes/lb2", Reason: req.GetReason()}
	if !req.GetValidateOnly() {
		f.paused = pause
	}
	return &doproxyv1.PauseResponse{Pause: pause}, nil
}

func (f *fake) Resume(_ context.Context, req *doproxyv1.ResumeRequest) (*doproxyv1.ResumeResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	res := &doproxyv1.ResumeResponse{Resumed: f.stopped[req.GetPool()]}
	if req.GetPool() == "" {
		res.Resumed = f.paused != nil
	}
	if !req.GetValidateOnly() && req.GetPool() == "" {
		f.paused = nil
	}
	return res, nil
}

func (f *fake) Confirm(_ context.Context, req *doproxyv1.ConfirmRequest) (*doproxyv1.ConfirmResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	held := heldNames(f.conditions)
	for _, name := range req.GetHostnames() {
		if !slices.Contains(held, name) {
			return nil, status.Errorf(codes.FailedPrecondition, "%s is not held", name)
		}
	}
	return &doproxyv1.ConfirmResponse{Conditions: f.conditions}, nil
}

func (f *fake) Verify(_ context.Context, req *doproxyv1.VerifyRequest) (*doproxyv1.VerifyResponse, error) {
	return f.verified, f.begin(req)
}

func (f *fake) Rebuild(_ context.Context, req *doproxyv1.RebuildRequest) (*doproxyv1.RebuildResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	if req.GetUid() == "" {
		return nil, refusal(codes.InvalidArgument, "INVALID", "uid: \"\" is missing", "uid", "this node remembers "+f.lost)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	res := &doproxyv1.RebuildResponse{Pools: f.pools, Droplets: f.expects, UnknownUid: req.GetUid() != f.lost}
	if res.UnknownUid {
		res.Pools, res.Droplets = nil, 0
	}
	if !req.GetValidateOnly() {
		f.droplets, f.ordinal = nil, 0
		go func() {
			for range f.adopts {
				time.Sleep(f.pause)
				f.mu.Lock()
				f.advance(f.newDroplet(f.pools[0]), doproxyv1.Phase_PHASE_SERVING)
				f.mu.Unlock()
			}
		}()
	}
	return res, nil
}
