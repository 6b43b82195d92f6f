package digitalocean

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// api answers each request with the next of its answers, and keeps the requests.
type api struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string // "POST /v2/droplets"
	bodies   []string
	headers  []http.Header
	answer   func(n int, w http.ResponseWriter, r *http.Request) // n counts from 0
}

func newAPI(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) (*api, *Client) {
	t.Helper()
	a := &api{answer: answer}
	a.Server = httptest.NewServer(a)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(func() { transport.CloseIdleConnections(); a.Close() })
	c, err := New(Options{Token: StaticToken("secret"), BaseURL: a.URL + "/below", Cluster: "c1", UserAgent: "doproxy/test", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	n := len(a.requests)
	a.requests = append(a.requests, r.Method+" "+r.URL.RequestURI())
	a.bodies = append(a.bodies, string(body))
	a.headers = append(a.headers, r.Header)
	a.mu.Unlock()
	a.answer(n, w, r)
}

func (a *api) sent() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

func status(code int, body string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

func dropletJSON(id int, name string, tags ...string) string {
	t, _ := json.Marshal(append([]string{}, tags...))
	return fmt.Sprintf(`{"id":%d,"name":%q,"status":"active","created_at":"2026-01-02T03:04:05Z","size_slug":"s-1vcpu-1gb",
		"region":{"slug":"nyc3"},"image":{"id":77,"slug":"ubuntu-24-04-x64"},"size":{"slug":"s-1vcpu-1gb","price_hourly":0.00893},
		"networks":{"v4":[{"ip_address":"203.0.113.7","type":"public"},{"ip_address":"10.1.0.7","type":"private"}],
		"v6":[{"ip_address":"2001:db8::7","type":"public"}]},"tags":%s}`, id, name, t)
}

func TestCreate(t *testing.T) {
	a, c := newAPI(t, status(202, `{"droplets":[`+dropletJSON(5, "web-1", "doproxy:c1")+`,`+dropletJSON(6, "web-2")+`,`+dropletJSON(7, "not-asked-for")+`],"links":{}}`))
	made, err := c.Create(t.Context(), cloud.CreateRequest{Names: []string{"web-1", "web-2", "web-3"}, Pool: "web", Template: inventory.Template{
		Region: "nyc3", Size: "s-1vcpu-1gb", Image: "12345", SSHKeys: []string{"99", "3b:16:e4"}, UserData: "#!/bin/sh", VPC: "11111111-1111-4111-8111-111111111111",
		IPv6: true, Monitoring: true, Tags: []string{"team:a"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(made) != 2 || made[0].ID != 5 || made[1].Name != "web-2" || made[1].Pool != "web" {
		t.Errorf("made %+v", made)
	}
	if d := made[0]; d.PrivateIPv4.String() != "10.1.0.7" || d.PublicIPv4.String() != "203.0.113.7" || d.PublicIPv6.String() != "2001:db8::7" ||
		d.PriceHourly != 0.00893 || d.Region != "nyc3" || d.Size != "s-1vcpu-1gb" || d.Image != "ubuntu-24-04-x64" || d.Status != "active" ||
		!d.Created.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("droplet %+v", d)
	}
	if len(a.requests) != 1 || a.requests[0] != "POST /below/v2/droplets" {
		t.Errorf("requests %v", a.requests)
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(a.bodies[0]), &body); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"names": "[web-1 web-2 web-3]", "image": "12345", "ssh_keys": "[99 3b:16:e4]", "tags": "[doproxy:c1 doproxy-pool:web team:a]",
		"vpc_uuid": "11111111-1111-4111-8111-111111111111", "ipv6": "true", "monitoring": "true", "user_data": "#!/bin/sh"}
	for k, v := range want {
		if got := fmt.Sprint(body[k]); got != v {
			t.Errorf("%s is %s, want %s", k, got, v)
		}
	}
	if h := a.headers[0]; h.Get("Authorization") != "Bearer secret" || !strings.HasPrefix(h.Get("User-Agent"), "doproxy/test ") {
		t.Errorf("headers %v", h)
	}
}

const unprocessable = `{"id":"unprocessable_entity","message":"creating this/these droplet(s) will exceed your droplet limit"}`

// TestErrors: what each answer means, and that nothing is ever sent twice.
func TestErrors(t *testing.T) {
	hour := strconv.FormatInt(time.Now().Add(20*time.Minute).Unix(), 10)
	for _, test := range []struct {
		name   string
		answer func(int, http.ResponseWriter, *http.Request)
		create error // by errors.Is; nil is *Refused
		byID   error
	}{
		{"refused", status(422, unprocessable), nil, nil},
		{"unauthorized", status(401, `{"id":"Unauthorized","message":"Unable to authenticate you"}`), nil, nil},
		{"not found", status(404, `{"id":"not_found","message":"The resource you requested could not be found."}`), nil, cloud.ErrNotFound},
		{"a proxy's 404", status(404, `<html>not here</html>`), cloud.ErrAmbiguous, cloud.ErrAmbiguous},
		{"a redirect", func(_ int, w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", 302) }, cloud.ErrAmbiguous, cloud.ErrAmbiguous},
		{"request timeout", status(408, `{"id":"timeout","message":"x"}`), cloud.ErrAmbiguous, cloud.ErrAmbiguous},
		{"server error", status(500, `{"id":"server_error","message":"Server was unable to give you a response."}`), cloud.ErrAmbiguous, cloud.ErrAmbiguous},
		{"gateway", status(504, ``), cloud.ErrAmbiguous, cloud.ErrAmbiguous},
		{"reset", func(_ int, w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}, cloud.ErrAmbiguous, cloud.ErrAmbiguous},
		{"cut answer", func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(202)
			io.WriteString(w, `{"droplets":[`)
		}, cloud.ErrAmbiguous, cloud.ErrAmbiguous},
		{"throttled", func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("RateLimit-Limit", "5000")
			w.Header().Set("RateLimit-Remaining", "0")
			w.Header().Set("RateLimit-Reset", hour)
			status(429, `{"id":"too_many_requests","message":"API Rate limit exceeded."}`)(n, w, r)
		}, cloud.ErrThrottled, cloud.ErrThrottled},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, c := newAPI(t, test.answer)
			_, err := c.Create(t.Context(), cloud.CreateRequest{Names: []string{"web-1"}, Pool: "web"})
			check(t, "create", err, test.create)
			_, err = c.Get(t.Context(), 7)
			check(t, "get", err, test.byID)
			check(t, "adopt", c.Adopt(t.Context(), 7, "web"), test.byID)
			if test.name != "cut answer" { // a delete's answer has no body
				check(t, "delete", c.Delete(t.Context(), 7), test.byID)
			}
			_, err = c.List(t.Context())
			if err == nil {
				t.Error("list: no error")
			}
			for _, what := range []string{"POST /below/v2/droplets", "DELETE /below/v2/droplets/7"} {
				if n := count(a.sent(), what); n != 1 && test.name != "cut answer" {
					t.Errorf("%s was sent %d times", what, n)
				}
			}
			if n := count(a.sent(), "/elsewhere"); n != 0 {
				t.Error("a redirect was followed")
			}
			var throttled *cloud.Throttled
			if errors.As(err, &throttled) {
				if d := time.Until(throttled.Until); d < 19*time.Minute || d > 21*time.Minute {
					t.Errorf("throttled for %s", d)
				}
				if l := c.Limits(); l.Limit != 5000 || l.Remaining != 0 {
					t.Errorf("limits %+v", l)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the token is in %q", err)
			}
		})
	}
}

func count(all []string, part string) (n int) {
	for _, s := range all {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}

func check(t *testing.T, what string, err, want error) {
	t.Helper()
	var refused *cloud.Refused
	switch {
	case want == nil && !errors.As(err, &refused):
		t.Errorf("%s: %v, want a refusal", what, err)
	case want == nil && (refused.ID == "" || refused.Message == ""):
		t.Errorf("%s: %+v lacks DigitalOcean's words", what, refused)
	case want != nil && !errors.Is(err, want):
		t.Errorf("%s: %v, want %v", what, err, want)
	case want != nil && errors.As(err, &refused):
		t.Errorf("%s: %v passes for a refusal", what, err)
	}
}

func TestDeadlineIsAmbiguous(t *testing.T) {
	release := make(chan struct{})
	_, c := newAPI(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Create(ctx, cloud.CreateRequest{Names: []string{"web-1"}, Pool: "web"})
	if !errors.Is(err, cloud.ErrAmbiguous) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestUnreachableIsRefused(t *testing.T) {
	a, c := newAPI(t, nil)
	a.Close()
	_, err := c.Create(t.Context(), cloud.CreateRequest{Names: []string{"web-1"}, Pool: "web"})
	check(t, "create", err, nil)
	c2, _ := New(Options{Token: func() (string, error) { return "", errors.New("no such file") }, BaseURL: a.URL, Cluster: "c1"})
	_, err = c2.Create(t.Context(), cloud.CreateRequest{Names: []string{"web-1"}, Pool: "web"})
	check(t, "create without a token", err, nil)
}

func TestCreateRefusesBeforeSending(t *testing.T) {
	a, c := newAPI(t, status(500, ""))
	for _, req := range []cloud.CreateRequest{
		{Pool: "web"},
		{Pool: "web", Names: slices.Repeat([]string{"web-1"}, 11)},
		{Pool: "web", Names: []string{"web-1"}, Template: inventory.Template{Tags: []string{"no spaces"}}},
		{Pool: "web", Names: []string{"web-1"}, Template: inventory.Template{Tags: []string{"DOproxy:other"}}},
	} {
		_, err := c.Create(t.Context(), req)
		check(t, fmt.Sprint(req), err, nil)
	}
	if len(a.requests) != 0 {
		t.Errorf("sent %v", a.requests)
	}
}

// pages answers a list from what all returns for the n-th request.
func pages(all func(n int) []string) func(int, http.ResponseWriter, *http.Request) {
	return func(n int, w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		per, _ := strconv.Atoi(r.URL.Query().Get("per_page"))
		list := all(n)
		from := min((page-1)*per, len(list))
		to := min(from+per, len(list))
		fmt.Fprintf(w, `{"droplets":[%s],"links":{},"meta":{"total":%d}}`, strings.Join(list[from:to], ","), len(list))
	}
}

func many(n int) (all []string) {
	for i := range n {
		all = append(all, dropletJSON(1000+i, fmt.Sprintf("web-%d", i), "doproxy:c1", "doproxy-pool:web"))
	}
	return all
}

func TestListIsWhole(t *testing.T) {
	for _, n := range []int{0, 1, 200, 201, 450} {
		a, c := newAPI(t, pages(func(int) []string { return many(n) }))
		all, err := c.List(t.Context())
		if err != nil || len(all) != n {
			t.Errorf("%d: %d, %v", n, len(all), err)
		}
		if want := max(1, (n+199)/200); len(a.requests) != want {
			t.Errorf("%d droplets took %d requests", n, len(a.requests))
		}
		if n > 0 && all[n-1].Pool != "web" {
			t.Errorf("pool %q", all[n-1].Pool)
		}
	}
	t.Run("one more while it is read", func(t *testing.T) {
		a, c := newAPI(t, pages(func(n int) []string {
			if n == 0 {
				return many(300)
			}
			return many(301)
		}))
		all, err := c.List(t.Context())
		if err != nil || len(all) != 301 || len(a.requests) != 4 {
			t.Errorf("%d, %v, %v", len(all), err, a.requests)
		}
	})
	t.Run("never still", func(t *testing.T) {
		a, c := newAPI(t, pages(func(n int) []string { return many(300 + n) }))
		if all, err := c.List(t.Context()); err == nil {
			t.Errorf("%d droplets", len(all))
		}
		if len(a.requests) != 6 {
			t.Errorf("%v", a.requests)
		}
	})
	for name, body := range map[string]string{
		"total too high":     `{"droplets":[` + many(1)[0] + `],"meta":{"total":2}}`,
		"no total":           `{"droplets":[` + many(1)[0] + `]}`,
		"no body":            `{}`,
		"another's droplet":  `{"droplets":[` + dropletJSON(1, "web-1", "doproxy:c2") + `],"meta":{"total":1}}`,
		"one droplet twice":  `{"droplets":[` + many(1)[0] + `,` + many(1)[0] + `],"meta":{"total":2}}`,
		"cut in the middle":  `{"droplets":[` + many(1)[0],
		"total goes missing": `{"droplets":[],"meta":{"total":1}}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, c := newAPI(t, status(200, body))
			if all, err := c.List(t.Context()); err == nil {
				t.Errorf("%d droplets and no error", len(all))
			}
		})
	}
}

func TestGetRefusesOthers(t *testing.T) {
	_, c := newAPI(t, status(200, `{"droplet":`+dropletJSON(7, "web-1", "doproxy:c2", "doproxy-pool:web")+`}`))
	_, err := c.Get(t.Context(), 7)
	var refused *cloud.Refused
	if !errors.As(err, &refused) || refused.ID != cloud.NotOurs {
		t.Errorf("%v", err)
	}
	if _, err := c.Get(t.Context(), 8); !errors.Is(err, cloud.ErrAmbiguous) {
		t.Errorf("an answer about another droplet: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	t.Run("untagged", func(t *testing.T) {
		known := map[string]bool{}
		a, c := newAPI(t, func(n int, w http.ResponseWriter, r *http.Request) {
			path := strings.TrimPrefix(r.URL.Path, "/below/v2/")
			switch tag, ok := strings.CutSuffix(strings.TrimPrefix(path, "tags/"), "/resources"); {
			case r.Method == "GET":
				status(200, `{"droplet":`+dropletJSON(7, "old-1")+`}`)(n, w, r)
			case path == "tags":
				known["doproxy:c1"], known["doproxy-pool:web"] = true, true
				status(201, `{"tag":{"name":"x"}}`)(n, w, r)
			case ok && known[tag]:
				w.WriteHeader(204)
			default:
				status(404, `{"id":"not_found","message":"The resource you requested could not be found."}`)(n, w, r)
			}
		})
		if err := c.Adopt(t.Context(), 7, "web"); err != nil {
			t.Fatal(err)
		}
		want := []string{"GET /below/v2/droplets/7", "POST /below/v2/tags/doproxy-pool:web/resources", "POST /below/v2/tags",
			"POST /below/v2/tags/doproxy-pool:web/resources", "POST /below/v2/tags/doproxy:c1/resources"}
		if !slices.Equal(a.requests, want) {
			t.Errorf("%q", a.requests)
		}
		if !strings.Contains(a.bodies[4], `{"resources":[{"resource_id":"7","resource_type":"droplet"}]}`) {
			t.Errorf("%s", a.bodies[4])
		}
	})
	for name, tags := range map[string][]string{
		"another cluster's": {"doproxy:c2", "doproxy-pool:web"},
		"another pool's":    {"doproxy:c1", "doproxy-pool:api"},
	} {
		t.Run(name, func(t *testing.T) {
			a, c := newAPI(t, status(200, `{"droplet":`+dropletJSON(7, "web-1", tags...)+`}`))
			var refused *cloud.Refused
			if err := c.Adopt(t.Context(), 7, "web"); !errors.As(err, &refused) || refused.ID != cloud.NotOurs {
				t.Errorf("%v", err)
			}
			if len(a.requests) != 1 {
				t.Errorf("%v", a.requests)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{Cluster: "c1"},
		{Token: StaticToken("x")},
		{Token: StaticToken("x"), Cluster: "has space"},
		{Token: StaticToken("x"), Cluster: "c1", BaseURL: "api.digitalocean.com"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}
