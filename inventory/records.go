package inventory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// record is what a store keeps under a key of its own.
type record interface {
	// check says what is wrong with a record found under this name.
	check(name string) error
	// keep is where the record carries members that this program does not know.
	keep() *unknown
}

func (p *Pool) keep() *unknown    { return &p.unknown }
func (d *Droplet) keep() *unknown { return &d.unknown }
func (n *Node) keep() *unknown    { return &n.unknown }

func (s *Settings) keep() *unknown   { return &s.unknown }
func (a *Assignment) keep() *unknown { return &a.unknown }
func (d *DNSRecords) keep() *unknown { return &d.unknown }
func (m *Member) keep() *unknown     { return &m.unknown }
func (r *Report) keep() *unknown     { return &r.unknown }

func (*Settings) check(string) error          { return nil }
func (*Report) check(string) error            { return nil }
func (a *Assignment) check(name string) error { return sameName(a.Address.String(), name) }
func (d *DNSRecords) check(name string) error { return sameName(d.FQDN, name) }
func (m *Member) check(name string) error     { return errors.Join(sameName(m.Name, name), plain(m.Name)) }

func (p *Pool) check(name string) error { return errors.Join(sameName(p.Name, name), plain(p.Name)) }
func (n *Node) check(name string) error { return errors.Join(sameName(n.Name, name), plain(n.Name)) }

// check takes the name that the droplet's key ends with: <pool>/<name>.
func (d *Droplet) check(name string) error {
	return errors.Join(sameName(d.Pool+"/"+d.Name, name), plain(d.Pool), plain(d.Name))
}

// plain refuses what would belong under another key. What else a name may be is
// for those who make one to say.
func plain(name string) error {
	if name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("%q is not a name", name)
	}
	return nil
}

func sameName(got, key string) error {
	if got != key {
		return fmt.Errorf("the record names itself %q", got)
	}
	return nil
}

// DecodePool reads the record of a pool. Its error, like those of the other
// decoders, names the key: the value is not such a record, or belongs elsewhere.
func DecodePool(keys Keys, kv KV) (*Pool, error) {
	p := new(Pool)
	if err := decodeRecord(kv, keys.Pool(""), p); err != nil {
		return nil, err
	}
	p.Mod = kv.Mod
	return p, nil
}

// DecodeDroplet reads the record of a droplet.
func DecodeDroplet(keys Keys, kv KV) (*Droplet, error) {
	d := new(Droplet)
	if err := decodeRecord(kv, keys.droplets(), d); err != nil {
		return nil, err
	}
	d.Mod = kv.Mod
	return d, nil
}

// DecodeNode reads a node's report.
func DecodeNode(keys Keys, kv KV) (*Node, error) {
	n := new(Node)
	if err := decodeRecord(kv, keys.Node(""), n); err != nil {
		return nil, err
	}
	n.Mod = kv.Mod
	return n, nil
}

// DecodeSettings reads the operator's settings.
func DecodeSettings(keys Keys, kv KV) (*Settings, error) {
	s := new(Settings)
	if err := decodeRecord(kv, keys.Settings(), s); err != nil {
		return nil, err
	}
	s.Mod = kv.Mod
	return s, nil
}

// DecodeAssignment reads the intended holder of a reserved IP.
func DecodeAssignment(keys Keys, kv KV) (*Assignment, error) {
	a := new(Assignment)
	if err := decodeRecord(kv, keys.assignments(), a); err != nil {
		return nil, err
	}
	a.Mod = kv.Mod
	return a, nil
}

// DecodeDNS reads what is known of a name's records.
func DecodeDNS(keys Keys, kv KV) (*DNSRecords, error) {
	d := new(DNSRecords)
	if err := decodeRecord(kv, keys.dns(), d); err != nil {
		return nil, err
	}
	d.Mod = kv.Mod
	return d, nil
}

// DecodeMember reads a node that the cluster knows.
func DecodeMember(keys Keys, kv KV) (*Member, error) {
	m := new(Member)
	if err := decodeRecord(kv, keys.Member(""), m); err != nil {
		return nil, err
	}
	m.Mod = kv.Mod
	return m, nil
}

// DecodeReport reads what the leader has to tell.
func DecodeReport(keys Keys, kv KV) (*Report, error) {
	r := new(Report)
	if err := decodeRecord(kv, keys.Report(), r); err != nil {
		return nil, err
	}
	r.Mod = kv.Mod
	return r, nil
}

func decodePause(kv KV) (*Pause, error) {
	p := &Pause{Mod: kv.Mod}
	return p, named(kv, decodeLoose(kv.Value, p))
}

func decodeConfirm(kv KV) (*Confirm, error) {
	c := &Confirm{Mod: kv.Mod}
	return c, named(kv, decodeLoose(kv.Value, c))
}

func decodeVerify(kv KV) (*Verify, error) {
	v := &Verify{Mod: kv.Mod}
	return v, named(kv, decodeLoose(kv.Value, v))
}

func named(kv KV, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", kv.Key, err)
	}
	return nil
}

// DecodeMeta reads the cluster's own record.
func DecodeMeta(kv KV) (*Meta, error) {
	m := new(Meta)
	if err := decodeLoose(kv.Value, m); err != nil {
		return nil, fmt.Errorf("%s: %w", kv.Key, err)
	}
	if m.UID == "" {
		return nil, fmt.Errorf("%s: no uid", kv.Key)
	}
	m.Mod = kv.Mod
	return m, nil
}

// DecodeEvent reads an event.
func DecodeEvent(keys Keys, kv KV) (Event, error) {
	var e Event
	if err := decodeLoose(kv.Value, &e); err != nil {
		return Event{}, fmt.Errorf("%s: %w", kv.Key, err)
	}
	if err := sameName(e.ID, strings.TrimPrefix(kv.Key, keys.Event(""))); err != nil {
		return Event{}, fmt.Errorf("%s: %w", kv.Key, err)
	}
	return e, nil
}

func decodeRecord(kv KV, folder string, r record) error {
	if err := decodeKeeping(kv.Value, r, r.keep()); err != nil {
		return fmt.Errorf("%s: %w", kv.Key, err)
	}
	if err := r.check(strings.TrimPrefix(kv.Key, folder)); err != nil {
		return fmt.Errorf("%s: %w", kv.Key, err)
	}
	return nil
}

// decodeLoose reads one JSON value with nothing after it.
func decodeLoose(value []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(value))
	if err := dec.Decode(into); err != nil {
		return readable(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

func readable(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON ends too early")
	}
	return err
}

// encode writes a record as one line of JSON. It panics on what JSON cannot
// hold, a price of NaN or a year past 9999, which only a bug can bring here.
func encode(v any) []byte {
	value, err := marshal(v)
	if err == nil {
		if r, ok := v.(record); ok {
			value, err = r.keep().mergeInto(value)
		}
	}
	if err != nil {
		panic(fmt.Sprintf("inventory: encoding %T: %v", v, err))
	}
	return value
}

// marshal leaves <, > and & as they are: records are read with etcdctl, not
// put into web pages.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
