package raft

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/raft/pki"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// members waits until the one that is asked says that these are voters and followers.
func (c *cluster) members(ask, voters, followers int) {
	c.Helper()
	c.eventually(fmt.Sprint(voters, " voters and ", followers, " followers"), func() error {
		all, err := c.nodes[ask].Members(c.Context())
		if err != nil {
			return err
		}
		got := 0
		for _, m := range all.Members {
			if m.Voter {
				got++
			}
		}
		if got != voters || len(all.Members) != voters+followers {
			return fmt.Errorf("%+v", all.Members)
		}
		return nil
	})
}

// TestSixMembers: five vote. The sixth has what they have, and takes the place of
// one that is removed.
func TestSixMembers(t *testing.T) {
	c := newCluster(t, 5)
	c.add(5)
	if err := c.nodes[5].Join(t.Context(), c.token(), false, nil); err != nil {
		t.Fatal(err)
	}
	c.put(5, "/a", "b") // which it forwards
	c.has(5, "/a", "b")
	time.Sleep(20 * c.opts[5].stabilize) // in which it would become a voter
	c.members(0, 5, 1)
	gone := (c.leader() + 1) % 5
	ask := (gone + 1) % 5
	c.eventually("a voter is removed", func() error {
		return c.nodes[ask].Remove(t.Context(), c.opts[gone].Name, false)
	})
	c.members(ask, 5, 0)
	c.put(5, "/a", "c")
}

// TestDeadMember: one that is silent for too long is removed, while three remain,
// and is let in again when it comes back.
func TestDeadMember(t *testing.T) {
	const deadAfter = 3 * time.Second
	c := newCluster(t, 4, func(o *Options) { o.DeadAfter = deadAfter })
	dead := (c.leader() + 1) % 4
	ask := (dead + 1) % 4
	if err := c.nodes[dead].Close(); err != nil {
		t.Fatal(err)
	}
	c.members(ask, 3, 0)
	c.put(ask, "/a", "b")

	// A fourth part of three is none to do without.
	another := (c.leader() + 1) % 4
	if another == dead {
		another = (another + 1) % 4
	}
	if another == ask {
		ask = c.leader()
	}
	if err := c.nodes[another].Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * deadAfter)
	c.members(ask, 3, 0)

	for _, i := range []int{dead, another} {
		n, err := Open(c.opts[i])
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[i] = n
	}
	c.voters(4)
	c.has(dead, "/a", "b")
}

// TestAddressChange: a member that comes back at another address tells the others.
func TestAddressChange(t *testing.T) {
	c := newCluster(t, 3, func(o *Options) { o.Plain = false })
	for _, moved := range []int{(c.leader() + 1) % 3, c.leader()} {
		if err := c.nodes[moved].Close(); err != nil {
			t.Fatal(err)
		}
		c.opts[moved].Address = freeAddress(t)
		c.opts[moved].dial = nil
		n, err := Open(c.opts[moved])
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[moved] = n
		other := (moved + 1) % 3
		c.eventually("the others know the address", func() error {
			all, err := c.nodes[other].Members(t.Context())
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(all.Members, func(m inventory.StoreMember) bool { return m.Address == c.opts[moved].Address && m.Healthy && m.Voter }) {
				return fmt.Errorf("%+v", all.Members)
			}
			return nil
		})
		c.put(other, "/moved", fmt.Sprint(moved))
		c.has(moved, "/moved", fmt.Sprint(moved))
	}
}

// TestTokens that let nobody in.
func TestTokens(t *testing.T) {
	tls := func(o *Options) { o.Plain = false }
	c, other := newCluster(t, 1, tls), newCluster(t, 1, tls)
	c.add(1, tls)
	join := func(token string) error { return c.nodes[1].Join(t.Context(), token, false, nil) }
	parsed := func(token string) pki.Token {
		p, err := pki.ParseToken(token)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}

	expired := parsed(c.token())
	expired.Expires = time.Now().Add(-time.Second)
	refused(t, "a token that is too old", join(expired.String()), "expired")

	// The member decides, whatever the word says.
	late := parsed(c.token())
	record, err := proto.Marshal(&storev1.TokenRecord{Hash: late.Hash(), ExpiresMs: time.Now().Add(-time.Second).UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	c.put(0, tokenPrefix+late.ID, string(record))
	refused(t, "a token that is too old for the member", join(late.String()), "too old")

	guessed := parsed(c.token())
	guessed.Secret = parsed(other.token()).Secret
	refused(t, "a token with another secret", join(guessed.String()), "not known")

	// The addresses are of a store with another CA: to be told, without a secret given.
	foreign := parsed(other.token())
	foreign.Addresses = parsed(c.token()).Addresses
	if err := join(foreign.String()); err == nil {
		t.Error("a token of another store lets a node in")
	}
	for _, ttl := range []time.Duration{0, time.Second, 31 * 24 * time.Hour} {
		_, _, err := c.nodes[0].Token(t.Context(), ttl)
		refused(t, fmt.Sprint("a token for ", ttl), err, "1m to 720h")
	}
	if err := join(c.token()); err != nil {
		t.Errorf("after all these: %v", err)
	}
}

// TestRemoveKeepsQuorum: what would stop the store is refused.
func TestRemoveKeepsQuorum(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	dead, other := (leader+1)%3, (leader+2)%3
	died := time.Now()
	if err := c.nodes[dead].Close(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		c.put(leader, "/a", "a")
	}
	c.eventually("the dead member is seen as such", func() error {
		all, err := c.nodes[leader].Members(t.Context())
		if err != nil {
			return err
		}
		for _, m := range all.Members {
			if m.Node == c.opts[dead].Name && (m.Healthy || m.Since.Before(died) || m.Behind < 10) {
				return fmt.Errorf("%+v", m)
			}
		}
		return nil
	})
	refused(t, "the healthy one of two followers", c.nodes[leader].Remove(t.Context(), c.opts[other].Name, false), "no quorum")
	c.put(other, "/a", "b")
	if err := c.nodes[leader].Remove(t.Context(), c.opts[dead].Name, false); err != nil {
		t.Errorf("the dead one: %v", err)
	}
	c.members(other, 2, 0)
	refused(t, "one of two", c.nodes[leader].Remove(t.Context(), "lb9", true), "no member")

	// By force, from two to one, through the one that stays or goes.
	c.eventually("one is left", func() error {
		err := c.nodes[leader].Remove(t.Context(), c.opts[other].Name, true)
		if errors.Is(err, inventory.ErrRefused) {
			t.Fatal(err)
		}
		return err
	})
	c.put(leader, "/a", "c")
	refused(t, "the last one", c.nodes[leader].Remove(t.Context(), c.opts[leader].Name, true), "only voter")
	if kv, err := inventory.Get(t.Context(), c.nodes[leader], "/a"); err != nil || string(kv.Value) != "c" {
		t.Errorf("%s, %v", kv.Value, err)
	}
}

// TestMembersOfNow: a member that has just died is not shown as healthy, whatever
// was heard of it a moment ago.
func TestMembersOfNow(t *testing.T) {
	c := newCluster(t, 3)
	dead := (c.leader() + 1) % 3
	if err := c.nodes[dead].Close(); err != nil {
		t.Fatal(err)
	}
	all, err := c.nodes[(dead+1)%3].Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all.Members {
		if alive := m.Node != c.opts[dead].Name; m.Healthy != alive {
			t.Errorf("%s is healthy: %t", m.Node, m.Healthy)
		}
	}
	if all.Tolerates != 0 {
		t.Errorf("%d more may die", all.Tolerates)
	}
}
