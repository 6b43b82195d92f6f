package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/doproxy/doproxy/cloud/digitalocean"
	"github.com/doproxy/doproxy/election"
	"github.com/doproxy/doproxy/fleet"
	"github.com/doproxy/doproxy/ingress"
	"github.com/doproxy/doproxy/inventory"
)

var errRestored = errors.New("the store was restored from an older copy")

// campaign runs for the leadership while the store holds records that this agent
// may act upon: one of an older version must not keep a newer one from leading, and
// nobody leads a cluster that has not begun.
func (a *agent) campaign(ctx context.Context, elector *election.Elector) error {
	wake, cancel := a.mirror.Subscribe()
	defer cancel()
	for ctx.Err() == nil {
		if s := a.mirror.State(); inventory.Untrusted(s.Err) || s.Meta == nil {
			if err := a.abstainWhileUntrusted(ctx, wake); err != nil {
				return err
			}
			continue
		}
		if err := a.campaignWhileTrusted(ctx, elector); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return ctx.Err()
}

// abstainWhileUntrusted returns when wake says that something changed.
func (a *agent) abstainWhileUntrusted(ctx context.Context, wake <-chan struct{}) error {
	abstainCtx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		select {
		case <-wake:
		case <-abstainCtx.Done():
		}
	}()
	if s := a.mirror.State(); errors.Is(s.Err, inventory.ErrMoved) || s.Meta == nil {
		// So it is for every node: to hand the store's lead on would have it go round.
		<-abstainCtx.Done()
		return ctx.Err()
	}
	if err := a.abstain(abstainCtx); err != nil && abstainCtx.Err() == nil {
		return err
	}
	return ctx.Err()
}

func (a *agent) campaignWhileTrusted(ctx context.Context, elector *election.Elector) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	wake, cancel := a.mirror.Subscribe()
	defer cancel()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-wake:
			}
			if inventory.Untrusted(a.mirror.State().Err) {
				stop()
			}
		}
	}()
	return elector.Run(ctx, a.lead)
}

// lead is one term: the fleet and ingress loops on DigitalOcean, for the cluster
// whose uid the inventory has when the term begins, and what they have to tell.
func (a *agent) lead(ctx context.Context, term election.Term) error {
	state, err := a.mirror.WaitRevision(ctx, term.Created)
	if err != nil {
		return err
	}
	if state.Meta == nil {
		return fmt.Errorf("cannot lead: %w", errNoCluster)
	}
	cloud, err := digitalocean.New(digitalocean.Options{
		Token: digitalocean.StaticToken(string(a.cfg.Token)), BaseURL: a.cfg.DigitalOcean.URL,
		Cluster: state.Meta.UID, UserAgent: "doproxy/" + a.version, Budget: &a.budget,
	})
	if err != nil {
		return err
	}
	told := newBulletin(a)
	f := a.cfg.Fleet
	droplets, err := fleet.New(fleet.Options{
		Keys: a.keys, UID: state.Meta.UID, Mirror: a.mirror, Cloud: cloud, Prices: cloud, Budget: &a.budget,
		Floor: func() map[string]int64 { return a.mirror.State().Floor },
		Tell:  told.fleet, Journal: a.journal, Log: a.logger,
		Settings: fleet.Settings{
			PollFirst: min(time.Second, f.PollInterval), PollBusy: f.PollInterval, PollIdle: f.PollIntervalIdle,
			CreateTimeout: f.CreateTimeout, Settle: f.Settle, RemoveDeadline: f.RemoveDeadline,
			RetryMin: f.BackoffMin, RetryMax: f.BackoffMax,
		},
	})
	if err != nil {
		return err
	}
	addresses, err := ingress.New(ingress.Options{
		Keys: a.keys, UID: state.Meta.UID, Mirror: a.mirror, Reserved: cloud, DNS: cloud, Budget: &a.budget,
		Tell: told.ingress, Journal: a.journal, Log: a.logger,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var loops sync.WaitGroup
	for _, loop := range []func(context.Context) error{
		func(ctx context.Context) error { return droplets.Run(ctx, term, term.Created) },
		func(ctx context.Context) error { return addresses.Run(ctx, term, term.Created) },
		func(ctx context.Context) error { return told.run(ctx, term) },
		func(ctx context.Context) error { return a.restored(ctx, state.Restored) },
	} {
		loops.Go(func() { cancel(loop(ctx)) }) // one that ends, ends all
	}
	loops.Wait()
	return context.Cause(ctx)
}

// restored returns when the store was restored from an older copy. A leader key
// and a lease that are in that copy live on, but what the loops know of revisions
// is void: they would wait for ones that are long to come. The term ends.
func (a *agent) restored(ctx context.Context, before int) error {
	wake, cancel := a.mirror.Subscribe()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
		if a.mirror.State().Restored != before {
			return errRestored
		}
	}
}
