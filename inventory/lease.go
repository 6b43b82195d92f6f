package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Lease is a granted lease that renews itself. Its context ends before the
// store could have let the lease expire: life is counted from before the last
// successful renewal was sent, less a margin for clocks that run apart.
type Lease struct {
	ID   LeaseID
	ctx  context.Context
	end  context.CancelCauseFunc
	done chan struct{}

	store Leaser
}

// leaseMargin is the share of a lease's life that its holder gives up so as to
// stop before the store's clock says so.
const leaseMargin = 5 // one fifth

// KeepLease grants a lease of ttl and renews it until ctx ends, Release is
// called, or it cannot be renewed in time. The caller ends ctx or calls Release; only Release revokes the lease.
func KeepLease(ctx context.Context, store Leaser, ttl time.Duration) (*Lease, error) {
	sent := time.Now()
	grantCtx, cancel := context.WithTimeout(ctx, ttl)
	defer cancel()
	id, err := store.Grant(grantCtx, ttl)
	if err != nil {
		return nil, fmt.Errorf("granting a lease of %s: %w", ttl, err)
	}
	leaseCtx, end := context.WithCancelCause(ctx)
	l := &Lease{ID: id, ctx: leaseCtx, end: end, done: make(chan struct{}), store: store}
	go l.renew(sent, ttl)
	return l, nil
}

// Context ends when the lease may no longer be relied upon; its cause says why.
func (l *Lease) Context() context.Context { return l.ctx }

// Release stops the renewal and revokes the lease, so that its keys go at once.
// It waits at most until ctx ends; a lease that could not be revoked expires.
func (l *Lease) Release(ctx context.Context) error {
	l.end(context.Canceled)
	<-l.done
	if err := l.store.Revoke(ctx, l.ID); err != nil && !errors.Is(err, ErrLeaseLost) {
		return fmt.Errorf("revoking lease %x: %w", int64(l.ID), err)
	}
	return nil
}

func (l *Lease) renew(sent time.Time, ttl time.Duration) {
	defer close(l.done)
	life := ttl - ttl/leaseMargin
	expired := time.AfterFunc(time.Until(sent.Add(life)), func() { l.end(ErrLeaseLost) })
	defer expired.Stop()

	every := ttl / 6
	tick := time.NewTimer(every)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		sent := time.Now()
		// A renewal that hangs must leave room for another before life ends.
		ctx, cancel := context.WithTimeout(l.ctx, ttl/3)
		err := l.store.Renew(ctx, l.ID)
		cancel()
		switch {
		case err == nil:
			expired.Reset(time.Until(sent.Add(life)))
			tick.Reset(every)
		case errors.Is(err, ErrLeaseLost):
			l.end(ErrLeaseLost)
			return
		default:
			tick.Reset(every / 4)
		}
	}
}
