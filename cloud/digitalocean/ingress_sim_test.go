package digitalocean

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/digitalocean/godo"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/cloud/dosim"
	"github.com/doproxy/doproxy/cloud/dosim/openapitest"
	"github.com/doproxy/doproxy/inventory"
)

// simulated is a client of a simulator. Every request is held against
// DigitalOcean's OpenAPI document.
func simulated(t *testing.T, o dosim.Options) *Client {
	t.Helper()
	sim, err := dosim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(openapitest.Handler(t, sim.Handler(), openapitest.AllowRefused()))
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(func() { sim.Close(); server.Close(); transport.CloseIdleConnections() })
	c, err := New(Options{Token: StaticToken(dosim.DefaultToken), BaseURL: server.URL, Cluster: "c1", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestReservedIPsAgainstTheSimulator moves an address of each family from one
// droplet to another.
func TestReservedIPsAgainstTheSimulator(t *testing.T) {
	c := simulated(t, dosim.Options{ActionDelay: 300 * time.Millisecond})
	ctx := t.Context()
	template := inventory.Template{Region: "nyc3", Size: "s-1vcpu-1gb", Image: "ubuntu-24-04-x64", IPv6: true}
	made, err := c.Create(ctx, cloud.CreateRequest{Names: []string{"lb-1", "lb-2"}, Pool: "lb", Template: template})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := c.ReservedIPs(ctx); err != nil || len(all) != 0 {
		t.Fatalf("%v, %v", all, err)
	}
	var addresses []netip.Addr
	for range 2 {
		four, _, err := c.api.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{Region: "nyc3"})
		if err != nil {
			t.Fatal(err)
		}
		six, _, err := c.api.ReservedIPV6s.Create(ctx, &godo.ReservedIPV6CreateRequest{Region: "nyc3"})
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, netip.MustParseAddr(four.IP), netip.MustParseAddr(six.IP))
	}
	if all, err := c.ReservedIPs(ctx); err != nil || len(all) != 4 || all[0] != (cloud.ReservedIP{Address: addresses[0], Region: "nyc3"}) {
		t.Fatalf("%v, %v", all, err)
	}
	assign := func(address netip.Addr, droplet int64) (err error) {
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if err = c.Assign(ctx, address, droplet); !errors.Is(err, cloud.ErrAmbiguous) {
				return err
			}
		}
		return err
	}
	for i, address := range addresses[:2] {
		for _, d := range made {
			if err := assign(address, d.ID); err != nil {
				t.Fatal(err)
			}
			got, err := c.ReservedIP(ctx, address)
			if err != nil || got.Droplet != d.ID || got.Region != "nyc3" {
				t.Errorf("%+v, %v", got, err)
			}
			if err := c.Assign(ctx, address, d.ID); !errors.Is(err, cloud.ErrAmbiguous) {
				t.Errorf("while it is under way: %v", err)
			}
		}
		var refused *cloud.Refused
		if err := assign(addresses[i+2], made[1].ID); !errors.As(err, &refused) || refused.Status != 422 {
			t.Errorf("a second address for a droplet: %v", err)
		}
	}
	for _, gone := range []netip.Addr{v4, v6} {
		if err := c.Assign(ctx, gone, made[0].ID); !errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("assign of none: %v", err)
		}
		if _, err := c.ReservedIP(ctx, gone); !errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("get of none: %v", err)
		}
	}
}

// TestDNSAgainstTheSimulator goes through a record's life.
func TestDNSAgainstTheSimulator(t *testing.T) {
	c := simulated(t, dosim.Options{})
	ctx := t.Context()
	if _, err := c.Records(ctx, "example.com", "www"); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("no such domain: %v", err)
	}
	if _, _, err := c.api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: "example.com"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"www", "@", "*.eu"} {
		var made []cloud.DNSRecord
		for _, r := range []cloud.DNSRecord{{Type: "A", Name: name, Data: "203.0.113.1", TTL: 60}, {Type: "AAAA", Name: name, Data: "2001:db8::1", TTL: 60}} {
			m, err := c.CreateRecord(ctx, "example.com", r)
			if r.ID = m.ID; err != nil || m.ID == 0 || m != r {
				t.Fatalf("%+v, %v", m, err)
			}
			made = append(made, m)
		}
		if _, _, err := c.api.Domains.CreateRecord(ctx, "example.com", &godo.DomainRecordEditRequest{Type: "TXT", Name: name, Data: "x", TTL: 60, Tag: "x"}); err != nil {
			t.Fatal(err)
		}
		made[0].TTL = 30
		if err := c.SetTTL(ctx, "example.com", made[0]); err != nil {
			t.Fatal(err)
		}
		if all, err := c.Records(ctx, "example.com", name); err != nil || len(all) != 2 || all[0] != made[0] || all[1] != made[1] {
			t.Errorf("%s: %+v, %v", name, all, err)
		}
		if err := c.DeleteRecord(ctx, "example.com", made[0].ID); err != nil {
			t.Error(err)
		}
		if err := c.DeleteRecord(ctx, "example.com", made[0].ID); !errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("delete of one that is gone: %v", err)
		}
		if err := c.SetTTL(ctx, "example.com", made[0]); !errors.Is(err, cloud.ErrNotFound) {
			t.Errorf("TTL of one that is gone: %v", err)
		}
	}
	var refused *cloud.Refused
	if _, err := c.CreateRecord(ctx, "example.com", cloud.DNSRecord{Type: "A", Name: "www", Data: "203.0.113.1", TTL: 29}); !errors.As(err, &refused) || refused.Status != 422 {
		t.Errorf("a TTL of 29: %v", err)
	}
}

func TestPricesAgainstTheSimulator(t *testing.T) {
	c := simulated(t, dosim.Options{})
	prices, err := c.Prices(t.Context())
	if err != nil || len(prices) < 5 || prices["s-1vcpu-1gb"] == 0 {
		t.Errorf("%v, %v", prices, err)
	}
}
