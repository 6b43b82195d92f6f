package dosim

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// adminSetDroplet is PATCH /_sim/droplets/{id}: what the body leaves out stays
// as it is. A load replaces the whole load.
func (s *Sim) adminSetDroplet(r *http.Request) (any, error) {
	id, _ := strconv.Atoi(r.PathValue("id")) // what is not a number is not found
	d := s.state.droplet(id)
	if d == nil {
		return nil, fmt.Errorf("droplet %s: %w", r.PathValue("id"), errAdminNotFound)
	}
	behaviour, load := d.Behaviour, d.Load
	body := struct {
		*Behaviour
		Load *Load `json:"load"`
	}{Behaviour: &behaviour}
	if err := decodeAdmin(r, &body); err != nil {
		return nil, err
	}
	if err := behaviour.validate(); err != nil {
		return nil, err
	}
	if body.Load != nil {
		load = *body.Load
	}
	if err := load.validate(); err != nil {
		return nil, err
	}
	d.Behaviour, d.Load = behaviour, load
	s.appOf(d)
	s.settle(d, time.Now())
	return d.view(), nil
}

func (s *Sim) adminAddFault(r *http.Request) (any, error) {
	var f Fault
	if err := decodeAdmin(r, &f); err != nil {
		return nil, err
	}
	f, err := f.normal()
	if err != nil {
		return nil, err
	}
	f.ID = "f" + strconv.Itoa(s.state.NextFault)
	s.state.NextFault++
	s.state.Faults = append(s.state.Faults, f)
	return f, nil
}

// adminClearFaults removes the fault that the path names, or all.
func (s *Sim) adminClearFaults(r *http.Request) (any, error) {
	id := r.PathValue("id")
	n := len(s.state.Faults)
	s.state.Faults = slices.DeleteFunc(slices.Clone(s.state.Faults), func(f Fault) bool { return id == "" || f.ID == id })
	if id != "" && len(s.state.Faults) == n {
		return nil, fmt.Errorf("fault %s: %w", id, errAdminNotFound)
	}
	return map[string]any{"faults": orEmpty(s.state.Faults)}, nil
}

func (s *Sim) adminNextCreates(*http.Request) (any, error) {
	return map[string]any{"next_creates": orEmpty(s.state.NextCreates)}, nil
}

// adminAddNextCreate is POST /_sim/next-creates.
func (s *Sim) adminAddNextCreate(r *http.Request) (any, error) {
	next := nextCreate{Count: 1}
	if err := decodeAdmin(r, &next); err != nil {
		return nil, err
	}
	if next.Count < 1 {
		return nil, fmt.Errorf("count is %d: give 1 or more", next.Count)
	}
	if err := next.Behaviour.validate(); err != nil {
		return nil, err
	}
	s.state.NextCreates = append(s.state.NextCreates, next)
	return s.adminNextCreates(r)
}
