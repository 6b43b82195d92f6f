package dosim

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"time"
)

var vpcName = regexp.MustCompile(`^[a-zA-Z0-9\-.]+$`)

// vpc is a private network.
type vpc struct {
	ID          string
	Name        string
	Description string
	Region      string
	IPRange     string
	Default     bool
	Created     time.Time
}

type vpcBody struct {
	ID          string    `json:"id"`
	URN         string    `json:"urn"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Region      string    `json:"region"`
	IPRange     string    `json:"ip_range"`
	Default     bool      `json:"default"`
	CreatedAt   time.Time `json:"created_at"`
}

// defaultVPC makes a region's own VPC. All have the simulator's whole /16.
func defaultVPC(r *region, prefix byte, now time.Time) *vpc {
	return &vpc{ID: newUUID(), Name: "default-" + r.Slug, Region: r.Slug, Default: true, Created: now,
		IPRange: fmt.Sprintf("127.%d.0.0/16", prefix)}
}

func (v *vpc) body() vpcBody {
	return vpcBody{v.ID, "do:vpc:" + v.ID, v.Name, v.Description, v.Region, v.IPRange, v.Default, v.Created.UTC().Truncate(time.Second)}
}

func (st *state) vpc(id string) *vpc {
	for _, v := range st.VPCs {
		if v.ID == id {
			return v
		}
	}
	return nil
}

func (st *state) defaultVPC(region string) *vpc {
	for _, v := range st.VPCs {
		if v.Default && v.Region == region {
			return v
		}
	}
	return &vpc{}
}

func (s *Sim) listVPCs(r *request) answer { return pageOf(r, "vpcs", s.state.VPCs, (*vpc).body) }

func (s *Sim) createVPC(r *request) answer {
	var body vpcBody
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	switch {
	case !vpcName.MatchString(body.Name):
		return unprocessable("name is invalid: only letters, numbers, dashes and periods are allowed")
	case findRegion(body.Region) == nil:
		return unprocessable("region is invalid")
	case slices.ContainsFunc(s.state.VPCs, func(v *vpc) bool { return v.Name == body.Name }):
		return unprocessable("name must be unique")
	}
	if body.IPRange == "" {
		body.IPRange = fmt.Sprintf("10.%d.0.0/20", 100+len(s.state.VPCs))
	}
	if p, err := netip.ParsePrefix(body.IPRange); err != nil || !p.Addr().Is4() || p.Bits() < 16 || p.Bits() > 28 {
		return unprocessable("ip_range is invalid: give an IPv4 network of /16 to /28")
	}
	v := &vpc{ID: newUUID(), Name: body.Name, Description: body.Description, Region: body.Region, IPRange: body.IPRange, Created: r.now}
	s.state.VPCs = append(s.state.VPCs, v)
	return created(map[string]any{"vpc": v.body()})
}

func (s *Sim) getVPC(r *request) answer {
	v := s.state.vpc(r.http.PathValue("vpc_id"))
	if v == nil {
		return notFound
	}
	return ok(map[string]any{"vpc": v.body()})
}

// updateVPC is PUT and PATCH: what the body leaves out stays.
func (s *Sim) updateVPC(r *request) answer {
	v := s.state.vpc(r.http.PathValue("vpc_id"))
	if v == nil {
		return notFound
	}
	var body struct {
		Name        *string
		Description *string
		Default     *bool
	}
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if body.Name != nil && !vpcName.MatchString(*body.Name) {
		return unprocessable("name is invalid: only letters, numbers, dashes and periods are allowed")
	}
	if body.Name != nil {
		v.Name = *body.Name
	}
	if body.Description != nil {
		v.Description = *body.Description
	}
	if body.Default != nil && *body.Default {
		s.state.defaultVPC(v.Region).Default = false
		v.Default = true
	}
	return ok(map[string]any{"vpc": v.body()})
}

func (s *Sim) deleteVPC(r *request) answer {
	v := s.state.vpc(r.http.PathValue("vpc_id"))
	switch {
	case v == nil:
		return notFound
	case v.Default:
		return refuse(403, "forbidden", "Can not delete VPCs set as default.")
	case slices.ContainsFunc(s.state.Droplets, func(d *droplet) bool { return d.VPC == v.ID }):
		return refuse(403, "forbidden", "Can not delete VPC with members")
	}
	s.state.VPCs = slices.DeleteFunc(s.state.VPCs, func(x *vpc) bool { return x == v })
	return noContent
}

type vpcMember struct {
	Name      string    `json:"name"`
	URN       string    `json:"urn"`
	CreatedAt time.Time `json:"created_at"`
}

func (s *Sim) listVPCMembers(r *request) answer {
	v := s.state.vpc(r.http.PathValue("vpc_id"))
	if v == nil {
		return notFound
	}
	members := []vpcMember{}
	if t := r.query().Get("resource_type"); t == "" || t == "droplet" {
		for _, d := range s.state.Droplets {
			if d.VPC == v.ID {
				members = append(members, vpcMember{d.Name, "do:droplet:" + strconv.Itoa(d.ID), d.Created.UTC()})
			}
		}
	}
	return page(r, "members", members)
}
