package fleet

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/election"
	"github.com/doproxy/doproxy/inventory"
)

// Mirror is the leader's view of the inventory. *inventory.Mirror is one.
type Mirror interface {
	State() *inventory.State
	// Subscribe: wake receives when the state has changed since it was last read.
	Subscribe() (wake <-chan struct{}, cancel func())
	// WaitRevision returns the first state as of rev or later.
	WaitRevision(ctx context.Context, rev inventory.Revision) (*inventory.State, error)
}

// Committer runs transactions that fail once the term is over.
type Committer interface {
	Commit(ctx context.Context, txn inventory.Txn) (inventory.Revision, error)
}

// Journal keeps events; Record does not block. *inventory.Journal is one.
type Journal interface {
	Record(e inventory.Event)
}

var (
	_ Mirror    = (*inventory.Mirror)(nil)
	_ Journal   = (*inventory.Journal)(nil)
	_ Committer = election.Term{}
)

// Options are what a Loop needs. Journal and Log may be left out.
type Options struct {
	Keys     inventory.Keys
	UID      string // of the cluster, as the agent knows it
	Mirror   Mirror
	Cloud    cloud.Droplets
	Settings Settings
	// Prices may be nil: no cost limit can be kept then.
	Prices cloud.Prices
	// Budget may be nil: no bound.
	Budget *cloud.Budget
	// Floor may be nil; see Input.Floor. It is called before each decision.
	Floor func() map[string]int64
	// Tell, if not nil, is called with what has changed of the leader's news. It
	// does not block, and does not change what it gets.
	Tell    func(News)
	Journal Journal
	Log     *slog.Logger
	// Gap is the least time between two passes; the first change after a quiet
	// time is acted on at once. Default 25 ms.
	Gap time.Duration
	// CommitTimeout bounds one transaction. Default 5 s.
	CommitTimeout time.Duration
	// Grace is how long creates that are under way at a planned end of the term
	// may still take, so that what they bring is on record. Default 3 s.
	Grace time.Duration
}

// Validate names what is missing or cannot be.
func (o Options) Validate() error {
	switch {
	case o.Keys == inventory.Keys{}:
		return errors.New("fleet: no keys")
	case o.UID == "":
		return errors.New("fleet: no cluster uid")
	case o.Mirror == nil:
		return errors.New("fleet: no mirror")
	case o.Cloud == nil:
		return errors.New("fleet: no cloud")
	case o.Gap < 0 || o.CommitTimeout < 0 || o.Grace < 0:
		return errors.New("fleet: gap, commit timeout and grace must not be negative")
	}
	return o.Settings.Validate()
}

// Loop carries out what Plan decides.
type Loop struct{ o Options }

// New checks the options.
func New(o Options) (*Loop, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Settings = o.Settings.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Gap == 0 {
		o.Gap = 25 * time.Millisecond
	}
	if o.CommitTimeout == 0 {
		o.CommitTimeout = 5 * time.Second
	}
	if o.Grace == 0 {
		o.Grace = 3 * time.Second
	}
	return &Loop{o: o}, nil
}

// Run leads until ctx, which is the term's, ends; it then returns ctx's cause
// once every call that it started is over. began is the revision at which the
// term began: nothing is decided on a state from before.
func (l *Loop) Run(ctx context.Context, term Committer, began inventory.Revision) error {
	calls, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &run{
		Options: l.o,
		term:    term,
		facts:   NewFacts(time.Now()),
		rounds:  election.NewRounds(l.o.Gap, 50*time.Millisecond, 5*time.Second),
		creates: calls,
		reached: began,
	}
	defer r.rounds.End()
	defer stop()
	defer context.AfterFunc(ctx, func() {
		if !planned(ctx) {
			stop() // another may lead by now
		}
	})()

	wake, unsubscribe := l.o.Mirror.Subscribe()
	defer unsubscribe()
	r.rounds.Run(ctx, wake, r.pass)
	if planned(ctx) {
		r.farewell(ctx)
	}
	return context.Cause(ctx)
}

// planned says that a term's context ended because this process wanted it so.
func planned(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return !errors.Is(cause, election.ErrDeposed) && !errors.Is(cause, inventory.ErrLeaseLost)
}

// farewell waits a little for creates under way, and puts on record what they
// brought. It starts no call.
func (r *run) farewell(ctx context.Context) {
	if len(r.facts.creating)+len(r.facts.outcomes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Grace)
	defer cancel()
	for len(r.facts.creating) > 0 {
		select {
		case result := <-r.rounds.Results():
			result(time.Now())
		case <-ctx.Done():
			return
		}
	}
	state, err := r.Mirror.WaitRevision(ctx, r.reached)
	if err != nil {
		return
	}
	r.facts.Prune(state)
	d := Plan(r.input(time.Now(), state))
	for _, g := range d.Groups {
		if len(g.Creates) > 0 {
			continue
		}
		if _, err := r.commit(ctx, g); err != nil {
			r.Log.Warn("writing to the inventory at the end of the term", "error", err)
			return
		}
		r.record(g.Events)
	}
}

// run is one term.
type run struct {
	Options
	term    Committer
	facts   *Facts
	rounds  *election.Rounds
	creates context.Context    // of create calls: it may outlive the term by Grace
	teller  *teller            // nil before the first pass
	listErr string             // of the last list, empty when it went well
	reached inventory.Revision // of the last own write: the state must have it
}

// pass looks, decides and acts once. It returns when to look again at the latest.
func (r *run) pass(ctx context.Context) (next time.Time) {
	state, err := r.Mirror.WaitRevision(ctx, r.reached)
	if err != nil {
		if ctx.Err() == nil {
			r.Log.Warn("waiting for the inventory to catch up", "revision", int64(r.reached), "error", err)
			return r.rounds.Failed()
		}
		return time.Time{}
	}
	r.facts.Prune(state)
	now := time.Now()
	r.facts.See(state, now)
	d := Plan(r.input(now, state))
	r.report(now, state, &d)
	r.start(ctx, now, d)
	for _, g := range d.Groups {
		rev, err := r.commit(ctx, g)
		switch {
		case err == nil:
			r.rounds.Succeeded()
			r.reached = max(r.reached, rev)
			r.record(g.Events)
			for _, c := range g.Creates {
				r.create(c)
			}
			d.Next = now // there is more to see
		case ctx.Err() != nil:
			return time.Time{}
		case errors.Is(err, inventory.ErrConflict):
			r.Log.Debug("inventory changed meanwhile", "error", err)
			d.Next = r.rounds.Failed()
		default:
			// Whether it was written is unknown: the guards of the next try tell.
			r.Log.Warn("writing to the inventory", "error", err)
			return r.rounds.Failed()
		}
	}
	return d.Next
}

// commit writes a group in one transaction.
func (r *run) commit(ctx context.Context, g Group) (inventory.Revision, error) {
	var txn inventory.Txn
	for _, w := range g.Writes {
		switch {
		case w.Member != nil:
			txn.Add(inventory.PutMember(r.Keys, w.Member))
		case w.Pool != nil:
			txn.Add(inventory.PutPool(r.Keys, w.Pool))
		case w.Delete:
			txn.Add(inventory.DeleteDroplet(r.Keys, w.Droplet))
		default:
			txn.Add(inventory.PutDroplet(r.Keys, w.Droplet))
		}
	}
	if len(txn.Ops) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.CommitTimeout)
	defer cancel()
	return r.term.Commit(ctx, txn)
}

// input is all that a decision is made of.
func (r *run) input(now time.Time, state *inventory.State) Input {
	in := Input{Now: now, Settings: r.Settings, UID: r.UID, State: state, Facts: r.facts}
	if r.Budget != nil {
		all := r.Budget.Allowances(now)
		in.Budget = &all
	}
	if r.Floor != nil {
		in.Floor = r.Floor()
	}
	return in
}

// report records conditions when they first appear, and tells what has changed.
func (r *run) report(now time.Time, state *inventory.State, d *Decision) {
	if r.teller == nil {
		r.teller = newTeller(r.Tell, r.facts.Term, state.Report)
	}
	t := r.teller
	for _, n := range t.conditions(d.Notes, now) {
		r.record([]inventory.Event{n.Event})
	}
	if d.counted {
		t.news.Usage = d.Usage
	}
	if r.Budget != nil {
		u := &t.news.Usage
		u.APILimit, u.APIRemaining, u.APIReset, u.APIMinute = r.Budget.Usage(now)
	}
	if r.facts.Prices != nil {
		t.news.Prices = r.facts.Prices
	}
	t.news.CloudError = r.listErr
	if d.Verified != "" {
		t.news.Verified, t.news.Differences = d.Verified, d.Differences
		r.facts.Told(d.Verified)
	}
	again := t.publish(now, r.facts.List != nil || r.listErr != "")
	if !again.IsZero() && (d.Next.IsZero() || again.Before(d.Next)) {
		d.Next = again
	}
}

func (r *run) record(events []inventory.Event) {
	for _, e := range events {
		r.Log.Info("event", "type", e.Type, "of_node", e.Node, "pool", e.Pool, "droplet", e.Droplet, "message", e.Message)
		if r.Journal != nil {
			r.Journal.Record(e)
		}
	}
}
