package ingress

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

var (
	www  = Name{FQDN: "www.example.com", Domain: "example.com", Name: "www"}
	web1 = netip.MustParseAddr("192.0.2.1")
	web2 = netip.MustParseAddr("192.0.2.2")
	web3 = netip.MustParseAddr("192.0.2.3")
)

// dns lets the scene be about www.example.com, which has these records of ours.
func (s *scene) dns(addresses ...netip.Addr) *inventory.DNSRecords {
	s.State.Settings.Ingress = inventory.Ingress{DNS: []inventory.DNSName{{Domain: "example.com", Name: "www"}}}
	delete(s.State.Assignments, ip7)
	d := &inventory.DNSRecords{FQDN: www.FQDN, Domain: "example.com", Mod: 7}
	var listed []cloud.DNSRecord
	for _, a := range addresses {
		i := int(a.As4()[3])
		d.Records = append(d.Records, inventory.DNSRecord{Address: a, Node: fmt.Sprintf("lb-%d", i), ID: int64(i), Since: ago(time.Hour)})
		listed = append(listed, record(int64(i), a.String()))
	}
	s.State.DNS[www.FQDN] = d
	s.records(ago(time.Second), listed...)
	return d
}

func record(id int64, data string) cloud.DNSRecord {
	return cloud.DNSRecord{ID: id, Type: recordType(netip.MustParseAddr(data)), Name: "www", Data: data, TTL: 60}
}

func (s *scene) records(sent time.Time, all ...cloud.DNSRecord) {
	s.Facts.StartRecords(www, sent)
	s.Facts.EndRecords(www, sent, sent, all, nil)
}

// leaving marks a record since a moment.
func leaving(d *inventory.DNSRecords, i int, since time.Time) {
	d.Records[i].Leaving, d.Records[i].Reason, d.Records[i].Since = true, "why", since
}

func TestPlanDNS(t *testing.T) {
	created := func(s *scene, asked time.Time, err error) {
		c := Create{Name: www, Address: web3, TTL: 60, Asked: asked}
		s.Facts.StartCreate(c)
		s.Facts.EndCreate(c, ago(900*time.Millisecond), cloud.DNSRecord{ID: 33}, err)
	}
	ask := func(d *inventory.DNSRecords, asked time.Time) {
		d.Records = append(d.Records, inventory.DNSRecord{Address: web3, Node: "lb-3", Asked: asked, Since: asked})
	}
	check(t, []test{
		{"at rest", func(s *scene) { s.dns(web1, web2, web3) }, ""},
		{"the first list", func(s *scene) { s.dns(web1); s.Facts.names = map[string]records{} }, "records www.example.com"},
		{"none is there", func(s *scene) { s.dns(); delete(s.State.DNS, www.FQDN) },
			"www.example.com [192.0.2.1 asked, 192.0.2.2 asked, 192.0.2.3 asked]; create 192.0.2.1; create 192.0.2.2; create 192.0.2.3"},
		{"one is missing", func(s *scene) { s.dns(web1, web2) }, "www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3 asked]; create 192.0.2.3"},
		{"one that points at a node is taken over, another's is not", func(s *scene) {
			s.dns(web1, web2)
			s.records(ago(time.Second), record(1, "192.0.2.1"), record(2, "192.0.2.2"), record(99, "192.0.2.3"), record(98, "198.51.100.1"))
		}, "www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3#99]"},
		{"paused", func(s *scene) { s.dns(web1, web2); s.State.Pause = &inventory.Pause{} }, "note dns www.example.com 192.0.2.3"},
		{"unreadable", func(s *scene) {
			s.dns(web1)
			s.State.Unreadable = map[string]string{"/doproxy/c/ingress/dns/www.example.com": "bad"}
		}, "note unreadable dns/www.example.com"},
		{"no such domain", func(s *scene) {
			s.dns(web1, web2, web3)
			s.Facts.StartRecords(www, ago(time.Second))
			s.Facts.EndRecords(www, ago(time.Second), ago(100*time.Millisecond), nil, cloud.ErrNotFound)
		}, "note dns www.example.com missing"},
		{"IPv6 too", func(s *scene) {
			s.dns(web1, web2, web3)
			s.State.Nodes["lb-2"].PublicIPv6 = netip.MustParseAddr("2001:db8::2")
		}, "www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3#3, 2001:db8::2 asked]; create 2001:db8::2"},
		{"a node that is not settled waits", func(s *scene) {
			s.dns(web1, web2)
			s.ails("lb-3", "failed", ago(50*time.Second))
			s.ails("lb-3", "running", ago(20*time.Second))
		}, ""},
		{"a node that is not settled is better than none", func(s *scene) {
			s.dns()
			s.ails("lb-3", "failed", ago(50*time.Second))
			s.ails("lb-3", "running", ago(20*time.Second))
			s.vanishes("lb-1", ago(10*time.Second))
			s.vanishes("lb-2", ago(10*time.Second))
		}, "www.example.com [192.0.2.3 asked]; create 192.0.2.3"},

		// Creates.
		{"created", func(s *scene) { ask(s.dns(web1, web2), ago(2*time.Second)); created(s, ago(2*time.Second), nil) },
			"www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3#33]"},
		{"refused", func(s *scene) {
			ask(s.dns(web1, web2), ago(2*time.Second))
			created(s, ago(2*time.Second), &cloud.Refused{Status: 422, Message: "no"})
		}, "www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3 asked]; create 192.0.2.3; note dns www.example.com failing"},
		{"unknown", func(s *scene) {
			ask(s.dns(web1, web2), ago(2*time.Second))
			created(s, ago(2*time.Second), cloud.ErrAmbiguous)
		},
			"records www.example.com"},
		{"unknown, found", func(s *scene) {
			ask(s.dns(web1, web2), ago(2*time.Second))
			created(s, ago(2*time.Second), cloud.ErrAmbiguous)
			s.records(ago(500*time.Millisecond), record(1, "192.0.2.1"), record(2, "192.0.2.2"), record(44, "192.0.2.3"))
		}, "www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3#44]"},
		{"unknown, settled", func(s *scene) {
			ask(s.dns(web1, web2), ago(17*time.Second))
			created(s, ago(17*time.Second), cloud.ErrAmbiguous)
			s.records(ago(500*time.Millisecond), record(1, "192.0.2.1"), record(2, "192.0.2.2"))
		}, "www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3 asked]; create 192.0.2.3"},
		{"asked for by the leader before", func(s *scene) {
			ask(s.dns(web1, web2), ago(time.Minute))
			s.Facts.Term = ago(3 * time.Second)
		}, "records www.example.com"},

		// What is to go.
		{"HAProxy failed", func(s *scene) { s.dns(web1, web2, web3); s.ails("lb-1", "failed", ago(time.Second)) },
			"www.example.com [192.0.2.1#1 leaving, 192.0.2.2#2, 192.0.2.3#3]"},
		{"drained", func(s *scene) { s.dns(web1, web2, web3); s.drain("lb-1") },
			"www.example.com [192.0.2.1#1 leaving, 192.0.2.2#2, 192.0.2.3#3]"},
		{"its address is another now", func(s *scene) {
			s.dns(web1, web2, web3)
			s.State.Nodes["lb-1"].PublicIPv4 = netip.MustParseAddr("192.0.2.9")
		}, "www.example.com [192.0.2.1#1 leaving, 192.0.2.2#2, 192.0.2.3#3, 192.0.2.9 asked]; create 192.0.2.9"},
		{"the last one stays", func(s *scene) {
			s.dns(web1)
			s.ails("lb-1", "failed", ago(time.Second))
			s.ails("lb-2", "failed", ago(time.Second))
			s.ails("lb-3", "failed", ago(time.Second))
		}, "note dns www.example.com 192.0.2.1"},
		{"all stay if none is fit", func(s *scene) {
			s.dns(web1, web2, web3)
			for i := range 3 {
				s.ails(fmt.Sprintf("lb-%d", i+1), "failed", ago(time.Second))
			}
		}, "note dns www.example.com 192.0.2.1; note dns www.example.com 192.0.2.2; note dns www.example.com 192.0.2.3"},
		{"create before delete", func(s *scene) {
			s.dns(web1)
			s.vanishes("lb-3", ago(time.Second))
			s.ails("lb-1", "failed", ago(time.Second))
		},
			"www.example.com [192.0.2.1#1, 192.0.2.2 asked]; create 192.0.2.2; note dns www.example.com 192.0.2.1"},
		{"leaving, on a fresh list's word", func(s *scene) {
			leaving(s.dns(web1, web2, web3), 0, ago(2*time.Second))
			s.ails("lb-1", "failed", ago(3*time.Second))
		}, "delete 1"},
		{"leaving, and the list is old", func(s *scene) {
			leaving(s.dns(web1, web2, web3), 0, ago(2*time.Second))
			s.ails("lb-1", "failed", ago(3*time.Second))
			s.records(ago(6*time.Second), record(1, "192.0.2.1"), record(2, "192.0.2.2"), record(3, "192.0.2.3"))
		}, "records www.example.com"},
		{"leaving, and the others are gone", func(s *scene) {
			leaving(s.dns(web1, web2, web3), 0, ago(2*time.Second))
			s.ails("lb-1", "failed", ago(3*time.Second))
			s.ails("lb-2", "failed", ago(200*time.Millisecond))
			s.ails("lb-3", "failed", ago(200*time.Millisecond))
		}, "note dns www.example.com 192.0.2.1"},
		{"leaving, paused", func(s *scene) {
			leaving(s.dns(web1, web2, web3), 0, ago(2*time.Second))
			s.ails("lb-1", "failed", ago(3*time.Second))
			s.State.Pause = &inventory.Pause{}
		}, "note dns www.example.com 192.0.2.1"},
		{"deleted", func(s *scene) {
			leaving(s.dns(web1, web2, web3), 0, ago(2*time.Second))
			s.ails("lb-1", "failed", ago(3*time.Second))
			c := Change{www, cloud.DNSRecord{ID: 1}}
			s.Facts.StartDelete(c, ago(time.Second))
			s.Facts.EndDelete(c, ago(500*time.Millisecond), cloud.ErrNotFound)
		}, "www.example.com [192.0.2.2#2, 192.0.2.3#3]"},
		{"fit again before it was deleted", func(s *scene) { leaving(s.dns(web1, web2, web3), 0, ago(2*time.Second)) },
			"www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3#3]"},

		// What others did.
		{"deleted by somebody", func(s *scene) {
			s.dns(web1, web2, web3)
			s.records(ago(time.Second), record(1, "192.0.2.1"), record(2, "192.0.2.2"))
		}, "www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3 asked]; create 192.0.2.3"},
		{"changed by somebody", func(s *scene) {
			s.dns(web1, web2, web3)
			s.records(ago(time.Second), record(1, "192.0.2.1"), record(2, "192.0.2.2"), record(3, "198.51.100.1"))
		}, "www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3#3 leaving, 192.0.2.3 asked]; create 192.0.2.3"},
		{"another TTL", func(s *scene) { s.dns(web1, web2, web3); s.State.Settings.Ingress.DNS[0].TTL = 300 }, "ttl 1 300; ttl 2 300; ttl 3 300"},
		{"taken out of the settings", func(s *scene) { s.dns(web1, web2, web3); s.State.Settings.Ingress.DNS = nil }, "forget www.example.com"},
	})
}

func TestVerify(t *testing.T) {
	s := newScene()
	other := s.State.Settings.Ingress.ReservedIPs
	a := s.a
	s.dns(web1, web2)
	s.State.Settings.Ingress.ReservedIPs = other
	s.State.Assignments[ip7] = a
	s.State.Verify = &inventory.Verify{ID: "v1"}
	s.Facts.See(s.State, ago(900*time.Millisecond))
	if got := story(Plan(s.Input)); got != "www.example.com [192.0.2.1#1, 192.0.2.2#2, 192.0.2.3 asked]; create 192.0.2.3; list; records www.example.com" {
		t.Errorf("it is asked: %s", got)
	}
	s.Facts.StartList(ago(100 * time.Millisecond))
	s.Facts.EndList(ago(100*time.Millisecond), noon, []cloud.ReservedIP{{Address: ip7, Droplet: 99}}, nil)
	x := record(2, "192.0.2.2")
	x.TTL = 30
	s.records(ago(100*time.Millisecond), record(1, "192.0.2.1"), x, record(9, "198.51.100.9"))
	d := Plan(s.Input)
	want := `[{"kind":"reserved_ip.holder","subject":"203.0.113.7","node":"lb-1","message":"it is at droplet 99 and is meant for lb-1, droplet 11"},` +
		`{"kind":"dns.ttl","subject":"www.example.com","node":"lb-2","message":"A 192.0.2.2 (lb-2) has TTL 30 instead of 60"},` +
		`{"kind":"dns.missing","subject":"www.example.com","node":"lb-3","message":"A 192.0.2.3 (lb-3) is missing"}]`
	if got := dump(d.Differences); d.Verified != "v1" || got != want {
		t.Errorf("%s: %s", d.Verified, got)
	}
	s.Facts.EndVerify("v1")
	if d := Plan(s.Input); d.Verified != "" {
		t.Error("it is answered twice")
	}
}
