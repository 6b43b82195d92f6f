package inventory

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/google/renameio/v2"
)

// saved is a State on disk. Records are in the form in which the store has them.
type saved struct {
	Revision Revision         `json:"revision"`
	Meta     *Meta            `json:"meta,omitempty"`
	Floor    map[string]int64 `json:"floor,omitempty"` // see State.Floor
	Records  []savedRecord    `json:"records"`
}

type savedRecord struct {
	Key   string          `json:"key"`
	Mod   Revision        `json:"mod"`
	Value json.RawMessage `json:"value"`
}

// savedKeys stand for those of the cluster, which the file need not name.
var savedKeys = Keys{prefix: "/"}

// SaveState writes the pools, droplets, settings, members and meta record of a state to a file, at
// once and readable for its owner only, since user data may hold secrets.
func SaveState(path string, s *State) error {
	file := saved{Revision: s.Revision, Meta: s.Meta, Floor: s.Floor}
	add := func(key string, mod Revision, record any) {
		file.Records = append(file.Records, savedRecord{Key: key, Mod: mod, Value: encode(record)})
	}
	if s.Settings != nil && s.Settings.Mod != 0 {
		add(savedKeys.Settings(), s.Settings.Mod, s.Settings)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Members)) {
		add(savedKeys.Member(name), s.Members[name].Mod, s.Members[name])
	}
	for _, p := range s.SortedPools() {
		add(savedKeys.Pool(p.Name), p.Mod, p)
	}
	for _, d := range s.SortedDroplets() {
		add(savedKeys.Droplet(d.Pool, d.Name), d.Mod, d)
	}
	data, err := marshal(file)
	if err != nil {
		return fmt.Errorf("encoding the inventory for %s: %w", path, err)
	}
	if err := renameio.WriteFile(path, append(data, '\n'), 0o600, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("saving the inventory: %w", err)
	}
	return nil
}

// LoadState reads what SaveState wrote. A file that does not exist is an error
// that wraps fs.ErrNotExist. One record that cannot be read is an error too: a
// part of the inventory must not pass for the whole.
func LoadState(path string) (*State, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("loading the saved inventory: %w", err)
	}
	var file saved
	if err := decodeLoose(data, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := newDraft(savedKeys, emptyState())
	for _, r := range file.Records {
		d.put(KV{Key: r.Key, Value: r.Value, Mod: r.Mod})
	}
	for _, reason := range d.Unreadable {
		return nil, fmt.Errorf("%s: %s", path, reason)
	}
	s := d.done()
	s.Revision, s.Inventory, s.Meta = file.Revision, file.Revision, file.Meta
	s.Floor = raised(file.Floor, s.Pools)
	s.Err = errNotRead
	return s, nil
}
