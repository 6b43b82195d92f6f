package dosim

import (
	"net/netip"
	"time"
)

// keptAssigns bounds the list of assigns.
const keptAssigns = 10000

// Assign is a reserved IP's change of hands.
type Assign struct {
	Address netip.Addr `json:"address"`
	// Droplet is 0 when the address was unassigned.
	Droplet int `json:"droplet"`
	// Asked is when the API call did its work.
	Asked time.Time `json:"asked"`
	// At is when it took effect: Asked and the move delay.
	At time.Time `json:"at"`
}

// assigned lets an assign or unassign take effect, at once or after the move
// delay. The API shows it already.
func (s *Sim) assigned(a netip.Addr, droplet int, now time.Time) {
	if s.options.MoveDelay == 0 {
		s.takeEffect(a, droplet, now, now)
		return
	}
	s.timeline.at(now.Add(s.options.MoveDelay), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed && s.state.reserves(a) {
			s.takeEffect(a, droplet, now, time.Now())
		}
	})
}

func (s *Sim) takeEffect(a netip.Addr, droplet int, asked, at time.Time) {
	if len(s.assigns) >= keptAssigns {
		s.assigns = s.assigns[1:]
	}
	s.assigns = append(s.assigns, Assign{Address: a, Droplet: droplet, Asked: asked.UTC(), At: at.UTC()})
	s.entry.point(a, s.holder(droplet))
	s.log.Info("reserved IP moved", "address", a.String(), "droplet", droplet)
}

// holder is where a droplet's connections go; none if there is no such droplet.
func (s *Sim) holder(droplet int) holder {
	d := s.state.droplet(droplet)
	if d == nil {
		return holder{}
	}
	return holder{droplet: d.ID, address: d.Private}
}

// openEntry opens the addresses of a state file.
func (s *Sim) openEntry() error {
	for _, ip := range s.state.ReservedIPs {
		if err := s.entry.open(ip.IP); err != nil {
			return err
		}
		s.entry.point(ip.IP, s.holder(ip.Droplet))
	}
	return nil
}

// reserves tells whether the account has an address.
func (st *state) reserves(a netip.Addr) bool {
	for _, ip := range st.ReservedIPs {
		if ip.IP == a {
			return true
		}
	}
	for _, ip := range st.ReservedIPv6 {
		if ip.IP == a {
			return true
		}
	}
	return false
}
