package inventorytest

import (
	"errors"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

func (s *suite) grant(ttl time.Duration) inventory.LeaseID {
	s.Helper()
	id, err := s.store.Grant(s.ctx, ttl)
	if err != nil {
		s.Fatal(err)
	}
	if id == 0 {
		s.Fatal("Grant gave the lease that is none")
	}
	return id
}

func (s *suite) putLeased(lease inventory.LeaseID, names ...string) inventory.Revision {
	s.Helper()
	var txn inventory.Txn
	for _, name := range names {
		txn.Ops = append(txn.Ops, inventory.Op{Key: s.key(name), Value: []byte("x"), Lease: lease})
	}
	return s.commit(txn)
}

func testLeaseExpires(s *suite) {
	const ttl = 2 * time.Second
	sent := time.Now()
	lease := s.grant(ttl)
	rev := s.putLeased(lease, "a", "b")
	s.put("kept", "x")
	if kv := s.get("a"); kv.Lease != lease {
		s.Errorf("a has lease %x, want %x", kv.Lease, lease)
	}
	next := s.watching(rev)
	for left := map[string]bool{s.key("a"): true, s.key("b"): true}; len(left) > 0; {
		for _, c := range changes(next).Changes {
			if c.Deleted {
				if !left[c.Key] {
					s.Fatalf("%s was deleted", c.Key)
				}
				delete(left, c.Key)
			}
		}
	}
	if lived := time.Since(sent); lived < ttl {
		s.Errorf("a lease of %s lived %s", ttl, lived)
	}
	if kv := s.get("a"); kv.Mod != 0 {
		s.Errorf("a is still there: %+v", kv)
	}
	if kv := s.get("kept"); kv.Mod == 0 {
		s.Error("a key without a lease is gone")
	}
	if err := s.store.Renew(s.ctx, lease); !errors.Is(err, inventory.ErrLeaseLost) {
		s.Errorf("Renew of an expired lease: %v, want ErrLeaseLost", err)
	}
}

func testRenew(s *suite) {
	const ttl = 2 * time.Second
	lease := s.grant(ttl)
	s.putLeased(lease, "a")
	for end := time.Now().Add(2 * ttl); time.Now().Before(end); time.Sleep(ttl / 8) {
		if err := s.store.Renew(s.ctx, lease); err != nil {
			s.Fatal(err)
		}
	}
	if kv := s.get("a"); kv.Mod == 0 {
		s.Error("the key went though its lease was renewed")
	}
}

func testRevoke(s *suite) {
	lease := s.grant(time.Minute)
	rev := s.putLeased(lease, "a", "b")
	next := s.watching(rev)
	if err := s.store.Revoke(s.ctx, lease); err != nil {
		s.Fatal(err)
	}
	for gone := 0; gone < 2; {
		for _, c := range changes(next).Changes {
			if !c.Deleted {
				s.Fatalf("got %+v", c)
			}
			gone++
		}
	}
	if err := s.store.Revoke(s.ctx, lease); !errors.Is(err, inventory.ErrLeaseLost) {
		s.Errorf("a second Revoke: %v, want ErrLeaseLost", err)
	}
}

func testLostLease(s *suite) {
	lease := s.grant(time.Minute)
	if err := s.store.Revoke(s.ctx, lease); err != nil {
		s.Fatal(err)
	}
	if err := s.store.Renew(s.ctx, lease); !errors.Is(err, inventory.ErrLeaseLost) {
		s.Errorf("Renew: %v, want ErrLeaseLost", err)
	}
	op := inventory.Op{Key: s.key("leased"), Lease: lease}
	s.refused(inventory.ErrLeaseLost, inventory.Txn{Ops: []inventory.Op{s.write("a", "1"), op}})
	s.refused(inventory.ErrLeaseLost, inventory.Txn{Guards: []inventory.Guard{{Key: op.Key}}, Ops: []inventory.Op{op}})
	if kv := s.get("a"); kv.Mod != 0 {
		s.Errorf("a part of a refused transaction was done: %+v", kv)
	}
}

func testRewrite(s *suite) {
	lease := s.grant(time.Minute)
	s.putLeased(lease, "a", "b")
	s.put("a", "mine")
	if err := s.store.Revoke(s.ctx, lease); err != nil {
		s.Fatal(err)
	}
	if kv := s.get("a"); kv.Lease != 0 || string(kv.Value) != "mine" {
		s.Errorf("a is %+v, want it freed of its lease", kv)
	}
	if kv := s.get("b"); kv.Mod != 0 {
		s.Errorf("b is %+v, want none", kv)
	}
}
