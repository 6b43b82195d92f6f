package dosim

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxNames is how many droplets one call creates.
const maxNames = 10

var (
	hostname = regexp.MustCompile(`^[a-zA-Z0-9]?[a-z0-9A-Z.\-]*[a-z0-9A-Z]$`)
	tagName  = regexp.MustCompile(`^[a-zA-Z0-9_\-:]{1,255}$`)
)

// createDropletBody is the request; slugs and numbers may stand for an image
// and for SSH keys.
type createDropletBody struct {
	Name             *string           `json:"name"`
	Names            []string          `json:"names"`
	Region           string            `json:"region"`
	Size             string            `json:"size"`
	Image            json.RawMessage   `json:"image"`
	SSHKeys          []json.RawMessage `json:"ssh_keys"`
	Backups          bool              `json:"backups"`
	IPv6             bool              `json:"ipv6"`
	Monitoring       bool              `json:"monitoring"`
	Tags             []string          `json:"tags"`
	UserData         string            `json:"user_data"`
	VPC              string            `json:"vpc_uuid"`
	PublicNetworking *bool             `json:"public_networking"`
}

// createDroplets is POST /v2/droplets, for one name and for several.
func (s *Sim) createDroplets(r *request) answer {
	var body createDropletBody
	if err := r.decode(&body); err != nil {
		return badRequest("unable to decode request body: " + err.Error())
	}
	names := body.Names
	if body.Name != nil {
		names = []string{*body.Name}
	}
	if refused, bad := s.checkCreate(&body, names); bad {
		return refused
	}
	droplets := []dropletBody{}
	links := linksBody{Actions: []actionLink{}}
	for _, name := range names {
		d, err := s.newDroplet(r, &body, name)
		if err != nil {
			return refuse(500, "server_error", err.Error())
		}
		droplets = append(droplets, d.body(s.prefix))
		links.Actions = append(links.Actions, actionLink{
			ID: d.Action, Rel: "create", Href: r.base() + "/v2/actions/" + strconv.Itoa(d.Action),
		})
		s.plan(r.now, d.ID)
	}
	if body.Name != nil {
		return accepted(map[string]any{"droplet": droplets[0], "links": links})
	}
	return accepted(map[string]any{"droplets": droplets, "links": links})
}

// checkCreate refuses what DigitalOcean refuses, in its words.
func (s *Sim) checkCreate(body *createDropletBody, names []string) (answer, bool) {
	switch {
	case body.Name != nil && body.Names != nil:
		return unprocessable("You specified both name and names."), true
	case len(names) == 0 || slices.Contains(names, ""):
		return unprocessable("Name can't be blank"), true
	case len(names) > maxNames:
		return unprocessable(fmt.Sprintf("You can only create %d droplets at a time.", maxNames)), true
	}
	for _, n := range names {
		if len(n) > 255 || !hostname.MatchString(n) {
			return unprocessable("Name Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)"), true
		}
	}
	if body.Region == "" {
		body.Region = "nyc3"
	}
	if findRegion(body.Region) == nil {
		return unprocessable("You specified an invalid region for Droplet creation."), true
	}
	if findSize(body.Size) == nil {
		return unprocessable("You specified an invalid size for Droplet creation."), true
	}
	img := s.state.image(slugOrNumber(body.Image))
	if img == nil || !slices.Contains(img.Regions, body.Region) {
		return unprocessable("You specified an invalid image for Droplet creation."), true
	}
	if findSize(body.Size).Disk < img.MinDiskSize {
		return unprocessable("You specified a size whose disk is smaller than the image needs."), true
	}
	for _, k := range body.SSHKeys {
		if s.state.key(slugOrNumber(k)) == nil {
			return unprocessable(fmt.Sprintf("%s are invalid key identifiers for Droplet creation.", slugOrNumber(k))), true
		}
	}
	for _, t := range body.Tags {
		if !tagName.MatchString(t) {
			return unprocessable(invalidTagMessage), true
		}
	}
	if body.VPC == "" {
		body.VPC = s.state.defaultVPC(body.Region).ID
	} else if v := s.state.vpc(body.VPC); v == nil || v.Region != body.Region {
		return unprocessable("You specified an invalid vpc_uuid for Droplet creation."), true
	}
	if len(s.state.Droplets)+len(names) > s.options.DropletLimit {
		return unprocessable("creating this/these droplet(s) will exceed your droplet limit"), true
	}
	return answer{}, false
}

func (s *Sim) newDroplet(r *request, body *createDropletBody, name string) (*droplet, error) {
	st := s.state
	private, err := takePrivate(s.prefix, &st.PrivateCursor, st.addressTaken)
	if err != nil {
		return nil, fmt.Errorf("give the droplet an address: %w", err)
	}
	d := &droplet{
		ID: st.NextDroplet, Name: name, Size: body.Size, Image: *st.image(slugOrNumber(body.Image)),
		Region: body.Region, VPC: body.VPC, UserData: body.UserData,
		Private: private, Created: r.now, Status: statusNew, ActiveAt: r.now.Add(s.options.BootDelay),
		Features: []string{"droplet_agent", "private_networking"},
	}
	st.NextDroplet++
	if body.PublicNetworking == nil || *body.PublicNetworking {
		d.Public = publicOf(private)
	}
	if body.IPv6 {
		d.IPv6 = ipv6For(d.ID)
	}
	d.feature("backups", body.Backups)
	d.feature("ipv6", body.IPv6)
	d.feature("monitoring", body.Monitoring)
	for _, t := range body.Tags {
		if !d.hasTag(t) {
			d.Tags = append(d.Tags, t)
		}
	}
	st.addTags(d.Tags)
	d.Behaviour = st.takeNextCreate()
	d.Action = st.addAction("create", "droplet", d.ID, d.Region, r.now, noTime).ID
	st.Droplets = append(st.Droplets, d)
	return d, nil
}

// slugOrNumber reads a JSON string or number as text.
func slugOrNumber(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return strings.TrimSpace(string(raw))
}
