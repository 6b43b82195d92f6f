package dev

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/digitalocean/godo"

	"github.com/doproxy/doproxy/cloud/dosim"
)

const (
	region = "nyc3"
	size   = "s-1vcpu-1gb"
	image  = "debian-12-x64"
	// domain is the simulated account's; the cluster keeps a name in it.
	domain = "doproxy.test"
)

// bearer adds the token to each request.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// account is what the cluster finds at its simulated DigitalOcean: its load
// balancers as droplets, reserved IPs and a domain.
type account struct {
	droplets []int64 // of the nodes, in their order
	reserved []netip.Addr
}

func prepareAccount(ctx context.Context, o Options, sim simulator) (account, error) {
	var acc account
	api, err := godo.New(&http.Client{Transport: bearer(sim.Token)}, godo.SetBaseURL(sim.URL))
	if err != nil {
		return acc, err
	}
	admin := dosim.Admin{URL: sim.URL}
	for i := range o.Nodes {
		d, _, err := api.Droplets.Create(ctx, &godo.DropletCreateRequest{
			Name: nodeName(i), Region: region, Size: size, Image: godo.DropletCreateImage{Slug: image}, Tags: []string{"load-balancer"}, IPv6: true,
		})
		if err != nil {
			return acc, err
		}
		address, err := netip.ParseAddr(sim.Prefix + nodeNet + strconv.Itoa(i+1))
		if err == nil {
			err = admin.Host(ctx, d.ID, address)
		}
		if err != nil {
			return acc, err
		}
		acc.droplets = append(acc.droplets, int64(d.ID))
	}
	for range o.ReservedIPs {
		ip, _, err := api.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{Region: region})
		if err != nil {
			return acc, err
		}
		address, err := netip.ParseAddr(ip.IP)
		if err != nil {
			return acc, err
		}
		acc.reserved = append(acc.reserved, address)
	}
	_, _, err = api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: domain})
	return acc, errors.Join(err, admin.ResetCalls(ctx))
}

func nodeName(i int) string { return fmt.Sprintf("lb-%d", i+1) }
