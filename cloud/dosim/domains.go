package dosim

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const defaultTTL = 1800

var domainName = regexp.MustCompile(`^([a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?\.)+[a-zA-Z][a-zA-Z0-9-]*$`)

// domain is a DNS zone. Nothing answers DNS for it.
type domain struct {
	Name    string
	TTL     int
	Records []*record
}

type domainBody struct {
	Name     string `json:"name"`
	TTL      int    `json:"ttl"`
	ZoneFile string `json:"zone_file"`
}

func (d *domain) body() domainBody {
	var zone strings.Builder
	fmt.Fprintf(&zone, "$ORIGIN %s.\n$TTL %d\n", d.Name, d.TTL)
	for _, r := range d.Records {
		fmt.Fprintf(&zone, "%s %d IN %s %s\n", r.Name, r.TTL, r.Type, r.Data)
	}
	return domainBody{Name: d.Name, TTL: d.TTL, ZoneFile: zone.String()}
}

func (s *Sim) domain(r *request) *domain {
	for _, d := range s.state.Domains {
		if strings.EqualFold(d.Name, r.http.PathValue("domain_name")) {
			return d
		}
	}
	return nil
}

func (s *Sim) listDomains(r *request) answer {
	return pageOf(r, "domains", s.state.Domains, (*domain).body)
}

// createDomain makes the zone with DigitalOcean's name servers, and an A
// record when an address is given.
func (s *Sim) createDomain(r *request) answer {
	var body struct {
		Name string
		IP   string `json:"ip_address"`
	}
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if !domainName.MatchString(body.Name) {
		return unprocessable("Name Invalid domain name.")
	}
	if slices.ContainsFunc(s.state.Domains, func(d *domain) bool { return strings.EqualFold(d.Name, body.Name) }) {
		return unprocessable(fmt.Sprintf("Domain '%s': name already exists", body.Name))
	}
	d := &domain{Name: body.Name, TTL: defaultTTL}
	s.addRecord(d, record{Type: "SOA", Name: "@", Data: "1800", TTL: defaultTTL})
	for _, ns := range []string{"ns1", "ns2", "ns3"} {
		s.addRecord(d, record{Type: "NS", Name: "@", Data: ns + ".digitalocean.com", TTL: defaultTTL})
	}
	if body.IP != "" {
		s.addRecord(d, record{Type: "A", Name: "@", Data: body.IP, TTL: defaultTTL})
	}
	s.state.Domains = append(s.state.Domains, d)
	return created(map[string]any{"domain": map[string]any{"name": d.Name, "ttl": d.TTL, "zone_file": nil}})
}

func (s *Sim) getDomain(r *request) answer {
	d := s.domain(r)
	if d == nil {
		return notFound
	}
	return ok(map[string]any{"domain": d.body()})
}

func (s *Sim) deleteDomain(r *request) answer {
	d := s.domain(r)
	if d == nil {
		return notFound
	}
	s.state.Domains = slices.DeleteFunc(s.state.Domains, func(x *domain) bool { return x == d })
	return noContent
}
