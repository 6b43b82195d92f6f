package dosim

import (
	"net/netip"
	"time"
)

type reservedActionBody struct {
	Type    string `json:"type"`
	Droplet int    `json:"droplet_id"`
}

// actOnReservedIP assigns and unassigns. The assignment holds at once; the
// action is completed later.
func (s *Sim) actOnReservedIP(r *request, sp reservedSpelling) answer {
	ip := s.reservedIP(r, sp)
	if ip == nil {
		return notFound
	}
	var body reservedActionBody
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if s.underWay(ip.Action, r.now) {
		return unprocessable("The reserved IP already has a pending event.")
	}
	switch body.Type {
	case "assign":
		if refused, bad := s.checkAssign(body.Droplet, ip.Region); bad {
			return refused
		}
		if other := s.reservedIPOf(body.Droplet); other != nil && other != ip {
			return unprocessable("The Droplet already has a reserved IP assigned.")
		}
		ip.Droplet = body.Droplet
	case "unassign":
		if ip.Droplet == 0 {
			return unprocessable("The reserved IP is not assigned.")
		}
		ip.Droplet = 0
	default:
		return unprocessable("The type of action is invalid.")
	}
	a := s.startReservedAction(r, body.Type+"_ip", sp.one, ip.Region, ip.IP)
	ip.Action = a.ID
	s.assigned(ip.IP, ip.Droplet, r.now)
	return created(map[string]any{"action": a.body()})
}

func (s *Sim) checkAssign(droplet int, region string) (answer, bool) {
	d := s.state.droplet(droplet)
	switch {
	case d == nil:
		return unprocessable("The droplet you specified could not be found."), true
	case d.Region != region:
		return unprocessable("The Droplet and the reserved IP must be in the same region."), true
	}
	return answer{}, false
}

// startReservedAction begins an action on a reserved IP. Those carry the address
// as their name: it has no numeric id.
func (s *Sim) startReservedAction(r *request, kind, resourceType, region string, address netip.Addr) *action {
	a := s.state.addAction(kind, resourceType, 0, region, r.now, r.now.Add(s.options.ActionDelay))
	a.Name = address.String()
	s.planAction(a)
	return a
}

// underWay tells whether a reserved IP's action still takes its time.
func (s *Sim) underWay(id int, now time.Time) bool {
	a := s.state.action(id)
	return a != nil && a.Status == actionInProgress && now.Before(a.DoneAt)
}

func (s *Sim) listReservedIPActions(r *request, sp reservedSpelling) answer {
	ip := s.reservedIP(r, sp)
	if ip == nil {
		return notFound
	}
	return s.pageOfActions(r, func(a *action) bool { return a.Resource == 0 && a.Name == ip.IP.String() })
}

func (s *Sim) getReservedIPAction(r *request, sp reservedSpelling) answer {
	ip, a := s.reservedIP(r, sp), s.state.action(r.id("action_id"))
	if ip == nil || a == nil || a.Resource != 0 || a.Name != ip.IP.String() {
		return notFound
	}
	return ok(map[string]any{"action": a.body()})
}
