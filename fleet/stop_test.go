package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// row is a pool of one droplet whose failures a test tells, one decision each.
type row struct {
	t   *testing.T
	in  Input
	now time.Time
}

func newRow(t *testing.T) *row {
	in := resting(1)
	clear(in.State.Droplets)
	in.State.Pools["web"].Max = 5
	in.Facts.Term = noon
	return &row{t, in, noon}
}

func (r *row) pool() *inventory.Pool { return r.in.State.Pools["web"] }

// plan decides once, at a list of all that is on record, and puts it on record.
func (r *row) plan() Decision {
	r.t.Helper()
	r.now = r.now.Add(time.Second)
	r.in.Now = r.now
	d := Plan(r.in)
	for _, g := range d.Groups {
		for _, w := range g.Writes {
			switch {
			case w.Pool != nil:
				r.in.State.Pools[w.Pool.Name] = w.Pool
			case w.Delete:
				delete(r.in.State.Droplets, w.Droplet.Name)
			case w.Droplet != nil:
				r.in.State.Droplets[w.Droplet.Name] = w.Droplet
			}
		}
	}
	return d
}

// droplet puts a droplet of this phase on record and returns it.
func (r *row) droplet(phase inventory.Phase) *inventory.Droplet {
	n := r.pool().NextOrdinal
	r.pool().NextOrdinal++
	d := &inventory.Droplet{Name: fmt.Sprintf("web-%d", n), Pool: "web", Phase: phase, Since: r.now, Created: r.now, ID: 5000 + n, Mod: 9}
	if phase == inventory.Serving {
		d.Served = r.now
	}
	r.in.State.Droplets[d.Name] = d
	r.in.Facts.List = newList(r.now, nil)
	return d
}

// dies: the cloud says that the droplet is gone.
func (r *row) dies(d *inventory.Droplet) Decision {
	r.in.Facts.got[d.ID] = got{at: r.now, state: gotGone}
	var others []cloud.Droplet
	for _, other := range r.in.State.Droplets {
		if other.ID != d.ID {
			others = append(others, cloud.Droplet{Droplet: *other})
		}
	}
	r.in.Facts.List = newList(r.now.Add(time.Hour), others) // no lag to wait for
	d2 := *r.in.State.Droplets[d.Name]
	d2.Since = d2.Since.Add(-time.Minute)
	r.in.State.Droplets[d.Name] = &d2
	r.see(d, inventory.Down)
	return r.plan()
}

func (r *row) see(d *inventory.Droplet, health string) {
	for _, n := range r.in.State.Nodes {
		n.Servers = map[string]inventory.ServerState{d.Name: {Health: health}}
	}
}

func (r *row) healthy(d *inventory.Droplet) {
	r.t.Helper()
	d.PrivateIPv4 = resting(1).State.Droplets["web-0"].PrivateIPv4
	r.see(d, inventory.Up)
	r.plan()
	if got := r.in.State.Droplets[d.Name].Phase; got != inventory.Serving {
		r.t.Fatalf("%s is %s", d.Name, got)
	}
}

func (r *row) refused() Decision {
	r.now = later(r.now, r.pool().RetryAt)
	d := r.droplet(inventory.Requested)
	d.ID, d.Asked = 0, r.now
	r.in.Facts.outcomes[d.Name] = outcome{asked: d.Asked, refused: "no capacity"}
	decision := r.plan()
	delete(r.in.State.Droplets, d.Name)
	return decision
}

// dieYoung is a droplet that becomes healthy and dies.
func (r *row) dieYoung() Decision {
	r.t.Helper()
	r.now = later(r.now, r.pool().RetryAt)
	d := r.droplet(inventory.Booting)
	r.healthy(d)
	r.now = r.now.Add(2 * time.Minute)
	decision := r.dies(d)
	clear(r.in.State.Droplets)
	return decision
}

func (r *row) failures(want int, words string) {
	r.t.Helper()
	if p := r.pool(); p.Failures != want || !strings.Contains(p.Reason, words) {
		r.t.Fatalf("%d failures, reason %q; want %d, %q", p.Failures, p.Reason, want, words)
	}
}

func TestHealthyEndsRefusals(t *testing.T) {
	r := newRow(t)
	for range 9 {
		r.refused()
	}
	r.failures(9, "no capacity")
	r.healthy(r.droplet(inventory.Booting))
	r.failures(0, "")
	if p := r.pool(); !p.RetryAt.IsZero() {
		t.Errorf("creates wait until %s", p.RetryAt)
	}
}

func TestStopAfterRefusals(t *testing.T) {
	r := newRow(t)
	for range 9 {
		r.refused()
	}
	if !r.pool().Stopped.IsZero() {
		t.Fatal("stopped after nine")
	}
	d := r.refused()
	const want = "10 failures in a row, the last: no capacity; mend the cause and doproxy apply, or go on with doproxy resume pools/web"
	r.failures(10, want)
	events := ""
	for _, g := range d.Groups {
		for _, e := range g.Events {
			events += e.Type + " "
		}
	}
	if r.pool().Stopped.IsZero() || !strings.Contains(events, "pool.stopped") || noteOf(d, "stopped web") == "" {
		t.Errorf("stopped %s, events %s, notes %s", r.pool().Stopped, events, story(d))
	}
	r.healthy(r.droplet(inventory.Booting)) // one that was under way
	r.now = r.now.Add(time.Hour)
	r.pool().Desired = 3
	if d := r.plan(); asks(d) != 0 || r.pool().Stopped.IsZero() || noteOf(d, "stopped web") == "" {
		t.Errorf("a stopped pool goes on: %s", story(d))
	}
	r.pool().Stopped, r.pool().Failures, r.pool().RetryAt, r.pool().Reason = time.Time{}, 0, time.Time{}, ""
	r.in.Facts.List = newList(r.now, nil)
	if d := r.plan(); asks(d) == 0 {
		t.Errorf("a resumed pool does not create: %s", story(d))
	}
}

func TestStopAfterEarlyDeaths(t *testing.T) {
	r := newRow(t)
	for i := range 9 {
		r.dieYoung()
		r.failures(i+1, "after it first served")
		if p := r.pool(); !p.RetryAt.After(r.now) {
			t.Fatal("creates are not held back")
		}
	}
	r.dieYoung()
	if r.pool().Stopped.IsZero() {
		t.Errorf("not stopped: %s", dump(r.pool()))
	}
	r.failures(10, "10 failures in a row, the last: early death: web-")
}

// A refusal among early deaths does not let a healthy droplet end the row.
func TestStopAfterEarlyDeathsAndRefusals(t *testing.T) {
	r := newRow(t)
	for range 5 {
		r.dieYoung()
		r.refused()
	}
	if r.pool().Stopped.IsZero() {
		t.Errorf("not stopped: %s", dump(r.pool()))
	}
	r.failures(10, "the last: no capacity; before it early death: web-")
	if n := strings.Count(r.pool().Reason, "early death"); n != 1 {
		t.Errorf("reason grows: %s", r.pool().Reason)
	}
}

func TestLastingDropletEndsEarlyDeaths(t *testing.T) {
	r := newRow(t)
	r.pool().Desired = 2
	old := r.droplet(inventory.Serving)
	old.Served, old.Created = r.now.Add(-24*time.Hour), r.now.Add(-24*time.Hour)
	for range 3 {
		r.dieYoung()
		r.in.State.Droplets[old.Name] = old
	}
	r.plan()
	r.failures(3, "early death") // that an old one serves on proves nothing
	r.now = r.pool().RetryAt
	d := r.droplet(inventory.Booting)
	r.healthy(d)
	r.failures(3, "early death")
	decision := r.plan()
	served := r.in.State.Droplets[d.Name].Served
	if want := served.Add(10 * time.Minute); decision.Next.IsZero() || decision.Next.After(want) {
		t.Errorf("next look %s, want by %s", decision.Next, want)
	}
	r.now = served.Add(10*time.Minute - 2*time.Second)
	r.plan()
	r.failures(3, "early death")
	r.now = served.Add(10 * time.Minute)
	r.plan()
	r.failures(0, "")
}

// Droplets that were there at the last failure may all have had its cause.
func TestOneCauseCountsOnce(t *testing.T) {
	r := newRow(t)
	r.pool().Desired = 5
	var all []*inventory.Droplet
	for range 5 {
		all = append(all, r.droplet(inventory.Serving))
	}
	for _, d := range all[:4] {
		r.dies(d)
	}
	r.failures(1, "early death: web-1 was gone from DigitalOcean")
	late := all[4]
	late.Served = late.Served.Add(-time.Hour)
	r.pool().Failures, r.pool().RetryAt, r.pool().Reason = 0, time.Time{}, ""
	r.dies(late) // it had served long enough
	r.failures(0, "")
}
