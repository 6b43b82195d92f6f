package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// maxDelete bounds the droplets of one delete: each is a guard of one transaction.
const maxDelete = 100

// deletion is what a delete put on record.
type deletion struct {
	Droplets []doomed `json:"droplets"`

	forecast *pb.Forecast // of a dry run
}

type doomed struct {
	Pool string `json:"pool"`
	Name string `json:"name"`
	ID   int64  `json:"id,omitempty"`
}

// DeleteDroplets implements pb.DropletServiceServer.
func (s *Server) DeleteDroplets(req *pb.DeleteDropletsRequest, stream grpc.ServerStreamingServer[pb.DeleteDropletsResponse]) error {
	ctx := stream.Context()
	refs, err := parseDoomed(req.GetNames())
	if err != nil {
		return err
	}
	w := wish{
		requestID: req.GetRequestId(),
		target:    "delete " + strings.Join(slices.Sorted(slices.Values(req.GetNames())), " "),
		dry:       req.GetValidateOnly(),
	}
	out, err := change(ctx, s, w, func(st *inventory.State) (decision[deletion], error) {
		return s.decideDelete(st, refs, req.GetEtag(), w.dry)
	})
	if err != nil {
		return err
	}
	f := deleteFollower{deletion: out.answer, known: map[string]*pb.Droplet{}}
	for _, d := range f.Droplets {
		f.known[d.Name] = &pb.Droplet{Name: DropletName(d.Pool, d.Name), Hostname: d.Name, Pool: PoolName(d.Pool), Id: d.ID}
	}
	send := func(p *pb.Progress) error { return stream.Send(&pb.DeleteDropletsResponse{Progress: p}) }
	st, reached := s.await(ctx, out.revision)
	if !reached || w.dry {
		f.last = f.progress(st)
		f.last.Done = false
		first := &pb.DeleteDropletsResponse{Progress: f.last, Forecast: f.forecast}
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
		p := f.progress(st)
		if !proto.Equal(p, f.last) {
			f.last = p
			if err := send(p); err != nil {
				return true, err
			}
		}
		return p.GetDone() || once, nil
	})
}

func parseDoomed(names []string) ([]dropletRef, error) {
	var v violations
	v.check(len(names) > 0, "names", "", "is empty: name the droplets to delete")
	v.check(len(names) <= maxDelete, "names", fmt.Sprintf("%d names", len(names)),
		fmt.Sprintf("are too many for one delete: at most %d, all or none; or scale the pool down", maxDelete))
	if err := v.err(); err != nil {
		return nil, err
	}
	var refs []dropletRef
	for i, name := range names {
		ref, err := parseDroplet(fmt.Sprintf("names[%d]", i), name, true)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// decideDelete takes away all that are named, or none. One that leaves already
// is followed, but what is wanted was lowered for it before, or its place is to
// be filled again: it does not count a second time.
func (s *Server) decideDelete(st *inventory.State, refs []dropletRef, etag string, dry bool) (d decision[deletion], err error) {
	if have := st.ETag(); etag != "" && etag != have {
		return d, inventoryChanged(have)
	}
	var missing []string
	next := map[string]*inventory.Pool{}
	taken := map[string][]string{}
	named := map[string]bool{}
	for _, ref := range refs {
		drop := find(st, ref)
		switch {
		case drop == nil:
			missing = append(missing, ref.text)
			continue
		case named[drop.Name]:
			continue
		}
		named[drop.Name] = true
		d.answer.Droplets = append(d.answer.Droplets, doomed{drop.Pool, drop.Name, drop.ID})
		d.txn.Guards = append(d.txn.Guards, inventory.Guard{Key: s.keys.Droplet(drop.Pool, drop.Name), Mod: drop.Mod})
		p, err := s.poolToChange(st, drop.Pool, "")
		if err != nil {
			return d, err
		}
		if drop.Phase.Leaving() || slices.Contains(p.Remove, drop.Name) {
			continue
		}
		taken[p.Name] = append(taken[p.Name], drop.Name)
	}
	if len(missing) > 0 {
		return d, dropletNotFound(missing)
	}
	var told []string
	for _, name := range sortedKeys(taken) {
		p := st.Pools[name]
		if next[name], err = want(st, p, int64(p.Desired-len(taken[name]))); err != nil {
			return d, err
		}
		next[name].Remove = slices.Sorted(slices.Values(append(slices.Clone(p.Remove), taken[name]...)))
		letGo(st, next[name])
		s.putPool(&d.txn, p, next[name])
		told = append(told, fmt.Sprintf("%s; wanted of %s: %d → %d", strings.Join(taken[name], ", "), name, p.Desired, next[name].Desired))
	}
	if dry {
		d.answer.forecast = forecast(st, slices.Collect(maps.Values(next))...)
	}
	d.event = &inventory.Event{Type: "droplets.delete_requested", Message: "asked away: " + strings.Join(told, "; ")}
	if len(taken) == 1 {
		d.event.Pool = sortedKeys(taken)[0]
	}
	return d, nil
}

// deleteFollower tells how far a deletion has come.
type deleteFollower struct {
	deletion
	known map[string]*pb.Droplet // as last seen
	gone  []string               // as of the message before
	last  *pb.Progress
}

func (f *deleteFollower) progress(st *inventory.State) *pb.Progress {
	nodes := st.SortedNodes()
	m := &pb.Progress{Total: int32(len(f.Droplets)), NodesLive: int32(len(nodes))}
	var pool *inventory.Pool
	var gone []string
	for _, was := range f.Droplets {
		pool = or(pool, st.Pools[was.Pool])
		d := st.Droplets[was.Name]
		if d == nil || d.Pool != was.Pool {
			gone = append(gone, was.Name)
			m.Draining, m.Removed, m.Deleted = m.Draining+1, m.Removed+1, m.Deleted+1
			m.DeletedIds = append(m.DeletedIds, f.known[was.Name].GetId())
			m.DeletedHostnames = append(m.DeletedHostnames, was.Name)
			if !slices.Contains(f.gone, was.Name) {
				m.Droplets = append(m.Droplets, f.known[was.Name])
			}
			continue
		}
		f.known[was.Name] = DropletToProto(d, nodes)
		m.Droplets = append(m.Droplets, f.known[was.Name])
		if d.Phase.Leaving() {
			m.Draining++
		}
		if d.Phase == inventory.Deleting && nodesPast(d, nodes) == len(nodes) {
			m.Removed++
		}
	}
	f.gone = gone
	if pool != nil {
		m.Pool = PoolToProto(pool, st.PoolDroplets(pool.Name))
	}
	m.Done = m.Deleted == m.Total
	if !m.Done {
		m.Reason = holdup(st, nil)
		if m.Reason == "" && pool != nil && m.Draining < m.Total {
			m.Reason = conditionOf(st, pool.Name)
		}
	}
	return m
}
