package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// stuckAfter is how long a droplet may be Deleting before that is a difference.
const stuckAfter = 10 * time.Minute

// maxDifferences bounds what one look tells: the leader's report must fit a
// record. A last one says how many more there are.
const maxDifferences = 500

// verify tells what differs once a list is in that was sent after the request
// was seen.
func (p *planner) verify() {
	if p.verifying() && p.f.List != nil && !p.f.List.Sent.Before(p.f.verify.seen) {
		p.out.Verified, p.out.Differences = p.f.verify.id, Differences(p.Input)
	}
}

// verifying: a look was asked for that is not told of.
func (p *planner) verifying() bool {
	v := p.State.Verify
	return v != nil && v.ID == p.f.verify.id && !p.f.verify.told
}

// lookNow: the list that a look waits for is not sent.
func (p *planner) lookNow() bool {
	return p.verifying() && p.f.listTried.Before(p.f.verify.seen)
}

// Differences are what the inventory and the cloud's last list tell otherwise, in
// order of kind and subject; none before the first list. What is on its way, or
// so new that the list may lack it, is no difference. It is pure.
func Differences(in Input) []inventory.Difference {
	if in.Facts.List == nil {
		return nil
	}
	in.Settings = in.Settings.withDefaults()
	c := comparison{Input: in, list: in.Facts.List, recorded: recordedIDs(in.State.Droplets)}
	for _, d := range in.State.Droplets {
		c.record(d)
	}
	for i := range c.list.All {
		c.listed(&c.list.All[i])
	}
	for key, why := range in.State.Unreadable {
		c.add("record.unreadable", key, "%s", why)
	}
	slices.SortFunc(c.out, func(a, b inventory.Difference) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Message, b.Message))
	})
	if more := len(c.out) - maxDifferences; more > 0 {
		c.out = c.out[:maxDifferences]
		c.add("more", fmt.Sprint(more), "further differences are not told")
	}
	return c.out
}

// comparison of the inventory with the cloud.
type comparison struct {
	Input
	list     *List
	recorded map[int64]string
	out      []inventory.Difference
}

func (c *comparison) add(kind, subject, format string, args ...any) {
	c.out = append(c.out, inventory.Difference{Kind: kind, Subject: subject, Message: fmt.Sprintf(format, args...)})
}

// record looks for a record's droplet.
func (c *comparison) record(d *inventory.Droplet) {
	if c.State.Pools[d.Pool] == nil {
		c.add("pool.missing", d.Name, "is on record in pool %s, which has no record", d.Pool)
	}
	if d.ID == 0 {
		return
	}
	seen := c.list.byID[d.ID]
	switch {
	case d.Phase == inventory.Deleting:
		if took := c.Now.Sub(d.Since); took > stuckAfter {
			c.add("droplet.deleting", d.Name, "id %d is being deleted for %s", d.ID, took.Round(time.Minute))
		}
	case seen != nil:
		c.compare(d, seen)
	case c.list.Sent.After(d.Since.Add(c.Settings.ListLag)):
		switch c.Facts.got[d.ID].state {
		case gotUntagged:
			c.add("droplet.untagged", d.Name, "id %d is at DigitalOcean without the cluster's tag", d.ID)
		case gotExists:
			c.add("droplet.missing", d.Name, "id %d is on record as %s and not in DigitalOcean's list, though it exists", d.ID, d.Phase)
		default:
			c.add("droplet.missing", d.Name, "id %d is on record as %s and not in DigitalOcean's list", d.ID, d.Phase)
		}
	}
}

// compare a record with the droplet of its id.
func (c *comparison) compare(d *inventory.Droplet, seen *cloud.Droplet) {
	if seen.Name != d.Name {
		c.add("droplet.renamed", d.Name, "id %d is named %s at DigitalOcean", d.ID, seen.Name)
	}
	if !c.list.Sent.After(d.Since) {
		return // the record is the newer
	}
	var parts []string
	differ := func(what string, recorded, told string) {
		if recorded != told {
			parts = append(parts, fmt.Sprintf("%s %s on record, %s at DigitalOcean", what, cmp.Or(recorded, "none"), cmp.Or(told, "none")))
		}
	}
	differ("pool", d.Pool, seen.Pool)
	differ("size", d.Size, seen.Size)
	// A droplet that boots has no addresses at first.
	if d.Phase != inventory.Booting || reachable(d) {
		differ("private address", address(d.PrivateIPv4), address(seen.PrivateIPv4))
		differ("public address", address(d.PublicIPv4), address(seen.PublicIPv4))
		differ("public IPv6 address", address(d.PublicIPv6), address(seen.PublicIPv6))
	}
	if len(parts) > 0 {
		c.add("droplet.changed", d.Name, "id %d: %s", d.ID, strings.Join(parts, "; "))
	}
}

func address(a interface {
	IsValid() bool
	String() string
}) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// listed looks for a droplet's record.
func (c *comparison) listed(seen *cloud.Droplet) {
	if _, ok := c.recorded[seen.ID]; ok || c.Facts.got[seen.ID].state == gotGone {
		return
	}
	d := c.State.Droplets[seen.Name]
	first := c.list.byName[seen.Name]
	switch {
	case seen.Pool == "":
		c.add("pool.unknown", seen.Name, "id %d bears the cluster's tag and no pool's", seen.ID)
	case c.State.Pools[seen.Pool] == nil:
		c.add("pool.unknown", seen.Name, "id %d is tagged with pool %s, which has no record", seen.ID, seen.Pool)
	case d != nil && d.ID != 0:
		c.add("droplet.duplicate", seen.Name, "id %d is a second one of the name, which is on record with id %d", seen.ID, d.ID)
	case first != seen.ID:
		c.add("droplet.duplicate", seen.Name, "id %d is a second one of the name beside id %d", seen.ID, first)
	case d != nil && d.Pool == seen.Pool: // asked for: the next look of the leader takes it up
	case seen.Created.IsZero() || c.list.Sent.After(seen.Created.Add(c.Settings.ListLag)):
		c.add("droplet.unrecorded", seen.Name, "id %d of pool %s has no record", seen.ID, seen.Pool)
	}
}
