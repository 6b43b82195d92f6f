package digitalocean

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/cloud/dosim"
	"github.com/doproxy/doproxy/cloud/dosim/openapitest"
	"github.com/doproxy/doproxy/inventory"
)

// TestAgainstTheSimulator goes through a droplet's life. Every request is held
// against DigitalOcean's OpenAPI document.
func TestAgainstTheSimulator(t *testing.T) {
	sim, err := dosim.New(dosim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	server := httptest.NewServer(openapitest.Handler(t, sim.Handler()))
	defer server.Close()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	c, err := New(Options{Token: StaticToken(dosim.DefaultToken), BaseURL: server.URL, Cluster: "c1", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(Options{Token: StaticToken(dosim.DefaultToken), BaseURL: server.URL, Cluster: "c2", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}

	ctx := t.Context()
	template := inventory.Template{Region: "nyc3", Size: "s-1vcpu-1gb", Image: "ubuntu-24-04-x64", Monitoring: true, UserData: "#!/bin/sh", Tags: []string{"team:a"}}
	request := cloud.CreateRequest{Pool: "web", Template: template}
	for i := range cloud.MaxCreate {
		request.Names = append(request.Names, fmt.Sprintf("web-%d", i))
	}
	made, err := c.Create(ctx, request)
	if err != nil || len(made) != cloud.MaxCreate {
		t.Fatalf("create: %d, %v", len(made), err)
	}
	if _, err := other.Create(ctx, cloud.CreateRequest{Names: []string{"web-0"}, Pool: "web", Template: template}); err != nil {
		t.Fatal(err)
	}
	id := made[0].ID

	var d cloud.Droplet
	for deadline := time.Now().Add(10 * time.Second); d.Status != "active" && time.Now().Before(deadline); {
		all, err := c.List(ctx)
		if err != nil || len(all) != cloud.MaxCreate {
			t.Fatalf("list: %d, %v", len(all), err)
		}
		if d, err = c.Get(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if d.Name != "web-0" || d.Pool != "web" || !d.PrivateIPv4.IsValid() || d.PriceHourly == 0 || d.Region != "nyc3" || d.Created.IsZero() {
		t.Errorf("%+v", d)
	}

	var refused *cloud.Refused
	if _, err := other.Get(ctx, id); !errors.As(err, &refused) || refused.ID != cloud.NotOurs {
		t.Errorf("get by another cluster: %v", err)
	}
	if err := other.Adopt(ctx, id, "web"); !errors.As(err, &refused) || refused.ID != cloud.NotOurs {
		t.Errorf("adopt by another cluster: %v", err)
	}
	if err := c.Adopt(ctx, id, "web"); err != nil {
		t.Errorf("adopt of one's own: %v", err)
	}
	bad := template
	bad.Image = "no-such-image"
	if _, err := c.Create(ctx, cloud.CreateRequest{Names: []string{"web-99"}, Pool: "web", Template: bad}); !errors.As(err, &refused) || refused.Status != 422 {
		t.Errorf("create of a bad image: %v", err)
	}

	if err := c.Delete(ctx, id); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if _, err = c.Get(ctx, id); err != nil {
			break
		}
	}
	if !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("get of one that is gone: %v", err)
	}
	if err := c.Delete(ctx, id); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("delete of one that is gone: %v", err)
	}
}

// TestAdoptAgainstTheSimulator tags a droplet that no cluster made.
func TestAdoptAgainstTheSimulator(t *testing.T) {
	sim, err := dosim.New(dosim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	server := httptest.NewServer(openapitest.Handler(t, sim.Handler()))
	defer server.Close()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	c, err := New(Options{Token: StaticToken(dosim.DefaultToken), BaseURL: server.URL, Cluster: "c1", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	body, err := c.createRequest(cloud.CreateRequest{Names: []string{"old-1"}, Pool: "web",
		Template: inventory.Template{Region: "nyc3", Size: "s-1vcpu-1gb", Image: "ubuntu-24-04-x64"}})
	if err != nil {
		t.Fatal(err)
	}
	body.Tags = []string{}
	plain, _, err := c.api.Droplets.CreateMultiple(ctx, body)
	if err != nil {
		t.Fatal(err)
	}
	id := int64(plain[0].ID)
	if all, err := c.List(ctx); err != nil || len(all) != 0 {
		t.Fatalf("list: %v, %v", all, err)
	}
	if err := c.Adopt(ctx, id, "web"); err != nil {
		t.Fatal(err)
	}
	if all, err := c.List(ctx); err != nil || len(all) != 1 || all[0].ID != id || all[0].Pool != "web" {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := c.Adopt(ctx, 1, "web"); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("adopt of none: %v", err)
	}
}
