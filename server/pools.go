package server

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// GetPool implements pb.PoolServiceServer.
func (s *Server) GetPool(_ context.Context, req *pb.GetPoolRequest) (*pb.GetPoolResponse, error) {
	name, err := parsePool("name", req.GetName())
	if err != nil {
		return nil, err
	}
	st, err := s.state()
	if err != nil {
		return nil, err
	}
	p, err := s.poolToChange(st, name, "")
	if err != nil {
		return nil, err
	}
	return &pb.GetPoolResponse{Pool: PoolToProto(p, st.PoolDroplets(name))}, nil
}

// ListPools implements pb.PoolServiceServer.
func (s *Server) ListPools(_ context.Context, req *pb.ListPoolsRequest) (*pb.ListPoolsResponse, error) {
	st, err := s.state()
	if err != nil {
		return nil, err
	}
	pools, next, err := page(st.SortedPools(), func(p *inventory.Pool) string { return p.Name }, "pools", req.GetPageSize(), 1000, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListPoolsResponse{NextPageToken: next}
	for _, p := range pools {
		resp.Pools = append(resp.Pools, PoolToProto(p, st.PoolDroplets(p.Name)))
	}
	return resp, nil
}

// ScalePool implements pb.PoolServiceServer.
func (s *Server) ScalePool(ctx context.Context, req *pb.ScalePoolRequest) (*pb.ScalePoolResponse, error) {
	name, err := parsePool("name", req.GetName())
	if err != nil {
		return nil, err
	}
	var target string
	switch t := req.GetTarget().(type) {
	case *pb.ScalePoolRequest_Desired:
		target = fmt.Sprintf("desired=%d", t.Desired)
	case *pb.ScalePoolRequest_Delta:
		target = fmt.Sprintf("delta=%+d", t.Delta)
	default:
		return nil, invalid("target", "", "is missing: give desired or delta")
	}
	w := wish{requestID: req.GetRequestId(), target: "scale " + name + " " + target, dry: req.GetValidateOnly()}
	out, err := change(ctx, s, w, func(st *inventory.State) (d decision[scaled], err error) {
		p, err := s.poolToChange(st, name, req.GetEtag())
		if err != nil {
			return d, err
		}
		desired := int64(req.GetDesired())
		if t, ok := req.GetTarget().(*pb.ScalePoolRequest_Delta); ok {
			desired = int64(p.Desired) + int64(t.Delta)
		}
		next, err := want(st, p, desired)
		if err != nil {
			return d, err
		}
		tryAgain(next)
		next.Rewound = time.Time{}
		s.putPool(&d.txn, p, next)
		d.answer = scaled{Previous: p.Desired, Pool: message{PoolToProto(next, st.PoolDroplets(name))}}
		if w.dry {
			d.answer.forecast = forecast(st, next)
		}
		d.event = &inventory.Event{Type: "pool.scaled", Pool: name, Message: fmt.Sprintf("wanted: %d → %d, by request", p.Desired, next.Desired)}
		return d, nil
	})
	if err != nil {
		return nil, err
	}
	return &pb.ScalePoolResponse{Pool: out.answer.Pool.Pool, PreviousDesired: int32(out.answer.Previous), Forecast: out.answer.forecast}, nil
}

type scaled struct {
	Previous int     `json:"previous"`
	Pool     message `json:"pool"`

	forecast *pb.Forecast // of a dry run
}

// message is a pb.Pool that is kept in a request's record.
type message struct{ *pb.Pool }

func (m message) MarshalJSON() ([]byte, error) { return protojson.Marshal(m.Pool) }

func (m *message) UnmarshalJSON(b []byte) error {
	m.Pool = new(pb.Pool)
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m.Pool)
}

// poolToChange finds the pool, which must still have the etag if one is given.
func (s *Server) poolToChange(st *inventory.State, name, etag string) (*inventory.Pool, error) {
	p := st.Pools[name]
	if p == nil {
		if why, bad := st.Unreadable[s.keys.Pool(name)]; bad {
			return nil, unreadable(s.keys.Pool(name), why)
		}
		return nil, poolNotFound(name)
	}
	if have := PoolETag(p); etag != "" && etag != have {
		return nil, poolChanged(name, etag, have)
	}
	return p, nil
}

// want is a copy of the pool that wants n droplets.
func want(st *inventory.State, p *inventory.Pool, n int64) (*inventory.Pool, error) {
	if n < int64(p.Min) || n > int64(p.Max) {
		return nil, outOfBounds(p, n)
	}
	next := *p
	next.Desired = int(n)
	letGo(st, &next)
	return &next, nil
}

// letGo notes that a request asked for as many droplets as the pool now wants:
// the surplus may go. What is asked away by name was asked for by name.
func letGo(st *inventory.State, next *inventory.Pool) {
	staying := 0
	for _, d := range st.PoolDroplets(next.Name) {
		if !d.Phase.Leaving() && !slices.Contains(next.Remove, d.Name) {
			staying++
		}
	}
	next.Release = max(0, staying-next.Desired)
}

// tryAgain lets a pool that is held back after failures create at once.
func tryAgain(next *inventory.Pool) {
	next.Stopped, next.Failures, next.RetryAt, next.Reason = time.Time{}, 0, time.Time{}, ""
}

// putPool writes next in place of p. If nothing differs, it only makes sure that
// p is still what there is.
func (s *Server) putPool(txn *inventory.Txn, p, next *inventory.Pool) {
	guard, op := inventory.PutPool(s.keys, next)
	txn.Guards = append(txn.Guards, guard)
	if !reflect.DeepEqual(p, next) {
		txn.Ops = append(txn.Ops, op)
	}
}

// ApplyPool implements pb.PoolServiceServer.
func (s *Server) ApplyPool(ctx context.Context, req *pb.ApplyPoolRequest) (*pb.ApplyPoolResponse, error) {
	var v violations
	v.pool(req.GetPool(), "pool.")
	if err := v.err(); err != nil {
		return nil, err
	}
	spec, desired := PoolFromProto(req.GetPool())
	w := wish{target: "apply " + spec.Name, dry: req.GetValidateOnly()}
	out, err := change(ctx, s, w, func(st *inventory.State) (d decision[*pb.ApplyPoolResponse], err error) {
		p := st.Pools[spec.Name]
		var next *inventory.Pool
		if p == nil {
			if req.GetEtag() != "" {
				return d, poolChanged(spec.Name, req.GetEtag(), "")
			}
			next, err = s.newPool(ctx, st, spec, desired, w.dry, &d.txn)
		} else {
			next, err = s.changedPool(st, p, spec, desired, req.GetEtag(), &d.txn)
		}
		if err != nil {
			return d, err
		}
		resp := &pb.ApplyPoolResponse{Pool: PoolToProto(next, st.PoolDroplets(spec.Name)), Created: p == nil}
		before, verb := &pb.Pool{Name: PoolName(spec.Name)}, "created"
		if p != nil {
			before, verb = SpecToProto(p.PoolSpec, p.Desired), "changed"
		}
		resp.Changes = changes(before, SpecToProto(next.PoolSpec, next.Desired))
		if w.dry {
			resp.Forecast = forecast(st, next)
		}
		d.answer = resp
		d.event = &inventory.Event{Type: "pool.applied", Pool: spec.Name, Message: "pool " + verb + ": " + summary(resp.Changes)}
		return d, nil
	})
	return out.answer, err
}

func summary(changes []*pb.FieldChange) string {
	text := ""
	for i, c := range changes {
		if i == 8 {
			return fmt.Sprintf("%s and %d more", text, len(changes)-i)
		}
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%s %s → %s", c.Field, or(c.Before, "-"), or(c.After, "-"))
	}
	return text
}

func (s *Server) changedPool(st *inventory.State, p *inventory.Pool, spec inventory.PoolSpec, desired int, etag string, txn *inventory.Txn) (*inventory.Pool, error) {
	if _, err := s.poolToChange(st, p.Name, etag); err != nil {
		return nil, err
	}
	spec.HostnamePrefix = or(spec.HostnamePrefix, p.HostnamePrefix)
	if spec.HostnamePrefix != p.HostnamePrefix {
		return nil, invalid("pool.hostname_prefix", spec.HostnamePrefix,
			fmt.Sprintf("differs from %q, and is fixed once the pool exists: leave it, or make another pool", p.HostnamePrefix))
	}
	if err := checkAmong(spec, st.Pools, "pool."); err != nil {
		return nil, err
	}
	next := *p
	next.PoolSpec = spec
	next.Desired = min(max(or(desired, p.Desired), spec.Min), spec.Max)
	if next.Desired != p.Desired || !reflect.DeepEqual(spec, p.PoolSpec) {
		// What failed was something else: this is tried at once. The same again is
		// not, or what applies a file over and over would undo every stop.
		tryAgain(&next)
	}
	if desired != 0 {
		next.Rewound = time.Time{}
	}
	if desired != 0 || next.Desired != p.Desired {
		letGo(st, &next)
	}
	s.putPool(txn, p, &next)
	return &next, nil
}

// newPool goes on with the ordinals of an earlier pool of its prefix. The
// ordinals' record is written too: two pools made at once cannot both get the prefix.
func (s *Server) newPool(ctx context.Context, st *inventory.State, spec inventory.PoolSpec, desired int, dry bool, txn *inventory.Txn) (*inventory.Pool, error) {
	spec.HostnamePrefix = or(spec.HostnamePrefix, spec.Name)
	if err := checkAmong(spec, st.Pools, "pool."); err != nil {
		return nil, err
	}
	next := &inventory.Pool{
		PoolSpec: spec,
		Desired:  max(desired, spec.Min),
		Created:  time.Now().UTC().Truncate(time.Millisecond),
	}
	if dry {
		return next, nil
	}
	guard, taken, err := s.ordinals(ctx, spec.HostnamePrefix)
	if err != nil {
		return nil, err
	}
	if taken.Pool != "" && taken.Pool != spec.Name {
		// The state may be older than that record.
		if kv, err := s.get(ctx, s.keys.Pool(taken.Pool)); err != nil {
			return nil, err
		} else if kv.Mod != 0 {
			return nil, invalid("pool.hostname_prefix", spec.HostnamePrefix, fmt.Sprintf("is that of pool %s: choose another", taken.Pool))
		}
	}
	next.NextOrdinal = taken.Next
	for name := range st.Droplets {
		if n, ok := inventory.Ordinal(spec.HostnamePrefix, name); ok && n >= next.NextOrdinal {
			next.NextOrdinal = n + 1
		}
	}
	txn.Add(inventory.PutPool(s.keys, next))
	txn.Add(guard, ordinals{Pool: spec.Name, Next: next.NextOrdinal}.op(guard.Key))
	return next, nil
}

// ordinals is the record below Keys.Ordinal: the next ordinal of a prefix that
// no pool has, or the pool that has it and the one it began with.
type ordinals struct {
	Pool string `json:"pool,omitempty"`
	Next int64  `json:"next"`
}

func (o ordinals) op(key string) inventory.Op {
	value, err := json.Marshal(o)
	if err != nil {
		panic("server: " + err.Error())
	}
	return inventory.Op{Key: key, Value: value}
}

// ordinals reads the record, and the guard to write it under.
func (s *Server) ordinals(ctx context.Context, prefix string) (inventory.Guard, ordinals, error) {
	var o ordinals
	kv, err := s.get(ctx, s.keys.Ordinal(prefix))
	if err == nil && kv.Mod != 0 {
		if err = json.Unmarshal(kv.Value, &o); err != nil {
			err = fmt.Errorf("%s: %w", kv.Key, err)
		}
	}
	return inventory.Guard{Key: kv.Key, Mod: kv.Mod}, o, err
}

// DeletePool implements pb.PoolServiceServer.
func (s *Server) DeletePool(ctx context.Context, req *pb.DeletePoolRequest) (*pb.DeletePoolResponse, error) {
	name, err := parsePool("name", req.GetName())
	if err != nil {
		return nil, err
	}
	w := wish{target: "delete pool " + name, dry: req.GetValidateOnly()}
	_, err = change(ctx, s, w, func(st *inventory.State) (d decision[struct{}], err error) {
		p, err := s.poolToChange(st, name, req.GetEtag())
		if err != nil {
			return d, err
		}
		// The leader records droplets under a guard on the pool's record.
		if n := len(st.PoolDroplets(name)); n > 0 || p.Desired > 0 || len(p.Import) > 0 {
			return d, poolNotEmpty(p, n)
		}
		if w.dry {
			return d, nil
		}
		guard, was, err := s.ordinals(ctx, p.HostnamePrefix)
		if err != nil {
			return d, err
		}
		d.txn.Add(inventory.DeletePool(s.keys, p))
		d.txn.Add(guard, ordinals{Next: max(p.NextOrdinal, was.Next)}.op(guard.Key))
		d.event = &inventory.Event{Type: "pool.deleted", Pool: name, Message: "pool deleted, by request"}
		return d, nil
	})
	if err != nil {
		return nil, err
	}
	return &pb.DeletePoolResponse{}, nil
}
