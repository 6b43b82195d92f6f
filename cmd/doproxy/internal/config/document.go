package config

import (
	"path/filepath"

	"github.com/goccy/go-yaml/ast"

	"github.com/doproxy/doproxy/inventory"
)

// Document is what a file of `doproxy apply -f` says.
type Document struct {
	Pools []Pool
	// Settings are nil if the file has neither limits nor ingress. HasLimits and
	// HasIngress say which it has: the other is zero because nothing was said.
	Settings              *inventory.Settings
	HasLimits, HasIngress bool
}

// ParseDocument reads a file of `doproxy apply -f`: YAML documents that are each
// one pool, a mapping with pools, limits or ingress, or a whole doproxy.yml.
// Files that it names are looked for from the folder of file. The error joins
// an *Error for each thing that is wrong.
func ParseDocument(file string, data []byte) (*Document, error) {
	return parseDocument(file, data, machine(nil))
}

// ParsePools is ParseDocument for the pools alone.
func ParsePools(file string, data []byte) ([]Pool, error) {
	d, err := ParseDocument(file, data)
	if err != nil {
		return nil, err
	}
	return d.Pools, nil
}

func parseDocument(file string, data []byte, w world) (*Document, error) {
	p := newProblems(file)
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, &Error{File: file, Message: "has no absolute name: " + err.Error()}
	}
	out := &Document{}
	names := make(map[string]int) // line of each pool's
	said := make(map[string]int)  // line of limits and of ingress
	for _, body := range documents(p, data) {
		// Each document has its own keys, all of them go into one list of errors.
		p.lines, p.begin = map[string]int{"": lineOf(body)}, len(p.errors)
		r := &resolver{problems: p, world: w, file: &File{}, dir: filepath.Dir(abs)}
		if _, ok := body.(ast.MapNode); !ok {
			decode(p, body, "", &PoolFile{}) // says what it should be
			continue
		}
		var pools []Pool
		at := func(int) string { return "" }
		if hasKey(body, "pools") || hasKey(body, "droplet_options") || hasKey(body, "limits") || hasKey(body, "ingress") {
			decode(p, body, "", r.file)
			pools = r.pools()
			at = func(i int) string { return index("pools", i) }
			out.settle(r, said)
		} else {
			var f PoolFile
			decode(p, body, "", &f)
			pools = []Pool{r.pool("", &f)}
		}
		for i := range pools {
			name, key := pools[i].Name, join(at(i), "name")
			if first, twice := names[name]; twice && name != "" {
				p.addf(key, "%s is the name of two pools, the first in line %d: rename one", show(name), first)
			} else {
				names[name] = p.line(key)
			}
		}
		out.Pools = append(out.Pools, pools...)
	}
	if len(out.Pools) == 0 && out.Settings == nil && len(p.errors) == 0 {
		p.addAt(0, "", "holds nothing to apply: write a pool, beginning with name:, or limits: or ingress:")
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// settle takes the settings of one YAML document; said has those of the ones
// before.
func (d *Document) settle(r *resolver, said map[string]int) {
	for _, key := range []string{"limits", "ingress"} {
		if !r.has(key) {
			continue
		}
		if first, twice := said[key]; twice {
			r.addf(key, "is there twice, first in line %d: remove one", first)
			continue
		}
		said[key] = r.line(key)
	}
	s := r.settings()
	if s == nil {
		return
	}
	if d.Settings == nil {
		d.Settings = &inventory.Settings{}
	}
	if r.has("limits") {
		d.Settings.Limits, d.HasLimits = s.Limits, true
	}
	if r.has("ingress") {
		d.Settings.Ingress, d.HasIngress = s.Ingress, true
	}
}

func hasKey(n ast.Node, key string) bool {
	m, ok := n.(ast.MapNode)
	if !ok {
		return false
	}
	for it := m.MapRange(); it.Next(); {
		if s, ok := it.Key().(*ast.StringNode); ok && s.Value == key {
			return true
		}
	}
	return false
}
