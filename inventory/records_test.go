package inventory_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/inventory"
)

func TestDurationsAreReadable(t *testing.T) {
	p := &inventory.Pool{PoolSpec: inventory.PoolSpec{Name: "web", Backend: inventory.Backend{CheckInterval: inventory.Duration(1500 * time.Millisecond)}}}
	op := opOf(inventory.PutPool(keys, p))
	if want := `"check_interval":"1.5s"`; !strings.Contains(string(op.Value), want) || strings.Contains(string(op.Value), "drain_deadline") {
		t.Errorf("record is %s, want %s in it and no zero duration", op.Value, want)
	}
	got, err := inventory.DecodePool(keys, inventory.KV{Key: op.Key, Value: op.Value, Mod: 7})
	if err != nil || got.Backend.CheckInterval != p.Backend.CheckInterval || got.Mod != 7 {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if d := inventory.Duration(0).Or(time.Minute); d != time.Minute {
		t.Errorf("Or = %s", d)
	}
}

// Two versions of doproxy run side by side: the older one changes a record of
// the newer one without losing what it does not know.
func TestUnknownMembersSurvive(t *testing.T) {
	value := `{"name":"web","hostname_prefix":"web","min":1,"max":3,"desired":2,"next_ordinal":9,` +
		`"template":{"region":"fra1","size":"s","image":"i","gpu":{"kind":"x<y"}},` +
		`"backend":{"cookie":"SRV","port":8080},"policy":{},"colour":["blue",1.50],"big":12345678901234567890}`
	p, err := inventory.DecodePool(keys, inventory.KV{Key: keys.Pool("web"), Value: []byte(value), Mod: 3})
	if err != nil {
		t.Fatal(err)
	}
	changed := *p
	changed.Desired = 3
	changed.PoolSpec.Backend = inventory.Backend{Port: 81} // as an operator's apply does
	op := opOf(inventory.PutPool(keys, &changed))
	var got map[string]json.RawMessage
	if err := json.Unmarshal(op.Value, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"colour": `["blue",1.50]`, "big": "12345678901234567890", "desired": "3", "backend": `{"cookie":"SRV","port":81}`}
	for name, value := range want {
		if string(got[name]) != value {
			t.Errorf("%s is %s, want %s", name, got[name], value)
		}
	}
	if !strings.Contains(string(got["template"]), `"gpu":{"kind":"x<y"}`) {
		t.Errorf("template is %s, want gpu in it", got["template"])
	}
	again, err := inventory.DecodePool(keys, inventory.KV{Key: op.Key, Value: op.Value})
	if err != nil || !reflect.DeepEqual(opOf(inventory.PutPool(keys, again)).Value, op.Value) {
		t.Errorf("a second round differs: %v", err)
	}

	d, err := inventory.DecodeDroplet(keys, inventory.KV{Key: keys.Droplet("web", "web-1"), Value: []byte(`{"name":"web-1","pool":"web","new":true}`)})
	if err != nil {
		t.Fatal(err)
	}
	if got := opOf(inventory.PutDroplet(keys, d)).Value; !strings.Contains(string(got), `"new":true`) {
		t.Errorf("droplet is %s", got)
	}
	n, err := inventory.DecodeNode(keys, inventory.KV{Key: keys.Node("lb1"), Value: []byte(`{"name":"lb1","new":true}`)})
	if err != nil {
		t.Fatal(err)
	}
	if got := inventory.PutNode(keys, n, 1).Value; !strings.Contains(string(got), `"new":true`) {
		t.Errorf("node is %s", got)
	}
}

func TestRecordsThatAreRefused(t *testing.T) {
	key := keys.Droplet("web", "web-1")
	for value, want := range map[string]string{
		``:                                 "ends too early",
		`{"name":"web-1","pool":"w`:        "ends too early",
		`null`:                             `names itself "/"`,
		`[]`:                               "cannot unmarshal",
		`{}`:                               `names itself "/"`,
		`{"name":"web-2","pool":"web"}`:    `names itself "web/web-2"`,
		`{"name":"web-1","pool":"api"}`:    `names itself "api/web-1"`,
		`{"name":"web-1","pool":"web"} {}`: "more than one",
		`{"name":"web-1","pool":"web","private_ipv4":"10.0.0"}`:   "ParseAddr",
		`{"name":"web-1","pool":"web","id":"x","unknown":"also"}`: "cannot unmarshal",
	} {
		_, err := inventory.DecodeDroplet(keys, inventory.KV{Key: key, Value: []byte(value)})
		if err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), want) {
			t.Errorf("decoding %q: %v, want an error with the key and %q", value, err, want)
		}
	}
}

func TestNamesWithASlashAreRefused(t *testing.T) {
	for key, value := range map[string]string{
		keys.Droplet("web", "a/b"): `{"pool":"web","name":"a/b"}`,
		keys.Droplet("web", "/b"):  `{"pool":"web/","name":"b"}`,
		keys.Droplet("web", ""):    `{"pool":"web","name":""}`,
	} {
		if d, err := inventory.DecodeDroplet(keys, inventory.KV{Key: key, Value: []byte(value)}); err == nil {
			t.Errorf("%s was taken for %+v", key, d)
		}
	}
	if _, err := inventory.DecodePool(keys, inventory.KV{Key: keys.Pool("a/b"), Value: []byte(`{"name":"a/b"}`)}); err == nil {
		t.Error("pool a/b was accepted")
	}
}

func TestDropletRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &inventory.Droplet{
			Name: rapid.StringMatching(`[a-z]{1,8}-[0-9]{1,3}`).Draw(t, "name"), Pool: rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "pool"),
			Phase:       rapid.SampledFrom([]inventory.Phase{inventory.Requested, inventory.Serving}).Draw(t, "phase"),
			ID:          rapid.Int64Min(0).Draw(t, "id"),
			PrivateIPv4: netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "ip"))),
			Created:     time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "at"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC(),
			PriceHourly: rapid.Float64Range(0, 100).Draw(t, "price"),
			Reason:      rapid.String().Draw(t, "reason"),
		}
		op := opOf(inventory.PutDroplet(keys, d))
		got, err := inventory.DecodeDroplet(keys, inventory.KV{Key: op.Key, Value: op.Value})
		if err != nil || *got != *d {
			t.Fatalf("%s became %+v, %v, want %+v", op.Value, got, err, d)
		}
	})
}

func TestSavedState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.json")
	if _, err := inventory.LoadState(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadState of no file: %v", err)
	}
	a, b := droplet("web", "web-1", 1), droplet("api", "api-1", 2)
	a.Mod, b.Mod = 10, 11
	s := &inventory.State{
		Revision: 12,
		Meta:     &inventory.Meta{UID: "u", Schema: 1},
		Pools:    map[string]*inventory.Pool{"web": {PoolSpec: inventory.PoolSpec{Name: "web", Max: 3}, Mod: 9}},
		Droplets: map[string]*inventory.Droplet{a.Name: a, b.Name: b},
	}
	if err := inventory.SaveState(path, s); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("file is %v, %v", info.Mode(), err)
	}
	got, err := inventory.LoadState(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Revision != 12 || got.Listed || *got.Meta != *s.Meta || !reflect.DeepEqual(got.Pools, s.Pools) ||
		!reflect.DeepEqual(got.Droplets, s.Droplets) || got.ETag() != s.ETag() {
		t.Errorf("loaded %+v, want %+v", got, s)
	}
	if err := os.WriteFile(path, []byte(`{"revision":1,"records":[{"key":"/pools/web","value":{"name":"x"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := inventory.LoadState(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("LoadState of a bad record: %v", err)
	}
}
