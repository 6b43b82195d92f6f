package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// confirmLife is how long a confirmation holds.
const confirmLife = time.Hour

// held are the conditions of the leader and of the nodes that a confirmation
// ends, of one pool or, if it is empty, of all.
func held(st *inventory.State, pool string) []inventory.Condition {
	var all []inventory.Condition
	if st.Report != nil {
		all = append(all, st.Report.Conditions...)
	}
	for _, n := range st.SortedNodes() {
		for _, c := range n.Conditions {
			c.Node = or(c.Node, n.Name)
			all = append(all, c)
		}
	}
	return slices.DeleteFunc(all, func(c inventory.Condition) bool {
		return len(c.Names) == 0 || inventory.ValidName(c.Pool) != nil || pool != "" && c.Pool != pool
	})
}

// Confirm implements pb.ClusterServiceServer.
func (s *Server) Confirm(ctx context.Context, req *pb.ConfirmRequest) (*pb.ConfirmResponse, error) {
	pool := ""
	if req.GetPool() != "" {
		var err error
		if pool, err = parsePool("pool", req.GetPool()); err != nil {
			return nil, err
		}
	}
	lease := leased{s: s, life: confirmLife}
	defer lease.drop()
	now := time.Now().UTC().Truncate(time.Millisecond)
	w := wish{target: "confirm " + pool, dry: req.GetValidateOnly()}
	out, err := change(ctx, s, w, func(st *inventory.State) (d decision[*pb.ConfirmResponse], err error) {
		chosen, names, err := choose(st, pool, req.GetHostnames())
		if err != nil {
			return d, err
		}
		d.answer = &pb.ConfirmResponse{Conditions: conditionsToProto(chosen)}
		if w.dry {
			return d, nil
		}
		if err := lease.grant(ctx); err != nil {
			return d, err
		}
		var told []string
		for _, pool := range sortedKeys(names) {
			c := &inventory.Confirm{Pool: pool, Names: names[pool], Since: now}
			told = append(told, fmt.Sprintf("%s of pool %s", enumerate(c.Names), pool))
			if before := st.Confirms[pool]; before != nil {
				c.Mod = before.Mod
				c.Names = union(c.Names, stillHeld(st, pool, before.Names))
			}
			d.txn.Add(inventory.PutConfirm(s.keys, c, lease.id))
		}
		d.event = &inventory.Event{Type: "guard.confirmed", Message: "what the wipe guard held may go, by request: " + strings.Join(told, "; ")}
		if len(names) == 1 {
			d.event.Pool = sortedKeys(names)[0]
		}
		return d, nil
	})
	if err != nil {
		if !isProblem(err, ReasonOutcomeUnknown) {
			return nil, err
		}
		lease.keep() // the records that hang on it may be there
		return nil, err
	}
	if !w.dry {
		lease.keep()
	}
	return out.answer, nil
}

// choose is what a confirmation lets go: the conditions, reduced to the names
// that are asked for if any are, and the names by pool, sorted.
func choose(st *inventory.State, pool string, asked []string) ([]inventory.Condition, map[string][]string, error) {
	conditions := held(st, pool)
	if len(conditions) == 0 {
		if pool != "" && st.Pools[pool] == nil {
			return nil, nil, poolNotFound(pool)
		}
		return nil, nil, nothingHeld(pool)
	}
	var all []string
	for _, c := range conditions {
		all = union(all, c.Names)
	}
	var unknown []string
	for _, name := range asked {
		if !slices.Contains(all, name) {
			unknown = append(unknown, describe(name))
		}
	}
	if len(unknown) > 0 {
		return nil, nil, notHeld(unknown, all)
	}
	names := map[string][]string{}
	var chosen []inventory.Condition
	for _, c := range conditions {
		if len(asked) > 0 {
			c.Names = intersection(c.Names, asked)
		}
		if len(c.Names) > 0 {
			chosen = append(chosen, c)
			names[c.Pool] = union(names[c.Pool], c.Names)
		}
	}
	return chosen, names, nil
}

// stillHeld are those of an earlier confirmation that did not go yet.
func stillHeld(st *inventory.State, pool string, names []string) []string {
	var out []string
	for _, c := range held(st, pool) {
		out = union(out, intersection(c.Names, names))
	}
	return out
}

// union is sorted.
func union(a, b []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}

func intersection(a, b []string) []string {
	var out []string
	for _, name := range a {
		if slices.Contains(b, name) {
			out = append(out, name)
		}
	}
	return out
}
