package dosim

import (
	"net/netip"
	"slices"
	"time"
)

// The first ids that are given out.
const (
	firstDropletID = 300000001
	firstActionID  = 2000000001
	firstImageID   = 200000001
	firstKeyID     = 40000001
	firstRecordID  = 1700000001
)

// keptActions bounds the list of completed actions.
const keptActions = 10000

// state is everything that survives a restart. It is guarded by Sim.mu.
type state struct {
	Version int
	Prefix  int // the X of 127.X

	NextDroplet, NextAction, NextImage, NextKey, NextRecord int
	PrivateCursor, ReservedCursor, ReservedIPv6Count        int

	Droplets     []*droplet // ascending by id
	Actions      []*action  // ascending by id
	Tags         []string   // in the order of their making
	Images       []*image   // snapshots; the catalogue is not here
	Keys         []*sshKey
	VPCs         []*vpc
	ReservedIPs  []*reservedIP
	ReservedIPv6 []*reservedIPv6
	Domains      []*domain

	NextCreates []nextCreate
	Faults      []Fault
	NextFault   int
}

const stateVersion = 1

func newState(prefix byte) *state {
	st := &state{
		Version: stateVersion, Prefix: int(prefix),
		NextDroplet: firstDropletID, NextAction: firstActionID, NextImage: firstImageID,
		NextKey: firstKeyID, NextRecord: firstRecordID, NextFault: 1,
	}
	for _, r := range catalogueRegions {
		st.VPCs = append(st.VPCs, defaultVPC(r, prefix, time.Now()))
	}
	return st
}

func (st *state) droplet(id int) *droplet {
	i, ok := slices.BinarySearchFunc(st.Droplets, id, func(d *droplet, id int) int { return d.ID - id })
	if !ok {
		return nil
	}
	return st.Droplets[i]
}

func (st *state) action(id int) *action {
	i, ok := slices.BinarySearchFunc(st.Actions, id, func(a *action, id int) int { return a.ID - id })
	if !ok {
		return nil
	}
	return st.Actions[i]
}

// image finds an image by slug or id, in the catalogue and among the snapshots.
func (st *state) image(slugOrID string) *image {
	for _, list := range [][]*image{catalogueImages, st.Images} {
		for _, i := range list {
			if i.hasSlugOrID(slugOrID) {
				return i
			}
		}
	}
	return nil
}

func (st *state) hasTag(name string) bool { return slices.Contains(st.Tags, name) }

func (st *state) addTags(names []string) {
	for _, n := range names {
		if !st.hasTag(n) {
			st.Tags = append(st.Tags, n)
		}
	}
}

// addAction starts an action that ends at done; with noTime another event ends
// it.
func (st *state) addAction(kind, resourceType string, resource int, region string, now, done time.Time) *action {
	a := &action{
		ID: st.NextAction, Type: kind, Status: actionInProgress, ResourceType: resourceType,
		Resource: resource, Region: region, Started: now, DoneAt: done,
	}
	st.NextAction++
	if len(st.Actions) >= keptActions && st.Actions[0].Status != actionInProgress {
		st.Actions = slices.Delete(st.Actions, 0, 1)
	}
	st.Actions = append(st.Actions, a)
	return a
}

func (st *state) addressTaken(a netip.Addr) bool {
	return slices.ContainsFunc(st.Droplets, func(d *droplet) bool { return d.Private == a }) ||
		slices.ContainsFunc(st.ReservedIPs, func(r *reservedIP) bool { return r.IP == a })
}
