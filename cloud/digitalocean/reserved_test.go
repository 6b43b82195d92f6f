package digitalocean

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/doproxy/doproxy/cloud"
)

var (
	v4 = netip.MustParseAddr("203.0.113.10")
	v6 = netip.MustParseAddr("2001:db8::10")
)

const notFoundJSON = `{"id":"not_found","message":"The resource you requested could not be found."}`

func TestReservedIPs(t *testing.T) {
	a, c := newAPI(t, func(n int, w http.ResponseWriter, r *http.Request) {
		body := `{"reserved_ips":[{"ip":"203.0.113.10","region":{"slug":"nyc3"},"droplet":{"id":7},"locked":true},
			{"ip":"203.0.113.11","region":{"slug":"ams3"},"droplet":null,"locked":false},{"ip":"203.0.113.12"}],"meta":{"total":3}}`
		if strings.Contains(r.URL.Path, "ipv6") {
			body = `{"reserved_ipv6s":[{"ip":"2001:DB8:0::10","region_slug":"nyc3","droplet":{"id":8}}],"meta":{"total":1}}`
		}
		status(200, body)(n, w, r)
	})
	all, err := c.ReservedIPs(t.Context())
	want := []cloud.ReservedIP{
		{Address: v4, Region: "nyc3", Droplet: 7, Locked: true},
		{Address: netip.MustParseAddr("203.0.113.11"), Region: "ams3"},
		{Address: netip.MustParseAddr("203.0.113.12")},
		{Address: v6, Region: "nyc3", Droplet: 8},
	}
	if err != nil || !slices.Equal(all, want) {
		t.Errorf("%+v, %v", all, err)
	}
	if sent := []string{"GET /below/v2/reserved_ips?page=1&per_page=200", "GET /below/v2/reserved_ipv6?page=1&per_page=200"}; !slices.Equal(a.sent(), sent) {
		t.Errorf("%q", a.sent())
	}
}

func TestReservedIPsAreAllOrNone(t *testing.T) {
	for name, test := range map[string]struct {
		v4, v6 func(int, http.ResponseWriter, *http.Request)
		n      int // -1: an error
	}{
		"an API without IPv6":   {status(200, `{"reserved_ips":[{"ip":"203.0.113.10"}],"meta":{"total":1}}`), status(404, notFoundJSON), 1},
		"a proxy's 404 of IPv6": {status(200, `{"reserved_ips":[],"meta":{"total":0}}`), status(404, `<html>`), -1},
		"a fault of IPv6":       {status(200, `{"reserved_ips":[],"meta":{"total":0}}`), status(500, `{"id":"server_error","message":"x"}`), -1},
		"an API without IPv4":   {status(404, notFoundJSON), status(404, notFoundJSON), -1},
		"no total":              {status(200, `{"reserved_ips":[{"ip":"203.0.113.10"}]}`), status(404, notFoundJSON), -1},
		"a part":                {status(200, `{"reserved_ips":[{"ip":"203.0.113.10"}],"meta":{"total":2}}`), status(404, notFoundJSON), -1},
		"no address":            {status(200, `{"reserved_ips":[{"ip":"x"}],"meta":{"total":1}}`), status(404, notFoundJSON), -1},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := newAPI(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "ipv6") {
					test.v6(n, w, r)
				} else {
					test.v4(n, w, r)
				}
			})
			all, err := c.ReservedIPs(t.Context())
			if test.n < 0 && err == nil || test.n >= 0 && (err != nil || len(all) != test.n) {
				t.Errorf("%+v, %v", all, err)
			}
		})
	}
}

func TestReservedIP(t *testing.T) {
	a, c := newAPI(t, func(n int, w http.ResponseWriter, r *http.Request) {
		body := `{"reserved_ip":{"ip":"203.0.113.10","region":{"slug":"nyc3"},"droplet":{"id":7},"locked":true}}`
		if strings.Contains(r.URL.Path, "ipv6") {
			body = `{"reserved_ipv6":{"ip":"2001:db8::10","region_slug":"nyc3"}}`
		}
		status(200, body)(n, w, r)
	})
	for _, want := range []cloud.ReservedIP{{Address: v4, Region: "nyc3", Droplet: 7, Locked: true}, {Address: v6, Region: "nyc3"}} {
		if got, err := c.ReservedIP(t.Context(), want.Address); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if sent := []string{"GET /below/v2/reserved_ips/203.0.113.10", "GET /below/v2/reserved_ipv6/2001:db8::10"}; !slices.Equal(a.sent(), sent) {
		t.Errorf("%q", a.sent())
	}
	if _, err := c.ReservedIP(t.Context(), netip.MustParseAddr("203.0.113.99")); !errors.Is(err, cloud.ErrAmbiguous) {
		t.Errorf("an answer about another: %v", err)
	}
}

func TestAssign(t *testing.T) {
	busy := `{"id":"unprocessable_entity","message":"The floating IP already has a pending event."}`
	for name, test := range map[string]struct {
		answer func(int, http.ResponseWriter, *http.Request)
		want   error // nil is a refusal, errDone success
	}{
		"done":             {status(201, `{"action":{"id":5,"status":"in-progress","type":"assign_ip"}}`), errDone},
		"refused":          {status(422, `{"id":"unprocessable_entity","message":"The Droplet already has a reserved IP assigned."}`), nil},
		"not found":        {status(404, notFoundJSON), cloud.ErrNotFound},
		"an action before": {status(422, busy), cloud.ErrAmbiguous},
		"the droplet's":    {status(422, `{"id":"unprocessable_entity","message":"Droplet already has a pending event."}`), cloud.ErrAmbiguous},
		"a fault":          {status(500, `{"id":"server_error","message":"x"}`), cloud.ErrAmbiguous},
		"throttled":        {status(429, `{"id":"too_many_requests","message":"x"}`), cloud.ErrThrottled},
		"errored":          {status(201, `{"action":{"id":5,"status":"errored","type":"assign_ip"}}`), cloud.ErrAmbiguous},
		"an empty answer":  {status(201, `{}`), cloud.ErrAmbiguous},
	} {
		t.Run(name, func(t *testing.T) {
			a, c := newAPI(t, test.answer)
			for _, address := range []netip.Addr{v4, v6} {
				err := c.Assign(t.Context(), address, 7)
				if test.want != errDone {
					check(t, fmt.Sprint(address), err, test.want)
				} else if err != nil {
					t.Error(err)
				}
			}
			if sent := []string{"POST /below/v2/reserved_ips/203.0.113.10/actions", "POST /below/v2/reserved_ipv6/2001:db8::10/actions"}; !slices.Equal(a.sent(), sent) {
				t.Errorf("%q", a.sent())
			}
			if want := `{"droplet_id":7,"type":"assign"}`; strings.TrimSpace(a.bodies[0]) != want {
				t.Errorf("body %s", a.bodies[0])
			}
		})
	}
	a, c := newAPI(t, status(500, ""))
	check(t, "no droplet", c.Assign(t.Context(), v4, 0), nil)
	check(t, "no address", c.Assign(t.Context(), netip.Addr{}, 7), nil)
	if len(a.sent()) != 0 {
		t.Errorf("sent %q", a.sent())
	}
}

var errDone = errors.New("done")
