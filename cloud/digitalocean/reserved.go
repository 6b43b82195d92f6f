package digitalocean

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/digitalocean/godo"

	"github.com/doproxy/doproxy/cloud"
)

// ReservedIPs returns the account's addresses, IPv4 before IPv6. An API without
// reserved IPv6 addresses, which answers 404, has none of them.
func (c *Client) ReservedIPs(ctx context.Context) ([]cloud.ReservedIP, error) {
	v4, err := whole(ctx, "reserved IPs", false, c.api.ReservedIPs.List, func(r *godo.ReservedIP) string { return r.IP })
	if err != nil {
		return nil, err
	}
	v6, err := whole(ctx, "reserved IPv6 addresses", true, c.api.ReservedIPV6s.List, func(r *godo.ReservedIPV6) string { return r.IP })
	if err != nil && !errors.Is(err, cloud.ErrNotFound) {
		return nil, err
	}
	all := make([]cloud.ReservedIP, 0, len(v4)+len(v6))
	for i := range v4 {
		r, err := reservedIPv4(&v4[i])
		if err != nil {
			return nil, fmt.Errorf("listing reserved IPs: %w", err)
		}
		all = append(all, r)
	}
	for i := range v6 {
		r, err := reservedIPv6(&v6[i])
		if err != nil {
			return nil, fmt.Errorf("listing reserved IPv6 addresses: %w", err)
		}
		all = append(all, r)
	}
	return all, nil
}

// ReservedIP asks for one address. Locked is always false for IPv6, of which the
// API does not tell it.
func (c *Client) ReservedIP(ctx context.Context, address netip.Addr) (cloud.ReservedIP, error) {
	address = address.Unmap()
	found, err := c.reservedIP(ctx, address)
	switch {
	case err != nil:
		return cloud.ReservedIP{}, translate(err, true, "getting reserved IP %s", address)
	case found.Address != address:
		return cloud.ReservedIP{}, fmt.Errorf("getting reserved IP %s: %w: the answer is of another", address, cloud.ErrAmbiguous)
	}
	return found, nil
}

func (c *Client) reservedIP(ctx context.Context, address netip.Addr) (cloud.ReservedIP, error) {
	if address.Is4() {
		answer, _, err := c.api.ReservedIPs.Get(ctx, address.String())
		if err != nil || answer == nil {
			return cloud.ReservedIP{}, err
		}
		return reservedIPv4(answer)
	}
	answer, _, err := c.api.ReservedIPV6s.Get(ctx, address.String())
	if err != nil || answer == nil {
		return cloud.ReservedIP{}, err
	}
	return reservedIPv6(answer)
}

// Assign gives an address to a droplet. That an action on either is under way is
// ErrAmbiguous, not a *Refused: it says nothing against this droplet, and the
// action may be an earlier Assign whose answer was lost.
func (c *Client) Assign(ctx context.Context, address netip.Addr, droplet int64) error {
	address = address.Unmap()
	if !address.IsValid() || droplet <= 0 {
		return fmt.Errorf("assigning reserved IP %s to droplet %d: %w", address, droplet,
			&cloud.Refused{ID: "invalid_request", Message: "an address and a droplet's id are needed"})
	}
	assign := c.api.ReservedIPV6Actions.Assign
	if address.Is4() {
		assign = c.api.ReservedIPActions.Assign
	}
	action, _, err := assign(ctx, address.String(), int(droplet))
	if err != nil {
		return unlessBusy(translate(err, true, "assigning reserved IP %s to droplet %d", address, droplet))
	}
	if action == nil || action.Status == "errored" {
		return fmt.Errorf("assigning reserved IP %s to droplet %d: %w: the action failed, or was not told", address, droplet, cloud.ErrAmbiguous)
	}
	return nil
}

func reservedIPv4(g *godo.ReservedIP) (cloud.ReservedIP, error) {
	r, err := reservedIP(g.IP, g.Droplet)
	r.Locked = g.Locked
	if g.Region != nil {
		r.Region = g.Region.Slug
	}
	return r, err
}

func reservedIPv6(g *godo.ReservedIPV6) (cloud.ReservedIP, error) {
	r, err := reservedIP(g.IP, g.Droplet)
	r.Region = g.RegionSlug
	return r, err
}

func reservedIP(ip string, holder *godo.Droplet) (cloud.ReservedIP, error) {
	address, err := netip.ParseAddr(ip)
	if err != nil {
		return cloud.ReservedIP{}, fmt.Errorf("the answer has %q for an address", ip)
	}
	r := cloud.ReservedIP{Address: address.Unmap()}
	if holder != nil {
		r.Droplet = int64(holder.ID)
	}
	return r, nil
}
