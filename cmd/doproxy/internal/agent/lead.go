package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/doproxy/doproxy/cloud/digitalocean"
	"github.com/doproxy/doproxy/election"
	"github.com/doproxy/doproxy/fleet"
)

// lead is one term: the fleet loop on DigitalOcean, for the cluster whose uid
// the inventory has when the term begins.
func (a *agent) lead(ctx context.Context, term election.Term) error {
	state, err := a.mirror.WaitRevision(ctx, term.Created)
	if err != nil {
		return err
	}
	if state.Meta == nil {
		return fmt.Errorf("cannot lead: %w", errNoCluster)
	}
	cloud, err := digitalocean.New(digitalocean.Options{
		Token: digitalocean.StaticToken(string(a.cfg.Token)), BaseURL: a.cfg.DigitalOcean.URL, Cluster: state.Meta.UID, UserAgent: "doproxy/" + a.version,
	})
	if err != nil {
		return err
	}
	f := a.cfg.Fleet
	loop, err := fleet.New(fleet.Options{
		Keys: a.keys, UID: state.Meta.UID, Mirror: a.mirror, Cloud: cloud,
		Journal: a.journal, Log: a.logger,
		Settings: fleet.Settings{
			PollFirst: min(time.Second, f.PollInterval), PollBusy: f.PollInterval, PollIdle: f.PollIntervalIdle,
			CreateTimeout: f.CreateTimeout, Settle: f.Settle, RemoveDeadline: f.RemoveDeadline,
			RetryMin: f.BackoffMin, RetryMax: f.BackoffMax,
		},
	})
	if err != nil {
		return err
	}
	return loop.Run(ctx, term, term.Created)
}
