package server

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// creation is what a create put on record, and how to know its droplets again.
type creation struct {
	Pool    string `json:"pool"`
	Prefix  string `json:"prefix"`
	Count   int    `json:"count"`
	Desired int    `json:"desired"` // of the pool with this wish in it
	// First is the pool's next ordinal at the wish: what is recorded for it
	// has this ordinal or a later one.
	First int64 `json:"first"`
	// Behind is how many droplets were wanted before and not yet recorded: the
	// first of those ordinals are theirs.
	Behind int `json:"behind"`

	forecast *pb.Forecast // of a dry run
}

// CreateDroplets implements pb.DropletServiceServer.
func (s *Server) CreateDroplets(req *pb.CreateDropletsRequest, stream grpc.ServerStreamingServer[pb.CreateDropletsResponse]) error {
	ctx := stream.Context()
	if req.GetCount() < 1 {
		return invalid("count", req.GetCount(), "must be 1 or more")
	}
	w := wish{
		requestID: req.GetRequestId(),
		target:    fmt.Sprintf("create %d in %s", req.GetCount(), or(strings.TrimPrefix(req.GetParent(), "pools/"), "the only pool")),
		dry:       req.GetValidateOnly(),
	}
	var planned *pb.Pool
	out, err := change(ctx, s, w, func(st *inventory.State) (d decision[creation], err error) {
		p, err := s.thePool(st, req.GetParent())
		if err != nil {
			return d, err
		}
		next, err := want(st, p, int64(p.Desired)+int64(req.GetCount()))
		if err != nil {
			return d, err
		}
		tryAgain(next)
		s.putPool(&d.txn, p, next)
		d.answer = creation{Pool: p.Name, Prefix: p.HostnamePrefix, Count: int(req.GetCount()), Desired: next.Desired,
			First: p.NextOrdinal, Behind: max(0, p.Desired-present(st, p))}
		d.event = &inventory.Event{Type: "droplets.create_requested", Pool: p.Name,
			Message: fmt.Sprintf("%d more asked for; wanted: %d → %d", req.GetCount(), p.Desired, next.Desired)}
		planned = PoolToProto(next, st.PoolDroplets(p.Name))
		if w.dry {
			d.answer.forecast = forecast(st, next)
		}
		return d, nil
	})
	if err != nil {
		return err
	}
	f := createFollower{creation: out.answer}
	send := func(p *pb.Progress) error { return stream.Send(&pb.CreateDropletsResponse{Progress: p}) }
	st, reached := s.await(ctx, out.revision)
	if !reached || w.dry {
		f.last = &pb.Progress{Pool: planned, Total: req.GetCount(), NodesLive: int32(len(st.Nodes)), Reason: holdup(st, nil)}
		first := &pb.CreateDropletsResponse{Progress: f.last, Forecast: f.forecast}
		if err := stream.Send(first); err != nil || w.dry {
			return err
		}
	}
	once := req.GetNoWait()
	if once && !reached {
		return nil
	}
	return s.follow(ctx, func(st *inventory.State) (bool, error) {
		if st.Revision < out.revision {
			return false, nil
		}
		p, err := f.progress(st)
		if !proto.Equal(p, f.last) {
			f.last = p
			if err := send(p); err != nil {
				return true, err
			}
		}
		return p.GetDone() || once, err
	})
}

// present counts the droplets that the pool has to what it wants: those that
// stay, and those on their way in by import.
func present(st *inventory.State, p *inventory.Pool) int {
	n := len(p.Import)
	for _, d := range st.PoolDroplets(p.Name) {
		if !d.Phase.Leaving() && !slices.Contains(p.Remove, d.Name) {
			n++
		}
	}
	return n
}

// createFollower tells how far a creation has come.
type createFollower struct {
	creation
	mine   []string // names, once ours they stay so until they leave
	failed []*pb.Droplet
	last   *pb.Progress
}

// maxFailedShown bounds what a create shows of droplets that did not come to be.
const maxFailedShown = 20

// progress is the picture that the state gives. With it comes an error if the
// wish can no longer be had.
func (f *createFollower) progress(st *inventory.State) (*pb.Progress, error) {
	p := st.Pools[f.Pool]
	if p == nil {
		return f.last, poolNotFound(f.Pool)
	}
	nodes := st.SortedNodes()
	full := present(st, p) >= p.Desired
	ours := f.pick(st, full)

	m := &pb.Progress{Pool: PoolToProto(p, st.PoolDroplets(p.Name)), Total: int32(f.Count), NodesLive: int32(len(nodes)), Reason: holdup(st, p)}
	for _, d := range ours {
		m.Droplets = append(m.Droplets, DropletToProto(d, nodes))
		m.Requested++
		stage := stageOf(d, nodes)
		for at, count := range []*int32{&m.Active, &m.Healthy, &m.Serving} {
			if stage > at {
				*count++
			}
		}
	}
	m.Droplets = append(m.Droplets, f.failed...)
	if m.Reason == "" && !full {
		m.Reason = conditionOf(st, p.Name)
	}
	if m.Reason == "" && m.Requested > m.Serving {
		m.Reason = laggard(nodes)
	}
	if m.Reason == "" && len(f.failed) > 0 && len(ours) < f.Count {
		d := f.failed[len(f.failed)-1]
		m.Reason = d.Hostname + ": " + d.Reason
	}
	switch {
	case int(m.Serving) < len(ours):
	case len(ours) == f.Count:
		m.Done = true
	case full && p.Desired < f.Desired:
		return m, overridden(p.Name, p.Desired)
	case full:
		m.Done = true
		m.Reason = fmt.Sprintf("pool %s has the %d droplets that it wants: it had more than were wanted, and keeps them", p.Name, p.Desired)
	}
	return m, nil
}

// pick chooses which droplets came of the wish, by ordinal, and notes those
// that were to and fail. Once the pool is full no more will come, and those
// that were wanted before count too.
func (f *createFollower) pick(st *inventory.State, full bool) []*inventory.Droplet {
	type candidate struct {
		ordinal int64
		*inventory.Droplet
	}
	var alive []candidate
	for _, d := range st.PoolDroplets(f.Pool) {
		n, ok := inventory.Ordinal(f.Prefix, d.Name)
		switch {
		case !ok || n < f.First:
		case !d.Phase.Leaving():
			alive = append(alive, candidate{n, d})
		case d.Reason != "":
			f.fail(DropletToProto(d, st.SortedNodes()))
		}
	}
	slices.SortFunc(alive, func(a, b candidate) int { return int(a.ordinal - b.ordinal) })
	skip := f.Behind
	if full {
		skip = min(skip, max(0, len(alive)-f.Count))
	}
	var ours []candidate
	for _, c := range alive {
		if slices.Contains(f.mine, c.Name) {
			ours = append(ours, c)
		}
	}
	for _, c := range alive[min(skip, len(alive)):] {
		if len(ours) < f.Count && !slices.Contains(f.mine, c.Name) {
			ours = append(ours, c)
		}
	}
	slices.SortFunc(ours, func(a, b candidate) int { return int(a.ordinal - b.ordinal) })
	f.mine = f.mine[:0]
	out := make([]*inventory.Droplet, len(ours))
	for i, c := range ours {
		out[i] = c.Droplet
		f.mine = append(f.mine, c.Name)
	}
	return out
}

func (f *createFollower) fail(d *pb.Droplet) {
	i := slices.IndexFunc(f.failed, func(other *pb.Droplet) bool { return other.Name == d.Name })
	if i >= 0 {
		f.failed = slices.Clone(f.failed) // the message before still shows it
		f.failed[i] = d
		return
	}
	f.failed = append(slices.Clone(f.failed), d)
	if over := len(f.failed) - maxFailedShown; over > 0 {
		f.failed = f.failed[over:]
	}
}

// stageOf is 0 for a droplet on record, 1 for one that the cloud knows as
// active, 2 for one healthy on a quorum, 3 for one that serves on all live nodes.
func stageOf(d *inventory.Droplet, nodes []*inventory.Node) int {
	switch {
	case d.Phase == inventory.Serving && len(nodes) > 0 && nodesServing(d, nodes) == len(nodes):
		return 3
	case d.Phase == inventory.Serving:
		return 2
	}
	up := 0
	for _, n := range nodes {
		if n.Health(d).Health == inventory.Up {
			up++
		}
	}
	switch {
	case d.Phase == inventory.Booting && up > len(nodes)/2:
		return 2
	case d.Status == "active":
		return 1
	}
	return 0
}
