package dosim_test

import (
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/doproxy/doproxy/cloud/dosim"
	"github.com/doproxy/doproxy/cloud/dosim/openapitest"
)

func TestReservedIPs(t *testing.T) {
	w := start(t, dosim.Options{}, openapitest.AllowRefused())
	ctx := t.Context()
	a, b := w.serving("a"), w.serving("b")
	ip, _, err := w.api.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{DropletID: a.ID})
	w.must(err)
	if ip.Droplet == nil || ip.Droplet.ID != a.ID || ip.Region.Slug != "nyc3" {
		t.Fatalf("reserved: %+v", ip)
	}
	done := func() bool {
		actions, _, err := w.api.ReservedIPActions.List(ctx, ip.IP, nil)
		w.must(err)
		return len(actions) > 0 && actions[0].Status == "completed"
	}
	w.await("the assignment", done)
	action, _, err := w.api.ReservedIPActions.Assign(ctx, ip.IP, b.ID)
	w.must(err)
	w.await("the move", done)
	if action, _, err = w.api.ReservedIPActions.Get(ctx, ip.IP, action.ID); err != nil || action.Type != "assign_ip" {
		t.Errorf("%+v, %v", action, err)
	}
	if f, _, err := w.api.FloatingIPs.Get(ctx, ip.IP); err != nil || f.Droplet.ID != b.ID {
		t.Errorf("by its old name: %+v, %v", f, err)
	}
	_, err = w.api.Droplets.Delete(ctx, b.ID)
	w.must(err)
	w.await("the droplet to be gone", func() bool { return w.exist() == 1 })
	if ip, _, err = w.api.ReservedIPs.Get(ctx, ip.IP); err != nil || ip.Droplet != nil {
		t.Errorf("after its droplet: %+v, %v", ip, err)
	}
	_, _, err = w.api.ReservedIPActions.Unassign(ctx, ip.IP)
	refused(t, err, 422, "not assigned")
	_, _, err = w.api.ReservedIPActions.Assign(ctx, ip.IP, 1)
	refused(t, err, 422, "could not be found")
	free, _, err := w.api.FloatingIPs.Create(ctx, &godo.FloatingIPCreateRequest{Region: "ams3"})
	w.must(err)
	_, _, err = w.api.FloatingIPActions.Assign(ctx, free.IP, a.ID)
	refused(t, err, 422, "same region")
	list, _, err := w.api.ReservedIPs.List(ctx, nil)
	if err != nil || len(list) != 2 {
		t.Errorf("%d, %v", len(list), err)
	}
	_, err = w.api.ReservedIPs.Delete(ctx, ip.IP)
	w.must(err)
	_, err = w.api.FloatingIPs.Delete(ctx, free.IP)
	w.must(err)
}

func TestReservedIPv6(t *testing.T) {
	w := start(t, dosim.Options{}, openapitest.AllowRefused())
	ctx := t.Context()
	r := request("six")
	r.IPv6 = true
	d, _, err := w.api.Droplets.Create(ctx, r)
	w.must(err)
	ip, _, err := w.api.ReservedIPV6s.Create(ctx, &godo.ReservedIPV6CreateRequest{Region: "nyc3"})
	w.must(err)
	_, _, err = w.api.ReservedIPV6Actions.Assign(ctx, ip.IP, d.ID)
	w.must(err)
	if ip, _, err = w.api.ReservedIPV6s.Get(ctx, ip.IP); err != nil || ip.Droplet == nil || ip.Droplet.ID != d.ID {
		t.Errorf("assigned: %+v, %v", ip, err)
	}
	_, err = w.api.ReservedIPV6s.Delete(ctx, ip.IP)
	refused(t, err, 422, "assigned")
	_, _, err = w.api.ReservedIPV6Actions.Unassign(ctx, ip.IP)
	w.must(err)
	_, _, err = w.api.ReservedIPV6Actions.Assign(ctx, ip.IP, w.create("four").ID)
	refused(t, err, 422, "IPv6")
	if list, _, err := w.api.ReservedIPV6s.List(ctx, nil); err != nil || len(list) != 1 {
		t.Errorf("%d, %v", len(list), err)
	}
	_, err = w.api.ReservedIPV6s.Delete(ctx, ip.IP)
	w.must(err)
}

// A droplet holds one reserved IP of each family.
func TestOneReservedIPForADroplet(t *testing.T) {
	w := start(t, dosim.Options{}, openapitest.AllowRefused())
	ctx := t.Context()
	r := request("six")
	r.IPv6 = true
	d, _, err := w.api.Droplets.Create(ctx, r)
	w.must(err)
	var v4, v6 []string
	for range 2 {
		ip, _, err := w.api.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{Region: "nyc3"})
		w.must(err)
		six, _, err := w.api.ReservedIPV6s.Create(ctx, &godo.ReservedIPV6CreateRequest{Region: "nyc3"})
		w.must(err)
		v4, v6 = append(v4, ip.IP), append(v6, six.IP)
	}
	_, _, err = w.api.ReservedIPActions.Assign(ctx, v4[0], d.ID)
	w.must(err)
	_, _, err = w.api.ReservedIPV6Actions.Assign(ctx, v6[0], d.ID)
	w.must(err)
	_, _, err = w.api.ReservedIPActions.Assign(ctx, v4[1], d.ID)
	refused(t, err, 422, "already has a reserved IP")
	_, _, err = w.api.ReservedIPV6Actions.Assign(ctx, v6[1], d.ID)
	refused(t, err, 422, "already has a reserved IPv6")
	_, _, err = w.api.ReservedIPActions.Assign(ctx, v4[0], d.ID)
	w.must(err) // again
}

func TestReservedIPsAreLocked(t *testing.T) {
	w := start(t, dosim.Options{ActionDelay: time.Minute}, openapitest.AllowRefused())
	ctx := t.Context()
	r := request("six")
	r.IPv6 = true
	d, _, err := w.api.Droplets.Create(ctx, r)
	w.must(err)
	ip, _, err := w.api.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{DropletID: d.ID})
	w.must(err)
	if got, _, err := w.api.ReservedIPs.Get(ctx, ip.IP); err != nil || !got.Locked {
		t.Errorf("%+v, %v", got, err)
	}
	_, _, err = w.api.ReservedIPActions.Assign(ctx, ip.IP, d.ID)
	refused(t, err, 422, "pending event")
	_, err = w.api.ReservedIPs.Delete(ctx, ip.IP)
	refused(t, err, 422, "pending event")
	six, _, err := w.api.ReservedIPV6s.Create(ctx, &godo.ReservedIPV6CreateRequest{Region: "nyc3"})
	w.must(err)
	_, _, err = w.api.ReservedIPV6Actions.Assign(ctx, six.IP, d.ID)
	w.must(err)
	_, _, err = w.api.ReservedIPV6Actions.Unassign(ctx, six.IP)
	refused(t, err, 422, "pending event")
}

func TestRecordsInPages(t *testing.T) {
	w := start(t, dosim.Options{}, openapitest.AllowRefused())
	ctx := t.Context()
	_, _, err := w.api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: "example.com"})
	w.must(err)
	for i := range 25 {
		for _, r := range []godo.DomainRecordEditRequest{
			{Type: "A", Name: "www", Data: "192.0.2." + itoa(i), TTL: 30}, {Type: "AAAA", Name: "www", Data: "2001:db8::" + itoa(i), TTL: 30},
			{Type: "A", Name: "@", Data: "192.0.2." + itoa(i), TTL: 30},
		} {
			_, _, err := w.api.Domains.CreateRecord(ctx, "example.com", &r)
			w.must(err)
		}
	}
	ids := map[int]bool{}
	for page := 1; ; page++ {
		records, res, err := w.api.Domains.RecordsByTypeAndName(ctx, "example.com", "A", "www.example.com", &godo.ListOptions{Page: page, PerPage: 10})
		w.must(err)
		for _, r := range records {
			ids[r.ID] = true
		}
		if res.Links.IsLastPage() {
			break
		}
	}
	if len(ids) != 25 {
		t.Errorf("%d records in pages", len(ids))
	}
	if apex, _, err := w.api.Domains.RecordsByTypeAndName(ctx, "example.com", "A", "example.com", &godo.ListOptions{PerPage: 200}); err != nil || len(apex) != 25 || apex[0].Name != "@" {
		t.Errorf("at the apex: %d, %v", len(apex), err)
	}
	_, _, err = w.api.Domains.CreateRecord(ctx, "example.com", &godo.DomainRecordEditRequest{Type: "A", Name: "www", Data: "192.0.2.1", TTL: 29})
	refused(t, err, 422, "TTL")
}

func TestDomains(t *testing.T) {
	w := start(t, dosim.Options{}, openapitest.AllowRefused())
	ctx := t.Context()
	_, _, err := w.api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: "example.com", IPAddress: "192.0.2.1"})
	w.must(err)
	_, _, err = w.api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: "example.com"})
	refused(t, err, 422, "already exists")
	_, _, err = w.api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: "no domain"})
	refused(t, err, 422, "Invalid domain name")
	rec, _, err := w.api.Domains.CreateRecord(ctx, "example.com", &godo.DomainRecordEditRequest{Type: "A", Name: "www", Data: "192.0.2.2", TTL: 60})
	w.must(err)
	_, _, err = w.api.Domains.CreateRecord(ctx, "example.com", &godo.DomainRecordEditRequest{Type: "A", Name: "www", Data: "not an address", TTL: 60})
	refused(t, err, 422, "IPv4")
	if rec, _, err = w.api.Domains.EditRecord(ctx, "example.com", rec.ID, &godo.DomainRecordEditRequest{Type: "A", Data: "192.0.2.3", TTL: 60}); err != nil || rec.Name != "www" || rec.Data != "192.0.2.3" {
		t.Errorf("edited: %+v, %v", rec, err)
	}
	for what, list := range map[string]func() ([]godo.DomainRecord, *godo.Response, error){
		"1 by name": func() ([]godo.DomainRecord, *godo.Response, error) {
			return w.api.Domains.RecordsByName(ctx, "example.com", "www.example.com", nil)
		},
		"2 by type": func() ([]godo.DomainRecord, *godo.Response, error) {
			return w.api.Domains.RecordsByType(ctx, "example.com", "A", nil)
		},
		"6 in all": func() ([]godo.DomainRecord, *godo.Response, error) {
			return w.api.Domains.Records(ctx, "example.com", nil)
		},
	} {
		if records, _, err := list(); err != nil || itoa(len(records)) != what[:1] {
			t.Errorf("want %s: %d, %v", what, len(records), err)
		}
	}
	_, err = w.api.Domains.DeleteRecord(ctx, "example.com", rec.ID)
	w.must(err)
	_, _, err = w.api.Domains.Record(ctx, "example.com", rec.ID)
	refused(t, err, 404, "")
	d, _, err := w.api.Domains.Get(ctx, "example.com")
	if err != nil || d.ZoneFile == "" {
		t.Errorf("%+v, %v", d, err)
	}
	_, err = w.api.Domains.Delete(ctx, "example.com")
	w.must(err)
	if list, _, err := w.api.Domains.List(ctx, nil); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}
