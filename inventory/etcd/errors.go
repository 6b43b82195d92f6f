package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/doproxy/doproxy/inventory"
)

// translate turns what the client returned into the inventory's errors, with
// the operation that failed. An end of the caller's own ctx is returned as such.
func translate(ctx context.Context, op string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, inventory.ErrConflict):
		return fmt.Errorf("etcd: %s: %w", op, err)
	case is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("etcd: %s: %w", op, inventory.ErrCompacted)
	case is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("etcd: %s: %w", op, inventory.ErrLeaseLost)
	case unavailable(err):
		return fmt.Errorf("etcd: %s: %w: %w", op, inventory.ErrUnavailable, err)
	}
	return fmt.Errorf("etcd: %s: %w", op, err)
}

// is compares by etcd's own error text, since an error may come as a gRPC
// status or as the client's EtcdError.
func is(err, target error) bool {
	return errors.Is(rpctypes.Error(err), target) || rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(target)
}

// unavailable says that the outcome is unknown, or will be another when asked
// again: no leader, a timeout, a lost connection, a full disk.
func unavailable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	code := codes.Unknown
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		code = e.Code()
	} else if s, ok := status.FromError(err); ok {
		code = s.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted, codes.Aborted, codes.Internal:
		return true
	}
	return false
}

func kvOf(kv *mvccpb.KeyValue) inventory.KV {
	return inventory.KV{
		Key:     string(kv.Key),
		Value:   kv.Value,
		Created: inventory.Revision(kv.CreateRevision),
		Mod:     inventory.Revision(kv.ModRevision),
		Lease:   inventory.LeaseID(kv.Lease),
	}
}
