package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// rebuildFor is how long after an inventory was begun anew the cloud's tags stand
// in for records that it lacks.
const rebuildFor = time.Hour

// rebuiltMax is the least Max of a pool made from tags.
const rebuiltMax = 20

// rebuilding: the inventory was begun anew a short while ago.
func (p *planner) rebuilding() bool {
	rebuilt := p.State.Meta.Rebuilt
	return !rebuilt.IsZero() && p.now.Before(rebuilt.Add(rebuildFor))
}

// orphan keeps a stranger whose pool is to be made from tags, and says whether
// it is one.
func (p *planner) orphan(c *cloud.Droplet) bool {
	if !p.rebuilding() || !p.listed() || p.unreadPools[c.Pool] ||
		inventory.ValidName(c.Pool) != nil || inventory.ValidHostname(c.Name) != nil {
		return false
	}
	if p.orphans == nil {
		p.orphans = map[string][]*cloud.Droplet{}
	}
	p.orphans[c.Pool] = append(p.orphans[c.Pool], c)
	return true
}

// rebuild makes the records of pools that only tags tell of. Their droplets are
// adopted by the next run.
func (p *planner) rebuild() {
	taken := map[string]bool{}
	for _, pool := range p.State.Pools {
		taken[strings.ToLower(pool.HostnamePrefix)] = true
	}
	names := slices.Collect(maps.Keys(p.orphans))
	slices.SortFunc(names, func(a, b string) int { // the one with most droplets keeps its prefix
		return cmp.Or(cmp.Compare(len(p.orphans[b]), len(p.orphans[a])), cmp.Compare(a, b))
	})
	for _, name := range names {
		pool := p.poolFromTags(name, p.orphans[name], taken)
		taken[strings.ToLower(pool.HostnamePrefix)] = true
		p.out.Groups = append(p.out.Groups, Group{
			Writes: []Write{{Pool: pool}},
			Events: []inventory.Event{{Time: p.now, Type: "pool.rebuilt", Pool: name, Message: fmt.Sprintf(
				"made anew from the tags of %d droplets, hostname prefix %s", pool.Desired, pool.HostnamePrefix)}},
		})
	}
}

// poolFromTags wants the droplets that are there. It creates none, since droplets
// tell neither their user data nor their keys, until its spec is applied.
func (p *planner) poolFromTags(name string, found []*cloud.Droplet, taken map[string]bool) *inventory.Pool {
	names := map[string]bool{}
	prefixes, regions, sizes, images := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	for _, c := range found {
		names[c.Name] = true
		regions[c.Region]++
		sizes[c.Size]++
		images[c.Image]++
		if i := strings.LastIndexByte(c.Name, '-'); i > 0 {
			if _, ok := inventory.Ordinal(c.Name[:i], c.Name); ok {
				prefixes[c.Name[:i]]++
			}
		}
	}
	prefix := name + "-rebuilt"
	for _, likely := range []string{most(prefixes), name} {
		if likely != "" && !taken[strings.ToLower(likely)] {
			prefix = likely
			break
		}
	}
	next := p.floor(prefix)
	for c := range names {
		if n, ok := inventory.Ordinal(prefix, c); ok {
			next = max(next, n+1)
		}
	}
	return &inventory.Pool{
		PoolSpec: inventory.PoolSpec{
			Name: name, HostnamePrefix: prefix, Max: max(len(names), rebuiltMax),
			Template: inventory.Template{Region: most(regions), Size: most(sizes), Image: most(images)},
		},
		Desired: len(names), NextOrdinal: next, Created: p.now,
		Stopped: p.now,
		Reason:  "the pool was made anew from tags, which tell neither user data nor SSH keys: apply its spec with doproxy apply -f FILE",
	}
}

// most is the value counted most often, the first in order of several; empty of none.
func most(counts map[string]int) string {
	best := ""
	for _, value := range slices.Sorted(maps.Keys(counts)) {
		if best == "" || counts[value] > counts[best] {
			best = value
		}
	}
	return best
}
