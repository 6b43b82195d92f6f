package dosim

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// reservedIPv6 is an IPv6 address that the account holds.
type reservedIPv6 struct {
	IP       netip.Addr
	Region   string
	Reserved time.Time
	Droplet  int // 0 when it is not assigned
	Action   int // the last one's id; 0 before there was one
}

type reservedIPv6Body struct {
	IP         string       `json:"ip"`
	RegionSlug string       `json:"region_slug"`
	ReservedAt time.Time    `json:"reserved_at"`
	Droplet    *dropletBody `json:"droplet,omitempty"`
}

func (s *Sim) reservedIPv6Body(ip *reservedIPv6) reservedIPv6Body {
	b := reservedIPv6Body{IP: ip.IP.String(), RegionSlug: ip.Region, ReservedAt: ip.Reserved.UTC().Truncate(time.Second)}
	if d := s.state.droplet(ip.Droplet); d != nil {
		body := d.body(s.prefix)
		b.Droplet = &body
	}
	return b
}

func (s *Sim) reservedIPv6(r *request) *reservedIPv6 {
	a, err := netip.ParseAddr(r.http.PathValue("reserved_ipv6"))
	if err != nil {
		return nil
	}
	for _, ip := range s.state.ReservedIPv6 {
		if ip.IP == a {
			return ip
		}
	}
	return nil
}

func (s *Sim) reservedIPv6Of(droplet int) *reservedIPv6 {
	for _, ip := range s.state.ReservedIPv6 {
		if ip.Droplet == droplet {
			return ip
		}
	}
	return nil
}

func (s *Sim) listReservedIPv6(r *request) answer {
	return pageOf(r, "reserved_ipv6s", s.state.ReservedIPv6, s.reservedIPv6Body)
}

func (s *Sim) createReservedIPv6(r *request) answer {
	var body struct {
		Region string `json:"region_slug"`
	}
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if findRegion(body.Region) == nil {
		return unprocessable("The region you specified is invalid.")
	}
	s.state.ReservedIPv6Count++
	ip := &reservedIPv6{
		IP:     netip.MustParseAddr(fmt.Sprintf("2604:a880:800:14::42c3:%x", 0xd000+s.state.ReservedIPv6Count)),
		Region: body.Region, Reserved: r.now,
	}
	s.state.ReservedIPv6 = append(s.state.ReservedIPv6, ip)
	return created(map[string]any{"reserved_ipv6": s.reservedIPv6Body(ip)})
}

func (s *Sim) getReservedIPv6(r *request) answer {
	ip := s.reservedIPv6(r)
	if ip == nil {
		return notFound
	}
	return ok(map[string]any{"reserved_ipv6": s.reservedIPv6Body(ip)})
}

func (s *Sim) deleteReservedIPv6(r *request) answer {
	ip := s.reservedIPv6(r)
	switch {
	case ip == nil:
		return notFound
	case ip.Droplet != 0:
		return unprocessable("The reserved IPv6 is assigned to a Droplet.")
	}
	s.state.ReservedIPv6 = slices.DeleteFunc(s.state.ReservedIPv6, func(x *reservedIPv6) bool { return x == ip })
	return noContent
}

// actOnReservedIPv6 assigns and unassigns; it differs from IPv4 in that the
// droplet needs IPv6.
func (s *Sim) actOnReservedIPv6(r *request) answer {
	ip := s.reservedIPv6(r)
	if ip == nil {
		return notFound
	}
	var body reservedActionBody
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if s.underWay(ip.Action, r.now) {
		return unprocessable("The reserved IPv6 already has a pending event.")
	}
	switch body.Type {
	case "assign":
		if refused, bad := s.checkAssign(body.Droplet, ip.Region); bad {
			return refused
		}
		if !s.state.droplet(body.Droplet).IPv6.IsValid() {
			return unprocessable("The Droplet has no public IPv6 networking.")
		}
		if other := s.reservedIPv6Of(body.Droplet); other != nil && other != ip {
			return unprocessable("The Droplet already has a reserved IPv6 assigned.")
		}
		ip.Droplet = body.Droplet
	case "unassign":
		if ip.Droplet == 0 {
			return unprocessable("The reserved IPv6 is not assigned.")
		}
		ip.Droplet = 0
	default:
		return unprocessable("The type of action is invalid.")
	}
	a := s.startReservedAction(r, body.Type+"_ip", "reserved_ipv6", ip.Region, ip.IP)
	ip.Action = a.ID
	s.assigned(ip.IP, ip.Droplet, r.now)
	b := a.body()
	none := 0 // the reference gives these actions a number for their resource
	b.ResourceID = &none
	return created(map[string]any{"action": b})
}
