package dosim_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/doproxy/doproxy/cloud/dosim"
)

func TestStateSurvivesARestart(t *testing.T) {
	o := dosim.Options{StateFile: filepath.Join(t.TempDir(), "state.json"), DropletPort: freePort(t), BootDelay: 300 * time.Millisecond}
	ctx := t.Context()
	first := start(t, o)
	served := first.serving("served", "web")
	dead := first.serving("dead")
	first.must(first.admin.KillApp(ctx, dead.ID))
	first.must(first.admin.NextCreates(ctx, 1, dosim.Behaviour{NeverBoot: true}))
	stuck := first.create("stuck")
	leaving := first.serving("leaving")
	_, err := first.api.Droplets.Delete(ctx, leaving.ID)
	first.must(err)
	first.fault(dosim.Fault{Kind: dosim.FaultError, Method: "PUT"})
	_, _, err = first.api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: "example.com"})
	first.must(err)
	booting := first.create("booting") // is "new" when the simulator ends
	first.must(first.sim.Close())

	w := start(t, o)
	if w.sim.DropletPrefix() != first.sim.DropletPrefix() {
		t.Fatalf("prefix %s became %s", first.sim.DropletPrefix(), w.sim.DropletPrefix())
	}
	w.await("the droplet that was booting", func() bool { return w.view(booting.ID).App == "serving" })
	if status, body, err := w.ask("GET", served.Address, "/", nil); err != nil || status != 200 || !strings.Contains(body, "served") {
		t.Errorf("a droplet from before: %d %q, %v", status, body, err)
	}
	if v := w.view(dead.ID); v.App != "closed" || v.Status != "active" {
		t.Errorf("a dead droplet from before: %+v", v)
	}
	if v := w.view(stuck.ID); v.Status != "new" || !v.Behaviour.NeverBoot {
		t.Errorf("a stuck droplet from before: %+v", v)
	}
	w.await("the delete to take effect", func() bool { return w.exist() == 4 })
	tagged, _, err := w.api.Droplets.ListByTag(ctx, "web", nil)
	if err != nil || len(tagged) != 1 {
		t.Errorf("by tag: %d, %v", len(tagged), err)
	}
	if _, _, err := w.api.Domains.Get(ctx, "example.com"); err != nil {
		t.Error(err)
	}
	if faults, err := w.admin.Faults(ctx); err != nil || len(faults) != 1 {
		t.Errorf("faults: %v, %v", faults, err)
	}
	if d := w.create("after"); d.ID <= booting.ID {
		t.Errorf("id %d after %d", d.ID, booting.ID)
	}
}

// The file is written while the simulator runs, not only when it ends well.
func TestStateIsWrittenOnTheGo(t *testing.T) {
	o := dosim.Options{StateFile: filepath.Join(t.TempDir(), "state.json")}
	w := start(t, o)
	w.create("kept")
	w.await("the file", func() bool {
		b, _ := os.ReadFile(o.StateFile)
		return strings.Contains(string(b), "kept")
	})
}

func TestBadStateFilesAreRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "state.json")
	for _, content := range []string{"", "{", "{}", `{"Version":99,"Prefix":64}`} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if sim, err := dosim.New(dosim.Options{StateFile: name}); err == nil {
			t.Errorf("%q was taken", content)
			_ = sim.Close()
		}
	}
}

func TestOptionsAreValidated(t *testing.T) {
	for _, o := range []dosim.Options{
		{BootDelay: -1}, {DropletPort: 70000}, {DropletLimit: -1}, {RateLimitHour: -1},
		{DropletPrefix: "10.1"}, {DropletPrefix: "127.0"}, {DropletPrefix: "127"}, {DropletPrefix: "127.1.2"}, {DropletPrefix: "127.300"},
	} {
		if o.Validate() == nil {
			t.Errorf("%+v is valid", o)
		}
	}
	if err := (dosim.Options{DropletPrefix: "127.9"}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestSimulatorsRunSideBySide(t *testing.T) {
	o := dosim.Options{DropletPort: freePort(t)}
	a, b := start(t, o), start(t, o)
	if a.sim.DropletPrefix() == b.sim.DropletPrefix() {
		t.Fatal("both have", a.sim.DropletPrefix())
	}
	if x, y := a.serving("a"), b.serving("b"); x.Address == y.Address {
		t.Error("both droplets have", x.Address)
	}
	o.DropletPrefix = a.sim.DropletPrefix()
	if sim, err := dosim.New(o); err == nil {
		t.Error("a prefix in use was given again")
		_ = sim.Close()
	}
}
