package dosim

import (
	"slices"
	"time"
)

// listDroplets is GET /v2/droplets. A droplet that was just created is not in
// it yet.
func (s *Sim) listDroplets(r *request) answer {
	q := r.query()
	seen := []*droplet{}
	for _, d := range s.state.Droplets {
		if r.now.Sub(d.Created) < s.options.ListLag ||
			q.Get("tag_name") != "" && !d.hasTag(q.Get("tag_name")) ||
			q.Get("name") != "" && d.Name != q.Get("name") ||
			q.Get("type") == "gpus" {
			continue
		}
		seen = append(seen, d)
	}
	return pageOf(r, "droplets", seen, func(d *droplet) dropletBody { return d.body(s.prefix) })
}

func (s *Sim) getDroplet(r *request) answer {
	d := s.state.droplet(r.id("droplet_id"))
	if d == nil {
		return notFound
	}
	return ok(map[string]any{"droplet": d.body(s.prefix)})
}

func (s *Sim) deleteDroplet(r *request) answer {
	d := s.state.droplet(r.id("droplet_id"))
	if d == nil {
		return notFound
	}
	if d.Pending != 0 || !d.GoneAt.IsZero() {
		return pendingEvent
	}
	s.destroy(d, r.now)
	return noContent
}

// deleteDropletsByTag is DELETE /v2/droplets?tag_name=. It deletes what lists
// do not show yet, too.
func (s *Sim) deleteDropletsByTag(r *request) answer {
	tag := r.query().Get("tag_name")
	if tag == "" {
		return badRequest("tag_name is required")
	}
	for _, d := range slices.Clone(s.state.Droplets) {
		if d.hasTag(tag) && d.GoneAt.IsZero() {
			s.destroy(d, r.now)
		}
	}
	return noContent
}

// destroy begins a delete. Until it takes effect the droplet is there and answers.
func (s *Sim) destroy(d *droplet, now time.Time) {
	d.GoneAt = now.Add(s.options.DeleteDelay)
	s.state.addAction("destroy", "droplet", d.ID, d.Region, now, noTime)
	s.plan(d.GoneAt, d.ID)
	s.log.Info("droplet deleted", "id", d.ID, "name", d.Name)
}
