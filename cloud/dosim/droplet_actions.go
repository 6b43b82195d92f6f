package dosim

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

type dropletActionBody struct {
	Type  string          `json:"type"`
	Name  string          `json:"name"`
	Size  string          `json:"size"`
	Image json.RawMessage `json:"image"`
}

// actOnDroplet is POST /v2/droplets/{droplet_id}/actions.
func (s *Sim) actOnDroplet(r *request) answer {
	d := s.state.droplet(r.id("droplet_id"))
	if d == nil {
		return notFound
	}
	var body dropletActionBody
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if refused, bad := s.checkAction(d, &body); bad {
		return refused
	}
	return created(map[string]any{"action": s.startAction(r, d, &body).body()})
}

// actOnTaggedDroplets is POST /v2/droplets/actions?tag_name=: it acts on all
// droplets with the tag, or on none when one of them cannot.
func (s *Sim) actOnTaggedDroplets(r *request) answer {
	tag := r.query().Get("tag_name")
	var body dropletActionBody
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	var tagged []*droplet
	for _, d := range s.state.Droplets {
		if tag != "" && d.hasTag(tag) {
			if refused, bad := s.checkAction(d, &body); bad {
				return refused
			}
			tagged = append(tagged, d)
		}
	}
	actions := []actionBody{}
	for _, d := range tagged {
		actions = append(actions, s.startAction(r, d, &body).body())
	}
	return created(map[string]any{"actions": actions})
}

func (s *Sim) checkAction(d *droplet, body *dropletActionBody) (answer, bool) {
	if d.Status == statusNew || d.Pending != 0 || !d.GoneAt.IsZero() {
		return pendingEvent, true
	}
	switch body.Type {
	case "power_on":
		if d.Status == statusActive {
			return unprocessable("Droplet is already powered on."), true
		}
	case "power_off", "shutdown", "reboot":
		if d.Status == statusOff {
			return unprocessable("Droplet is already powered off."), true
		}
	case "resize":
		if findSize(body.Size) == nil {
			return unprocessable("You specified an invalid size for Droplet."), true
		}
		if d.Status != statusOff {
			return unprocessable("Droplet must be powered off to resize."), true
		}
	case "rename":
		if !hostname.MatchString(body.Name) {
			return unprocessable("Name Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)"), true
		}
	case "rebuild", "restore":
		if s.state.image(slugOrNumber(body.Image)) == nil {
			return unprocessable("You specified an invalid image for Droplet."), true
		}
	case "power_cycle", "snapshot", "password_reset", "enable_backups", "disable_backups",
		"enable_ipv6", "enable_private_networking", "change_kernel", "change_backup_policy":
	default:
		return unprocessable("The type of action is invalid."), true
	}
	return answer{}, false
}

func (s *Sim) startAction(r *request, d *droplet, body *dropletActionBody) *action {
	a := s.state.addAction(body.Type, "droplet", d.ID, d.Region, r.now, r.now.Add(s.options.ActionDelay))
	a.Name, a.Size, a.Image = body.Name, body.Size, slugOrNumber(body.Image)
	if a.Type == "snapshot" && a.Name == "" {
		a.Name = d.Name + "-" + r.now.UTC().Format("20060102150405")
	}
	d.Pending = a.ID
	s.planAction(a)
	if restarts(a.Type) {
		d.Status = statusOff
	}
	s.settle(d, r.now)
	if restarts(a.Type) {
		d.Status = statusActive // the API does not show the moment in between
		d.AppAt = a.DoneAt.Add(s.options.AppDelay)
	}
	return a
}

// restarts tells whether an action ends with the droplet booting anew.
func restarts(kind string) bool {
	return slices.Contains([]string{"reboot", "power_cycle", "rebuild", "restore"}, kind)
}

// planAction completes an action later, unless another event does.
func (s *Sim) planAction(a *action) {
	if a.Status != actionInProgress || a.DoneAt.IsZero() {
		return
	}
	id := a.ID
	s.timeline.at(a.DoneAt, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if a := s.state.action(id); a != nil && a.Status == actionInProgress && !s.closed {
			s.complete(a, time.Now())
		}
	})
}

// complete lets an action take effect.
func (s *Sim) complete(a *action, now time.Time) {
	a.finish(actionCompleted, now)
	s.changed()
	d := s.state.droplet(a.Resource)
	if a.ResourceType != "droplet" || d == nil {
		return
	}
	d.Pending = 0
	switch a.Type {
	case "power_off", "shutdown":
		d.Status = statusOff
	case "power_on":
		d.Status, d.AppAt = statusActive, now.Add(s.options.AppDelay)
	case "resize":
		d.Size = a.Size
	case "rename":
		d.Name = a.Name
		s.appOf(d)
	case "rebuild", "restore":
		if i := s.state.image(a.Image); i != nil {
			d.Image = *i
		}
	case "snapshot":
		s.addSnapshot(d, a)
	case "enable_ipv6":
		d.IPv6 = ipv6For(d.ID)
		d.feature("ipv6", true)
	case "enable_backups", "disable_backups":
		d.feature("backups", strings.HasPrefix(a.Type, "enable"))
	}
	s.settle(d, now)
}

// feature puts a feature on the droplet's list, or takes it off.
func (d *droplet) feature(name string, on bool) {
	d.Features = slices.DeleteFunc(d.Features, func(f string) bool { return f == name })
	if on {
		d.Features = append(d.Features, name)
	}
}
