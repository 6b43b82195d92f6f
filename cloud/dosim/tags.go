package dosim

import (
	"slices"
	"strconv"
)

const invalidTagMessage = "Tags may only contain letters, numbers, colons, dashes, and underscores, and are limited to 255 characters."

type tagBody struct {
	Name      string       `json:"name"`
	Resources tagResources `json:"resources"`
}

type tagResources struct {
	Count         int      `json:"count"`
	LastTaggedURI string   `json:"last_tagged_uri,omitempty"`
	Droplets      tagCount `json:"droplets"`
	Images        tagCount `json:"images"`
	Volumes       tagCount `json:"volumes"`
}

type tagCount struct {
	Count         int    `json:"count"`
	LastTaggedURI string `json:"last_tagged_uri,omitempty"`
}

func (s *Sim) tagBody(r *request, name string) tagBody {
	b := tagBody{Name: name}
	for _, d := range s.state.Droplets {
		if d.hasTag(name) {
			b.Resources.Droplets.Count++
			b.Resources.Droplets.LastTaggedURI = r.base() + "/v2/droplets/" + strconv.Itoa(d.ID)
		}
	}
	for _, i := range s.state.Images {
		if slices.Contains(i.Tags, name) {
			b.Resources.Images.Count++
			b.Resources.Images.LastTaggedURI = r.base() + "/v2/images/" + strconv.Itoa(i.ID)
		}
	}
	b.Resources.Count = b.Resources.Droplets.Count + b.Resources.Images.Count
	b.Resources.LastTaggedURI = b.Resources.Droplets.LastTaggedURI
	if b.Resources.LastTaggedURI == "" {
		b.Resources.LastTaggedURI = b.Resources.Images.LastTaggedURI
	}
	return b
}

func (s *Sim) listTags(r *request) answer {
	return pageOf(r, "tags", s.state.Tags, func(name string) tagBody { return s.tagBody(r, name) })
}

func (s *Sim) createTag(r *request) answer {
	var body struct{ Name string }
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	if !tagName.MatchString(body.Name) {
		return unprocessable(invalidTagMessage)
	}
	s.state.addTags([]string{body.Name})
	return created(map[string]any{"tag": s.tagBody(r, body.Name)})
}

func (s *Sim) getTag(r *request) answer {
	name := r.http.PathValue("tag_id")
	if !s.state.hasTag(name) {
		return notFound
	}
	return ok(map[string]any{"tag": s.tagBody(r, name)})
}

// deleteTag takes the tag from everything that has it.
func (s *Sim) deleteTag(r *request) answer {
	name := r.http.PathValue("tag_id")
	if !s.state.hasTag(name) {
		return notFound
	}
	is := func(t string) bool { return t == name }
	s.state.Tags = slices.DeleteFunc(s.state.Tags, is)
	for _, d := range s.state.Droplets {
		d.Tags = slices.DeleteFunc(d.Tags, is)
	}
	for _, i := range s.state.Images {
		i.Tags = slices.DeleteFunc(i.Tags, is)
	}
	return noContent
}

func (s *Sim) tagResources(r *request) answer {
	return s.onTagged(r, func(tags []string, name string) []string {
		if slices.Contains(tags, name) {
			return tags
		}
		return append(tags, name)
	})
}

func (s *Sim) untagResources(r *request) answer {
	return s.onTagged(r, func(tags []string, name string) []string {
		return slices.DeleteFunc(tags, func(t string) bool { return t == name })
	})
}

// onTagged changes the tags of the resources that the request names: of all, or
// of none when one does not exist.
func (s *Sim) onTagged(r *request, change func(tags []string, name string) []string) answer {
	name := r.http.PathValue("tag_id")
	if !s.state.hasTag(name) {
		return notFound
	}
	var body struct {
		Resources []struct {
			ID   string `json:"resource_id"`
			Type string `json:"resource_type"`
		}
	}
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	var lists []*[]string
	for _, res := range body.Resources {
		id, _ := strconv.Atoi(res.ID) // what is not a number is not found
		switch res.Type {
		case "droplet":
			d := s.state.droplet(id)
			if d == nil {
				return notFound
			}
			lists = append(lists, &d.Tags)
		case "image":
			i := s.state.image(res.ID)
			if i == nil || i.Public {
				return notFound
			}
			lists = append(lists, &i.Tags)
		default:
			return notFound // the simulator has no other kinds
		}
	}
	for _, l := range lists {
		*l = change(*l, name)
	}
	return noContent
}
