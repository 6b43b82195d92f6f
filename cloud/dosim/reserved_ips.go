package dosim

import (
	"net/netip"
	"slices"
	"strconv"
	"time"
)

const reservedIPLimit = 500

// reservedIP is an IPv4 address that the account holds. It is shared by both
// spellings of the API.
type reservedIP struct {
	IP      netip.Addr
	Region  string
	Droplet int // 0 when it is not assigned
	Action  int // the last one's id; 0 before there was one
}

// reservedSpelling is one of the API's two names for reserved IPs.
type reservedSpelling struct {
	path, one string
}

func (sp reservedSpelling) with(h func(*request, reservedSpelling) answer) handle {
	return func(r *request) answer { return h(r, sp) }
}

func (sp reservedSpelling) many() string { return sp.one + "s" }

type reservedIPBody struct {
	IP        string       `json:"ip"`
	Region    *region      `json:"region"`
	Droplet   *dropletBody `json:"droplet"`
	Locked    bool         `json:"locked"`
	ProjectID string       `json:"project_id"`
}

func (s *Sim) reservedIPBody(ip *reservedIP) reservedIPBody {
	b := reservedIPBody{IP: ip.IP.String(), Region: findRegion(ip.Region), ProjectID: accountUUID, Locked: s.underWay(ip.Action, time.Now())}
	if d := s.state.droplet(ip.Droplet); d != nil {
		body := d.body(s.prefix)
		b.Droplet = &body
	}
	return b
}

func (s *Sim) reservedIP(r *request, sp reservedSpelling) *reservedIP {
	for _, ip := range s.state.ReservedIPs {
		if ip.IP.String() == r.http.PathValue(sp.one) {
			return ip
		}
	}
	return nil
}

func (s *Sim) listReservedIPs(r *request, sp reservedSpelling) answer {
	return pageOf(r, sp.many(), s.state.ReservedIPs, s.reservedIPBody)
}

// createReservedIP reserves for a region, or for a droplet and assigns.
func (s *Sim) createReservedIP(r *request, sp reservedSpelling) answer {
	var body struct {
		Droplet int    `json:"droplet_id"`
		Region  string `json:"region"`
	}
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if body.Droplet != 0 {
		d := s.state.droplet(body.Droplet)
		if d == nil {
			return unprocessable("The droplet you specified could not be found.")
		}
		if s.reservedIPOf(d.ID) != nil {
			return unprocessable("The Droplet already has a reserved IP assigned.")
		}
		body.Region = d.Region
	}
	if findRegion(body.Region) == nil {
		return unprocessable("The region you specified is invalid.")
	}
	if len(s.state.ReservedIPs) >= reservedIPLimit {
		return unprocessable("You have reached your reserved IP limit.")
	}
	addr, err := takeReserved(s.prefix, &s.state.ReservedCursor, s.state.addressTaken)
	if err != nil {
		return refuse(500, "server_error", err.Error())
	}
	if err := s.entry.open(addr); err != nil {
		return refuse(500, "server_error", err.Error())
	}
	ip := &reservedIP{IP: addr, Region: body.Region, Droplet: body.Droplet}
	s.state.ReservedIPs = append(s.state.ReservedIPs, ip)
	links := map[string]any{"droplets": []actionLink{}, "actions": []actionLink{}}
	if body.Droplet != 0 {
		a := s.startReservedAction(r, "assign_ip", sp.one, ip.Region, ip.IP)
		ip.Action = a.ID
		s.assigned(ip.IP, ip.Droplet, r.now)
		links["droplets"] = []actionLink{{body.Droplet, "droplet", r.base() + "/v2/droplets/" + strconv.Itoa(body.Droplet)}}
		links["actions"] = []actionLink{{a.ID, "assign_ip", r.base() + "/v2/actions/" + strconv.Itoa(a.ID)}}
	}
	return accepted(map[string]any{sp.one: s.reservedIPBody(ip), "links": links})
}

func (s *Sim) reservedIPOf(droplet int) *reservedIP {
	for _, ip := range s.state.ReservedIPs {
		if ip.Droplet == droplet {
			return ip
		}
	}
	return nil
}

func (s *Sim) getReservedIP(r *request, sp reservedSpelling) answer {
	ip := s.reservedIP(r, sp)
	if ip == nil {
		return notFound
	}
	return ok(map[string]any{sp.one: s.reservedIPBody(ip)})
}

func (s *Sim) deleteReservedIP(r *request, sp reservedSpelling) answer {
	ip := s.reservedIP(r, sp)
	if ip == nil {
		return notFound
	}
	if s.underWay(ip.Action, r.now) {
		return unprocessable("The reserved IP already has a pending event.")
	}
	s.entry.shut(ip.IP)
	s.state.ReservedIPs = slices.DeleteFunc(s.state.ReservedIPs, func(x *reservedIP) bool { return x == ip })
	return noContent
}
