package fleet

import "github.com/doproxy/doproxy/inventory"

// nodes is what those alive say, as far as all droplets share it.
type nodes struct {
	live    []*inventory.Node
	running []*inventory.Node  // with HAProxy running
	applied inventory.Revision // the least of all
}

func (p *planner) look() {
	n := &p.nodes
	for _, node := range p.State.Nodes {
		if len(n.live) == 0 || node.Applied < n.applied {
			n.applied = node.Applied
		}
		n.live = append(n.live, node)
		if node.HAProxy == "running" {
			n.running = append(n.running, node)
		}
	}
}

// count nodes with HAProxy running that see this health.
func (n *nodes) count(d *inventory.Droplet, health string) int {
	count := 0
	for _, node := range n.running {
		if node.Health(d).Health == health {
			count++
		}
	}
	return count
}

// quorum sees the droplet so: more than half of those with HAProxy running.
func (n *nodes) quorum(d *inventory.Droplet, health string) bool {
	return n.count(d, health) > len(n.running)/2
}

// watched: more than half of those with HAProxy running tell of the server. They
// do so of every one that is booting.
func (n *nodes) watched(d *inventory.Droplet) bool {
	count := 0
	for _, node := range n.running {
		if _, ok := node.Servers[d.Name]; ok {
			count++
		}
	}
	return count > len(n.running)/2
}

// drained: every live node has the drain and reports no session. Without a live
// node there is no telling.
func (n *nodes) drained(d *inventory.Droplet) bool {
	for _, node := range n.live {
		s, ok := node.Servers[d.Name]
		if !ok || node.Seen < d.Mod || s.Sessions > 0 {
			return false
		}
	}
	return len(n.live) > 0
}

// removed: every live node has applied the record.
func (n *nodes) removed(d *inventory.Droplet) bool {
	return len(n.live) > 0 && n.applied >= d.Mod
}
