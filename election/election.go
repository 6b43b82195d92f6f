// Package election chooses the one agent that leads: the one that may spend
// money. Who leads holds the leader key, bound to a lease; that key's create
// revision is the fence that every write of its term carries.
package election

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// Options of an Elector. Store, Leaser or Mandate, Keys, ID and Logger are needed.
type Options struct {
	Store  inventory.Store
	Leaser inventory.Leaser // the same store's
	// Mandate, instead of Leaser, waits until the store itself has chosen this
	// process.
	Mandate func(context.Context) (Mandate, error)
	Keys    inventory.Keys
	ID      string // the node's name, which the leader key shows

	// TTL of the lease, in whole seconds: how long a leader that vanished is
	// missed. Default DefaultTTL.
	TTL time.Duration

	Logger *slog.Logger

	// OnChange, if set, is called when a term of this process begins and when it
	// has ended. It must not block.
	OnChange func(leading bool)
}

// Mandate is a store's own choice of this process, until Context ends; that is
// in time before it can choose another.
type Mandate struct {
	Context context.Context
	// Lease ends with the choice: keys bound to it are gone before anything is
	// done in the store by whoever is chosen next.
	Lease inventory.LeaseID
	// After is when the process may begin.
	After time.Time
	// Resign has the store choose another, if there is one.
	Resign func() error
}

// DefaultTTL of the leader's lease.
const DefaultTTL = 10 * time.Second

// resignWithin bounds the farewell. A lease that is not revoked by then expires.
const resignWithin = 2 * time.Second

// Validate says what is missing or cannot be.
func (o *Options) Validate() error {
	switch {
	case o.Store == nil || o.Leaser == nil && o.Mandate == nil:
		return errors.New("election: no store")
	case o.Logger == nil:
		return errors.New("election: no logger")
	case o.Keys == inventory.Keys{}:
		return errors.New("election: no keys")
	case o.ID == "":
		return errors.New("election: no id")
	case o.TTL < 0 || o.TTL%time.Second != 0:
		return fmt.Errorf("election: a TTL of %s: use whole seconds", o.TTL)
	}
	return nil
}

// Elector campaigns for one process. It has at most one term at a time.
type Elector struct {
	opts Options
	key  string

	backoff inventory.Backoff // Run's own
}

// New returns an Elector; Run makes it campaign.
func New(opts Options) (*Elector, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if opts.TTL == 0 {
		opts.TTL = DefaultTTL
	}
	if opts.OnChange == nil {
		opts.OnChange = func(bool) {}
	}
	return &Elector{opts: opts, key: opts.Keys.Leader()}, nil
}

// Run campaigns, and calls lead for each term that it wins, until ctx ends; it
// then returns ctx's error. The context that lead gets ends with the term, in
// time before another can begin; context.Cause says why. Run waits for lead to
// return and then resigns, so that a planned handover takes no lease time. A
// lead that returns while its term lives gives up the leadership; its error is
// logged, and the next campaign waits a little so that others come first.
//
// Call Run once at a time.
func (e *Elector) Run(ctx context.Context, lead func(ctx context.Context, term Term) error) error {
	e.backoff = inventory.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	heldUp := false
	for ctx.Err() == nil {
		err := e.term(ctx, lead)
		switch {
		case ctx.Err() != nil || err == nil:
			heldUp = false
			continue
		case errors.Is(err, errGaveUp):
			e.opts.Logger.Error("gave up the leadership", "error", err)
		case !heldUp:
			heldUp = true
			e.opts.Logger.Warn("the election is held up", "error", err)
		}
		_ = e.backoff.Wait(ctx)
	}
	return ctx.Err()
}

// term waits for the leadership and leads, once.
func (e *Elector) term(ctx context.Context, lead func(context.Context, Term) error) error {
	if e.opts.Mandate == nil {
		if err := e.awaitVacancy(ctx); err != nil {
			return err
		}
		return e.campaign(ctx, lead)
	}
	mandate, err := e.opts.Mandate(ctx)
	if err != nil {
		return err
	}
	return e.accept(ctx, mandate, lead)
}

// accept leads by a mandate.
func (e *Elector) accept(ctx context.Context, mandate Mandate, lead func(context.Context, Term) error) error {
	termCtx, cancel := context.WithCancelCause(mandate.Context)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	select {
	case <-termCtx.Done():
		return nil
	case <-time.After(time.Until(mandate.After)):
	}
	created, err := e.replace(termCtx, mandate.Lease)
	if err != nil {
		if mandate.Context.Err() != nil {
			return nil // the next one begins with a look of its own
		}
		return err
	}
	err = e.serve(termCtx, created, lead)
	if mandate.Context.Err() != nil {
		return err
	}
	// The farewell: with the key gone, who comes next need not wait.
	ctx, cancelFarewell := context.WithTimeout(context.WithoutCancel(ctx), resignWithin)
	defer cancelFarewell()
	_, keyErr := e.opts.Store.Commit(ctx, inventory.Txn{
		Guards: []inventory.Guard{{Key: e.key, Created: created}},
		Ops:    []inventory.Op{{Key: e.key, Delete: true}},
	})
	if keyErr != nil && !errors.Is(keyErr, inventory.ErrConflict) {
		e.opts.Logger.Warn("the leader key is left to end with the term", "error", keyErr)
	}
	if resignErr := mandate.Resign(); resignErr != nil {
		e.opts.Logger.Info("nobody takes over", "because", resignErr)
	}
	return err
}

// replace creates the leader key anew: one of the same mandate is there if this
// process could not act for a while.
func (e *Elector) replace(ctx context.Context, lease inventory.LeaseID) (inventory.Revision, error) {
	old, err := inventory.Get(ctx, e.opts.Store, e.key)
	if err != nil {
		return 0, err
	}
	if old.Mod != 0 {
		if _, err := e.opts.Store.Commit(ctx, inventory.Txn{
			Guards: []inventory.Guard{{Key: e.key, Created: old.Created}},
			Ops:    []inventory.Op{{Key: e.key, Delete: true}},
		}); err != nil {
			return 0, err
		}
	}
	return e.opts.Store.Commit(ctx, inventory.Txn{
		Guards: []inventory.Guard{{Key: e.key}},
		Ops:    []inventory.Op{{Key: e.key, Value: []byte(e.opts.ID), Lease: lease}},
	})
}

var (
	errVacant = errors.New("nobody leads")
	errGaveUp = errors.New("lead returned")
)

// awaitVacancy returns nil when the leader key does not exist.
func (e *Elector) awaitVacancy(ctx context.Context) error {
	l, err := e.opts.Store.List(ctx, e.key)
	if err != nil {
		return err
	}
	if len(l.KVs) == 0 || l.KVs[0].Key != e.key {
		return nil
	}
	err = e.opts.Store.Watch(ctx, e.key, l.Revision, func(b inventory.Batch) error {
		e.backoff.Reset() // the stream stands
		if c, ok := last(b, e.key); ok && c.Deleted {
			return errVacant
		}
		return nil
	})
	if errors.Is(err, errVacant) {
		return nil
	}
	return err
}

// last is the last change of key in a batch.
func last(b inventory.Batch, key string) (inventory.Change, bool) {
	for i := len(b.Changes) - 1; i >= 0; i-- {
		if b.Changes[i].Key == key {
			return b.Changes[i], true
		}
	}
	return inventory.Change{}, false
}

// campaign tries once to create the leader key, and leads if that works. Each
// try has a lease of its own, so that a create whose outcome was not known, and
// that comes true later, can never be taken for a later one.
func (e *Elector) campaign(ctx context.Context, lead func(context.Context, Term) error) error {
	lease, err := inventory.KeepLease(ctx, e.opts.Leaser, e.opts.TTL)
	if err != nil {
		return err
	}
	defer func() {
		// On shutdown ctx has ended; the farewell must go out all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignWithin)
		defer cancel()
		if err := lease.Release(ctx); err != nil {
			e.opts.Logger.Warn("the leader's lease is left to expire", "error", err)
		}
	}()

	created, err := e.create(lease)
	if errors.Is(err, inventory.ErrConflict) {
		return nil // someone else won
	}
	if err != nil {
		return err
	}
	return e.serve(lease.Context(), created, lead)
}

// create creates the leader key, bound to the lease.
func (e *Elector) create(lease *inventory.Lease) (inventory.Revision, error) {
	ctx := lease.Context()
	created, err := e.opts.Store.Commit(ctx, inventory.Txn{
		Guards: []inventory.Guard{{Key: e.key}},
		Ops:    []inventory.Op{{Key: e.key, Value: []byte(e.opts.ID), Lease: lease.ID}},
	})
	if !errors.Is(err, inventory.ErrUnavailable) {
		return created, err
	}
	// It may have been done. The key that is bound to this lease is ours.
	kv, readErr := inventory.Get(ctx, e.opts.Store, e.key)
	if readErr != nil {
		return 0, errors.Join(err, readErr)
	}
	if kv.Mod == 0 || kv.Lease != lease.ID {
		return 0, err
	}
	return kv.Created, nil
}

// serve leads for one term.
func (e *Elector) serve(leaseCtx context.Context, created inventory.Revision, lead func(context.Context, Term) error) error {
	ctx, end := context.WithCancelCause(leaseCtx)
	guarding := make(chan struct{})
	go func() {
		defer close(guarding)
		e.guard(ctx, created, end)
	}()
	logger := e.opts.Logger.With("term", created)
	logger.Info("leading")
	began := time.Now()
	e.opts.OnChange(true)

	err := lead(ctx, Term{Key: e.key, Created: created, store: e.opts.Store, end: end})

	if time.Since(began) > e.opts.TTL {
		e.backoff.Reset() // it worked for a while; else a lead that fails at once is tried ever less often
	}
	gaveUp := ctx.Err() == nil
	cause := context.Cause(ctx)
	end(context.Canceled)
	<-guarding
	e.opts.OnChange(false)
	switch {
	case gaveUp && err != nil:
		return fmt.Errorf("%w: %w", errGaveUp, err)
	case gaveUp:
		return errGaveUp
	}
	logger.Info("no longer leading", "cause", cause)
	return nil
}

// guard ends the term when the leader key is seen to be gone or another's:
// someone may delete it by hand, or restore the store. That a lease is lost is
// known without it.
func (e *Elector) guard(ctx context.Context, created inventory.Revision, end context.CancelCauseFunc) {
	after := created
	backoff := inventory.Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for ctx.Err() == nil {
		err := e.opts.Store.Watch(ctx, e.key, after, func(b inventory.Batch) error {
			backoff.Reset()
			if c, ok := last(b, e.key); ok && (c.Deleted || c.Created != created) {
				return ErrDeposed
			}
			after = b.Revision
			return nil
		})
		if errors.Is(err, inventory.ErrCompacted) {
			var l inventory.Listing
			if l, err = e.opts.Store.List(ctx, e.key); err == nil {
				after = l.Revision
				if len(l.KVs) == 0 || l.KVs[0].Key != e.key || l.KVs[0].Created != created {
					err = ErrDeposed
				}
			}
		}
		if errors.Is(err, ErrDeposed) {
			end(ErrDeposed)
			return
		}
		_ = backoff.Wait(ctx)
	}
}
