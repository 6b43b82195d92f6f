package digitalocean

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/digitalocean/godo"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// Create asks for droplets in one call. A name that the answer lacks is missing
// from what it returns: its outcome is unknown.
func (c *Client) Create(ctx context.Context, req cloud.CreateRequest) ([]cloud.Droplet, error) {
	body, err := c.createRequest(req)
	if err != nil {
		return nil, fmt.Errorf("creating droplets: %w", err)
	}
	answer, _, err := c.api.Droplets.CreateMultiple(ctx, body)
	if err != nil {
		return nil, translate(err, false, "creating droplets %s", strings.Join(req.Names, ", "))
	}
	var made []cloud.Droplet
	for i := range answer {
		if d := c.droplet(&answer[i]); d.ID > 0 && slices.Contains(req.Names, d.Name) {
			d.Pool = req.Pool // the answer to a create need not tell the tags
			made = append(made, d)
		}
	}
	return made, nil
}

func (c *Client) createRequest(req cloud.CreateRequest) (*godo.DropletMultiCreateRequest, error) {
	refuse := func(format string, args ...any) error {
		return &cloud.Refused{ID: "invalid_request", Message: fmt.Sprintf(format, args...)}
	}
	if n := len(req.Names); n == 0 || n > cloud.MaxCreate {
		return nil, refuse("%d names in one call: 1 to %d are possible", n, cloud.MaxCreate)
	}
	tags := []string{c.cluster, poolTag(req.Pool)}
	for _, tag := range req.Template.Tags {
		if !tagPattern.MatchString(tag) || len(tag) > maxTag {
			return nil, refuse("tag %q: use up to %d letters, digits, colons, dashes and underscores", tag, maxTag)
		}
		if reserved(tag) {
			return nil, refuse("tag %q: tags that begin with %s or %s are doproxy's own", tag, clusterPrefix, poolPrefix)
		}
		tags = append(tags, tag)
	}
	t := req.Template
	body := &godo.DropletMultiCreateRequest{
		Names:      req.Names,
		Region:     t.Region,
		Size:       t.Size,
		SSHKeys:    []godo.DropletCreateSSHKey{},
		IPv6:       t.IPv6,
		Monitoring: t.Monitoring,
		UserData:   t.UserData,
		Tags:       tags,
		VPCUUID:    t.VPC,
	}
	if id, err := strconv.Atoi(t.Image); err == nil {
		body.Image.ID = id
	} else {
		body.Image.Slug = t.Image
	}
	for _, key := range t.SSHKeys {
		if id, err := strconv.Atoi(key); err == nil {
			body.SSHKeys = append(body.SSHKeys, godo.DropletCreateSSHKey{ID: id})
		} else {
			body.SSHKeys = append(body.SSHKeys, godo.DropletCreateSSHKey{Fingerprint: key})
		}
	}
	return body, nil
}

// List returns every droplet with the cluster's tag, or an error.
func (c *Client) List(ctx context.Context) ([]cloud.Droplet, error) {
	read := func(ctx context.Context, page *godo.ListOptions) ([]godo.Droplet, *godo.Response, error) {
		return c.api.Droplets.ListByTag(ctx, c.cluster, page)
	}
	answer, err := whole(ctx, "droplets", false, read, func(d *godo.Droplet) int { return d.ID })
	if err != nil {
		return nil, err
	}
	all := make([]cloud.Droplet, 0, len(answer))
	for i := range answer {
		d := c.droplet(&answer[i])
		if ours, _, _ := c.owner(d.Tags); !ours {
			return nil, fmt.Errorf("listing droplets: the answer has droplet %d, which lacks the tag %s", d.ID, c.cluster)
		}
		all = append(all, d)
	}
	return all, nil
}

// Get asks for one droplet.
func (c *Client) Get(ctx context.Context, id int64) (cloud.Droplet, error) {
	d, err := c.get(ctx, id)
	if err != nil {
		return cloud.Droplet{}, err
	}
	if ours, _, _ := c.owner(d.Tags); !ours {
		return cloud.Droplet{}, fmt.Errorf("getting droplet %d: %w", id,
			&cloud.Refused{ID: cloud.NotOurs, Message: fmt.Sprintf("droplet %d lacks the tag %s", id, c.cluster)})
	}
	return d, nil
}

func (c *Client) get(ctx context.Context, id int64) (cloud.Droplet, error) {
	answer, _, err := c.api.Droplets.Get(ctx, int(id))
	if err != nil {
		return cloud.Droplet{}, translate(err, true, "getting droplet %d", id)
	}
	if answer == nil || int64(answer.ID) != id {
		return cloud.Droplet{}, fmt.Errorf("getting droplet %d: %w: the answer is of another", id, cloud.ErrAmbiguous)
	}
	return c.droplet(answer), nil
}

// Adopt tags a droplet: with the pool's tag first, so that no list shows it as
// the cluster's without a pool. It sends up to six requests.
func (c *Client) Adopt(ctx context.Context, id int64, pool string) error {
	d, err := c.get(ctx, id)
	if err != nil {
		return err
	}
	refuse := func(message string) error {
		return fmt.Errorf("adopting droplet %d: %w", id, &cloud.Refused{ID: cloud.NotOurs, Message: message})
	}
	ours, others, in := c.owner(d.Tags)
	switch {
	case others:
		return refuse("it bears the tag of another doproxy cluster")
	case in != "" && in != pool:
		return refuse(fmt.Sprintf("it is tagged as one of pool %s", in))
	}
	if in != pool {
		if err := c.tag(ctx, id, poolTag(pool)); err != nil {
			return err
		}
	}
	if !ours {
		return c.tag(ctx, id, c.cluster)
	}
	return nil
}

// tag makes the tag if the API knows no such.
func (c *Client) tag(ctx context.Context, id int64, tag string) error {
	req := &godo.TagResourcesRequest{Resources: []godo.Resource{{ID: strconv.FormatInt(id, 10), Type: godo.DropletResourceType}}}
	_, err := c.api.Tags.TagResources(ctx, tag, req)
	if err != nil && errors.Is(meaning(err, true), cloud.ErrNotFound) {
		if _, _, err := c.api.Tags.Create(ctx, &godo.TagCreateRequest{Name: tag}); err != nil {
			return translate(err, false, "making tag %s", tag)
		}
		_, err = c.api.Tags.TagResources(ctx, tag, req)
	}
	return translate(err, false, "tagging droplet %d with %s", id, tag)
}

// Delete asks for the end of a droplet. Its id must come from a record or from
// List: no tag is looked at.
func (c *Client) Delete(ctx context.Context, id int64) error {
	_, err := c.api.Droplets.Delete(ctx, int(id))
	return translate(err, true, "deleting droplet %d", id)
}

// droplet is godo's in cloud's words.
func (c *Client) droplet(g *godo.Droplet) cloud.Droplet {
	_, _, pool := c.owner(g.Tags)
	d := cloud.Droplet{
		Droplet: inventory.Droplet{
			Name:   g.Name,
			Pool:   pool,
			ID:     int64(g.ID),
			Status: g.Status,
			Size:   g.SizeSlug,
		},
		Tags: g.Tags,
	}
	if g.Region != nil {
		d.Region = g.Region.Slug
	}
	if g.Size != nil {
		d.PriceHourly = g.Size.PriceHourly
		if d.Size == "" {
			d.Size = g.Size.Slug
		}
	}
	if g.Image != nil {
		if d.Image = g.Image.Slug; d.Image == "" && g.Image.ID != 0 {
			d.Image = strconv.Itoa(g.Image.ID)
		}
	}
	if t, err := time.Parse(time.RFC3339, g.Created); err == nil {
		d.Created = t.UTC()
	}
	if g.Networks != nil {
		for _, n := range g.Networks.V4 {
			addr, err := netip.ParseAddr(n.IPAddress)
			switch {
			case err != nil:
			case n.Type == "private" && !d.PrivateIPv4.IsValid():
				d.PrivateIPv4 = addr
			case n.Type == "public" && !d.PublicIPv4.IsValid():
				d.PublicIPv4 = addr
			}
		}
		for _, n := range g.Networks.V6 {
			if addr, err := netip.ParseAddr(n.IPAddress); err == nil && n.Type == "public" && !d.PublicIPv6.IsValid() {
				d.PublicIPv6 = addr
			}
		}
	}
	return d
}
