package ingress

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

var (
	noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ip7  = netip.MustParseAddr("203.0.113.7")
	ip8  = netip.MustParseAddr("203.0.113.8")
	ip6  = netip.MustParseAddr("2001:db8::7")
)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// scene is three fit nodes, of droplets 11 to 13, of which lb-1 holds 203.0.113.7,
// seen and verified.
type scene struct {
	Input
	a *inventory.Assignment
}

func newScene() *scene {
	st := &inventory.State{
		Revision: 100, Inventory: 50, Listed: true,
		Meta:        &inventory.Meta{UID: "u1", Schema: 1},
		Settings:    &inventory.Settings{Mod: 1, Ingress: inventory.Ingress{ReservedIPs: []netip.Addr{ip7}}},
		Pools:       map[string]*inventory.Pool{"web": {Mod: 50}},
		Nodes:       map[string]*inventory.Node{},
		Members:     map[string]*inventory.Member{},
		Assignments: map[netip.Addr]*inventory.Assignment{},
		DNS:         map[string]*inventory.DNSRecords{},
	}
	for i := range 3 {
		name := fmt.Sprintf("lb-%d", i+1)
		st.Nodes[name] = &inventory.Node{Name: name, HAProxy: "running", Applied: 50, Droplet: int64(11 + i),
			PublicIPv4: netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})}
		st.Members[name] = &inventory.Member{Name: name, Joined: ago(time.Hour)}
	}
	s := &scene{Input: Input{Now: noon, UID: "u1", State: st, Facts: NewFacts(ago(time.Hour))}}
	s.a = s.assign(ip7, "lb-1")
	s.Facts.See(st, ago(time.Hour))
	s.at(ip7, 11)
	s.list(map[netip.Addr]int64{ip7: 11})
	return s
}

func (s *scene) assign(a netip.Addr, node string) *inventory.Assignment {
	as := &inventory.Assignment{Address: a, Node: node, Droplet: s.State.Nodes[node].Droplet, Since: ago(time.Hour), Reason: "it was there", Verified: ago(time.Hour), Mod: 40}
	s.State.Assignments[a] = as
	return as
}

// at is what a look at an address showed a second ago.
func (s *scene) at(a netip.Addr, droplet int64) {
	s.Facts.StartLook(a, ago(2*time.Second))
	s.Facts.EndLook(a, ago(2*time.Second), cloud.ReservedIP{Address: a, Droplet: droplet}, nil)
}

func (s *scene) list(all map[netip.Addr]int64) {
	var ips []cloud.ReservedIP
	for a, d := range all {
		ips = append(ips, cloud.ReservedIP{Address: a, Droplet: d})
	}
	s.Facts.StartList(ago(time.Second))
	s.Facts.EndList(ago(time.Second), ago(time.Second), ips, nil)
}

// ails lets a node be unfit since a moment.
func (s *scene) ails(node, haproxy string, since time.Time) {
	s.State.Nodes[node].HAProxy = haproxy
	s.Facts.See(s.State, since)
}

func (s *scene) vanishes(node string, at time.Time) {
	delete(s.State.Nodes, node)
	s.Facts.See(s.State, at)
}

func (s *scene) drain(node string) {
	s.State.Members[node].Drained = noon
	s.Facts.See(s.State, noon)
}

// asked is a failover by hand of ip7, which was never assigned.
func (s *scene) asked(to string) {
	s.State.Assignments[ip7] = &inventory.Assignment{Address: ip7, Since: ago(time.Second), Reason: "no node holds it yet", Want: to, Mod: 41}
}

// tried is an assign of ip7 to lb-1 that ended a second before noon, after which
// the address was seen at a droplet.
func (s *scene) tried(err error, seen cloud.ReservedIP) {
	s.a.Verified = time.Time{}
	a := Assign{ip7, "lb-1", 11}
	s.Facts.StartAssign(a)
	s.Facts.EndAssign(a, ago(time.Second), err)
	s.Facts.StartLook(ip7, ago(500*time.Millisecond))
	s.Facts.EndLook(ip7, ago(500*time.Millisecond), seen, nil)
}

// story is a decision in few words.
func story(d Decision) string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, g := range d.Groups {
		for _, w := range g.Writes {
			switch {
			case w.Assignment != nil && w.Delete:
				add("forget %s", w.Assignment.Address)
			case w.Assignment != nil:
				a := w.Assignment
				words := fmt.Sprintf("%s at %s", a.Address, a.Node)
				if a.Node == "" {
					words = a.Address.String() + " nowhere"
				}
				if !a.Verified.IsZero() {
					words += " verified"
				}
				if len(a.Moves) > 0 {
					words += fmt.Sprintf(" moves %d", len(a.Moves))
				}
				if a.Want != "" {
					words += " want " + a.Want
				}
				if a.Error != "" {
					words += " (" + a.Error + ")"
				}
				out = append(out, words)
			case w.Delete:
				add("forget %s", w.DNS.FQDN)
			default:
				var all []string
				for _, r := range w.DNS.Records {
					words := r.Address.String()
					if r.ID != 0 {
						words += fmt.Sprintf("#%d", r.ID)
					}
					if !r.Asked.IsZero() {
						words += " asked"
					}
					if r.Leaving {
						words += " leaving"
					}
					all = append(all, words)
				}
				add("%s [%s]", w.DNS.FQDN, strings.Join(all, ", "))
			}
		}
		for _, c := range g.Creates {
			add("create %s", c.Address)
		}
	}
	for _, a := range d.Assigns {
		add("assign %s to %d", a.Address, a.Droplet)
	}
	for _, a := range d.Looks {
		add("look %s", a)
	}
	if d.List {
		add("list")
	}
	for _, n := range d.Names {
		add("records %s", n.FQDN)
	}
	for _, c := range d.Deletes {
		add("delete %d", c.Record.ID)
	}
	for _, c := range d.TTLs {
		add("ttl %d %d", c.Record.ID, c.Record.TTL)
	}
	for _, n := range d.Notes {
		add("note %s", strings.TrimPrefix(n.Key, "ingress "))
	}
	return strings.Join(out, "; ")
}

func dump(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

type test struct {
	name string
	set  func(s *scene)
	want string
}

func check(t *testing.T, tests []test) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScene()
			test.set(s)
			before, facts := dump(s.State), fmt.Sprintf("%+v", *s.Facts)
			if got := story(Plan(s.Input)); got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
			if dump(s.State) != before || fmt.Sprintf("%+v", *s.Facts) != facts {
				t.Error("the input was changed")
			}
		})
	}
}

func TestPlanDistrusts(t *testing.T) {
	check(t, []test{
		{"at rest", func(s *scene) {}, ""},
		{"no meta", func(s *scene) { s.ails("lb-1", "failed", ago(time.Minute)); s.State.Meta = nil }, ""},
		{"another cluster", func(s *scene) { s.ails("lb-1", "failed", ago(time.Minute)); s.State.Meta.UID = "u2" }, ""},
		{"newer schema", func(s *scene) { s.ails("lb-1", "failed", ago(time.Minute)); s.State.Meta.Schema = 2 }, ""},
		{"not read", func(s *scene) { s.ails("lb-1", "failed", ago(time.Minute)); s.State.Listed = false }, ""},
		{"out of touch", func(s *scene) { s.ails("lb-1", "failed", ago(time.Minute)); s.State.Err = fmt.Errorf("lost") }, ""},
		{"unreadable assignment", func(s *scene) {
			s.ails("lb-1", "failed", ago(time.Minute))
			s.State.Unreadable = map[string]string{"/doproxy/c/ingress/ip/203.0.113.7": "bad"}
		}, "note unreadable ip/203.0.113.7"},
		{"unreadable settings forget nothing, and move what must", func(s *scene) {
			s.ails("lb-1", "failed", ago(time.Minute))
			s.State.Settings = &inventory.Settings{}
			s.State.Unreadable = map[string]string{"/doproxy/c/settings": "bad"}
		}, "203.0.113.7 at lb-2 moves 1; note settings"},
		{"settings gone", func(s *scene) { s.State.Settings = &inventory.Settings{} }, "note settings"},
		{"taken out of the settings", func(s *scene) { s.State.Settings.Ingress.ReservedIPs = nil }, "forget 203.0.113.7"},
	})
}

func TestPlanMoves(t *testing.T) {
	check(t, []test{
		{"HAProxy failed just now", func(s *scene) { s.ails("lb-1", "failed", ago(200*time.Millisecond)) }, ""},
		{"HAProxy failed", func(s *scene) { s.ails("lb-1", "failed", ago(300*time.Millisecond)) }, "203.0.113.7 at lb-2 moves 1"},
		{"HAProxy failed for a moment", func(s *scene) {
			s.ails("lb-1", "failed", ago(500*time.Millisecond))
			s.ails("lb-1", "running", ago(300*time.Millisecond))
		}, ""},
		{"report gone", func(s *scene) { s.vanishes("lb-1", noon) }, "203.0.113.7 at lb-2 moves 1"},
		{"report gone since before the term", func(s *scene) {
			delete(s.State.Nodes, "lb-1")
			s.Facts = NewFacts(ago(200 * time.Millisecond))
			s.Facts.See(s.State, ago(200*time.Millisecond))
		}, "list"},
		{"report gone since before the term, long enough", func(s *scene) {
			delete(s.State.Nodes, "lb-1")
			s.Facts = NewFacts(ago(300 * time.Millisecond))
			s.Facts.See(s.State, ago(290*time.Millisecond))
		}, "203.0.113.7 at lb-2 moves 1; list"},
		{"report gone, and the leader before said so", func(s *scene) {
			delete(s.State.Nodes, "lb-1")
			s.State.Members["lb-1"].Silent = ago(time.Second)
			s.Facts = NewFacts(noon)
			s.Facts.See(s.State, noon)
		}, "203.0.113.7 at lb-2 moves 1; list"},
		{"stale", func(s *scene) {
			s.State.Pools["web"].Mod, s.State.Inventory = 60, 60
			s.State.Nodes["lb-2"].Applied, s.State.Nodes["lb-3"].Applied = 60, 60
			s.Facts.See(s.State, ago(16*time.Second))
			s.Facts.See(s.State, ago(time.Second))
		}, "203.0.113.7 at lb-2 moves 1"},
		{"lagging, and not for long", func(s *scene) {
			s.State.Pools["web"].Mod, s.State.Inventory = 60, 60
			s.Facts.See(s.State, ago(14*time.Second))
			s.Facts.See(s.State, noon)
		}, ""},
		{"a listing is no change", func(s *scene) {
			s.State.Inventory = 99
			s.Facts.See(s.State, ago(time.Minute))
			s.Facts.See(s.State, noon)
		}, ""},
		{"drained", func(s *scene) { s.drain("lb-1") }, "203.0.113.7 at lb-2"},
		{"no node is fit", func(s *scene) {
			for _, n := range s.State.Nodes {
				n.HAProxy = "failed"
			}
			s.Facts.See(s.State, ago(time.Second))
		}, "note ip 203.0.113.7 stays"},
		{"to the one that is settled", func(s *scene) {
			s.ails("lb-2", "failed", ago(50*time.Second))
			s.ails("lb-2", "running", ago(20*time.Second))
			s.vanishes("lb-1", noon)
		}, "203.0.113.7 at lb-3 moves 1"},
		{"to one that is not settled rather than to none", func(s *scene) {
			s.ails("lb-2", "failed", ago(50*time.Second))
			s.ails("lb-2", "running", ago(20*time.Second))
			s.vanishes("lb-3", ago(time.Second))
			s.vanishes("lb-1", noon)
		}, "203.0.113.7 at lb-2 moves 1"},
		{"to one that was undrained just now", func(s *scene) {
			s.State.Members["lb-2"].Drained = ago(time.Hour)
			s.ails("lb-2", "stopped", ago(50*time.Second))
			s.ails("lb-2", "running", ago(20*time.Second))
			s.State.Members["lb-2"].Drained = time.Time{}
			s.vanishes("lb-1", noon)
		}, "203.0.113.7 at lb-2 moves 1"},
		{"not back to where it was lost just before the term", func(s *scene) {
			s.a.From, s.a.Since, s.a.Moves = "lb-2", ago(10*time.Second), []time.Time{ago(10 * time.Second)}
			s.Facts = NewFacts(ago(5 * time.Second))
			s.Facts.See(s.State, ago(5*time.Second))
			s.vanishes("lb-1", noon)
		}, "203.0.113.7 at lb-3 moves 2; list"},
		{"held down", func(s *scene) { s.a.Moves = []time.Time{ago(4 * time.Second)}; s.vanishes("lb-1", noon) }, "note ip 203.0.113.7 stays"},
		{"held down no more", func(s *scene) { s.a.Moves = []time.Time{ago(5 * time.Second)}; s.vanishes("lb-1", noon) }, "203.0.113.7 at lb-2 moves 2"},
		{"held down for longer", func(s *scene) {
			s.a.Moves = []time.Time{ago(time.Minute), ago(30 * time.Second), ago(19 * time.Second)}
			s.vanishes("lb-1", noon)
		}, "note ip 203.0.113.7 stays"},
		{"old moves are forgotten", func(s *scene) {
			s.a.Moves = []time.Time{ago(time.Hour), ago(30 * time.Minute), ago(10*time.Minute + 1)}
			s.vanishes("lb-1", noon)
		}, "203.0.113.7 at lb-2 moves 1"},
		{"drained while held down", func(s *scene) { s.a.Moves = []time.Time{ago(time.Second)}; s.drain("lb-1") }, "203.0.113.7 at lb-2 moves 1"},
		{"paused", func(s *scene) { s.State.Pause = &inventory.Pause{}; s.vanishes("lb-1", noon) }, "note ip 203.0.113.7 stays"},
		{"one address a droplet", func(s *scene) {
			s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip7, ip8}
			s.assign(ip8, "lb-2")
			s.at(ip8, 12)
			s.vanishes("lb-1", noon)
		}, "203.0.113.7 at lb-3 moves 1"},
		{"none is free", func(s *scene) {
			s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip7, ip8}
			s.assign(ip8, "lb-2")
			s.at(ip8, 12)
			s.vanishes("lb-3", ago(time.Minute))
			s.vanishes("lb-1", noon)
		}, "note ip 203.0.113.7 stays"},
		{"one of each family", func(s *scene) {
			s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip7, ip6}
			s.assign(ip6, "lb-2")
			s.at(ip6, 12)
			s.vanishes("lb-3", ago(time.Minute))
			s.vanishes("lb-1", noon)
		}, "203.0.113.7 at lb-2 moves 1"},
		{"an address of nobody's is in the way", func(s *scene) {
			s.list(map[netip.Addr]int64{ip7: 11, netip.MustParseAddr("203.0.113.99"): 12})
			s.vanishes("lb-1", noon)
		}, "203.0.113.7 at lb-3 moves 1"},
		{"two of a family for one node", func(s *scene) {
			s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip7, ip8}
			s.assign(ip8, "lb-1")
			s.at(ip8, 0)
		}, "203.0.113.8 at lb-2"},
		{"its machine was made anew", func(s *scene) { s.State.Nodes["lb-1"].Droplet = 21 }, "203.0.113.7 at lb-1"},
		{"its droplet is not known for a moment", func(s *scene) { s.State.Nodes["lb-1"].Droplet = 0 }, ""},
	})
}

func TestPlanByHand(t *testing.T) {
	check(t, []test{
		{"to a node", func(s *scene) { s.a.Want = "lb-3"; s.a.Moves = []time.Time{ago(time.Second)} }, "203.0.113.7 at lb-3"},
		{"to any other", func(s *scene) { s.a.Want = inventory.AnyNode }, "203.0.113.7 at lb-2"},
		{"to where it is", func(s *scene) { s.a.Want = "lb-1" }, "203.0.113.7 at lb-1 verified"},
		{"to an unfit node", func(s *scene) { s.a.Want = "lb-3"; s.ails("lb-3", "failed", ago(time.Second)) }, "note ip 203.0.113.7 want"},
		{"to an unknown node", func(s *scene) { s.a.Want = "lb-9" }, "note ip 203.0.113.7 want"},
		{"to a node that has one", func(s *scene) {
			s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip7, ip8}
			s.assign(ip8, "lb-2")
			s.at(ip8, 12)
			s.a.Want = "lb-2"
		}, "note ip 203.0.113.7 want"},
		{"paused", func(s *scene) { s.State.Pause = &inventory.Pause{}; s.a.Want = "lb-2" }, "note ip 203.0.113.7 want"},
		{"to an unfit node, and its own fails", func(s *scene) {
			s.a.Want = "lb-3"
			s.ails("lb-3", "failed", ago(time.Second))
			s.vanishes("lb-1", noon)
		}, "203.0.113.7 at lb-2 moves 1; note ip 203.0.113.7 want"},
	})
}

func TestPlanWithoutRecord(t *testing.T) {
	clear := func(s *scene) { delete(s.State.Assignments, ip7) }
	check(t, []test{
		{"it stays with a fit node", func(s *scene) { clear(s); s.list(map[netip.Addr]int64{ip7: 12}) }, "203.0.113.7 at lb-2"},
		{"an unfit one loses it", func(s *scene) {
			clear(s)
			s.list(map[netip.Addr]int64{ip7: 12})
			s.ails("lb-2", "failed", ago(time.Second))
		}, "203.0.113.7 at lb-1"},
		{"at a droplet that is no node", func(s *scene) { clear(s); s.list(map[netip.Addr]int64{ip7: 99}) }, "note ip 203.0.113.7 foreign"},
		{"at a droplet that is no node, while no node is fit and all is paused", func(s *scene) {
			clear(s)
			s.list(map[netip.Addr]int64{ip7: 99})
			s.State.Pause = &inventory.Pause{}
			for _, n := range s.State.Nodes {
				n.HAProxy = "failed"
			}
			s.Facts.See(s.State, ago(time.Minute))
		}, "note ip 203.0.113.7 foreign"},
		{"an IPv6 address at a droplet that is no node", func(s *scene) {
			s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip7, ip6}
			s.list(map[netip.Addr]int64{ip7: 11, ip6: 99})
		}, "note ip 2001:db8::7 foreign"},
		{"at a droplet that is no node, and another is free", func(s *scene) {
			clear(s)
			s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip7, ip8}
			s.list(map[netip.Addr]int64{ip7: 99, ip8: 0})
		}, "203.0.113.8 at lb-1; note ip 203.0.113.7 foreign"},
		{"at a node that does not report yet", func(s *scene) {
			clear(s)
			s.list(map[netip.Addr]int64{ip7: 12})
			s.vanishes("lb-2", ago(time.Minute))
		}, "note ip 203.0.113.7 foreign"},
		{"at a droplet that is no node, and asked for", func(s *scene) {
			s.asked(inventory.AnyNode)
			s.list(map[netip.Addr]int64{ip7: 99})
		}, "203.0.113.7 at lb-1"},
		{"at a droplet that is no node, and asked to a node", func(s *scene) {
			s.asked("lb-3")
			s.list(map[netip.Addr]int64{ip7: 99})
		}, "203.0.113.7 at lb-3"},
		{"at a droplet that is no node, and asked to an unfit one", func(s *scene) {
			s.asked("lb-3")
			s.list(map[netip.Addr]int64{ip7: 99})
			s.ails("lb-3", "failed", ago(time.Second))
		}, "note ip 203.0.113.7 want"},
		{"asked to an unfit node before it was ever seen", func(s *scene) {
			s.asked("lb-3")
			s.Facts = NewFacts(ago(time.Minute))
			s.ails("lb-3", "failed", ago(time.Minute))
		}, "list; note ip 203.0.113.7 want"},
		{"at nobody, and asked to an unfit node", func(s *scene) {
			s.asked("lb-3")
			s.list(map[netip.Addr]int64{ip7: 0})
			s.ails("lb-3", "failed", ago(time.Second))
		}, "203.0.113.7 at lb-1; note ip 203.0.113.7 want"},
		{"at nobody", func(s *scene) { clear(s); s.list(map[netip.Addr]int64{ip7: 0}) }, "203.0.113.7 at lb-1"},
		{"spread", func(s *scene) {
			clear(s)
			s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip6, ip8, ip7}
			s.list(map[netip.Addr]int64{ip7: 0, ip8: 0, ip6: 0})
		}, "203.0.113.7 at lb-1; 203.0.113.8 at lb-2; 2001:db8::7 at lb-3"},
		{"the account has none such", func(s *scene) { clear(s); s.list(nil) }, "note ip 203.0.113.7 missing"},
		{"before the first list", func(s *scene) { clear(s); s.Facts = NewFacts(noon); s.Facts.See(s.State, noon) }, "list"},
		{"new since the last list", func(s *scene) {
			s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip7, ip8}
		}, "look 203.0.113.8"},
		{"paused", func(s *scene) {
			clear(s)
			s.list(map[netip.Addr]int64{ip7: 0})
			s.State.Pause = &inventory.Pause{}
		}, "note ip 203.0.113.7 stays"},
	})
}

func TestPlanPlaces(t *testing.T) {
	no := &cloud.Refused{Status: 422, Message: "no"}
	there, other, nowhere := cloud.ReservedIP{Droplet: 11}, cloud.ReservedIP{Droplet: 99}, cloud.ReservedIP{}
	check(t, []test{
		{"on record, and never tried", func(s *scene) { s.a.Verified = time.Time{}; s.at(ip7, 0) }, "assign 203.0.113.7 to 11"},
		{"on record by the leader before", func(s *scene) {
			s.a.Verified = time.Time{}
			s.Facts = NewFacts(noon)
			s.Facts.See(s.State, noon)
		}, "assign 203.0.113.7 to 11; list"},
		{"done", func(s *scene) { s.tried(nil, there) }, "203.0.113.7 at lb-1 verified"},
		{"taken, and not shown yet", func(s *scene) { s.tried(nil, nowhere) }, "look 203.0.113.7"},
		{"unknown, done", func(s *scene) { s.tried(cloud.ErrAmbiguous, there) }, "203.0.113.7 at lb-1 verified"},
		{"unknown, not done", func(s *scene) { s.tried(cloud.ErrAmbiguous, other) }, "assign 203.0.113.7 to 11"},
		{"refused for being needless", func(s *scene) { s.tried(no, there) }, "203.0.113.7 at lb-1 verified"},
		{"refused while locked", func(s *scene) { s.tried(no, cloud.ReservedIP{Locked: true}) }, "look 203.0.113.7"},
		{"refused", func(s *scene) { s.tried(no, nowhere) }, "203.0.113.7 at lb-2 (no)"},
		{"refused, and nobody else", func(s *scene) {
			s.vanishes("lb-2", ago(time.Minute))
			s.vanishes("lb-3", ago(time.Minute))
			s.tried(no, nowhere)
		}, "203.0.113.7 at lb-1 (no); assign 203.0.113.7 to 11; note ip 203.0.113.7 failing"},
		{"the token is not valid", func(s *scene) { s.tried(&cloud.Refused{Status: 401, Message: "who?"}, nowhere) },
			"203.0.113.7 at lb-1 (who?); assign 203.0.113.7 to 11; note ip 203.0.113.7 failing"},
		{"throttled", func(s *scene) { s.tried(&cloud.Throttled{Until: noon.Add(time.Minute)}, nowhere) },
			"203.0.113.7 at lb-1 (request limit reached); note ip 203.0.113.7 failing; note throttled"},
		{"out of budget", func(s *scene) {
			s.a.Verified = time.Time{}
			s.at(ip7, 0)
			s.Budget = &cloud.Allowances{}
		}, "note throttled"},
		{"two were exchanged by hand", func(s *scene) {
			s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip7, ip8}
			s.assign(ip8, "lb-2")
			s.at(ip8, 11)
			s.tried(no, cloud.ReservedIP{Droplet: 12})
		}, "203.0.113.7 at lb-2; 203.0.113.8 at lb-1"},
		{"moved by somebody else, says the list", func(s *scene) { s.list(map[netip.Addr]int64{ip7: 99}) }, "look 203.0.113.7"},
		{"moved by somebody else", func(s *scene) { s.at(ip7, 99) }, "203.0.113.7 at lb-1 (it was at droplet 99)"},
		{"moved by somebody else, paused", func(s *scene) { s.at(ip7, 99); s.State.Pause = &inventory.Pause{} }, "note ip 203.0.113.7 differs"},
		{"the audit is due", func(s *scene) { s.Now = noon.Add(time.Minute) }, "list"},
	})
}

// What an operator is told of an address that is somebody else's has the command
// that takes it.
func TestForeignAddressIsTold(t *testing.T) {
	s := newScene()
	delete(s.State.Assignments, ip7)
	s.list(map[netip.Addr]int64{ip7: 4711})
	const want = "203.0.113.7 is held by droplet 4711, which is no node of this cluster: if it is to come here, `doproxy failover 203.0.113.7`"
	if notes := Plan(s.Input).Notes; len(notes) != 1 || notes[0].Message != want {
		t.Errorf("got %s", dump(notes))
	}
	if to, err := Target(s.State, ip7, ""); to != "lb-1" || err != nil {
		t.Errorf("a failover by hand would move it to %q: %v", to, err)
	}
}

func TestTarget(t *testing.T) {
	s := newScene()
	s.State.Settings.Ingress.ReservedIPs = []netip.Addr{ip7, ip8}
	s.assign(ip8, "lb-2")
	for _, test := range []struct {
		address  netip.Addr
		to, want string
	}{
		{ip7, "", "lb-3"}, {ip7, inventory.AnyNode, "lb-3"}, {ip7, "lb-3", "lb-3"},
		{ip7, "lb-2", "address 203.0.113.7 cannot move to node lb-2: lb-2 holds 203.0.113.8, and each droplet can hold one reserved IPv4"},
		{ip7, "lb-1", "address 203.0.113.7 is meant for node lb-1 already"},
		{ip7, "lb-9", "node lb-9 is not known: `doproxy status` lists the nodes"},
		{ip6, "", "address 2001:db8::7 is not in ingress.reserved_ips: name one that is, or add it with `doproxy apply`"},
	} {
		got, err := Target(s.State, test.address, test.to)
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s to %q: %s, want %s", test.address, test.to, got, test.want)
		}
	}
}
