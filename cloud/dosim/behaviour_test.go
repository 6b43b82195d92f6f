package dosim_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud/dosim"
)

func TestDropletAnswers(t *testing.T) {
	w := start(t, dosim.Options{})
	d := w.serving("web-1")
	for _, c := range []struct {
		method, path, body string
		status             int
		want               []string
	}{
		{"GET", "/", "", 200, []string{"web-1", "300000001", d.Address}},
		{"GET", "/health", "", 200, nil},
		{"GET", "/slow?ms=20", "", 200, []string{"web-1"}},
		{"GET", "/slow?ms=999999", "", 400, nil},
		{"GET", "/slow", "", 400, nil},
		{"POST", "/any", strings.Repeat("x", 3_000_000), 200, []string{"3000000"}},
	} {
		status, body, err := w.ask(c.method, d.Address, c.path, strings.NewReader(c.body))
		if err != nil || status != c.status {
			t.Errorf("%s %s: %d, %v", c.method, c.path, status, err)
		}
		for _, want := range c.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s %s: %q has no %q", c.method, c.path, body, want)
			}
		}
	}
	res, err := w.http.Get("http://" + d.Address + ":" + itoa(w.sim.DropletPort()))
	w.must(err)
	res.Body.Close()
	if res.Header.Get("X-Droplet-Name") != "web-1" || res.Header.Get("X-Droplet-Id") != "300000001" {
		t.Errorf("headers: %v", res.Header)
	}
	if n := w.view(d.ID).Requests; n != 7 {
		t.Errorf("%d requests counted, want 7", n)
	}
}

func TestDestructionCutsRequests(t *testing.T) {
	w := start(t, dosim.Options{DeleteDelay: 100 * time.Millisecond})
	d := w.serving("web-1")
	cut := make(chan error, 1)
	go func() {
		_, _, err := w.ask("GET", d.Address, "/slow?ms=30000", nil)
		cut <- err
	}()
	w.await("the request to arrive", func() bool { return w.view(d.ID).Requests == 1 })
	_, err := w.api.Droplets.Delete(t.Context(), d.ID)
	w.must(err)
	if err := <-cut; err == nil {
		t.Error("the request was answered")
	}
}

func TestDropletThatNeverBoots(t *testing.T) {
	w := start(t, dosim.Options{})
	w.must(w.admin.NextCreates(t.Context(), 1, dosim.Behaviour{NeverBoot: true}))
	stuck, fine := w.create("stuck"), w.serving("fine")
	d, _, err := w.api.Droplets.Get(t.Context(), stuck.ID)
	w.must(err)
	if d.Status != "new" || fine.Status != "active" {
		t.Errorf("stuck is %s, fine is %s", d.Status, fine.Status)
	}
	boots := false
	_, err = w.admin.SetDroplet(t.Context(), stuck.ID, dosim.DropletChange{NeverBoot: &boots})
	w.must(err)
	w.await("it to boot after all", func() bool { return w.view(stuck.ID).App == "serving" })
}

func TestStuckDropletCanBeDeleted(t *testing.T) {
	w := start(t, dosim.Options{})
	w.must(w.admin.NextCreates(t.Context(), 1, dosim.Behaviour{NeverBoot: true}))
	_, err := w.api.Droplets.Delete(t.Context(), w.create("stuck").ID)
	w.must(err)
	w.await("it to be gone", func() bool { return w.exist() == 0 })
}

func TestDropletWithoutItsApplication(t *testing.T) {
	w := start(t, dosim.Options{})
	w.must(w.admin.NextCreates(t.Context(), 1, dosim.Behaviour{NoApp: true}))
	d := w.create("empty")
	w.await("active", func() bool { return w.view(d.ID).Status == "active" })
	if _, _, err := w.ask("GET", w.view(d.ID).Address, "/", nil); err == nil {
		t.Error("it answers")
	}
}

func TestApplicationDiesAndIsRevived(t *testing.T) {
	w := start(t, dosim.Options{})
	d := w.serving("web-1")
	w.must(w.admin.KillApp(t.Context(), d.ID))
	if _, _, err := w.ask("GET", d.Address, "/", nil); err == nil {
		t.Error("a dead application answers")
	}
	if v := w.view(d.ID); v.App != "closed" || v.Status != "active" {
		t.Errorf("dead: %+v", v)
	}
	w.must(w.admin.ReviveApp(t.Context(), d.ID))
	if status, _, err := w.ask("GET", d.Address, "/", nil); err != nil || status != 200 {
		t.Errorf("revived: %d, %v", status, err)
	}
}

func TestApplicationTurnsSlowAndBad(t *testing.T) {
	w := start(t, dosim.Options{})
	d := w.serving("web-1")
	slow, bad := dosim.Duration(120*time.Millisecond), http.StatusServiceUnavailable
	_, err := w.admin.SetDroplet(t.Context(), d.ID, dosim.DropletChange{Slow: &slow})
	w.must(err)
	begun := time.Now()
	_, _, err = w.ask("GET", d.Address, "/", nil)
	w.must(err)
	if took := time.Since(begun); took < 120*time.Millisecond {
		t.Errorf("took %s", took)
	}
	v, err := w.admin.SetDroplet(t.Context(), d.ID, dosim.DropletChange{Status: &bad})
	w.must(err)
	if v.Behaviour.Slow != slow {
		t.Errorf("slow is %s after another change", v.Behaviour.Slow)
	}
	if status, _, err := w.ask("GET", d.Address, "/health", nil); err != nil || status != bad {
		t.Errorf("health: %d, %v", status, err)
	}
}

func TestAdminIsStrict(t *testing.T) {
	w := start(t, dosim.Options{})
	d := w.serving("web-1")
	wrong, negative, much := 42, dosim.Duration(-1), 101.0
	for _, c := range []dosim.DropletChange{{Status: &wrong}, {Slow: &negative}, {Load: &dosim.Load{CPU: &much}}} {
		if v, err := w.admin.SetDroplet(t.Context(), d.ID, c); err == nil {
			t.Errorf("%+v was taken: %+v", c, v)
		}
	}
	if err := w.admin.NextCreates(t.Context(), 0, dosim.Behaviour{}); err == nil {
		t.Error("count 0 was taken")
	}
	if _, err := w.admin.Droplet(t.Context(), 1); err == nil {
		t.Error("a droplet that is not there was shown")
	}
	res, err := w.http.Post(w.url+"/_sim/faults", "application/json", strings.NewReader(`{"kind":"hang","colour":"red"}`))
	w.must(err)
	res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("a misspelt field: %d", res.StatusCode)
	}
}
