package dosim_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/doproxy/doproxy/cloud/dosim"
	"github.com/doproxy/doproxy/cloud/dosim/openapitest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a simulator that serves, with DigitalOcean's own client for it.
type world struct {
	t     *testing.T
	sim   *dosim.Sim
	url   string
	http  *http.Client
	api   *godo.Client
	admin dosim.Admin
}

// start runs a simulator until the test ends. Calls are validated against the
// OpenAPI document when there is one.
func start(t *testing.T, o dosim.Options, options ...openapitest.Option) *world {
	t.Helper()
	if o.DropletPort == 0 {
		o.DropletPort = freePort(t)
	}
	sim, err := dosim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(openapitest.Handler(t, sim.Handler(), options...))
	transport := &http.Transport{}
	w := &world{t: t, sim: sim, url: server.URL, http: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	w.api = w.client(&http.Client{Transport: bearer{"sim-token", transport}})
	w.admin = dosim.Admin{URL: server.URL, Client: w.http}
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
		transport.CloseIdleConnections()
	})
	return w
}

// client is godo as its users have it, without retries.
func (w *world) client(c *http.Client) *godo.Client {
	api, err := godo.New(c, godo.SetBaseURL(w.url+"/"))
	if err != nil {
		w.t.Fatal(err)
	}
	return api
}

type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// await waits until the condition holds.
func (w *world) await(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited too long for: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func request(name string) *godo.DropletCreateRequest {
	return &godo.DropletCreateRequest{
		Name: name, Region: "nyc3", Size: "s-1vcpu-1gb", Image: godo.DropletCreateImage{Slug: "ubuntu-24-04-x64"},
	}
}

func (w *world) create(name string, tags ...string) *godo.Droplet {
	w.t.Helper()
	r := request(name)
	r.Tags = tags
	d, _, err := w.api.Droplets.Create(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// serving creates a droplet and waits for its application.
func (w *world) serving(name string, tags ...string) dosim.DropletView {
	w.t.Helper()
	id := w.create(name, tags...).ID
	w.await(name+" to serve", func() bool { return w.view(id).App == "serving" })
	return w.view(id)
}

func (w *world) view(id int) dosim.DropletView {
	w.t.Helper()
	v, err := w.admin.Droplet(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// ask sends a request to a droplet and returns the status and the body.
func (w *world) ask(method, address, path string, body io.Reader) (int, string, error) {
	r, err := http.NewRequestWithContext(w.t.Context(), method, fmt.Sprintf("http://%s:%d%s", address, w.sim.DropletPort(), path), body)
	if err != nil {
		return 0, "", err
	}
	res, err := w.http.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
