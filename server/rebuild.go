package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// What DigitalOcean takes in a tag, less the colon that ends doproxy's own.
var uidPattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// Rebuild implements pb.ClusterServiceServer. It asks the store itself: a mirror
// that knows the cluster that was lost does not follow the one that is there.
func (s *Server) Rebuild(ctx context.Context, req *pb.RebuildRequest) (*pb.RebuildResponse, error) {
	uid := req.GetUid()
	known := s.mirror.State()
	if uid == "" {
		mend := "is missing: name the cluster that was lost; its droplets bear the tag doproxy:{uid} at DigitalOcean"
		if known.Meta != nil {
			mend += "; this node remembers " + known.Meta.UID
		}
		return nil, invalid("uid", uid, mend)
	}
	if !uidPattern.MatchString(uid) {
		return nil, invalid("uid", uid, "must be a cluster's uid: what follows doproxy: in the tag of its droplets at DigitalOcean")
	}
	for try := range maxTries {
		if try > 1 {
			if err := rest(ctx, 10*time.Millisecond); err != nil {
				return nil, err
			}
		}
		var listing inventory.Listing
		err := s.call(ctx, func(ctx context.Context) (err error) {
			listing, err = s.store.List(ctx, s.keys.Prefix())
			return err
		})
		if err != nil {
			return nil, err
		}
		r := rebuilding{s: s, now: time.Now().UTC().Truncate(time.Millisecond), there: map[string]inventory.KV{}}
		resp, err := r.plan(listing, known, uid)
		if err != nil || req.GetValidateOnly() {
			return resp, err
		}
		rev, err := r.commit(ctx)
		if err == nil {
			s.journal.Record(inventory.Event{Type: "cluster.rebuilt", Node: s.node,
				Message: fmt.Sprintf("the inventory of cluster %s begins anew with %d pools; its droplets are adopted from the cloud, by request", uid, len(resp.Pools))})
			s.seen(ctx, rev)
			return resp, nil
		} else if !errors.Is(err, inventory.ErrConflict) {
			return nil, uncommitted(err, "")
		}
	}
	return nil, fmt.Errorf("rebuilding: %w", inventory.ErrConflict)
}

// rebuilding writes an inventory into a store that has lost it.
type rebuilding struct {
	s     *Server
	now   time.Time
	there map[string]inventory.KV

	txn    inventory.Txn     // all but the meta record
	guards []inventory.Guard // pools that stay as they are: who plans droplets writes their pool
	meta   inventory.Op
}

func (r *rebuilding) plan(listing inventory.Listing, known *inventory.State, uid string) (*pb.RebuildResponse, error) {
	keys := r.s.keys
	var pools []string
	droplets := 0
	for _, kv := range listing.KVs {
		r.there[kv.Key] = kv
		if name, ok := strings.CutPrefix(kv.Key, keys.Pool("")); ok {
			pools = append(pools, name)
		} else if strings.HasPrefix(kv.Key, keys.Prefix()+"droplets/") {
			droplets++
		}
	}
	if droplets > 0 {
		return nil, notEmpty(fmt.Sprintf("the records of %d droplets", droplets))
	}
	meta := inventory.Meta{UID: uid, Schema: inventory.Schema, Created: r.now, Rebuilt: r.now}
	if kv, ok := r.there[keys.Meta()]; ok {
		present, err := inventory.DecodeMeta(kv)
		switch {
		case err != nil:
			return nil, unreadable(kv.Key, err.Error())
		case present.Schema > inventory.Schema:
			return nil, unreadable(kv.Key, fmt.Sprintf("it has schema %d and this doproxy knows %d", present.Schema, inventory.Schema))
		case present.UID == uid && len(pools) > 0:
			return nil, notEmpty("cluster " + uid + " already, with the pools " + enumerate(pools))
		case present.UID == uid:
			meta.Created = present.Created
		}
	}
	resp := &pb.RebuildResponse{UnknownUid: known.Meta == nil || known.Meta.UID != uid}
	if !resp.UnknownUid {
		meta.Created = known.Meta.Created
		resp.Droplets = int32(len(known.Droplets))
		resp.Pools = r.remembered(known)
	}
	for _, name := range pools {
		if key := keys.Pool(name); known.Pools[name] == nil || resp.UnknownUid {
			r.guards = append(r.guards, inventory.Guard{Key: key, Mod: r.there[key].Mod})
		}
	}
	value, err := json.Marshal(meta)
	if err != nil {
		return nil, fmt.Errorf("encoding the meta record: %w", err)
	}
	r.meta = inventory.Op{Key: keys.Meta(), Value: value}
	return resp, nil
}

// remembered puts down what the node knows of pools, settings and members. Of
// what was asked of the leader nothing is left to do: names and ids asked for
// may mean other droplets by now.
func (r *rebuilding) remembered(known *inventory.State) []*pb.Pool {
	keys := r.s.keys
	var out []*pb.Pool
	for _, p := range known.SortedPools() {
		next := *p
		next.Mod = r.there[keys.Pool(p.Name)].Mod
		next.Remove, next.Import, next.Release = nil, nil, 0
		for _, d := range known.PoolDroplets(p.Name) {
			if n, ok := inventory.Ordinal(p.HostnamePrefix, d.Name); ok {
				next.NextOrdinal = max(next.NextOrdinal, n+1)
			}
		}
		r.txn.Add(inventory.PutPool(keys, &next))
		if key := keys.Ordinal(p.HostnamePrefix); r.there[key].Mod == 0 {
			r.txn.Add(inventory.Guard{Key: key}, ordinals{Pool: p.Name, Next: next.NextOrdinal}.op(key))
		}
		out = append(out, PoolToProto(&next, nil))
	}
	if known.Settings.Mod != 0 {
		next := *known.Settings
		next.Mod = r.there[keys.Settings()].Mod
		r.txn.Add(inventory.PutSettings(keys, &next))
	}
	for _, name := range sortedKeys(known.Members) {
		if r.there[keys.Member(name)].Mod == 0 { // else the node is back by itself
			next := *known.Members[name]
			next.Mod = 0
			r.txn.Add(inventory.PutMember(keys, &next))
		}
	}
	return out
}

// commit writes the meta record last, so that nobody acts before all is there.
// All of it is guarded by the meta record that was there before.
func (r *rebuilding) commit(ctx context.Context) (inventory.Revision, error) {
	meta := inventory.Guard{Key: r.meta.Key, Mod: r.there[r.meta.Key].Mod}
	room := inventory.MaxOps - 1
	ops, guards := r.txn.Ops, r.txn.Guards
	for len(ops) > room || len(guards)+len(r.guards) > room && len(ops) > 0 {
		n := min(room, len(ops))
		if _, err := r.s.commit(ctx, inventory.Txn{Ops: ops[:n], Guards: append([]inventory.Guard{meta}, guards[:n]...)}); err != nil {
			return 0, err
		}
		ops, guards = ops[n:], guards[n:]
	}
	last := inventory.Txn{
		Ops:    append([]inventory.Op{r.meta}, ops...),
		Guards: append([]inventory.Guard{meta}, guards...),
	}
	last.Guards = append(last.Guards, r.guards[:min(len(r.guards), inventory.MaxOps-len(last.Guards))]...)
	return r.s.commit(ctx, last)
}
