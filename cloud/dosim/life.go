package dosim

import (
	"slices"
	"time"
)

// settle brings a droplet to where it ought to be by now and plans its next
// change. It may be called at any time, with mu held.
func (s *Sim) settle(d *droplet, now time.Time) {
	if !d.GoneAt.IsZero() && !now.Before(d.GoneAt) {
		s.remove(d, now)
		return
	}
	if d.Status == statusNew && !d.Behaviour.NeverBoot && !now.Before(d.ActiveAt) {
		d.Status = statusActive
		d.AppAt = d.ActiveAt.Add(s.options.AppDelay)
		s.state.action(d.Action).finish(actionCompleted, now)
		d.Action = 0
		s.log.Info("droplet active", "id", d.ID, "name", d.Name, "address", d.Private.String())
		s.changed()
	}
	if d.wantsApp(now) {
		s.openApp(d)
	} else {
		s.closeApp(d)
	}
	if next := d.nextChange(now); !next.IsZero() {
		s.plan(next, d.ID)
	}
}

// plan settles a droplet later, if it still exists then.
func (s *Sim) plan(when time.Time, id int) {
	s.timeline.at(when, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if d := s.state.droplet(id); d != nil && !s.closed {
			s.settle(d, time.Now())
		}
	})
}

func (s *Sim) openApp(d *droplet) {
	a := s.appOf(d)
	if a.opened() {
		return
	}
	if err := a.open(s.options.DropletPort); err != nil {
		s.log.Error("droplet without its application", "id", d.ID, "error", err)
	}
}

func (s *Sim) closeApp(d *droplet) {
	if d.app != nil {
		d.app.close()
	}
}

// appOf returns the droplet's application with the droplet's present behaviour.
func (s *Sim) appOf(d *droplet) *app {
	if d.app == nil {
		d.app = &app{id: d.ID, address: d.Private}
	}
	d.app.name.Store(&d.Name)
	d.app.slow.Store(int64(d.Behaviour.Slow))
	d.app.status.Store(int64(d.Behaviour.Status))
	return d.app
}

// remove lets a delete take effect: connections are cut, the address is free.
func (s *Sim) remove(d *droplet, now time.Time) {
	s.closeApp(d)
	s.entry.gone(d.ID)
	st := s.state
	st.action(d.Action).finish(actionErrored, now)
	st.action(d.Pending).finish(actionErrored, now)
	st.Droplets = slices.DeleteFunc(st.Droplets, func(x *droplet) bool { return x == d })
	for _, r := range st.ReservedIPs {
		if r.Droplet == d.ID {
			r.Droplet = 0
		}
	}
	for _, r := range st.ReservedIPv6 {
		if r.Droplet == d.ID {
			r.Droplet = 0
		}
	}
	for _, a := range st.Actions {
		if a.Resource == d.ID && a.Type == "destroy" {
			a.finish(actionCompleted, now)
		}
	}
	s.log.Info("droplet gone", "id", d.ID, "name", d.Name)
	s.changed()
}
