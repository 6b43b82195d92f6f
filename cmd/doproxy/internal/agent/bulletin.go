package agent

import (
	"context"
	"reflect"
	"sync"
	"time"

	"github.com/doproxy/doproxy/election"
	"github.com/doproxy/doproxy/fleet"
	"github.com/doproxy/doproxy/ingress"
	"github.com/doproxy/doproxy/inventory"
)

// bulletinEvery is the least time between two of the leader's reports.
const bulletinEvery = 100 * time.Millisecond

// bulletin puts together what the loops of one term tell, and keeps it on record.
type bulletin struct {
	agent *agent
	news  chan struct{}

	mu        sync.Mutex
	droplets  fleet.News
	addresses ingress.News
}

func newBulletin(a *agent) *bulletin {
	return &bulletin{agent: a, news: make(chan struct{}, 1)}
}

func (b *bulletin) fleet(n fleet.News)     { b.tell(func() { b.droplets = n }) }
func (b *bulletin) ingress(n ingress.News) { b.tell(func() { b.addresses = n }) }

func (b *bulletin) tell(set func()) {
	b.mu.Lock()
	set()
	b.mu.Unlock()
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// report is the record of what was told.
func (b *bulletin) report() *inventory.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &inventory.Report{
		Node:  b.agent.cfg.Node,
		Usage: b.droplets.Usage, Prices: b.droplets.Prices,
		CloudError: b.droplets.CloudError,
	}
	if r.CloudError == "" {
		r.CloudError = b.addresses.CloudError
	}
	r.Conditions = append(append(r.Conditions, b.droplets.Conditions...), b.addresses.Conditions...)
	// A look is done when both have done it.
	if r.Verified = b.droplets.Verified; b.addresses.Verified < r.Verified {
		r.Verified = b.addresses.Verified
	}
	r.Differences = append(append(r.Differences, b.droplets.Differences...), b.addresses.Differences...)
	if more := len(r.Differences) - 4*maxDifferences; more > 0 {
		r.Differences = r.Differences[:4*maxDifferences]
	}
	return r
}

// run writes the report when it has changed, until the term ends. What cannot be
// written now is written later: nothing depends on it.
func (b *bulletin) run(ctx context.Context, term election.Term) error {
	var last *inventory.Report
	backoff := inventory.Backoff{Min: minRetry, Max: maxRetry}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-b.news:
		}
		for ctx.Err() == nil {
			now := b.report()
			if last != nil && reflect.DeepEqual(last, now) {
				break
			}
			_, err := term.Commit(ctx, inventory.Txn{Ops: []inventory.Op{inventory.PutReport(b.agent.keys, now)}})
			if err == nil {
				last = now
				backoff.Reset()
				break
			}
			_ = backoff.Wait(ctx)
		}
		_ = pause(ctx, bulletinEvery)
	}
}
