// Package etcd keeps the inventory in etcd.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/doproxy/doproxy/inventory"
)

// DefaultTimeout bounds one call that is not a watch.
const DefaultTimeout = 3 * time.Second

// Store implements inventory.Store and inventory.Leaser.
type Store struct {
	timeout time.Duration
	close   context.CancelFunc

	mu      sync.Mutex // held while dialing
	client  *clientv3.Client
	dial    func() (*clientv3.Client, error)
	cluster uint64 // etcd's cluster id as of the last List
}

var (
	_ inventory.Store  = (*Store)(nil)
	_ inventory.Leaser = (*Store)(nil)
)

// New returns a Store on a client that the caller made and closes. A timeout of
// zero is DefaultTimeout.
func New(client *clientv3.Client, timeout time.Duration) *Store {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return &Store{timeout: timeout, close: func() {}, client: client}
}

// Close ends the connections that Dial made, and every call under way.
func (s *Store) Close() error {
	s.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil || s.dial == nil {
		return nil
	}
	if err := s.client.Close(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (s *Store) conn() (*clientv3.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		client, err := s.dial()
		if err != nil {
			return nil, err
		}
		s.client = client
	}
	return s.client, nil
}

// call runs one bounded call and translates its error.
func (s *Store) call(ctx context.Context, op string, do func(context.Context, *clientv3.Client) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	client, err := s.conn()
	if err == nil {
		callCtx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		err = do(callCtx, client)
	}
	return translate(ctx, op, err)
}

// List implements inventory.Store. All comes in one answer, since neither etcd
// nor its client limits an answer's size.
func (s *Store) List(ctx context.Context, prefix string) (inventory.Listing, error) {
	var l inventory.Listing
	err := s.call(ctx, "listing "+prefix, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := hedge(ctx, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return c.Get(ctx, prefix, clientv3.WithPrefix())
		})
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.cluster = resp.Header.ClusterId
		s.mu.Unlock()
		l.Revision = inventory.Revision(resp.Header.Revision)
		l.KVs = make([]inventory.KV, len(resp.Kvs))
		for i, kv := range resp.Kvs {
			l.KVs[i] = kvOf(kv)
		}
		return nil
	})
	return l, err
}

// Commit implements inventory.Store. The client sends a transaction again only
// if it never left this machine.
func (s *Store) Commit(ctx context.Context, txn inventory.Txn) (inventory.Revision, error) {
	if len(txn.Ops) > inventory.MaxOps || len(txn.Guards) > inventory.MaxOps {
		return 0, fmt.Errorf("a transaction of %d operations and %d guards: at most %d of each", len(txn.Ops), len(txn.Guards), inventory.MaxOps)
	}
	cmps := make([]clientv3.Cmp, len(txn.Guards))
	for i, g := range txn.Guards {
		if g.Created != 0 {
			cmps[i] = clientv3.Compare(clientv3.CreateRevision(g.Key), "=", int64(g.Created))
		} else {
			cmps[i] = clientv3.Compare(clientv3.ModRevision(g.Key), "=", int64(g.Mod))
		}
	}
	ops := make([]clientv3.Op, len(txn.Ops))
	for i, op := range txn.Ops {
		if op.Delete {
			ops[i] = clientv3.OpDelete(op.Key)
		} else {
			ops[i] = clientv3.OpPut(op.Key, string(op.Value), clientv3.WithLease(clientv3.LeaseID(op.Lease)))
		}
	}
	var rev inventory.Revision
	err := s.call(ctx, "committing", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Txn(ctx).If(cmps...).Then(ops...).Commit()
		if err != nil {
			return err
		}
		if !resp.Succeeded {
			return inventory.ErrConflict
		}
		rev = inventory.Revision(resp.Header.Revision)
		return nil
	})
	return rev, err
}

// Grant implements inventory.Leaser.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (inventory.LeaseID, error) {
	var id inventory.LeaseID
	err := s.call(ctx, "granting a lease", func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
		if err != nil {
			return err
		}
		id = inventory.LeaseID(resp.ID)
		return nil
	})
	return id, err
}

// Renew implements inventory.Leaser.
func (s *Store) Renew(ctx context.Context, id inventory.LeaseID) error {
	return s.call(ctx, "renewing a lease", func(ctx context.Context, c *clientv3.Client) error {
		_, err := hedge(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, keepAlive(ctx, c, id) })
		return err
	})
}

// keepAlive speaks the protocol itself: the client's KeepAliveOnce spins without
// a pause for as long as no member can be reached.
func keepAlive(ctx context.Context, c *clientv3.Client, id inventory.LeaseID) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx)) // ends the stream
	defer cancel()
	stream, err := etcdserverpb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	if err := stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return err
	}
	resp, err := stream.Recv()
	if err != nil {
		return err
	}
	if resp.TTL <= 0 {
		return rpctypes.ErrLeaseNotFound
	}
	return nil
}

// Revoke implements inventory.Leaser.
func (s *Store) Revoke(ctx context.Context, id inventory.LeaseID) error {
	return s.call(ctx, "revoking a lease", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Revoke(ctx, clientv3.LeaseID(id))
		return err
	})
}
