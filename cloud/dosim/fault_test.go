package dosim_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/doproxy/doproxy/cloud/dosim"
)

func (w *world) fault(f dosim.Fault) dosim.Fault {
	w.t.Helper()
	f, err := w.admin.SetFault(w.t.Context(), f)
	w.must(err)
	return f
}

// exist counts the droplets that there are, by the simulator's own account.
func (w *world) exist() int {
	w.t.Helper()
	views, err := w.admin.Droplets(w.t.Context())
	w.must(err)
	return len(views)
}

func TestFaults(t *testing.T) {
	reset := func(t *testing.T, err error) {
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("error is %v, want a connection reset", err)
		}
	}
	timeout := func(t *testing.T, err error) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v, want a deadline", err)
		}
	}
	answered := func(status int, message string) func(*testing.T, error) {
		return func(t *testing.T, err error) { refused(t, err, status, message) }
	}
	for name, c := range map[string]struct {
		fault dosim.Fault
		check func(*testing.T, error)
		done  int // droplets that exist afterwards
	}{
		"error":            {dosim.Fault{Kind: dosim.FaultError, Status: 503}, answered(503, "Service Unavailable"), 0},
		"error in words":   {dosim.Fault{Kind: dosim.FaultError, Status: 422, ErrorID: "x", Message: "no"}, answered(422, "no"), 0},
		"error after":      {dosim.Fault{Kind: dosim.FaultError, When: dosim.After}, answered(500, "Unexpected"), 1},
		"capacity":         {dosim.Fault{Kind: dosim.FaultCapacity}, answered(422, "Size is not available in this region."), 0},
		"reset":            {dosim.Fault{Kind: dosim.FaultReset}, reset, 0},
		"reset after":      {dosim.Fault{Kind: dosim.FaultReset, When: dosim.After}, reset, 1},
		"hang":             {dosim.Fault{Kind: dosim.FaultHang}, timeout, 1},
		"hang before":      {dosim.Fault{Kind: dosim.FaultHang, When: dosim.Before}, timeout, 0},
		"latency too long": {dosim.Fault{Kind: dosim.FaultLatency, Latency: dosim.Duration(time.Second)}, timeout, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, dosim.Options{})
			c.fault.Method, c.fault.Path, c.fault.Count = "POST", "/v2/droplets", 1
			w.fault(c.fault)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if c.fault.Kind != dosim.FaultHang && c.fault.Kind != dosim.FaultLatency {
				ctx = t.Context()
			}
			_, _, err := w.api.Droplets.Create(ctx, request("web"))
			c.check(t, err)
			w.await("the work to be done", func() bool { return w.exist() == c.done })
			if left, err := w.admin.Faults(t.Context()); err != nil || len(left) != 0 {
				t.Errorf("faults left after one call: %v, %v", left, err)
			}
			w.create("next") // nothing is wrong any more
			if n := w.exist(); n != c.done+1 {
				t.Errorf("%d droplets, want %d", n, c.done+1)
			}
		})
	}
}

func TestLatencyDelays(t *testing.T) {
	w := start(t, dosim.Options{})
	w.fault(dosim.Fault{Kind: dosim.FaultLatency, Latency: dosim.Duration(150 * time.Millisecond)})
	begun := time.Now()
	_, _, err := w.api.Account.Get(t.Context())
	w.must(err)
	if took := time.Since(begun); took < 150*time.Millisecond {
		t.Errorf("took %s", took)
	}
}

func TestFaultsChooseTheirCalls(t *testing.T) {
	w := start(t, dosim.Options{})
	d := w.create("web")
	calls := map[string]func() error{
		"list":    func() error { _, _, err := w.api.Droplets.List(t.Context(), nil); return err },
		"get":     func() error { _, _, err := w.api.Droplets.Get(t.Context(), d.ID); return err },
		"actions": func() error { _, _, err := w.api.Droplets.Actions(t.Context(), d.ID, nil); return err },
		"account": func() error { _, _, err := w.api.Account.Get(t.Context()); return err },
	}
	for _, c := range []struct {
		method, path string
		hits         []string
	}{
		{"", "", []string{"list", "get", "actions", "account"}},
		{"GET", "/v2/droplets", []string{"list"}},
		{"get", "/v2/droplets/{id}", []string{"get"}},
		{"", "/v2/droplets/*", []string{"get"}},
		{"", fmt.Sprint("/v2/droplets/", d.ID), []string{"get"}},
		{"", "/v2/droplets/**", []string{"get", "actions"}},
		{"POST", "", nil},
		{"", "/v2/droplet", nil},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			w.must(w.admin.ClearFaults(t.Context()))
			w.fault(dosim.Fault{Kind: dosim.FaultError, Method: c.method, Path: c.path})
			for name, call := range calls {
				want := false
				for _, h := range c.hits {
					want = want || h == name
				}
				if err := call(); (err != nil) != want {
					t.Errorf("%s: error %v, want one: %v", name, err, want)
				}
			}
		})
	}
}

// Calls of reserved IPs and DNS take faults by their path, as a template or in
// full, and are done or not as the fault says.
func TestFaultsOfTheEntryPoint(t *testing.T) {
	for name, c := range map[string]struct {
		kind, when string
		done       bool
	}{
		"takes effect but answers 500": {dosim.FaultError, dosim.After, true},
		"hangs, having taken effect":   {dosim.FaultHang, dosim.After, true},
		"hangs without effect":         {dosim.FaultHang, dosim.Before, false},
		"is reset":                     {dosim.FaultReset, dosim.Before, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, dosim.Options{})
			r := request("lb-1")
			r.IPv6 = true
			d, _, err := w.api.Droplets.Create(t.Context(), r)
			w.must(err)
			ip, _, err := w.api.ReservedIPs.Create(t.Context(), &godo.ReservedIPCreateRequest{Region: "nyc3"})
			w.must(err)
			six, _, err := w.api.ReservedIPV6s.Create(t.Context(), &godo.ReservedIPV6CreateRequest{Region: "nyc3"})
			w.must(err)
			_, _, err = w.api.Domains.Create(t.Context(), &godo.DomainCreateRequest{Name: "example.com"})
			w.must(err)
			for _, path := range []string{"/v2/reserved_ips/" + ip.IP + "/actions", "/v2/reserved_ipv6/{ip}/actions", "/v2/domains/{domain}/records"} {
				w.fault(dosim.Fault{Kind: c.kind, When: c.when, Method: "POST", Path: path, Count: 1})
			}
			calls := map[string]func(ctx context.Context) error{
				"IPv4": func(ctx context.Context) error {
					_, _, err := w.api.ReservedIPActions.Assign(ctx, ip.IP, d.ID)
					return err
				},
				"IPv6": func(ctx context.Context) error {
					_, _, err := w.api.ReservedIPV6Actions.Assign(ctx, six.IP, d.ID)
					return err
				},
				"record": func(ctx context.Context) error {
					_, _, err := w.api.Domains.CreateRecord(ctx, "example.com", &godo.DomainRecordEditRequest{Type: "A", Name: "www", Data: "192.0.2.1", TTL: 30})
					return err
				},
			}
			for what, call := range calls {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				if err := call(ctx); err == nil {
					t.Errorf("%s: no error", what)
				}
				cancel()
			}
			ip, _, err = w.api.ReservedIPs.Get(t.Context(), ip.IP)
			w.must(err)
			six, _, err = w.api.ReservedIPV6s.Get(t.Context(), six.IP)
			w.must(err)
			records, _, err := w.api.Domains.RecordsByName(t.Context(), "example.com", "www.example.com", nil)
			w.must(err)
			assigns, err := w.admin.Assigns(t.Context())
			w.must(err)
			if (ip.Droplet != nil) != c.done || (six.Droplet != nil) != c.done || (len(records) == 1) != c.done || (len(assigns) == 2) != c.done {
				t.Errorf("IPv4 %v, IPv6 %v, records %v, assigns %v, want done: %v", ip.Droplet, six.Droplet, records, assigns, c.done)
			}
			for what, call := range calls { // nothing is wrong any more
				if err := call(t.Context()); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

func TestFaultsOfAProbability(t *testing.T) {
	w := start(t, dosim.Options{})
	w.fault(dosim.Fault{Kind: dosim.FaultError, Probability: 0.5})
	const calls = 400
	failed := 0
	for range calls {
		if _, _, err := w.api.Account.Get(t.Context()); err != nil {
			failed++
		}
	}
	if failed < calls/4 || failed > calls*3/4 { // ten standard deviations away
		t.Errorf("%d of %d calls failed", failed, calls)
	}
}

func TestFaultsAreRefusedInWords(t *testing.T) {
	w := start(t, dosim.Options{})
	for _, f := range []dosim.Fault{
		{}, {Kind: "explode"}, {Kind: dosim.FaultLatency}, {Kind: dosim.FaultError, Status: 200},
		{Kind: dosim.FaultReset, When: "never"}, {Kind: dosim.FaultCapacity, When: dosim.After},
		{Kind: dosim.FaultHang, Probability: 2}, {Kind: dosim.FaultHang, Count: -1}, {Kind: dosim.FaultHang, Path: "v2"},
	} {
		if got, err := w.admin.SetFault(t.Context(), f); err == nil {
			t.Errorf("%+v was taken as %+v", f, got)
		}
	}
	if err := w.admin.ClearFault(t.Context(), "f9"); err == nil {
		t.Error("a fault that is not there was cleared")
	}
}

func TestOneFaultIsCleared(t *testing.T) {
	w := start(t, dosim.Options{})
	f := w.fault(dosim.Fault{Kind: dosim.FaultError})
	w.fault(dosim.Fault{Kind: dosim.FaultError, Method: "DELETE"})
	w.must(w.admin.ClearFault(t.Context(), f.ID))
	if _, _, err := w.api.Account.Get(t.Context()); err != nil {
		t.Error(err)
	}
	if left, err := w.admin.Faults(t.Context()); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A hung call must not keep the simulator from ending.
func TestCloseLetsHungCallsGo(t *testing.T) {
	w := start(t, dosim.Options{})
	w.fault(dosim.Fault{Kind: dosim.FaultHang})
	failed := make(chan error, 1)
	go func() {
		_, _, err := w.api.Account.Get(context.Background())
		failed <- err
	}()
	w.await("the call to hang", func() bool {
		c, err := w.admin.Calls(t.Context())
		w.must(err)
		return c.Of("GET", "/v2/account") == 1
	})
	w.must(w.sim.Close())
	if err := <-failed; err == nil {
		t.Error("a hung call was answered")
	}
}

func TestCallsAreCounted(t *testing.T) {
	w := start(t, dosim.Options{})
	ctx := t.Context()
	d := w.create("a")
	w.create("b")
	for range 3 {
		_, _, err := w.api.Droplets.Get(ctx, d.ID)
		w.must(err)
	}
	_, _, err := w.api.Droplets.Get(ctx, 1)
	refused(t, err, http.StatusNotFound, "")
	c, err := w.admin.Calls(ctx)
	w.must(err)
	if c.Total != 6 || c.Of("POST", "/v2/droplets") != 2 || c.Of("GET", "/v2/droplets/{droplet_id}") != 4 || c.Of("GET", "/v2/sizes") != 0 {
		t.Errorf("counts: %+v", c)
	}
	for _, x := range c.Calls {
		if x.Method == "GET" && (x.Statuses["200"] != 3 || x.Statuses["404"] != 1) {
			t.Errorf("statuses: %v", x.Statuses)
		}
	}
	w.must(w.admin.ResetCalls(ctx))
	if c, err = w.admin.Calls(ctx); err != nil || c.Total != 0 {
		t.Errorf("after a reset: %+v, %v", c, err)
	}
}

func TestRateLimit(t *testing.T) {
	w := start(t, dosim.Options{RateLimitHour: 3})
	var rate godo.Rate
	for range 3 {
		_, res, err := w.api.Account.Get(t.Context())
		w.must(err)
		rate = res.Rate
	}
	if rate.Limit != 3 || rate.Remaining != 0 || time.Until(rate.Reset.Time) < 59*time.Minute {
		t.Errorf("rate: %+v", rate)
	}
	_, res, err := w.api.Account.Get(t.Context())
	refused(t, err, http.StatusTooManyRequests, "API rate limit exceeded.")
	if res.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}
