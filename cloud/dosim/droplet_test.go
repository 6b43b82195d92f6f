package dosim_test

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/doproxy/doproxy/cloud/dosim"
	"github.com/doproxy/doproxy/cloud/dosim/openapitest"
)

func TestDropletLivesAsAtDigitalOcean(t *testing.T) {
	const boot, app, leave = 200 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second
	w := start(t, dosim.Options{BootDelay: boot, AppDelay: app, DeleteDelay: leave})
	ctx := t.Context()
	w.must(w.admin.NextCreates(ctx, 1, dosim.Behaviour{NeverBoot: true})) // for as long as the test looks at "new"
	r := request("web-1.example.com")
	r.IPv6, r.Tags = true, []string{"web"}
	begun := time.Now()
	d, res, err := w.api.Droplets.Create(ctx, r)
	w.must(err)
	if d.Status != "new" || !d.Locked || len(d.Networks.V4) != 0 || d.ID < 300000001 || res.StatusCode != 202 {
		t.Fatalf("created: status %s, locked %v, networks %v, id %d, answer %d", d.Status, d.Locked, d.Networks, d.ID, res.StatusCode)
	}
	if res.Links == nil || len(res.Links.Actions) != 1 || res.Links.Actions[0].Rel != "create" {
		t.Fatalf("links: %+v", res.Links)
	}
	action, _, err := w.api.Actions.Get(ctx, res.Links.Actions[0].ID)
	w.must(err)
	if action.Status != "in-progress" || action.ResourceID != d.ID {
		t.Errorf("create action: %+v", action)
	}
	boots := false
	_, err = w.admin.SetDroplet(ctx, d.ID, dosim.DropletChange{NeverBoot: &boots})
	w.must(err)

	w.await("active", func() bool {
		d, _, err = w.api.Droplets.Get(ctx, d.ID)
		w.must(err)
		return d.Status == "active"
	})
	if took := time.Since(begun); took < boot {
		t.Errorf("active after %s", took)
	}
	private, _ := d.PrivateIPv4()
	public, _ := d.PublicIPv4()
	v6, _ := d.PublicIPv6()
	if !strings.HasPrefix(private, w.sim.DropletPrefix()+".") || public == private || public == "" || !strings.HasPrefix(v6, "2604:a880:") {
		t.Errorf("addresses: private %q, public %q, v6 %q", private, public, v6)
	}
	if action, _, err = w.api.Actions.Get(ctx, action.ID); err != nil || action.Status != "completed" || action.CompletedAt == nil {
		t.Errorf("create action of an active droplet: %+v, %v", action, err)
	}
	w.await("the application", func() bool { _, _, err := w.ask("GET", private, "/health", nil); return err == nil })
	if took := time.Since(begun); took < boot+app {
		t.Errorf("the application answered after %s", took)
	}

	begun = time.Now()
	_, err = w.api.Droplets.Delete(ctx, d.ID)
	w.must(err)
	if _, _, err := w.ask("GET", private, "/", nil); err != nil {
		t.Errorf("a droplet whose delete is under way: %v", err)
	}
	w.await("gone", func() bool {
		_, res, _ := w.api.Droplets.Get(ctx, d.ID)
		return res.StatusCode == http.StatusNotFound
	})
	if took := time.Since(begun); took < leave {
		t.Errorf("gone after %s", took)
	}
	if _, _, err := w.ask("GET", private, "/", nil); err == nil {
		t.Error("a droplet that is gone answers")
	}
}

func TestCreateSeveral(t *testing.T) {
	w := start(t, dosim.Options{})
	droplets, res, err := w.api.Droplets.CreateMultiple(t.Context(), &godo.DropletMultiCreateRequest{
		Names: []string{"a", "b", "b"}, Region: "nyc1", Size: "512mb", Image: godo.DropletCreateImage{ID: 6918990}, Tags: []string{"t"},
	})
	w.must(err)
	if len(droplets) != 3 || len(res.Links.Actions) != 3 {
		t.Fatalf("%d droplets, %d actions", len(droplets), len(res.Links.Actions))
	}
	for i, d := range droplets {
		if d.ID != 300000001+i || d.Image.Slug != "ubuntu-14-04-x64" || !slices.Equal(d.Tags, []string{"t"}) {
			t.Errorf("droplet %d: %+v", i, d)
		}
	}
	w.await("three servers", func() bool {
		views, err := w.admin.Droplets(t.Context())
		w.must(err)
		return !slices.ContainsFunc(views, func(v dosim.DropletView) bool { return v.App != "serving" })
	})
}

func TestCreateRefusals(t *testing.T) {
	w := start(t, dosim.Options{DropletLimit: 1}, openapitest.AllowRefused())
	for name, c := range map[string]struct {
		change  func(*godo.DropletCreateRequest)
		message string
	}{
		"bad name": {func(r *godo.DropletCreateRequest) { r.Name = "web_1" }, "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)"},
		"no name":  {func(r *godo.DropletCreateRequest) { r.Name = "" }, "Name can't be blank"},
		"region":   {func(r *godo.DropletCreateRequest) { r.Region = "moon1" }, "invalid region"},
		"size":     {func(r *godo.DropletCreateRequest) { r.Size = "huge" }, "invalid size"},
		"image":    {func(r *godo.DropletCreateRequest) { r.Image.Slug = "msdos" }, "You specified an invalid image for Droplet creation."},
		"key":      {func(r *godo.DropletCreateRequest) { r.SSHKeys = []godo.DropletCreateSSHKey{{ID: 7}} }, "invalid key identifiers"},
		"tag":      {func(r *godo.DropletCreateRequest) { r.Tags = []string{"no spaces"} }, "Tags may only contain"},
		"vpc":      {func(r *godo.DropletCreateRequest) { r.VPCUUID = "5d0a1c40-0000-4000-8000-000000000000" }, "invalid vpc_uuid"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request("web")
			c.change(r)
			_, _, err := w.api.Droplets.Create(t.Context(), r)
			refused(t, err, http.StatusUnprocessableEntity, c.message)
		})
	}
	names := make([]string, 11)
	for i := range names {
		names[i] = "n" + strconv.Itoa(i)
	}
	_, _, err := w.api.Droplets.CreateMultiple(t.Context(), &godo.DropletMultiCreateRequest{
		Names: names, Region: "nyc3", Size: "1gb", Image: godo.DropletCreateImage{Slug: "debian-12-x64"}})
	refused(t, err, 422, "10 droplets at a time")
	w.create("first")
	_, _, err = w.api.Droplets.Create(t.Context(), request("second"))
	refused(t, err, 422, "creating this/these droplet(s) will exceed your droplet limit")
}

// refused checks an error of godo's.
func refused(t *testing.T, err error, status int, message string) {
	t.Helper()
	var e *godo.ErrorResponse
	if !errors.As(err, &e) {
		t.Fatalf("error is %v", err)
	}
	if e.Response.StatusCode != status || !strings.Contains(e.Message, message) || e.RequestID == "" {
		t.Errorf("got %d %q (request %q), want %d %q", e.Response.StatusCode, e.Message, e.RequestID, status, message)
	}
}

func TestListsArePagedAndFiltered(t *testing.T) {
	w := start(t, dosim.Options{})
	for i := range 7 {
		tag := "even"
		if i%2 == 1 {
			tag = "odd"
		}
		w.create("d"+strconv.Itoa(i), tag)
	}
	w.create("d0", "other")
	ctx := t.Context()
	var seen []int
	for page := 1; ; page++ {
		ds, res, err := w.api.Droplets.List(ctx, &godo.ListOptions{Page: page, PerPage: 3})
		w.must(err)
		if res.Meta.Total != 8 {
			t.Errorf("total %d", res.Meta.Total)
		}
		for _, d := range ds {
			seen = append(seen, d.ID)
		}
		if res.Links.IsLastPage() {
			break
		}
	}
	if len(seen) != 8 || !slices.IsSorted(seen) {
		t.Errorf("pages held %v", seen)
	}
	odd, res, err := w.api.Droplets.ListByTag(ctx, "odd", &godo.ListOptions{PerPage: 2})
	w.must(err)
	if len(odd) != 2 || res.Meta.Total != 3 {
		t.Errorf("by tag: %d of %d", len(odd), res.Meta.Total)
	}
	named, _, err := w.api.Droplets.ListByName(ctx, "d0", nil)
	w.must(err)
	if len(named) != 2 {
		t.Errorf("by name: %d", len(named))
	}
	if none, _, err := w.api.Droplets.List(ctx, &godo.ListOptions{Page: 9}); err != nil || len(none) != 0 {
		t.Errorf("a page after the last: %d, %v", len(none), err)
	}
}

func TestListLagsACreate(t *testing.T) {
	const lag = 400 * time.Millisecond
	w := start(t, dosim.Options{ListLag: lag})
	begun := time.Now()
	d := w.create("late", "t")
	if _, _, err := w.api.Droplets.Get(t.Context(), d.ID); err != nil {
		t.Errorf("get by id: %v", err)
	}
	w.await("the list to show it", func() bool {
		ds, _, err := w.api.Droplets.ListByTag(t.Context(), "t", nil)
		w.must(err)
		return len(ds) == 1
	})
	if took := time.Since(begun); took < lag {
		t.Errorf("the list showed it after %s", took)
	}
}

func TestDeleteByTagTakesAllAndOnlyThose(t *testing.T) {
	w := start(t, dosim.Options{ListLag: time.Hour}) // what lists do not show is deleted too
	w.create("a", "go")
	w.create("b", "go", "x")
	keep := w.create("c", "x")
	_, err := w.api.Droplets.DeleteByTag(t.Context(), "go")
	w.must(err)
	w.await("one to be left", func() bool {
		views, err := w.admin.Droplets(t.Context())
		w.must(err)
		return len(views) == 1 && views[0].ID == keep.ID
	})
}

func TestDeleteTwice(t *testing.T) {
	w := start(t, dosim.Options{DeleteDelay: 30 * time.Second})
	d := w.create("a")
	_, err := w.api.Droplets.Delete(t.Context(), d.ID)
	w.must(err)
	_, err = w.api.Droplets.Delete(t.Context(), d.ID)
	refused(t, err, 422, "pending event")
	_, err = w.api.Droplets.Delete(t.Context(), 1)
	refused(t, err, 404, "could not be found")
}

func TestTokenIsWanted(t *testing.T) {
	w := start(t, dosim.Options{})
	for _, token := range []string{"", "wrong"} {
		c := w.client(&http.Client{Transport: bearer{token, w.http.Transport}})
		_, _, err := c.Account.Get(t.Context())
		refused(t, err, http.StatusUnauthorized, "Unable to authenticate you")
	}
}
