package inventory

import "time"

// The operations below write records as they were read, changed: guarded by the
// record's Mod, where zero asks that there be none yet. They panic on a record
// that JSON cannot hold. A record written this way has a new Mod that only a
// read tells; do not write the same pointer twice.

// PutPool writes a pool.
func PutPool(keys Keys, p *Pool) (Guard, Op) { return put(keys.Pool(p.Name), p.Mod, p) }

// DeletePool deletes a pool's record.
func DeletePool(keys Keys, p *Pool) (Guard, Op) { return remove(keys.Pool(p.Name), p.Mod) }

// PutDroplet writes a droplet.
func PutDroplet(keys Keys, d *Droplet) (Guard, Op) {
	return put(keys.Droplet(d.Pool, d.Name), d.Mod, d)
}

// DeleteDroplet deletes a droplet's record.
func DeleteDroplet(keys Keys, d *Droplet) (Guard, Op) {
	return remove(keys.Droplet(d.Pool, d.Name), d.Mod)
}

// PutNode writes a node's report, bound to its lease. It has no guard: a node's
// name is its own.
func PutNode(keys Keys, n *Node, lease LeaseID) Op {
	return Op{Key: keys.Node(n.Name), Value: encode(n), Lease: lease}
}

// PutEvent writes an event, bound to a lease that lets it expire.
func PutEvent(keys Keys, e Event, lease LeaseID) Op {
	return Op{Key: keys.Event(e.ID), Value: encode(e), Lease: lease}
}

// PutSettings writes the operator's settings.
func PutSettings(keys Keys, s *Settings) (Guard, Op) { return put(keys.Settings(), s.Mod, s) }

// PutAssignment writes the intended holder of a reserved IP.
func PutAssignment(keys Keys, a *Assignment) (Guard, Op) {
	return put(keys.Assignment(a.Address), a.Mod, a)
}

// DeleteAssignment forgets a reserved IP.
func DeleteAssignment(keys Keys, a *Assignment) (Guard, Op) {
	return remove(keys.Assignment(a.Address), a.Mod)
}

// PutDNS writes what is known of a name's records.
func PutDNS(keys Keys, d *DNSRecords) (Guard, Op) { return put(keys.DNS(d.FQDN), d.Mod, d) }

// DeleteDNS forgets a name.
func DeleteDNS(keys Keys, d *DNSRecords) (Guard, Op) { return remove(keys.DNS(d.FQDN), d.Mod) }

// PutMember writes a node that the cluster knows.
func PutMember(keys Keys, m *Member) (Guard, Op) { return put(keys.Member(m.Name), m.Mod, m) }

// DeleteMember forgets a node.
func DeleteMember(keys Keys, m *Member) (Guard, Op) { return remove(keys.Member(m.Name), m.Mod) }

// PutPause stops every change at the cloud.
func PutPause(keys Keys, p *Pause) (Guard, Op) { return put(keys.Pause(), p.Mod, p) }

// DeletePause ends a pause.
func DeletePause(keys Keys, p *Pause) (Guard, Op) { return remove(keys.Pause(), p.Mod) }

// PutConfirm writes a confirmation, bound to a lease that lets it expire. It
// replaces one that stands.
func PutConfirm(keys Keys, c *Confirm, lease LeaseID) (Guard, Op) {
	guard, op := put(keys.Confirm(c.Pool), c.Mod, c)
	op.Lease = lease
	return guard, op
}

// PutVerify asks for a look.
func PutVerify(keys Keys, v *Verify) (Guard, Op) { return put(keys.Verify(), v.Mod, v) }

// PutReport writes what the leader has to tell. It has no guard of its own: the
// leader's fence is enough.
func PutReport(keys Keys, r *Report) Op { return Op{Key: keys.Report(), Value: encode(r)} }

func put(key string, mod Revision, record any) (Guard, Op) {
	return Guard{Key: key, Mod: mod}, Op{Key: key, Value: encode(record)}
}

func remove(key string, mod Revision) (Guard, Op) {
	return Guard{Key: key, Mod: mod}, Op{Key: key, Delete: true}
}

// reload is the record of a reload asked of all nodes.
type reload struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
}

// PutReload asks all nodes to reload their HAProxy. id is a ULID.
func PutReload(keys Keys, id string, now time.Time) Op {
	return Op{Key: keys.Reload(), Value: encode(reload{id, now})}
}

func decodeReload(kv KV) (string, error) {
	var r reload
	err := decodeLoose(kv.Value, &r)
	return r.ID, err
}
