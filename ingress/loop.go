package ingress

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
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

// Options are what a Loop needs. Budget, Tell, Journal and Log may be left out.
type Options struct {
	Keys     inventory.Keys
	UID      string // of the cluster, as the agent knows it
	Mirror   Mirror
	Reserved cloud.ReservedIPs
	DNS      cloud.DNS
	Settings Settings
	// Budget may be nil: no bound.
	Budget *cloud.Budget
	// Tell, if not nil, is called when the leader's news have changed. It does not
	// block, and does not change what it gets.
	Tell    func(News)
	Journal Journal
	Log     *slog.Logger
	// Gap is the least time between two passes; the first change after a quiet
	// time is acted on at once. Default 10 ms.
	Gap time.Duration
	// CommitTimeout bounds one transaction. Default 5 s.
	CommitTimeout time.Duration
}

// Validate names what is missing or cannot be.
func (o Options) Validate() error {
	switch {
	case o.Keys == inventory.Keys{}:
		return errors.New("ingress: no keys")
	case o.UID == "":
		return errors.New("ingress: no cluster uid")
	case o.Mirror == nil:
		return errors.New("ingress: no mirror")
	case o.Reserved == nil:
		return errors.New("ingress: no reserved IPs of a cloud")
	case o.DNS == nil:
		return errors.New("ingress: no DNS of a cloud")
	case o.Gap < 0 || o.CommitTimeout < 0:
		return errors.New("ingress: gap and commit timeout must not be negative")
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
		o.Gap = 10 * time.Millisecond
	}
	if o.CommitTimeout == 0 {
		o.CommitTimeout = 5 * time.Second
	}
	return &Loop{o: o}, nil
}

// Run leads until ctx, which is the term's, ends; it then returns ctx's cause
// once every call that it started is over. began is the revision at which the
// term began: nothing is decided on a state from before.
func (l *Loop) Run(ctx context.Context, term Committer, began inventory.Revision) error {
	r := &run{
		Options: l.o,
		term:    term,
		facts:   NewFacts(time.Now()),
		rounds:  election.NewRounds(l.o.Gap, 20*time.Millisecond, 2*time.Second),
		stand:   map[string]inventory.Condition{},
		reached: began,
	}
	defer r.rounds.End()

	wake, unsubscribe := l.o.Mirror.Subscribe()
	defer unsubscribe()
	r.rounds.Run(ctx, wake, r.pass)
	return context.Cause(ctx)
}

// run is one term.
type run struct {
	Options
	term    Committer
	facts   *Facts
	rounds  *election.Rounds
	stand   map[string]inventory.Condition // by key
	news    News                           // as last told
	told    bool
	reached inventory.Revision // of the last own write: the state must have it
}

// pass looks, decides and acts once. It returns when to look again at the latest.
func (r *run) pass(ctx context.Context) (next time.Time) {
	state, err := r.Mirror.WaitRevision(ctx, r.reached)
	if err != nil {
		return time.Time{}
	}
	now := time.Now()
	r.facts.Prune(state)
	r.facts.See(state, now)
	in := Input{Now: now, Settings: r.Settings, UID: r.UID, State: state, Facts: r.facts}
	if r.Budget != nil {
		all := r.Budget.Allowances(now)
		in.Budget = &all
	}
	d := Plan(in)
	r.tell(d)
	r.start(ctx, now, d)
	for _, g := range d.Groups {
		rev, err := r.commit(ctx, g)
		switch {
		case err == nil:
			r.rounds.Succeeded()
			r.reached = max(r.reached, rev)
			r.record(g.Events)
			for _, c := range g.Creates {
				r.create(ctx, c)
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
		txn.Add(w.op(r.Keys))
	}
	ctx, cancel := context.WithTimeout(ctx, r.CommitTimeout)
	defer cancel()
	return r.term.Commit(ctx, txn)
}

func (w Write) op(keys inventory.Keys) (inventory.Guard, inventory.Op) {
	switch {
	case w.Assignment != nil && w.Delete:
		return inventory.DeleteAssignment(keys, w.Assignment)
	case w.Assignment != nil:
		return inventory.PutAssignment(keys, w.Assignment)
	case w.Delete:
		return inventory.DeleteDNS(keys, w.DNS)
	default:
		return inventory.PutDNS(keys, w.DNS)
	}
}

// tell passes on what has changed of the news, and records conditions as events
// when they first appear.
func (r *run) tell(d Decision) {
	news := r.news
	if !d.Held {
		stand := make(map[string]inventory.Condition, len(d.Notes))
		news.Conditions = nil
		for _, n := range d.Notes {
			c := inventory.Condition{Key: n.Key, Type: n.Type, Node: n.Node, Message: n.Message, Since: n.Time}
			if was, ok := r.stand[n.Key]; ok {
				c.Since = was.Since
			} else {
				r.record([]inventory.Event{n.Event})
			}
			stand[n.Key] = c
			news.Conditions = append(news.Conditions, c)
		}
		r.stand = stand
		news.CloudError = r.facts.trouble()
	}
	if d.Verified != "" {
		news.Verified, news.Differences = d.Verified, d.Differences
		r.facts.EndVerify(d.Verified)
	}
	if r.told && reflect.DeepEqual(news, r.news) {
		return
	}
	r.told, r.news = true, news
	if r.Tell != nil {
		r.Tell(news)
	}
}

func (r *run) record(events []inventory.Event) {
	for _, e := range events {
		r.Log.Info("event", "type", e.Type, "of_node", e.Node, "message", e.Message)
		if r.Journal != nil {
			r.Journal.Record(e)
		}
	}
}
