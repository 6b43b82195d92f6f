package dosim

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// record is a DNS record, in the API's own form.
type record struct {
	ID       int     `json:"id"`
	Type     string  `json:"type"`
	Name     string  `json:"name"`
	Data     string  `json:"data"`
	Priority *int    `json:"priority"`
	Port     *int    `json:"port"`
	TTL      int     `json:"ttl"`
	Weight   *int    `json:"weight"`
	Flags    *int    `json:"flags"`
	Tag      *string `json:"tag"`
}

func (s *Sim) addRecord(d *domain, r record) *record {
	r.ID = s.state.NextRecord
	s.state.NextRecord++
	d.Records = append(d.Records, &r)
	return &r
}

func (s *Sim) record(r *request) (*domain, *record) {
	d := s.domain(r)
	if d == nil {
		return nil, nil
	}
	for _, x := range d.Records {
		if x.ID == r.id("domain_record_id") {
			return d, x
		}
	}
	return d, nil
}

// listRecords filters by type and by the full name, as the API does.
func (s *Sim) listRecords(r *request) answer {
	d := s.domain(r)
	if d == nil {
		return notFound
	}
	kind, name := r.query().Get("type"), r.query().Get("name")
	seen := []*record{}
	for _, x := range d.Records {
		if (kind == "" || x.Type == kind) && (name == "" || strings.EqualFold(name, fullName(x.Name, d.Name))) {
			seen = append(seen, x)
		}
	}
	return page(r, "domain_records", seen)
}

func fullName(name, zone string) string {
	if name == "@" {
		return zone
	}
	return name + "." + zone
}

func (s *Sim) createRecord(r *request) answer {
	d := s.domain(r)
	if d == nil {
		return notFound
	}
	rec := record{TTL: d.TTL}
	if err := r.decode(&rec); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if message := rec.check(); message != "" {
		return unprocessable(message)
	}
	return created(map[string]any{"domain_record": s.addRecord(d, rec)})
}

// check says what DigitalOcean would refuse; "" is nothing.
func (r *record) check() string {
	if !slices.Contains([]string{"A", "AAAA", "CAA", "CNAME", "MX", "NS", "SOA", "SRV", "TXT"}, r.Type) {
		return "Type is not included in the list"
	}
	if r.TTL < 30 {
		return "TTL must be greater than or equal to 30."
	}
	switch r.Type {
	case "SOA":
		return ""
	case "A":
		if a, err := netip.ParseAddr(r.Data); err != nil || !a.Is4() {
			return "IP address did not match IPv4 format (e.g. 127.0.0.1)."
		}
	case "AAAA":
		if a, err := netip.ParseAddr(r.Data); err != nil || !a.Is6() {
			return "IP address did not match IPv6 format (e.g. 2001:db8::ff00:42:8329)."
		}
	case "MX":
		if r.Priority == nil {
			return "Priority can't be blank."
		}
	case "SRV":
		if r.Priority == nil || r.Port == nil || r.Weight == nil {
			return "Priority, port and weight can't be blank."
		}
	}
	if r.Data == "" {
		return "Data can't be blank."
	}
	if r.Name == "" && r.Type != "MX" {
		return "Name can't be blank."
	}
	return ""
}

func (s *Sim) getRecord(r *request) answer {
	_, rec := s.record(r)
	if rec == nil {
		return notFound
	}
	return ok(map[string]any{"domain_record": rec})
}

// updateRecord is PUT and PATCH: what the body leaves out stays.
func (s *Sim) updateRecord(r *request) answer {
	_, rec := s.record(r)
	if rec == nil {
		return notFound
	}
	next := *rec
	if err := r.decode(&next); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	next.ID = rec.ID
	if next.Type != rec.Type {
		return unprocessable(fmt.Sprintf("The record is of type %s and can't become %s.", rec.Type, next.Type))
	}
	if message := next.check(); message != "" {
		return unprocessable(message)
	}
	*rec = next
	return ok(map[string]any{"domain_record": rec})
}

func (s *Sim) deleteRecord(r *request) answer {
	d, rec := s.record(r)
	if rec == nil {
		return notFound
	}
	d.Records = slices.DeleteFunc(d.Records, func(x *record) bool { return x == rec })
	return noContent
}
