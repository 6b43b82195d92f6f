package inventory

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// maxEvents is how many events a State holds.
const maxEvents = 200

// draft is the next State in the making. It clones a collection of the State
// that it began with when the first change to that one comes: the cost of a
// batch follows what it changes.
type draft struct {
	State
	keys Keys

	ownPools, ownDroplets, ownNodes, ownEvents, ownUnreadable bool
	ownMembers, ownConfirms, ownAssignments, ownDNS           bool

	changed  []replaced        // droplets, since the State it began with
	reported map[string]string // what became unreadable
	relist   bool              // a record that was set aside may be good now
}

func emptyState() *State {
	return &State{
		Pools:      map[string]*Pool{},
		Droplets:   map[string]*Droplet{},
		Nodes:      map[string]*Node{},
		Unreadable: map[string]string{},
		Settings:   new(Settings),
		order:      newOrder(nil),
		sorts:      new(nodeSorter),
	}
}

func newDraft(keys Keys, from *State) *draft { return &draft{State: *from, keys: keys} }

// done is the State that came of it. The draft must not be used any more.
func (d *draft) done() *State {
	s := d.State
	if len(d.changed) > len(s.Droplets)/4+4 {
		s.order = newOrder(s.Droplets)
	} else if len(d.changed) > 0 {
		s.order = d.order.patch(d.changed)
	}
	return &s
}

func (d *draft) put(kv KV) {
	var err error
	switch folder, name := d.keys.split(kv.Key); folder {
	case "meta":
		var meta *Meta
		if meta, err = DecodeMeta(kv); err == nil {
			d.Meta = meta
		}
	case "migration":
		d.arriving = true
	case "leader":
		d.Leader = Leader{Name: string(kv.Value), Created: kv.Created}
	case "reload":
		d.Reload, err = decodeReload(kv)
	case "settings":
		err = set(&d.Settings)(DecodeSettings(d.keys, kv))
	case "pause":
		if err = set(&d.Pause)(decodePause(kv)); err != nil && d.Pause == nil {
			d.Pause = new(Pause) // whatever it says, it is there
		}
	case "verify":
		err = set(&d.Verify)(decodeVerify(kv))
	case "report":
		err = set(&d.Report)(DecodeReport(d.keys, kv))
	case "members":
		err = enter(&d.ownMembers, &d.Members, name)(DecodeMember(d.keys, kv))
	case "confirms":
		err = enter(&d.ownConfirms, &d.Confirms, name)(decodeConfirm(kv))
	case "ingress":
		if fqdn, ok := strings.CutPrefix(name, "dns/"); ok {
			err = enter(&d.ownDNS, &d.DNS, fqdn)(DecodeDNS(d.keys, kv))
		} else {
			var a *Assignment
			if a, err = DecodeAssignment(d.keys, kv); err == nil {
				own(&d.ownAssignments, &d.Assignments)
				d.Assignments[a.Address] = a
			}
		}
	case "pools":
		var p *Pool
		if p, err = DecodePool(d.keys, kv); err == nil {
			own(&d.ownPools, &d.Pools)
			d.Pools[p.Name] = p
		}
	case "droplets":
		var drop *Droplet
		if drop, err = DecodeDroplet(d.keys, kv); err == nil {
			err = d.setDroplet(drop)
		}
	case "nodes":
		var n *Node
		if n, err = DecodeNode(d.keys, kv); err == nil {
			own(&d.ownNodes, &d.Nodes)
			d.Nodes[name] = n
			d.sorts = new(nodeSorter)
		}
	case "foreign":
		err = errForeign
	case "events":
		var e Event
		if e, err = DecodeEvent(d.keys, kv); err == nil {
			d.setEvent(e)
		}
	}
	if err != nil {
		d.setAside(kv.Key, err.Error())
	} else {
		d.forget(kv.Key)
	}
}

func (d *draft) remove(key string) {
	d.forget(key)
	switch folder, name := d.keys.split(key); folder {
	case "meta":
		d.Meta = nil
	case "migration":
		d.arriving = false
	case "leader":
		d.Leader = Leader{}
	case "reload":
		d.Reload = ""
	case "settings":
		d.Settings = d.Settings.remembered()
	case "pause":
		d.Pause = nil
	case "verify":
		d.Verify = nil
	case "report":
		d.Report = nil
	case "members":
		leave(&d.ownMembers, &d.Members, name)
	case "confirms":
		leave(&d.ownConfirms, &d.Confirms, name)
	case "ingress":
		if fqdn, ok := strings.CutPrefix(name, "dns/"); ok {
			leave(&d.ownDNS, &d.DNS, fqdn)
		} else if a, err := netip.ParseAddr(strings.TrimPrefix(name, "ip/")); err == nil {
			leave(&d.ownAssignments, &d.Assignments, a)
		}
	case "pools":
		if d.Pools[name] != nil {
			own(&d.ownPools, &d.Pools)
			delete(d.Pools, name)
		}
	case "droplets":
		pool, name, _ := strings.Cut(name, "/")
		old := d.Droplets[name]
		if old == nil || old.Pool != pool {
			return
		}
		own(&d.ownDroplets, &d.Droplets)
		delete(d.Droplets, name)
		d.changed = append(d.changed, replaced{old: old})
		for key := range d.Unreadable {
			d.relist = d.relist || strings.HasSuffix(key, "/"+name)
		}
	case "nodes":
		if d.Nodes[name] != nil {
			own(&d.ownNodes, &d.Nodes)
			delete(d.Nodes, name)
			d.sorts = new(nodeSorter)
		}
	case "events":
		if i, ok := slices.BinarySearchFunc(d.Events, name, compareEvent); ok {
			d.cloneEvents()
			d.Events = slices.Delete(d.Events, i, i+1)
		}
	}
}

// setDroplet refuses a name that another pool's droplet has: names are unique
// in a cluster.
func (d *draft) setDroplet(now *Droplet) error {
	old := d.Droplets[now.Name]
	if old != nil && old.Pool != now.Pool {
		return &nameTaken{pool: old.Pool}
	}
	own(&d.ownDroplets, &d.Droplets)
	d.Droplets[now.Name] = now
	d.changed = append(d.changed, replaced{old: old, now: now})
	return nil
}

// errForeign: not a fault of doproxy's records, so it holds nothing up.
var errForeign = errors.New("no record of this doproxy's: a newer version wrote it, or somebody else")

type nameTaken struct{ pool string }

func (e *nameTaken) Error() string { return "pool " + e.pool + " has a droplet of the same name" }

func (d *draft) setEvent(e Event) {
	d.cloneEvents()
	if i, ok := slices.BinarySearchFunc(d.Events, e.ID, compareEvent); ok {
		d.Events[i] = e
	} else {
		d.Events = slices.Insert(d.Events, i, e)
	}
	if over := len(d.Events) - maxEvents; over > 0 {
		d.Events = slices.Delete(d.Events, 0, over)
	}
}

func compareEvent(e Event, id string) int { return strings.Compare(e.ID, id) }

func (d *draft) cloneEvents() {
	if !d.ownEvents {
		d.ownEvents = true
		d.Events = append(make([]Event, 0, len(d.Events)+1), d.Events...)
	}
}

func (d *draft) setAside(key, reason string) {
	if d.Unreadable[key] == reason {
		return
	}
	own(&d.ownUnreadable, &d.Unreadable)
	d.Unreadable[key] = reason
	if d.reported == nil {
		d.reported = map[string]string{}
	}
	d.reported[key] = reason
}

func (d *draft) forget(key string) {
	if _, ok := d.Unreadable[key]; ok {
		own(&d.ownUnreadable, &d.Unreadable)
		delete(d.Unreadable, key)
	}
}

// keepGood takes over, for a draft made from a listing, the last good versions
// of what the listing has but cannot be read.
func (d *draft) keepGood(old *State) {
	for key := range d.Unreadable {
		if old.Unreadable[key] == d.Unreadable[key] {
			delete(d.reported, key)
		}
		switch folder, name := d.keys.split(key); folder {
		case "meta":
			d.Meta = old.Meta
		case "settings":
			d.Settings = old.Settings
		case "pause":
			if old.Pause != nil {
				d.Pause = old.Pause
			}
		case "members":
			if m := old.Members[name]; m != nil {
				own(&d.ownMembers, &d.Members)
				d.Members[name] = m
			}
		case "pools":
			if p := old.Pools[name]; p != nil {
				own(&d.ownPools, &d.Pools)
				d.Pools[name] = p
			}
		case "droplets":
			pool, name, _ := strings.Cut(name, "/")
			if drop := old.Droplets[name]; drop != nil && drop.Pool == pool && d.Droplets[name] == nil {
				_ = d.setDroplet(drop)
			}
		case "nodes":
			if n := old.Nodes[name]; n != nil {
				own(&d.ownNodes, &d.Nodes)
				d.Nodes[name] = n
			}
		}
	}
}

// set and enter put what a decoder returned into its place, if it is good.
func set[R any](place **R) func(*R, error) error {
	return func(r *R, err error) error {
		if err == nil {
			*place = r
		}
		return err
	}
}

func enter[R any](owned *bool, m *map[string]*R, name string) func(*R, error) error {
	return func(r *R, err error) error {
		if err == nil {
			own(owned, m)
			(*m)[name] = r
		}
		return err
	}
}

func leave[M ~map[K]V, K comparable, V any](owned *bool, m *M, key K) {
	if _, ok := (*m)[key]; ok {
		own(owned, m)
		delete(*m, key)
	}
}

// remembered are settings whose record is gone: they count on, since nothing in
// doproxy deletes it, and may be written anew.
func (s *Settings) remembered() *Settings {
	if s == nil {
		return new(Settings)
	}
	kept := *s
	kept.Mod = 0
	return &kept
}

// own clones a map before the first write to it.
func own[M ~map[K]V, K comparable, V any](owned *bool, m *M) {
	if !*owned {
		*owned = true
		*m = maps.Clone(*m)
		if *m == nil {
			*m = M{}
		}
	}
}

// split is the kind of record that a key has, and its name; "" for a key that
// the mirror does not keep.
func (k Keys) split(key string) (folder, name string) {
	rest, ok := strings.CutPrefix(key, k.prefix)
	if !ok {
		return "", ""
	}
	switch rest {
	case "meta", "reload", "settings", "pause", "verify", "report", "migration":
		return rest, ""
	case "election/leader":
		return "leader", ""
	}
	folder, name, _ = strings.Cut(rest, "/")
	switch folder {
	case "pools", "droplets", "nodes", "events", "members", "confirms", "ingress":
		if name != "" {
			return folder, name
		}
	case "ordinals", "requests":
		return "", ""
	}
	return "foreign", name
}

func (k Keys) isEvent(key string) bool {
	return strings.HasPrefix(key, k.prefix) && strings.HasPrefix(key[len(k.prefix):], "events/")
}
