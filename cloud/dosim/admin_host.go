package dosim

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// hostBody is the body of PUT /_sim/droplets/{id}/host.
type hostBody struct {
	Address netip.Addr `json:"address"`
}

// adminHost makes a droplet one that really runs, outside of the simulator.
func (s *Sim) adminHost(r *http.Request) (any, error) {
	id, _ := strconv.Atoi(r.PathValue("id")) // what is not a number is not found
	d := s.state.droplet(id)
	if d == nil {
		return nil, fmt.Errorf("droplet %s: %w", r.PathValue("id"), errAdminNotFound)
	}
	var body hostBody
	if err := decodeAdmin(r, &body); err != nil {
		return nil, err
	}
	if err := s.checkHost(d, body.Address); err != nil {
		return nil, err
	}
	s.closeApp(d)
	d.app, d.Hosted = nil, true
	d.Private, d.Public = body.Address, body.Address
	s.entry.moved(d.ID, d.Private)
	s.settle(d, time.Now())
	s.log.Info("droplet hosted", "id", d.ID, "name", d.Name, "address", d.Private.String())
	return d.view(), nil
}

func (s *Sim) checkHost(d *droplet, a netip.Addr) error {
	if !a.Is4() || !a.IsLoopback() {
		return fmt.Errorf("address is %q: give one of 127.0.0.0/8", a)
	}
	if a == d.Private || a == d.Public {
		return nil
	}
	b := a.As4()
	if b[1] == s.prefix && b[2] >= firstPrivate && b[2] <= lastReserved {
		return fmt.Errorf("address is %s: 127.%d.%d to 127.%d.%d are the simulator's own; give another, such as 127.%d.255.1, or the droplet's %s",
			a, s.prefix, firstPrivate, s.prefix, lastReserved, s.prefix, d.Private)
	}
	for _, other := range s.state.Droplets {
		if other != d && (other.Private == a || other.Public == a) {
			return fmt.Errorf("address is %s: droplet %d (%s) has it", a, other.ID, other.Name)
		}
	}
	return nil
}

func (s *Sim) adminAssigns(*http.Request) (any, error) {
	return map[string]any{"assigns": orEmpty(s.assigns)}, nil
}

func (s *Sim) adminResetAssigns(r *http.Request) (any, error) {
	s.assigns = nil
	return s.adminAssigns(r)
}
