package server

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// dropletsOf are those of "pools/{pool}", or all if parent is empty.
func dropletsOf(st *inventory.State, parent string) ([]*inventory.Droplet, error) {
	if parent == "" {
		return st.SortedDroplets(), nil
	}
	pool, err := parsePool("parent", parent)
	if err != nil {
		return nil, err
	}
	if st.Pools[pool] == nil {
		return nil, poolNotFound(pool)
	}
	return st.PoolDroplets(pool), nil
}

// printKey orders droplets as strings as `print` does: by pool, then by age.
func printKey(d *inventory.Droplet) string {
	return fmt.Sprintf("%s/%020d/%03d/%s", d.Pool, d.Created.UnixNano(), len(d.Name), d.Name)
}

// ListDroplets implements pb.DropletServiceServer.
func (s *Server) ListDroplets(_ context.Context, req *pb.ListDropletsRequest) (*pb.ListDropletsResponse, error) {
	st, err := s.state()
	if err != nil {
		return nil, err
	}
	all, err := dropletsOf(st, req.GetParent())
	if err != nil {
		return nil, err
	}
	droplets, next, err := page(all, printKey, "droplets of "+req.GetParent(), req.GetPageSize(), 10_000, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListDropletsResponse{NextPageToken: next, Etag: st.ETag(), Stale: stale(st)}
	nodes := st.SortedNodes()
	for _, d := range droplets {
		resp.Droplets = append(resp.Droplets, DropletToProto(d, nodes))
	}
	return resp, nil
}

// GetDroplet implements pb.DropletServiceServer.
func (s *Server) GetDroplet(_ context.Context, req *pb.GetDropletRequest) (*pb.GetDropletResponse, error) {
	ref, err := parseDroplet("name", req.GetName(), false)
	if err != nil {
		return nil, err
	}
	st, err := s.state()
	if err != nil {
		return nil, err
	}
	d := find(st, ref)
	if d == nil {
		return nil, dropletNotFound([]string{ref.text})
	}
	return &pb.GetDropletResponse{Droplet: DropletToProto(d, st.SortedNodes())}, nil
}

// find is nil if there is no such droplet. A number that is no id may be a hostname.
func find(st *inventory.State, ref dropletRef) *inventory.Droplet {
	if ref.id != 0 {
		for _, d := range st.Droplets {
			if d.ID == ref.id {
				return d
			}
		}
		return st.Droplets[strconv.FormatInt(ref.id, 10)]
	}
	d := st.Droplets[ref.hostname]
	if d != nil && ref.pool != "" && ref.pool != d.Pool {
		return nil
	}
	return d
}

// thePool is the one that parent names, or the only one.
func (s *Server) thePool(st *inventory.State, parent string) (*inventory.Pool, error) {
	if parent != "" {
		name, err := parsePool("parent", parent)
		if err != nil {
			return nil, err
		}
		return s.poolToChange(st, name, "")
	}
	for _, key := range sortedKeys(st.Unreadable) {
		if name, isPool := strings.CutPrefix(key, s.keys.Pool("")); isPool && st.Pools[name] == nil {
			return nil, unreadable(key, st.Unreadable[key]) // it may be the one that is meant
		}
	}
	switch names := sortedKeys(st.Pools); len(names) {
	case 0:
		return nil, invalid("parent", "", "names no pool, and there is none yet: make one with doproxy apply")
	case 1:
		return st.Pools[names[0]], nil
	default:
		return nil, invalid("parent", "", "is missing, and there are several pools: name one of "+strings.Join(names, ", "))
	}
}

// ImportDroplets implements pb.DropletServiceServer.
func (s *Server) ImportDroplets(ctx context.Context, req *pb.ImportDropletsRequest) (*pb.ImportDropletsResponse, error) {
	var v violations
	v.check(len(req.GetIds()) > 0, "ids", "", "is empty: give the ids of the droplets to import")
	v.check(len(req.GetIds()) <= MaxDroplets, "ids", len(req.GetIds()), fmt.Sprintf("are too many: at most %d at once", MaxDroplets))
	for i, id := range req.GetIds() {
		v.check(id > 0, fmt.Sprintf("ids[%d]", i), id, "must be a droplet's id at DigitalOcean, a positive number")
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	w := wish{target: "import into " + or(req.GetParent(), "the only pool"), dry: req.GetValidateOnly()}
	out, err := change(ctx, s, w, func(st *inventory.State) (d decision[*pb.ImportDropletsResponse], err error) {
		p, err := s.thePool(st, req.GetParent())
		if err != nil {
			return d, err
		}
		adding, err := unknownIDs(st, p, req.GetIds())
		if err != nil {
			return d, err
		}
		next, err := want(st, p, int64(p.Desired)+int64(len(adding)))
		if err != nil && len(adding) > 0 {
			return d, err
		} else if len(adding) == 0 {
			next = p
		} else {
			next.Import = slices.Sorted(slices.Values(append(slices.Clone(p.Import), adding...)))
		}
		s.putPool(&d.txn, p, next)
		d.answer = &pb.ImportDropletsResponse{Pool: PoolToProto(next, st.PoolDroplets(p.Name)), Importing: adding}
		if w.dry {
			d.answer.Forecast = forecast(st, next)
			if len(adding) > 0 {
				d.answer.Forecast.Holds = append(d.answer.Forecast.Holds, "what the imported droplets cost is not known before they are in the inventory")
			}
		}
		d.event = &inventory.Event{Type: "droplets.import_requested", Pool: p.Name,
			Message: fmt.Sprintf("import of %d droplets asked for %v; wanted: %d → %d", len(adding), adding, p.Desired, next.Desired)}
		return d, nil
	})
	return out.answer, err
}

// unknownIDs are those that are neither recorded in the pool nor on their way
// into it, each once. One that another pool has is an error.
func unknownIDs(st *inventory.State, into *inventory.Pool, ids []int64) ([]int64, error) {
	where := map[int64]string{}
	for _, p := range st.Pools {
		for _, id := range p.Import {
			where[id] = p.Name
		}
	}
	for _, d := range st.Droplets {
		if d.ID != 0 {
			where[d.ID] = d.Pool
		}
	}
	var v violations
	var out []int64
	for i, id := range ids {
		pool, known := where[id]
		v.check(!known || pool == into.Name, fmt.Sprintf("ids[%d]", i), id, "belongs to pool "+pool+": leave it out")
		if !known {
			out = append(out, id)
			where[id] = into.Name
		}
	}
	return out, v.err()
}

// WatchDroplets implements pb.DropletServiceServer.
func (s *Server) WatchDroplets(req *pb.WatchDropletsRequest, stream grpc.ServerStreamingServer[pb.WatchDropletsResponse]) error {
	st, err := s.state()
	if err != nil {
		return err
	}
	if _, err := dropletsOf(st, req.GetParent()); err != nil {
		return err
	}
	sent := map[string]*pb.Droplet{}
	first := true
	return s.follow(stream.Context(), func(st *inventory.State) (bool, error) {
		all := st.SortedDroplets()
		if req.GetParent() != "" { // a pool deleted meanwhile has no droplets
			all = st.PoolDroplets(strings.TrimPrefix(req.GetParent(), "pools/"))
		}
		resp := &pb.WatchDropletsResponse{Revision: int64(st.Revision)}
		nodes := st.SortedNodes()
		there := make(map[string]bool, len(all))
		for _, d := range all {
			m := DropletToProto(d, nodes)
			there[m.Name] = true
			if !proto.Equal(m, sent[m.Name]) {
				sent[m.Name] = m
				resp.Droplets = append(resp.Droplets, m)
			}
		}
		for _, name := range sortedKeys(sent) {
			if !there[name] {
				delete(sent, name)
				resp.Deleted = append(resp.Deleted, name)
			}
		}
		if !first && len(resp.Droplets) == 0 && len(resp.Deleted) == 0 {
			return false, nil
		}
		first = false
		return false, stream.Send(resp)
	})
}
