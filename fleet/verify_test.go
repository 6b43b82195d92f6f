package fleet

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

func TestDifferences(t *testing.T) {
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	stray := func(id int64, name, pool string) cloud.Droplet {
		return cloud.Droplet{Droplet: inventory.Droplet{Name: name, Pool: pool, ID: id, Created: ago(time.Hour)}}
	}
	for _, test := range []struct {
		name  string
		phase inventory.Phase
		set   func(s *scene)
		want  string
	}{
		{"none", inventory.Serving, func(s *scene) {}, ""},
		{"no list yet", inventory.Serving, func(s *scene) { s.Facts.List = nil }, ""},
		{"missing", inventory.Serving, func(s *scene) { s.d.Since = ago(time.Hour); s.list(ago(time.Second), 1000, 1002) }, "droplet.missing web-1"},
		{"missing, new", inventory.Serving, func(s *scene) { s.list(ago(time.Second), 1000, 1002) }, ""},
		{"untagged", inventory.Serving, func(s *scene) {
			s.d.Since = ago(time.Hour)
			s.list(ago(time.Second), 1000, 1002)
			s.Facts.got[1001] = got{at: noon, state: gotUntagged}
		}, "droplet.untagged web-1"},
		{"requested", inventory.Requested, func(s *scene) { s.unmade(time.Time{}) }, ""},
		{"asked for", inventory.Requested, func(s *scene) { s.unmade(ago(time.Second)) }, ""},
		{"asked for, and there", inventory.Requested, func(s *scene) { s.unmade(ago(time.Second)); s.list(ago(time.Second), 1000, 1001, 1002) }, ""},
		{"unrecorded", inventory.Serving, func(s *scene) { s.also(stray(9, "web-9", "web")) }, "droplet.unrecorded web-9"},
		{"unrecorded, new", inventory.Serving, func(s *scene) {
			c := stray(9, "web-9", "web")
			c.Created = ago(10 * time.Second)
			s.also(c)
		}, ""},
		{"unrecorded, just deleted", inventory.Serving, func(s *scene) {
			s.also(stray(9, "web-9", "web"))
			s.Facts.got[9] = got{at: noon, state: gotGone}
		}, ""},
		{"second of a recorded name", inventory.Serving, func(s *scene) { s.also(stray(9, "web-1", "web")) }, "droplet.duplicate web-1"},
		{"two of an unrecorded name", inventory.Serving, func(s *scene) { s.also(stray(8, "web-9", "web")); s.also(stray(9, "web-9", "web")) },
			"droplet.duplicate web-9; droplet.unrecorded web-9"},
		{"another name", inventory.Serving, func(s *scene) { s.Facts.List.byID[1001].Name = "other" }, "droplet.renamed web-1"},
		{"another pool, size and address", inventory.Serving, func(s *scene) {
			c := s.Facts.List.byID[1001]
			c.Pool, c.Size, c.PrivateIPv4 = "api", "s-8vcpu-16gb", netip.Addr{}
		}, "droplet.changed web-1"},
		{"addresses of one that boots", inventory.Booting, func(s *scene) { s.d.PrivateIPv4 = netip.Addr{} }, ""},
		{"deleting", inventory.Deleting, func(s *scene) {}, ""},
		{"deleting for long", inventory.Deleting, func(s *scene) { s.d.Since = ago(time.Hour) }, "droplet.deleting web-1"},
		{"unknown pool", inventory.Serving, func(s *scene) { s.also(stray(9, "api-9", "api")); s.also(stray(8, "box", "")) }, "pool.unknown api-9; pool.unknown box"},
		{"pool without a record", inventory.Serving, func(s *scene) { s.d.Pool = "api"; s.Facts.List.byID[1001].Pool = "api" }, "pool.missing web-1"},
		{"unreadable", inventory.Serving, func(s *scene) { s.State.Unreadable = map[string]string{"/doproxy/c/x": "bad"} }, "record.unreadable /doproxy/c/x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(test.phase)
			test.set(s)
			before := dump(s.State)
			var told []string
			for _, d := range Differences(s.Input) {
				if d.Message == "" {
					t.Errorf("%s says nothing", d.Kind)
				}
				told = append(told, d.Kind+" "+d.Subject)
			}
			if got := strings.Join(told, "; "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if dump(s.State) != before {
				t.Error("the input was changed")
			}
		})
	}
}

func TestDifferencesAreBounded(t *testing.T) {
	s := newScene(inventory.Serving)
	for i := range 2 * maxDifferences {
		s.Facts.List.All = append(s.Facts.List.All, cloud.Droplet{Droplet: inventory.Droplet{Name: fmt.Sprintf("x-%d", i), ID: int64(i + 5000)}})
	}
	s.Facts.List = newList(s.Facts.List.Sent, s.Facts.List.All)
	if all := Differences(s.Input); len(all) != maxDifferences+1 || all[maxDifferences].Subject != fmt.Sprint(maxDifferences) {
		t.Errorf("%d differences, the last %s", len(all), dump(all[len(all)-1]))
	}
}

func TestVerifyLooksAtOnceAndTellsOnce(t *testing.T) {
	s := newScene(inventory.Serving)
	s.State.Verify = &inventory.Verify{ID: "01A", Time: noon, Repair: true}
	s.Facts.StartDelete(7, noon)
	s.Facts.EndDelete(7, noon, cloud.ErrAmbiguous)
	s.Facts.See(s.State, noon)
	if s.Facts.deletes[7].count != 0 {
		t.Error("a repair waits for the delay of a delete")
	}
	d := Plan(s.Input)
	if !d.List || d.Verified != "" {
		t.Fatalf("list %v, verified %q on a list from before", d.List, d.Verified)
	}
	s.Facts.StartList(noon)
	s.Now = noon.Add(time.Second)
	if d = Plan(s.Input); d.List {
		t.Error("a second list while one is under way")
	}
	s.list(noon, 1000, 1002)
	s.d.Since = noon.Add(-time.Hour)
	if d = Plan(s.Input); d.Verified != "01A" || len(d.Differences) != 1 {
		t.Fatalf("verified %q: %s", d.Verified, dump(d.Differences))
	}
	s.Facts.Told(d.Verified)
	s.Facts.See(s.State, s.Now)
	if d = Plan(s.Input); d.Verified != "" || d.List {
		t.Errorf("told again: %q", d.Verified)
	}
}

func TestHurryKeepsTheCloudsLimit(t *testing.T) {
	f := NewFacts(noon)
	f.StartGet(1)
	f.EndGet(1, noon, noon, cloud.Droplet{}, cloud.ErrAmbiguous)
	f.StartAdopt(2, noon)
	f.EndAdopt(2, noon, cloud.ErrAmbiguous)
	f.StartList(noon)
	f.EndList(noon, noon, nil, &cloud.Throttled{Until: noon.Add(time.Minute)})
	f.got[3] = got{at: noon, state: gotGone}
	f.Hurry()
	if f.got[1].failures != 0 || f.imports[2].count != 0 || f.listFailures != 0 {
		t.Error("a delay is left")
	}
	if f.Hold.IsZero() || f.got[3].state != gotGone {
		t.Error("what is known is lost")
	}
}
