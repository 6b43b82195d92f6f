package dosim

import "slices"

// listActions is GET /v2/actions: the newest first.
func (s *Sim) listActions(r *request) answer {
	return s.pageOfActions(r, func(*action) bool { return true })
}

func (s *Sim) pageOfActions(r *request, wanted func(*action) bool) answer {
	seen := []*action{}
	for _, a := range slices.Backward(s.state.Actions) {
		if wanted(a) {
			seen = append(seen, a)
		}
	}
	return pageOf(r, "actions", seen, (*action).body)
}

func (s *Sim) getAction(r *request) answer {
	a := s.state.action(r.id("action_id"))
	if a == nil {
		return notFound
	}
	return ok(map[string]any{"action": a.body()})
}

func (s *Sim) listDropletActions(r *request) answer {
	id := r.id("droplet_id")
	if s.state.droplet(id) == nil {
		return notFound
	}
	return s.pageOfActions(r, func(a *action) bool { return a.ResourceType == "droplet" && a.Resource == id })
}

func (s *Sim) getDropletAction(r *request) answer {
	a := s.state.action(r.id("action_id"))
	if a == nil || a.ResourceType != "droplet" || a.Resource != r.id("droplet_id") {
		return notFound
	}
	return ok(map[string]any{"action": a.body()})
}
