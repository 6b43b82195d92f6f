package dosim

import "slices"

// listImages is GET /v2/images: the catalogue and the account's snapshots.
func (s *Sim) listImages(r *request) answer {
	q := r.query()
	seen := []*image{}
	for _, i := range slices.Concat(catalogueImages, s.state.Images) {
		if q.Get("private") == "true" && i.Public ||
			q.Get("type") == "application" ||
			q.Get("type") == "distribution" && i.Type != "base" ||
			q.Get("tag_name") != "" && !slices.Contains(i.Tags, q.Get("tag_name")) {
			continue
		}
		seen = append(seen, i)
	}
	return page(r, "images", seen)
}

func (s *Sim) getImage(r *request) answer {
	i := s.state.image(r.http.PathValue("image_id"))
	if i == nil {
		return notFound
	}
	return ok(map[string]any{"image": i})
}

func (s *Sim) deleteImage(r *request) answer {
	id := r.id("image_id")
	for _, i := range catalogueImages {
		if i.ID == id {
			return refuse(403, "forbidden", "You do not have access for the attempted action.")
		}
	}
	n := len(s.state.Images)
	s.state.Images = slices.DeleteFunc(s.state.Images, func(i *image) bool { return i.ID == id })
	if len(s.state.Images) == n {
		return notFound
	}
	return noContent
}

// addSnapshot makes an image of a droplet.
func (s *Sim) addSnapshot(d *droplet, a *action) {
	st := s.state
	i := &image{
		ID: st.NextImage, Name: a.Name, Type: "snapshot", Distribution: d.Image.Distribution,
		Regions: []string{d.Region}, CreatedAt: a.Completed.UTC(), MinDiskSize: findSize(d.Size).Disk,
		SizeGigabytes: d.Image.SizeGigabytes, Tags: []string{}, Status: "available",
	}
	st.NextImage++
	st.Images = append(st.Images, i)
	d.Snapshots = append(d.Snapshots, i.ID)
}
