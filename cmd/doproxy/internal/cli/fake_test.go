package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// epoch is the moment at which all tests happen.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fake is a cluster in memory behind the API. All its servers share it.
type fake struct {
	doproxyv1.UnimplementedPoolServiceServer
	doproxyv1.UnimplementedDropletServiceServer
	doproxyv1.UnimplementedClusterServiceServer
	doproxyv1.UnimplementedNodeServiceServer
	doproxyv1.UnimplementedStoreServiceServer
	clusterFake
	storeFake

	mu        sync.Mutex
	pools     []*doproxyv1.Pool
	droplets  []*doproxyv1.Droplet
	nodes     []*doproxyv1.Node
	events    []*doproxyv1.Event
	storeErr  string
	reloadErr string
	revision  int64
	ordinal   int
	changed   chan struct{} // closed and renewed with each change
	requests  map[string][]string
	calls     []proto.Message

	// pause lies between the steps of work.
	pause time.Duration
	// before is called at the start of every call; its error is the answer.
	before func(m proto.Message) error
	// step is called before each message of a stream of progress, from 0.
	step func(n int) error
	now  func() time.Time
}

func newFake() *fake {
	f := &fake{clusterFake: newClusterFake(), storeFake: newStoreFake(), revision: 100, changed: make(chan struct{}), requests: map[string][]string{}, now: func() time.Time { return epoch }}
	f.pools = []*doproxyv1.Pool{{
		Name: "pools/web", HostnamePrefix: "auto-nginx", Desired: 2, Min: 1, Max: 200, Etag: "p1",
		Template: &doproxyv1.Template{Region: "nyc3", Size: "s-1vcpu-1gb", Image: "ubuntu-24-04-x64", UserData: "#cloud-config\npackages: [nginx]\n"},
		Backend:  &doproxyv1.Backend{Port: 80}, Policy: &doproxyv1.Policy{}, CreateTime: timestamppb.New(epoch.Add(-72 * time.Hour)), CostHourly: 0.01786, Serving: 2,
	}}
	for i := range 3 {
		name := fmt.Sprintf("lb%d", i+1)
		f.nodes = append(f.nodes, &doproxyv1.Node{
			Name: "nodes/" + name, Version: "1.0.0", Leader: i == 0, Haproxy: "running", HaproxyVersion: "2.6.12-1+deb12u4", HaproxyPid: 100 + int32(i),
			AppliedRevision: 100, StartTime: timestamppb.New(epoch.Add(-3 * time.Hour)), Reloads: 1, Addresses: []string{fmt.Sprintf("127.0.0.1:808%d", i+1)},
		})
	}
	for i, ip := range []string{"10.132.224.168", "10.132.224.169"} {
		d := f.newDroplet(f.pools[0])
		f.advance(d, doproxyv1.Phase_PHASE_SERVING)
		d.Id, d.PrivateIpv4 = int64(4202645+i), ip
		d.CreateTime = timestamppb.New(epoch.Add(-time.Duration(50-45*i) * time.Hour))
	}
	f.events = []*doproxyv1.Event{
		{Id: "01A", Time: timestamppb.New(epoch.Add(-time.Hour)), Type: "droplet.serving", Pool: "web", Droplet: "auto-nginx-0", Message: "serving on 3/3 nodes"},
		{Id: "01B", Time: timestamppb.New(epoch.Add(-time.Minute)), Type: "node.elected", Node: "lb1", Message: "leads"},
	}
	return f
}

func (f *fake) newDroplet(p *doproxyv1.Pool) *doproxyv1.Droplet {
	host := fmt.Sprintf("%s-%d", p.GetHostnamePrefix(), f.ordinal)
	f.ordinal++
	pool := p.GetName()
	d := &doproxyv1.Droplet{
		Name: p.GetName() + "/droplets/" + host, Hostname: host, Pool: pool, Phase: doproxyv1.Phase_PHASE_REQUESTED,
		Region: p.GetTemplate().GetRegion(), Size: p.GetTemplate().GetSize(), Image: p.GetTemplate().GetImage(), PriceHourly: 0.00893,
		CreateTime: timestamppb.New(f.now()), NodesLive: int32(len(f.nodes)),
	}
	f.droplets = append(f.droplets, d)
	return d
}

// advance brings a droplet to a phase, with all that goes with it.
func (f *fake) advance(d *doproxyv1.Droplet, phase doproxyv1.Phase) {
	d.Phase, d.PhaseTime = phase, timestamppb.New(f.now())
	if phase >= doproxyv1.Phase_PHASE_BOOTING && d.Id == 0 {
		n, _ := strconv.Atoi(d.Hostname[strings.LastIndexByte(d.Hostname, '-')+1:])
		d.Id, d.Status, d.PrivateIpv4 = int64(4202645+n), "active", fmt.Sprintf("10.132.224.%d", 168+n)
		d.Health = nil
		for _, node := range f.nodes {
			d.Health = append(d.Health, &doproxyv1.ServerHealth{Node: node.GetName(), Health: "unchecked"})
		}
	}
	if phase == doproxyv1.Phase_PHASE_SERVING {
		for _, h := range d.Health {
			h.Health, h.Check = "up", "HTTP 200 OK in 1 ms"
		}
		d.NodesServing = d.NodesLive
	}
	f.bump()
}

// bump tells the watchers of a change. Under the lock.
func (f *fake) bump() {
	f.revision++
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) etag() string {
	names := make([]string, len(f.droplets))
	for i, d := range f.droplets {
		names[i] = d.GetHostname()
	}
	return strings.Join(names, "/")
}

func (f *fake) begin(m proto.Message) error {
	f.mu.Lock()
	f.calls = append(f.calls, proto.Clone(m))
	before := f.before
	f.mu.Unlock()
	if before != nil {
		return before(m)
	}
	return nil
}

func (f *fake) pool(name string) (*doproxyv1.Pool, error) {
	if name == "" && len(f.pools) == 1 {
		return f.pools[0], nil
	}
	for _, p := range f.pools {
		if p.GetName() == name {
			return p, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "there is no pool %q", poolID(name))
}

// count fills the pool's output-only numbers.
func (f *fake) count(p *doproxyv1.Pool) *doproxyv1.Pool {
	p.Serving, p.Starting, p.Leaving, p.CostHourly = 0, 0, 0, 0
	for _, d := range f.droplets {
		if d.GetPool() != p.GetName() {
			continue
		}
		p.CostHourly += d.GetPriceHourly()
		switch d.GetPhase() {
		case doproxyv1.Phase_PHASE_SERVING:
			p.Serving++
		case doproxyv1.Phase_PHASE_DRAINING, doproxyv1.Phase_PHASE_DELETING:
			p.Leaving++
		default:
			p.Starting++
		}
	}
	return proto.Clone(p).(*doproxyv1.Pool)
}

func refusal(code codes.Code, reason, message, field, description string) error {
	s, err := status.New(code, message).WithDetails(
		&errdetails.ErrorInfo{Reason: reason, Domain: "doproxy"},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: description}}})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func (f *fake) ListDroplets(_ context.Context, req *doproxyv1.ListDropletsRequest) (*doproxyv1.ListDropletsResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	res := &doproxyv1.ListDropletsResponse{Etag: f.etag(), Stale: f.storeErr}
	for _, d := range f.droplets {
		if req.GetParent() == "" || req.GetParent() == d.GetPool() {
			res.Droplets = append(res.Droplets, proto.Clone(d).(*doproxyv1.Droplet))
		}
	}
	// Two a page, so that paging is used.
	at, _ := strconv.Atoi(req.GetPageToken())
	if end := at + 2; end < len(res.Droplets) {
		res.Droplets, res.NextPageToken = res.Droplets[at:end], strconv.Itoa(end)
	} else {
		res.Droplets = res.Droplets[at:]
	}
	return res, nil
}

func (f *fake) CreateDroplets(req *doproxyv1.CreateDropletsRequest, stream grpc.ServerStreamingServer[doproxyv1.CreateDropletsResponse]) error {
	if err := f.begin(req); err != nil {
		return err
	}
	f.mu.Lock()
	pool, err := f.pool(req.GetParent())
	if err == nil && pool.GetDesired()+req.GetCount() > pool.GetMax() {
		err = refusal(codes.OutOfRange, "ABOVE_MAX", fmt.Sprintf("%s would want %d", poolID(pool.GetName()), pool.GetDesired()+req.GetCount()), "count", fmt.Sprintf("at most %d: max is %d", pool.GetMax()-pool.GetDesired(), pool.GetMax()))
	}
	if err != nil {
		f.mu.Unlock()
		return err
	}
	names, again := f.requests[req.GetRequestId()]
	if !again && !req.GetValidateOnly() {
		pool.Desired += req.GetCount()
		for range req.GetCount() {
			names = append(names, f.newDroplet(pool).GetHostname())
		}
		f.requests[req.GetRequestId()] = names
		f.bump()
	}
	f.mu.Unlock()
	for n := 0; ; n++ {
		if f.step != nil {
			if err := f.step(n); err != nil {
				return err
			}
		}
		f.mu.Lock()
		p := &doproxyv1.Progress{Pool: f.count(pool), Total: req.GetCount(), NodesLive: int32(len(f.nodes)), Reason: pool.GetReason()}
		for _, d := range f.droplets {
			if !slices.Contains(names, d.GetHostname()) {
				continue
			}
			p.Droplets = append(p.Droplets, proto.Clone(d).(*doproxyv1.Droplet))
			p.Requested++
			p.Active += b2i(d.GetStatus() == "active")
			p.Healthy += b2i(d.GetPhase() == doproxyv1.Phase_PHASE_SERVING)
			p.Serving += b2i(onAll(d))
		}
		p.Done = p.Serving == p.Total
		f.mu.Unlock()
		if err := stream.Send(&doproxyv1.CreateDropletsResponse{Progress: p, Forecast: f.told(req.GetValidateOnly())}); err != nil {
			return err
		}
		if p.Done || req.GetNoWait() || req.GetValidateOnly() {
			return nil
		}
		if !f.rest(stream.Context()) {
			return stream.Context().Err()
		}
		f.work(names)
	}
}

// work brings the first of these droplets that does not serve one phase on.
func (f *fake) work(names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.droplets {
		if slices.Contains(names, d.GetHostname()) && d.GetPhase() < doproxyv1.Phase_PHASE_SERVING {
			f.advance(d, d.GetPhase()+1)
			return
		}
	}
}

func (f *fake) rest(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(f.pause):
		return true
	}
}

func b2i(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

func (f *fake) DeleteDroplets(req *doproxyv1.DeleteDropletsRequest, stream grpc.ServerStreamingServer[doproxyv1.DeleteDropletsResponse]) error {
	if err := f.begin(req); err != nil {
		return err
	}
	f.mu.Lock()
	names, again := f.requests[req.GetRequestId()]
	if !again {
		if req.GetEtag() != "" && req.GetEtag() != f.etag() {
			f.mu.Unlock()
			return status.Error(codes.Aborted, "the inventory changed")
		}
		for _, want := range req.GetNames() {
			i := slices.IndexFunc(f.droplets, func(d *doproxyv1.Droplet) bool {
				return want == d.GetName() || want == d.GetHostname() || want == strconv.FormatInt(d.GetId(), 10)
			})
			if i < 0 {
				f.mu.Unlock()
				return status.Errorf(codes.NotFound, "there is no droplet %q", want)
			}
			names = append(names, f.droplets[i].GetHostname())
		}
	}
	ids := make([]int64, len(names))
	if !req.GetValidateOnly() {
		f.requests[req.GetRequestId()] = names
	}
	f.mu.Unlock()
	total := int32(len(names))
	for n := 0; ; n++ {
		if f.step != nil {
			if err := f.step(n); err != nil {
				return err
			}
		}
		f.mu.Lock()
		p := &doproxyv1.Progress{Pool: f.count(f.pools[0]), Total: total, NodesLive: int32(len(f.nodes))}
		for _, d := range f.droplets {
			if i := slices.Index(names, d.GetHostname()); i >= 0 {
				ids[i] = d.GetId()
				if n > 0 {
					d.Phase = doproxyv1.Phase(min(int(doproxyv1.Phase_PHASE_DRAINING)+n-1, int(doproxyv1.Phase_PHASE_DELETING)))
					p.Draining++
					p.Removed += b2i(d.GetPhase() == doproxyv1.Phase_PHASE_DELETING)
				}
				p.Droplets = append(p.Droplets, proto.Clone(d).(*doproxyv1.Droplet))
			}
		}
		if n == 3 {
			f.droplets = slices.DeleteFunc(f.droplets, func(d *doproxyv1.Droplet) bool { return slices.Contains(names, d.GetHostname()) })
			p.Draining, p.Removed, p.Deleted, p.Done = total, total, total, true
			p.DeletedIds, p.DeletedHostnames = ids, names
		}
		f.bump()
		f.mu.Unlock()
		if err := stream.Send(&doproxyv1.DeleteDropletsResponse{Progress: p, Forecast: f.told(req.GetValidateOnly())}); err != nil {
			return err
		}
		if p.Done || req.GetNoWait() || req.GetValidateOnly() {
			return nil
		}
		if !f.rest(stream.Context()) {
			return stream.Context().Err()
		}
	}
}

func (f *fake) ImportDroplets(_ context.Context, req *doproxyv1.ImportDropletsRequest) (*doproxyv1.ImportDropletsResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	res := &doproxyv1.ImportDropletsResponse{Pool: f.count(f.pools[0]), Forecast: f.told(req.GetValidateOnly())}
	for _, id := range req.GetIds() {
		if slices.ContainsFunc(f.droplets, func(d *doproxyv1.Droplet) bool { return d.GetId() == id }) {
			continue
		}
		res.Importing = append(res.Importing, id)
		switch {
		case req.GetValidateOnly():
		case id == 404:
			f.events = append(f.events, &doproxyv1.Event{Id: "404", Type: "import.refused", Pool: "web", Message: "droplet 404: DigitalOcean knows no such droplet"})
		case len(req.GetIds()) == 2 && req.GetIds()[1] == 404:
			d := f.newDroplet(f.pools[0])
			d.Id = id
			f.advance(d, doproxyv1.Phase_PHASE_SERVING)
		}
	}
	return res, nil
}

func (f *fake) WatchDroplets(req *doproxyv1.WatchDropletsRequest, stream grpc.ServerStreamingServer[doproxyv1.WatchDropletsResponse]) error {
	if err := f.begin(req); err != nil {
		return err
	}
	told := map[string]bool{}
	for {
		f.mu.Lock()
		res := &doproxyv1.WatchDropletsResponse{Revision: f.revision}
		now := map[string]bool{}
		for _, d := range f.droplets {
			now[d.GetName()] = true
			res.Droplets = append(res.Droplets, proto.Clone(d).(*doproxyv1.Droplet))
		}
		for name := range told {
			if !now[name] {
				res.Deleted = append(res.Deleted, name)
			}
		}
		told = now
		changed := f.changed
		f.mu.Unlock()
		if err := stream.Send(res); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (f *fake) ApplyPool(_ context.Context, req *doproxyv1.ApplyPoolRequest) (*doproxyv1.ApplyPoolResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old, err := f.pool(req.GetPool().GetName())
	if err != nil {
		if !req.GetValidateOnly() {
			f.pools = append(f.pools, req.GetPool())
		}
		return &doproxyv1.ApplyPoolResponse{Pool: req.GetPool(), Created: true, Forecast: f.told(req.GetValidateOnly())}, nil
	}
	res := &doproxyv1.ApplyPoolResponse{Pool: req.GetPool(), Forecast: f.told(req.GetValidateOnly())}
	if a, b := old.GetTemplate(), req.GetPool().GetTemplate(); a.GetSize() != b.GetSize() {
		res.Changes = append(res.Changes, &doproxyv1.FieldChange{Field: "template.size", Before: a.GetSize(), After: b.GetSize()})
	}
	if a, b := old.GetTemplate(), req.GetPool().GetTemplate(); a.GetUserData() != b.GetUserData() {
		res.Changes = append(res.Changes, &doproxyv1.FieldChange{Field: "template.user_data", Before: a.GetUserData(), After: b.GetUserData()})
	}
	if !req.GetValidateOnly() {
		old.Template = req.GetPool().GetTemplate()
	}
	return res, nil
}

func (f *fake) GetPool(_ context.Context, req *doproxyv1.GetPoolRequest) (*doproxyv1.GetPoolResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.pool(req.GetName())
	if err != nil {
		return nil, err
	}
	return &doproxyv1.GetPoolResponse{Pool: f.count(p)}, nil
}

func (f *fake) ListPools(_ context.Context, req *doproxyv1.ListPoolsRequest) (*doproxyv1.ListPoolsResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	res := &doproxyv1.ListPoolsResponse{}
	for _, p := range f.pools {
		res.Pools = append(res.Pools, f.count(p))
	}
	return res, nil
}

func (f *fake) DeletePool(_ context.Context, req *doproxyv1.DeletePoolRequest) (*doproxyv1.DeletePoolResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.pool(req.GetName()); err != nil {
		return nil, err
	}
	return nil, status.Error(codes.FailedPrecondition, "pool web has 2 droplets")
}

func (f *fake) ScalePool(_ context.Context, req *doproxyv1.ScalePoolRequest) (*doproxyv1.ScalePoolResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.pool(req.GetName())
	if err != nil {
		return nil, err
	}
	before, want := p.GetDesired(), req.GetDesired()
	if delta, ok := req.GetTarget().(*doproxyv1.ScalePoolRequest_Delta); ok {
		want = before + delta.Delta
	}
	if want < p.GetMin() || want > p.GetMax() {
		return nil, refusal(codes.OutOfRange, "OUT_OF_BOUNDS", fmt.Sprintf("pool web cannot want %d", want), "desired", fmt.Sprintf("from %d to %d", p.GetMin(), p.GetMax()))
	}
	after := proto.Clone(p).(*doproxyv1.Pool)
	after.Desired = want
	if !req.GetValidateOnly() {
		p.Desired = want
		f.bump()
		for i := before; i < want; i++ {
			go f.raise(f.newDroplet(p).GetHostname())
		}
	}
	return &doproxyv1.ScalePoolResponse{Pool: after, PreviousDesired: before, Forecast: f.told(req.GetValidateOnly())}, nil
}

// raise brings one droplet to serve.
func (f *fake) raise(host string) {
	for range 2 {
		time.Sleep(f.pause)
		f.work([]string{host})
	}
}

func (f *fake) GetStatus(_ context.Context, req *doproxyv1.GetStatusRequest) (*doproxyv1.GetStatusResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	res := &doproxyv1.GetStatusResponse{
		Cluster: "demo", Uid: "01JUID", Revision: f.revision, InventoryRevision: 100, Leader: "nodes/lb1", Node: "nodes/lb2", Store: "raft", StoreError: f.storeErr,
		Nodes: f.nodes, Events: f.events[max(0, len(f.events)-int(req.GetEvents())):],
	}
	f.fillStatus(res)
	if f.storeErr != "" {
		res.StoreErrorTime = timestamppb.New(f.now().Add(-12 * time.Second))
	}
	for _, p := range f.pools {
		res.Pools = append(res.Pools, f.count(p))
		res.CostHourly += p.GetCostHourly()
	}
	return proto.Clone(res).(*doproxyv1.GetStatusResponse), nil
}

func (f *fake) ListEvents(_ context.Context, req *doproxyv1.ListEventsRequest) (*doproxyv1.ListEventsResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &doproxyv1.ListEventsResponse{Events: slices.Clone(f.events)}, nil
}

func (f *fake) WatchEvents(req *doproxyv1.WatchEventsRequest, stream grpc.ServerStreamingServer[doproxyv1.WatchEventsResponse]) error {
	if err := f.begin(req); err != nil {
		return err
	}
	told := 0
	for {
		f.mu.Lock()
		events, changed := slices.Clone(f.events[told:]), f.changed
		told = len(f.events)
		f.mu.Unlock()
		if len(events) > 0 {
			if err := stream.Send(&doproxyv1.WatchEventsResponse{Events: events}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (f *fake) addEvent(e *doproxyv1.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
	f.bump()
}

func (f *fake) Reload(_ context.Context, req *doproxyv1.ReloadRequest) (*doproxyv1.ReloadResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	res := &doproxyv1.ReloadResponse{Results: []*doproxyv1.ReloadResult{{Node: "nodes/lb1", Reloads: 2}}}
	if req.GetAll() {
		res.Results = append(res.Results, &doproxyv1.ReloadResult{Node: "nodes/lb2", Reloads: 1, Error: f.reloadErr})
	}
	return res, nil
}

func (f *fake) Render(_ context.Context, req *doproxyv1.RenderRequest) (*doproxyv1.RenderResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	return &doproxyv1.RenderResponse{Config: "global\n    daemon\n", Path: "/etc/haproxy/haproxy.cfg"}, nil
}

// serve answers on a Unix socket until stop is called. Nothing outlives stop.
func (f *fake) serve(path string) (stop func(), err error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	s := grpc.NewServer()
	doproxyv1.RegisterPoolServiceServer(s, f)
	doproxyv1.RegisterDropletServiceServer(s, f)
	doproxyv1.RegisterClusterServiceServer(s, f)
	doproxyv1.RegisterNodeServiceServer(s, f)
	doproxyv1.RegisterStoreServiceServer(s, f)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(listener) }()
	return func() { s.Stop(); <-done }, nil
}

// sent are the requests of one kind that arrived.
func sent[M proto.Message](f *fake) (list []M) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.calls {
		if one, ok := m.(M); ok {
			list = append(list, one)
		}
	}
	return list
}
