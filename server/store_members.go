package server

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// parseMember reads "nodes/{node}", or a member's id, from the request's field.
func parseMember(field, name string) (string, error) {
	member := strings.TrimPrefix(name, "nodes/")
	if name != "" && member == "" || strings.ContainsAny(member, "/ ") {
		return "", invalid(field, name, `must be "nodes/" and a node's name, or a member's id (doproxy cluster members lists both)`)
	}
	if name == "" {
		return "", invalid(field, name, `is missing: write "nodes/" and the node's name, such as nodes/lb-1`)
	}
	return member, nil
}

// without takes the member of a node, or the one with this id, out of m.
func without(m inventory.Membership, name string) (gone inventory.StoreMember, left inventory.Membership, err error) {
	found := matching(m.Members, func(one inventory.StoreMember) bool { return one.Node == name })
	if len(found) == 0 {
		found = matching(m.Members, func(one inventory.StoreMember) bool { return one.ID == name })
	}
	switch {
	case len(found) == 0:
		return gone, left, notMember(name, m)
	case len(found) > 1:
		ids := make([]string, len(found))
		for i, one := range found {
			ids[i] = one.ID
		}
		return gone, left, storeRefused(name, fmt.Sprintf("node %s has %d members, %s: name the one to remove by its id", name, len(found), strings.Join(ids, ", ")))
	}
	gone = found[0]
	left = inventory.Membership{Cluster: m.Cluster, Members: matching(m.Members, func(one inventory.StoreMember) bool { return one.ID != gone.ID })}
	voters, healthy := votersOf(left)
	left.Tolerates = max(0, healthy-quorum(voters))
	return gone, left, nil
}

func notMember(name string, m inventory.Membership) error {
	var known []string
	for _, one := range sortedMembers(m.Members) {
		known = append(known, one.Node)
	}
	return &problem{code: codes.NotFound, reason: ReasonNodeNotFound, metadata: map[string]string{"node": name},
		message: fmt.Sprintf("the store has no member %q: it has %s", name, or(strings.Join(known, ", "), "none"))}
}

func matching(members []inventory.StoreMember, fits func(inventory.StoreMember) bool) (out []inventory.StoreMember) {
	for _, one := range members {
		if fits(one) {
			out = append(out, one)
		}
	}
	return out
}

func votersOf(m inventory.Membership) (voters, healthy int) {
	for _, one := range m.Members {
		if one.Voter {
			voters++
			if one.Healthy {
				healthy++
			}
		}
	}
	return voters, healthy
}

func quorum(voters int) int { return voters/2 + 1 }

// leaderOf is the resource name of the node that leads; empty if none does.
func leaderOf(m inventory.Membership) string {
	for _, one := range m.Members {
		if one.Leader {
			return NodeName(one.Node)
		}
	}
	return ""
}

func sortedMembers(members []inventory.StoreMember) []inventory.StoreMember {
	return slices.SortedFunc(slices.Values(members), func(a, b inventory.StoreMember) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
	})
}

// MembershipToProto puts a membership in the API's form, members by name.
func MembershipToProto(m inventory.Membership) *pb.Membership {
	out := &pb.Membership{Cluster: m.Cluster, Tolerates: int32(m.Tolerates)}
	for _, one := range sortedMembers(m.Members) {
		out.Members = append(out.Members, memberToProto(one))
	}
	return out
}

func memberToProto(m inventory.StoreMember) *pb.Member {
	return &pb.Member{
		Node: NodeName(m.Node), Id: m.ID, Address: m.Address, Version: m.Version,
		Leader: m.Leader, Voter: m.Voter, Healthy: m.Healthy, Behind: m.Behind, Since: timestamp(m.Since),
	}
}
