package dosim_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/doproxy/doproxy/cloud/dosim"
	"github.com/doproxy/doproxy/cloud/dosim/openapitest"
)

func itoa(n int) string { return strconv.Itoa(n) }

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3SX8sQ6d8K0m1ZB5oDXTOx1f0A5Qe1xq3K1X6m0o5k sim@example.com"

func TestCatalogue(t *testing.T) {
	w := start(t, dosim.Options{})
	ctx := t.Context()
	all := &godo.ListOptions{PerPage: 200}
	sizes, _, err := w.api.Sizes.List(ctx, all)
	w.must(err)
	for _, slug := range []string{"512mb", "1gb", "2gb", "s-1vcpu-512mb-10gb", "s-1vcpu-1gb", "s-1vcpu-2gb", "s-2vcpu-2gb", "s-2vcpu-4gb", "c-2"} {
		if !slices.ContainsFunc(sizes, func(s godo.Size) bool { return s.Slug == slug && s.PriceMonthly > 0 && s.PriceHourly > 0 }) {
			t.Errorf("no size %s with prices", slug)
		}
	}
	regions, _, err := w.api.Regions.List(ctx, all)
	w.must(err)
	if len(regions) != 11 {
		t.Errorf("%d regions", len(regions))
	}
	images, _, err := w.api.Images.ListDistribution(ctx, all)
	w.must(err)
	i, _, err := w.api.Images.GetBySlug(ctx, "ubuntu-22-04-x64")
	w.must(err)
	j, _, err := w.api.Images.GetByID(ctx, i.ID)
	w.must(err)
	if len(images) != 4 || j.Slug != i.Slug {
		t.Errorf("%d images, %q by id", len(images), j.Slug)
	}
	account, _, err := w.api.Account.Get(ctx)
	w.must(err)
	if account.DropletLimit != dosim.DefaultDropletLimit || account.Status != "active" {
		t.Errorf("account: %+v", account)
	}
}

func TestActions(t *testing.T) {
	w := start(t, dosim.Options{ActionDelay: 100 * time.Millisecond}, openapitest.AllowRefused())
	ctx := t.Context()
	d := w.serving("web-1", "web")
	completed := func(a *godo.Action, _ *godo.Response, err error) {
		t.Helper()
		w.must(err)
		if a.Status != "in-progress" {
			t.Errorf("%s begins as %s", a.Type, a.Status)
		}
		w.await(a.Type, func() bool {
			a, _, err := w.api.DropletActions.Get(ctx, d.ID, a.ID)
			w.must(err)
			return a.Status == "completed"
		})
	}
	serving := func() bool { return w.view(d.ID).App == "serving" }

	completed(w.api.DropletActions.Reboot(ctx, d.ID))
	w.await("the application after the reboot", serving)
	completed(w.api.DropletActions.Shutdown(ctx, d.ID))
	if v := w.view(d.ID); v.Status != "off" || v.App != "closed" {
		t.Errorf("shut down: %+v", v)
	}
	completed(w.api.DropletActions.Resize(ctx, d.ID, "s-2vcpu-4gb", true))
	completed(w.api.DropletActions.Rename(ctx, d.ID, "web-2"))
	completed(w.api.DropletActions.Snapshot(ctx, d.ID, "gold"))
	completed(w.api.DropletActions.PowerOn(ctx, d.ID))
	w.await("the application after power on", serving)
	completed(w.api.DropletActions.EnableIPv6(ctx, d.ID))
	completed(w.api.DropletActions.RebuildByImageSlug(ctx, d.ID, "debian-12-x64"))
	_, _, err := w.api.DropletActions.Resize(ctx, d.ID, "1gb", false)
	refused(t, err, 422, "powered off")

	now, _, err := w.api.Droplets.Get(ctx, d.ID)
	w.must(err)
	if now.Name != "web-2" || now.Vcpus != 2 || now.Image.Slug != "debian-12-x64" || len(now.Networks.V6) != 1 || len(now.SnapshotIDs) != 1 {
		t.Errorf("after all actions: %+v", now)
	}
	images, _, err := w.api.Images.ListUser(ctx, nil)
	w.must(err)
	if len(images) != 1 || images[0].Name != "gold" {
		t.Fatalf("snapshots: %+v", images)
	}
	clone := request("clone")
	clone.Image, clone.Size = godo.DropletCreateImage{ID: images[0].ID}, "s-2vcpu-4gb"
	_, _, err = w.api.Droplets.Create(ctx, clone)
	w.must(err)
	_, err = w.api.Images.Delete(ctx, images[0].ID)
	w.must(err)
	w.await("the application", serving)
	byTag, _, err := w.api.DropletActions.PowerOffByTag(ctx, "web")
	w.must(err)
	if len(byTag) != 1 {
		t.Errorf("by tag: %d", len(byTag))
	}
	list, _, err := w.api.Droplets.Actions(ctx, d.ID, &godo.ListOptions{PerPage: 200})
	w.must(err)
	if len(list) != 10 || list[len(list)-1].Type != "create" { // newest first
		t.Errorf("%d actions, the oldest a %s", len(list), list[len(list)-1].Type)
	}
}

func TestOneEventAtATime(t *testing.T) {
	w := start(t, dosim.Options{ActionDelay: time.Hour})
	d := w.serving("busy")
	_, _, err := w.api.DropletActions.Shutdown(t.Context(), d.ID)
	w.must(err)
	_, _, err = w.api.DropletActions.PowerOff(t.Context(), d.ID)
	refused(t, err, 422, "Droplet already has a pending event.")
	_, err = w.api.Droplets.Delete(t.Context(), d.ID)
	refused(t, err, 422, "Droplet already has a pending event.")
}

func TestTags(t *testing.T) {
	w := start(t, dosim.Options{}, openapitest.AllowRefused())
	ctx := t.Context()
	d := w.create("web-1", "made-on-the-fly")
	_, _, err := w.api.Tags.Create(ctx, &godo.TagCreateRequest{Name: "env:prod"})
	w.must(err)
	_, err = w.api.Tags.TagResources(ctx, "env:prod", &godo.TagResourcesRequest{Resources: []godo.Resource{{ID: itoa(d.ID), Type: "droplet"}}})
	w.must(err)
	tag, _, err := w.api.Tags.Get(ctx, "env:prod")
	w.must(err)
	if tag.Resources.Droplets.Count != 1 || tag.Resources.Count != 1 {
		t.Errorf("tag: %+v", tag.Resources)
	}
	tags, _, err := w.api.Tags.List(ctx, nil)
	if err != nil || len(tags) != 2 {
		t.Errorf("%d tags, %v", len(tags), err)
	}
	_, err = w.api.Tags.UntagResources(ctx, "env:prod", &godo.UntagResourcesRequest{Resources: []godo.Resource{{ID: itoa(d.ID), Type: "droplet"}}})
	w.must(err)
	_, err = w.api.Tags.Delete(ctx, "made-on-the-fly")
	w.must(err)
	if left := w.view(d.ID).Tags; len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	_, _, err = w.api.Tags.Create(ctx, &godo.TagCreateRequest{Name: "no spaces"})
	refused(t, err, 422, "Tags may only contain")
	_, err = w.api.Tags.TagResources(ctx, "env:prod", &godo.TagResourcesRequest{Resources: []godo.Resource{{ID: "1", Type: "droplet"}}})
	refused(t, err, 404, "")
}

func TestKeys(t *testing.T) {
	w := start(t, dosim.Options{}, openapitest.AllowRefused())
	ctx := t.Context()
	k, _, err := w.api.Keys.Create(ctx, &godo.KeyCreateRequest{Name: "mine", PublicKey: publicKey})
	w.must(err)
	_, _, err = w.api.Keys.Create(ctx, &godo.KeyCreateRequest{Name: "again", PublicKey: publicKey})
	refused(t, err, 422, "already in use")
	_, _, err = w.api.Keys.Create(ctx, &godo.KeyCreateRequest{Name: "bad", PublicKey: "nonsense"})
	refused(t, err, 422, "Key invalid")
	for _, key := range []godo.DropletCreateSSHKey{{ID: k.ID}, {Fingerprint: k.Fingerprint}} {
		r := request("with-key")
		r.SSHKeys = []godo.DropletCreateSSHKey{key}
		_, _, err = w.api.Droplets.Create(ctx, r)
		w.must(err)
	}
	_, _, err = w.api.Keys.UpdateByFingerprint(ctx, k.Fingerprint, &godo.KeyUpdateRequest{Name: "renamed"})
	w.must(err)
	if k, _, err = w.api.Keys.GetByID(ctx, k.ID); err != nil || k.Name != "renamed" {
		t.Errorf("%+v, %v", k, err)
	}
	_, err = w.api.Keys.DeleteByID(ctx, k.ID)
	w.must(err)
	if keys, _, err := w.api.Keys.List(ctx, nil); err != nil || len(keys) != 0 {
		t.Errorf("left: %v, %v", keys, err)
	}
}

func TestVPCs(t *testing.T) {
	w := start(t, dosim.Options{}, openapitest.AllowRefused())
	ctx := t.Context()
	v, _, err := w.api.VPCs.Create(ctx, &godo.VPCCreateRequest{Name: "mine", RegionSlug: "nyc3", IPRange: "10.10.0.0/20"})
	w.must(err)
	r := request("inside")
	r.VPCUUID = v.ID
	d, _, err := w.api.Droplets.Create(ctx, r)
	w.must(err)
	members, _, err := w.api.VPCs.ListMembers(ctx, v.ID, nil, nil)
	w.must(err)
	if d.VPCUUID != v.ID || len(members) != 1 || members[0].URN != "do:droplet:"+itoa(d.ID) {
		t.Errorf("droplet in %s, members %+v", d.VPCUUID, members)
	}
	_, err = w.api.VPCs.Delete(ctx, v.ID)
	refused(t, err, 403, "members")
	_, err = w.api.Droplets.Delete(ctx, d.ID)
	w.must(err)
	w.await("empty", func() bool { return w.exist() == 0 })
	_, _, err = w.api.VPCs.Update(ctx, v.ID, &godo.VPCUpdateRequest{Name: "renamed"})
	w.must(err)
	_, _, err = w.api.VPCs.Set(ctx, v.ID, godo.VPCSetDescription("words"))
	w.must(err)
	if v, _, err = w.api.VPCs.Get(ctx, v.ID); err != nil || v.Name != "renamed" || v.Description != "words" {
		t.Errorf("%+v, %v", v, err)
	}
	_, err = w.api.VPCs.Delete(ctx, v.ID)
	w.must(err)
	all, _, err := w.api.VPCs.List(ctx, &godo.ListOptions{PerPage: 200})
	w.must(err)
	if len(all) != 11 || !all[0].Default {
		t.Errorf("%d VPCs left", len(all))
	}
	_, _, err = w.api.VPCs.Create(ctx, &godo.VPCCreateRequest{Name: "mine", RegionSlug: "moon1"})
	refused(t, err, 422, "region")
}

func TestMetrics(t *testing.T) {
	w := start(t, dosim.Options{})
	ctx := t.Context()
	d := w.create("busy")
	cpu, load, out := 75.0, 3.5, 12.5
	_, err := w.admin.SetDroplet(ctx, d.ID, dosim.DropletChange{Load: &dosim.Load{CPU: &cpu, Load1: &load, BandwidthOut: &out}})
	w.must(err)
	r := &godo.DropletMetricsRequest{HostID: itoa(d.ID), Start: time.Now().Add(-time.Hour), End: time.Now().Add(time.Minute)}
	for name, get := range map[string]func() (*godo.MetricsResponse, *godo.Response, error){
		"load_1": func() (*godo.MetricsResponse, *godo.Response, error) { return w.api.Monitoring.GetDropletLoad1(ctx, r) },
		"load_5": func() (*godo.MetricsResponse, *godo.Response, error) { return w.api.Monitoring.GetDropletLoad5(ctx, r) },
		"load_15": func() (*godo.MetricsResponse, *godo.Response, error) {
			return w.api.Monitoring.GetDropletLoad15(ctx, r)
		},
		"memory total": func() (*godo.MetricsResponse, *godo.Response, error) {
			return w.api.Monitoring.GetDropletTotalMemory(ctx, r)
		},
		"memory free": func() (*godo.MetricsResponse, *godo.Response, error) {
			return w.api.Monitoring.GetDropletFreeMemory(ctx, r)
		},
		"memory available": func() (*godo.MetricsResponse, *godo.Response, error) {
			return w.api.Monitoring.GetDropletAvailableMemory(ctx, r)
		},
		"memory cached": func() (*godo.MetricsResponse, *godo.Response, error) {
			return w.api.Monitoring.GetDropletCachedMemory(ctx, r)
		},
		"disk free": func() (*godo.MetricsResponse, *godo.Response, error) {
			return w.api.Monitoring.GetDropletFilesystemFree(ctx, r)
		},
		"disk size": func() (*godo.MetricsResponse, *godo.Response, error) {
			return w.api.Monitoring.GetDropletFilesystemSize(ctx, r)
		},
		"cpu": func() (*godo.MetricsResponse, *godo.Response, error) { return w.api.Monitoring.GetDropletCPU(ctx, r) },
		"bandwidth": func() (*godo.MetricsResponse, *godo.Response, error) {
			return w.api.Monitoring.GetDropletBandwidth(ctx, &godo.DropletBandwidthMetricsRequest{DropletMetricsRequest: *r, Interface: "public", Direction: "outbound"})
		},
	} {
		m, _, err := get()
		w.must(err)
		if len(m.Data.Result) == 0 || len(m.Data.Result[0].Values) == 0 {
			t.Errorf("%s: no values", name)
			continue
		}
		got := float64(m.Data.Result[0].Values[0].Value)
		if want, set := map[string]float64{"load_1": load, "bandwidth": out, "memory total": 1 << 30}[name]; set && got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	_, err = w.admin.SetDroplet(ctx, d.ID, dosim.DropletChange{Load: &dosim.Load{Missing: true}})
	w.must(err)
	if m, _, err := w.api.Monitoring.GetDropletLoad1(ctx, r); err != nil || len(m.Data.Result) != 0 {
		t.Errorf("without the agent: %+v, %v", m, err)
	}
}
