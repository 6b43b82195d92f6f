package digitalocean

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud"
)

// TestBudget: each request is spent, each answer's word is taken in, and a 429
// holds all calls back for as long as it says.
func TestBudget(t *testing.T) {
	reset := time.Now().Add(20 * time.Minute).Truncate(time.Second)
	throttled := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("RateLimit-Limit", "5000")
		w.Header().Set("RateLimit-Remaining", "1234")
		w.Header().Set("RateLimit-Reset", strconv.FormatInt(reset.Unix(), 10))
		if throttled {
			w.Header().Set("Retry-After", "30")
			status(429, `{"id":"too_many_requests","message":"x"}`)(0, w, r)
			return
		}
		status(200, `{"sizes":[],"meta":{"total":0}}`)(0, w, r)
	}))
	defer server.Close()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	var budget cloud.Budget
	c, err := New(Options{Token: StaticToken("x"), BaseURL: server.URL, Cluster: "c1", Transport: transport, Budget: &budget})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Prices(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	if limit, remaining, until, minute := budget.Usage(now); limit != 5000 || remaining != 1234 || !until.Equal(reset) || minute != 3 {
		t.Errorf("limit %d, remaining %d, reset %s, minute %d", limit, remaining, until, minute)
	}
	if a := budget.Allowances(now); a[cloud.Poll].N != 1234-1000 && a[cloud.Poll].N != 197 {
		t.Errorf("%+v", a)
	}
	throttled = true
	if _, err := c.Prices(t.Context()); err == nil {
		t.Error("no error")
	}
	a := budget.Allowances(time.Now())[cloud.Failover]
	if wait := time.Until(a.Until); a.N != 0 || wait < 25*time.Second || wait > 31*time.Second {
		t.Errorf("held back: %+v", a)
	}
}
