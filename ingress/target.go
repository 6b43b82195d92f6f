package ingress

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// Target is the node that a failover by hand would move a reserved IP to, as far
// as the records tell: to, or with inventory.AnyNode or nothing the best of the
// others. What only the leader knows, such as for how long a node has been fit,
// may make it choose another one. The error says why there is none.
func Target(state *inventory.State, address netip.Addr, to string) (node string, err error) {
	if !slices.Contains(state.Settings.Ingress.ReservedIPs, address) {
		return "", fmt.Errorf("address %s is not in ingress.reserved_ips: name one that is, or add it with `doproxy apply`", address)
	}
	p := &planner{Input: Input{State: state}, f: NewFacts(time.Time{}), stands: map[string]standing{}, plans: map[netip.Addr]*plan{}}
	for _, a := range state.Settings.Ingress.ReservedIPs {
		p.plans[a] = &plan{address: a, was: state.Assignments[a]}
	}
	for name, n := range state.Nodes {
		p.order = append(p.order, name)
		st := standing{node: n, reason: unfit(name, n)}
		if m := state.Members[name]; m != nil && !m.Drained.IsZero() {
			st.drained = true
			if st.reason == "" {
				st.reason = name + " is drained"
			}
		}
		st.fit = st.reason == ""
		st.settled = st.fit
		p.stands[name] = st
	}
	slices.Sort(p.order)
	q := p.plans[address]
	if to == "" || to == inventory.AnyNode {
		node, why := p.choose(q, q.node())
		if why != "" {
			return "", fmt.Errorf("address %s cannot move: %s", address, why)
		}
		return node, nil
	}
	if state.Nodes[to] == nil {
		if state.Members[to] == nil {
			return "", fmt.Errorf("node %s is not known: `doproxy status` lists the nodes", to)
		}
		return "", fmt.Errorf("node %s does not report: choose another one", to)
	}
	if to == q.node() {
		return "", fmt.Errorf("address %s is meant for node %s already", address, to)
	}
	if why := p.cannot(q, to); why != "" {
		return "", fmt.Errorf("address %s cannot move to node %s: %s", address, to, why)
	}
	return to, nil
}
