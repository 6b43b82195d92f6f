package digitalocean

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/doproxy/doproxy/cloud"
)

func TestRecords(t *testing.T) {
	_, c := newAPI(t, status(200, `{"domain_records":[{"id":1,"type":"A","name":"www","data":"203.0.113.1","ttl":60},
		{"id":2,"type":"AAAA","name":"WWW","data":"2001:db8::1","ttl":30},{"id":3,"type":"TXT","name":"www","data":"x","ttl":60},
		{"id":4,"type":"A","name":"other","data":"203.0.113.2","ttl":60}],"meta":{"total":4}}`))
	got, err := c.Records(t.Context(), "example.com", "www")
	want := []cloud.DNSRecord{{ID: 1, Type: "A", Name: "www", Data: "203.0.113.1", TTL: 60}, {ID: 2, Type: "AAAA", Name: "WWW", Data: "2001:db8::1", TTL: 30}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRecordsAreWhole(t *testing.T) {
	a, c := newAPI(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		page, _ := strconv.Atoi(q.Get("page"))
		var part []string
		for i := (page - 1) * 200; i < min(page*200, 250); i++ {
			part = append(part, fmt.Sprintf(`{"id":%d,"type":"A","name":"@","data":"203.0.113.1","ttl":60}`, i+1))
		}
		fmt.Fprintf(w, `{"domain_records":[%s],"meta":{"total":250}}`, strings.Join(part, ","))
	})
	if got, err := c.Records(t.Context(), "example.com", "@"); err != nil || len(got) != 250 {
		t.Errorf("%d, %v", len(got), err)
	}
	if want := "GET /below/v2/domains/example.com/records?name=example.com&page=2&per_page=200"; len(a.sent()) != 2 || a.sent()[1] != want {
		t.Errorf("%q", a.sent())
	}
	a, c = newAPI(t, status(200, `{"domain_records":[],"meta":{"total":0}}`))
	if got, err := c.Records(t.Context(), "example.com", "*.eu"); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if want := "GET /below/v2/domains/example.com/records?name=%2A.eu.example.com&page=1&per_page=200"; a.sent()[0] != want {
		t.Errorf("%q", a.sent())
	}
	for name, body := range map[string]string{"no total": `{"domain_records":[]}`, "a part": `{"domain_records":[],"meta":{"total":1}}`, "no body": ``} {
		if _, c = newAPI(t, status(200, body)); true {
			if got, err := c.Records(t.Context(), "example.com", "www"); err == nil {
				t.Errorf("%s: %v and no error", name, got)
			}
		}
	}
}

func TestChangingRecords(t *testing.T) {
	record := cloud.DNSRecord{ID: 9, Type: "A", Name: "www", Data: "203.0.113.1", TTL: 60}
	a, c := newAPI(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			w.WriteHeader(204)
			return
		}
		status(map[string]int{"POST": 201, "PUT": 200}[r.Method], `{"domain_record":{"id":9,"type":"A","name":"www","data":"203.0.113.1","ttl":60}}`)(n, w, r)
	})
	made, err := c.CreateRecord(t.Context(), "example.com", cloud.DNSRecord{Type: "A", Name: "www", Data: "203.0.113.1", TTL: 60})
	if err != nil || made != record {
		t.Errorf("%+v, %v", made, err)
	}
	if err := c.SetTTL(t.Context(), "example.com", record); err != nil {
		t.Error(err)
	}
	if err := c.DeleteRecord(t.Context(), "example.com", 9); err != nil {
		t.Error(err)
	}
	want := []string{"POST /below/v2/domains/example.com/records", "PUT /below/v2/domains/example.com/records/9", "DELETE /below/v2/domains/example.com/records/9"}
	if !slices.Equal(a.sent(), want) {
		t.Errorf("%q", a.sent())
	}
	if body := a.bodies[1]; strings.Contains(body, "data") || strings.Contains(body, "name") || !strings.Contains(body, `"ttl":60`) {
		t.Errorf("TTL: %s", body)
	}
}

func TestDNSErrors(t *testing.T) {
	record := cloud.DNSRecord{ID: 9, Type: "A", Name: "www", Data: "203.0.113.1", TTL: 10}
	for _, test := range []struct {
		name   string
		answer func(int, http.ResponseWriter, *http.Request)
		want   error
	}{
		{"refused", status(422, `{"id":"unprocessable_entity","message":"TTL must be greater than or equal to 30."}`), nil},
		{"not found", status(404, notFoundJSON), cloud.ErrNotFound},
		{"a proxy's 404", status(404, `<html>`), cloud.ErrAmbiguous},
		{"a fault", status(500, `{"id":"server_error","message":"x"}`), cloud.ErrAmbiguous},
		{"throttled", status(429, `{"id":"too_many_requests","message":"x"}`), cloud.ErrThrottled},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, c := newAPI(t, test.answer)
			_, err := c.Records(t.Context(), "example.com", "www")
			check(t, "list", err, test.want)
			_, err = c.CreateRecord(t.Context(), "example.com", record)
			check(t, "create", err, test.want)
			check(t, "TTL", c.SetTTL(t.Context(), "example.com", record), test.want)
			check(t, "delete", c.DeleteRecord(t.Context(), "example.com", 9), test.want)
			if len(a.sent()) != 4 {
				t.Errorf("%q", a.sent())
			}
		})
	}
	a, c := newAPI(t, status(201, `{}`))
	if _, err := c.CreateRecord(t.Context(), "example.com", record); !errors.Is(err, cloud.ErrAmbiguous) {
		t.Errorf("an empty answer: %v", err)
	}
	check(t, "no id", c.DeleteRecord(t.Context(), "example.com", 0), nil)
	for _, domain := range []string{"", "..", "a/b", "a?b"} {
		_, err := c.Records(t.Context(), domain, "www")
		check(t, domain, err, nil)
		check(t, domain, c.DeleteRecord(t.Context(), domain, 9), nil)
	}
	if len(a.sent()) != 1 {
		t.Errorf("%q", a.sent())
	}
}

func TestPrices(t *testing.T) {
	_, c := newAPI(t, func(n int, w http.ResponseWriter, r *http.Request) {
		status(200, []string{
			`{"sizes":[{"slug":"a","price_hourly":0.00893}],"meta":{"total":2}}`,
			`{"sizes":[{"slug":"b","price_hourly":0.5}],"meta":{"total":2}}`,
		}[n])(n, w, r)
	})
	if got, err := c.Prices(t.Context()); err != nil || len(got) != 2 || got["a"] != 0.00893 || got["b"] != 0.5 {
		t.Errorf("%v, %v", got, err)
	}
}
