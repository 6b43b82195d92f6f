package haproxy

import (
	"net/netip"
	"slices"
	"strings"
)

// AdminState are the bits of srv_admin_state (management guide, "show servers
// state"). 0 is ready.
type AdminState uint8

// The bits that an operator, a dependency or the file can set.
const (
	ForcedMaint    AdminState = 0x01
	InheritedMaint AdminState = 0x02
	ConfigMaint    AdminState = 0x04
	ForcedDrain    AdminState = 0x08
	InheritedDrain AdminState = 0x10
	ResolveMaint   AdminState = 0x20
	HostnameMaint  AdminState = 0x40
)

// ServerState is one server as HAProxy has it.
type ServerState struct {
	Name    string
	Address netip.Addr
	Port    uint16
	Weight  uint16
	// Admin is 0 for a server that is ready.
	Admin AdminState
	// Checks says that health checks are switched on.
	Checks bool
}

// ChangeKind is what a Change does.
type ChangeKind uint8

// The kinds in the order in which Diff gives them: what makes room first, then
// what brings servers, last what takes them away.
const (
	// Remove takes the server away: no new sessions, then gone.
	Remove ChangeKind = iota
	// Add brings a server with weight 0 and its checks switched on.
	Add
	// EnableChecks switches health checks on.
	EnableChecks
	// Ready ends maintenance or draining that was ordered by hand.
	Ready
	// SetWeight sets the weight.
	SetWeight
)

func (k ChangeKind) String() string {
	return [...]string{"remove", "add", "enable checks", "ready", "set weight"}[k]
}

// Change is one step from what HAProxy has to what it should have.
type Change struct {
	Kind   ChangeKind
	Server ServerState
}

// Diff gives the changes that turn have into want. Both are sorted by name and
// are not changed. The result is in the order in which it is to be executed: a
// server that moved to another address is removed and then added; what brings
// servers into service goes before weights of 0, and what is not wanted goes
// last, so that a backend is never emptier than before and after. An added server has weight
// 0; if it should have another, a SetWeight follows.
func Diff(have, want []ServerState) []Change {
	var out []Change
	add := func(k ChangeKind, s ServerState) { out = append(out, Change{k, s}) }
	for i, j := 0, 0; i < len(have) || j < len(want); {
		var order int
		switch {
		case i == len(have):
			order = 1
		case j == len(want):
			order = -1
		default:
			order = strings.Compare(have[i].Name, want[j].Name)
		}
		switch {
		case order < 0:
			add(Remove, have[i])
			i++
		case order > 0:
			add(Add, want[j])
			if want[j].Weight > 0 {
				add(SetWeight, want[j])
			}
			j++
		default:
			h, w := &have[i], &want[j]
			i, j = i+1, j+1
			if *h == *w {
				continue
			}
			if h.Address != w.Address || h.Port != w.Port {
				add(Remove, *h)
				add(Add, *w)
				if w.Weight > 0 {
					add(SetWeight, *w)
				}
				continue
			}
			if w.Checks && !h.Checks {
				add(EnableChecks, *w)
			}
			if h.Weight != w.Weight {
				add(SetWeight, *w)
			}
			if h.Admin != w.Admin {
				add(Ready, *w)
			}
		}
	}
	if len(out) < 2 {
		return out
	}
	replaced := map[string]bool{}
	for _, c := range out {
		if c.Kind == Add {
			replaced[c.Server.Name] = true
		}
	}
	rank := func(c Change) int {
		switch c.Kind {
		case Remove:
			if replaced[c.Server.Name] {
				return 0
			}
			return 6
		case Add:
			return 1
		case EnableChecks:
			return 2
		case SetWeight:
			if c.Server.Weight > 0 {
				return 3
			}
			return 5
		default:
			return 4
		}
	}
	slices.SortStableFunc(out, func(a, b Change) int { return rank(a) - rank(b) })
	return out
}
