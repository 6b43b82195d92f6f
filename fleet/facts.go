package fleet

import (
	"errors"
	"slices"
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// Facts are what the leader learned from the cloud in this term, and which of
// its calls are under way. They live in memory only: all that must outlive a
// leader is on record, and the next one finds out the rest anew.
//
// Its methods are the only ones to change it. A call is noted with a Start
// method before it is sent, and with the matching End method once it is over.
type Facts struct {
	// Term is when this leader's term began.
	Term time.Time
	// List is the last whole list, nil before the first.
	List *List
	// Hold is the moment before which the cloud wants no call.
	Hold time.Time

	// Prices of sizes by slug, US dollars an hour; nil before they were told.
	Prices         map[string]float64
	pricing        bool
	pricesTried    time.Time
	pricesFailures int

	// nodes is when each was last seen alive, ordinals the highest next ordinal
	// seen on record of each hostname prefix.
	nodes        map[string]time.Time
	ordinals     map[string]int64
	verify       verify
	listing      bool
	listTried    time.Time
	listFailures int
	creating     map[string]time.Time // names in a create call under way, by their Asked
	creates      map[string]int       // create calls under way, by pool
	outcomes     map[string]outcome   // of creates, by name, until they are on record
	calling      map[int64]callKind   // other calls under way
	gets         int                  // of these, gets
	got          map[int64]got        // what the last get said
	deletes      map[int64]attempt
	imports      map[int64]adoption
}

// NewFacts knows nothing yet. now is when the term began.
func NewFacts(now time.Time) *Facts {
	return &Facts{
		Term:     now,
		nodes:    map[string]time.Time{},
		ordinals: map[string]int64{},
		creating: map[string]time.Time{},
		creates:  map[string]int{},
		outcomes: map[string]outcome{},
		calling:  map[int64]callKind{},
		got:      map[int64]got{},
		deletes:  map[int64]attempt{},
		imports:  map[int64]adoption{},
	}
}

// List is what one list call told.
type List struct {
	// Sent is when the call was sent: the list says nothing of what came later.
	Sent   time.Time
	All    []cloud.Droplet
	byID   map[int64]*cloud.Droplet
	byName map[string]int64 // lowest id of the name
}

func newList(sent time.Time, all []cloud.Droplet) *List {
	l := &List{
		Sent:   sent,
		All:    all,
		byID:   make(map[int64]*cloud.Droplet, len(all)),
		byName: make(map[string]int64, len(all)),
	}
	for i := range all {
		d := &all[i]
		l.byID[d.ID] = d
		if id, ok := l.byName[d.Name]; !ok || d.ID < id {
			l.byName[d.Name] = d.ID
		}
	}
	return l
}

type callKind uint8

const (
	callGet callKind = iota + 1
	callDelete
	callAdopt
)

// outcome of a create for one name, known for sure. An unknown outcome is no
// outcome: the record's Asked stays, until lists settle it.
type outcome struct {
	asked   time.Time // that of the record when the call was sent
	made    *cloud.Droplet
	refused string    // the cloud's words
	until   time.Time // throttled until
	unsent  bool
}

// got is what the cloud said of one droplet when asked at a time.
type got struct {
	at       time.Time // the call was sent
	state    gotState
	droplet  cloud.Droplet // when it exists
	failures int           // in a row without an answer
}

type gotState uint8

const (
	gotUnknown gotState = iota
	gotExists
	gotUntagged // it exists and is not tagged as the cluster's
	gotGone     // for good, unless the cloud takes that back: ids are not used again
)

type attempt struct {
	count   int       // calls sent
	sent    time.Time // the last
	done    time.Time // when the cloud last took one
	message string    // the cloud's words, when it refused the last
}

type adoption struct {
	at      time.Time // last tried
	count   int
	done    bool
	refused string // a definite no
}

// verify is the last look that was asked for.
type verify struct {
	id   string
	seen time.Time // by this leader
	told bool      // what it found
}

// See notes what a state must be remembered for: which nodes are alive, which
// names were used, and whether a look is asked for.
func (f *Facts) See(s *inventory.State, now time.Time) {
	for name := range s.Nodes {
		f.nodes[name] = now
	}
	for _, p := range s.Pools {
		f.ordinals[p.HostnamePrefix] = max(f.ordinals[p.HostnamePrefix], p.NextOrdinal)
	}
	if v := s.Verify; v != nil && v.ID != f.verify.id {
		f.verify = verify{id: v.ID, seen: now}
		if v.Repair {
			f.Hurry()
		}
	}
}

// Told notes that what the look with this id found is told.
func (f *Facts) Told(id string) {
	if f.verify.id == id {
		f.verify.told = true
	}
}

// Hurry lets what failed be tried again at once. The cloud's own limit on
// requests stays in force, and so do the delays of creates, which are on record.
func (f *Facts) Hurry() {
	f.listFailures = 0
	for id, a := range f.deletes {
		a.count = 0
		f.deletes[id] = a
	}
	for id, g := range f.got {
		if g.failures > 0 {
			delete(f.got, id)
		}
	}
	for id, i := range f.imports {
		i.count = 0
		f.imports[id] = i
	}
}

// StartList notes that a list call is about to be sent.
func (f *Facts) StartList(now time.Time) {
	f.listing = true
	f.listTried = now
}

// EndList takes in a whole list, or why there is none.
func (f *Facts) EndList(sent, now time.Time, all []cloud.Droplet, err error) {
	f.listing = false
	if err != nil {
		f.listFailures++
		f.throttled(err, now)
		return
	}
	f.listFailures = 0
	f.List = newList(sent, all)
}

// StartCreate notes that a create call is about to be sent.
func (f *Facts) StartCreate(c Create) {
	f.creates[c.Pool]++
	for _, name := range c.Names {
		f.creating[name] = c.Asked
	}
}

// EndCreate takes in what a create call brought. A name that err leaves in
// doubt, or that the answer lacks, has no outcome.
func (f *Facts) EndCreate(c Create, now time.Time, made []cloud.Droplet, err error) {
	if f.creates[c.Pool]--; f.creates[c.Pool] <= 0 {
		delete(f.creates, c.Pool)
	}
	for _, name := range c.Names {
		delete(f.creating, name)
	}
	var refused *cloud.Refused
	var throttled *cloud.Throttled
	each := func(o outcome) {
		o.asked = c.Asked
		for _, name := range c.Names {
			f.outcomes[name] = o
		}
	}
	switch {
	case err == nil:
		for i := range made {
			f.outcomes[made[i].Name] = outcome{asked: c.Asked, made: &made[i]}
		}
	case errors.As(err, &refused):
		each(outcome{refused: refusal(refused)})
	case errors.As(err, &throttled):
		f.throttled(err, now)
		each(outcome{until: throttled.Until})
	}
}

// DropCreate notes that a call whose names are on record was not sent.
func (f *Facts) DropCreate(c Create) {
	for _, name := range c.Names {
		f.outcomes[name] = outcome{asked: c.Asked, unsent: true}
	}
}

// StartGet, StartDelete and StartAdopt note a call that is about to be sent.
func (f *Facts) StartGet(id int64) {
	f.calling[id] = callGet
	f.gets++
}

func (f *Facts) StartDelete(id int64, now time.Time) {
	f.calling[id] = callDelete
	a := f.deletes[id]
	a.count++
	a.sent = now
	f.deletes[id] = a
}

func (f *Facts) StartAdopt(id int64, now time.Time) {
	f.calling[id] = callAdopt
	i := f.imports[id]
	i.at = now
	i.count++
	f.imports[id] = i
}

// EndGet takes in what the cloud said of one droplet.
func (f *Facts) EndGet(id int64, sent, now time.Time, d cloud.Droplet, err error) {
	delete(f.calling, id)
	f.gets--
	before := f.got[id]
	if before.state == gotGone && (err != nil || !sent.After(before.at)) {
		return
	}
	var refused *cloud.Refused
	switch {
	case err == nil:
		f.got[id] = got{at: sent, state: gotExists, droplet: d}
	case errors.Is(err, cloud.ErrNotFound):
		f.got[id] = got{at: sent, state: gotGone}
	case errors.As(err, &refused) && refused.ID == cloud.NotOurs:
		f.got[id] = got{at: sent, state: gotUntagged}
	default:
		f.throttled(err, now)
		f.got[id] = got{at: sent, failures: before.failures + 1}
	}
}

// EndDelete takes in the answer to a delete.
func (f *Facts) EndDelete(id int64, now time.Time, err error) {
	delete(f.calling, id)
	a := f.deletes[id]
	a.message = ""
	var refused *cloud.Refused
	switch {
	case err == nil:
		a.done = now
	case errors.Is(err, cloud.ErrNotFound):
		f.got[id] = got{at: now, state: gotGone}
	case errors.As(err, &refused):
		a.message = refusal(refused)
	default:
		f.throttled(err, now)
	}
	f.deletes[id] = a
}

// EndAdopt takes in the answer to an adoption.
func (f *Facts) EndAdopt(id int64, now time.Time, err error) {
	delete(f.calling, id)
	i := f.imports[id]
	var refused *cloud.Refused
	switch {
	case err == nil:
		i.done = true
		if f.got[id].state != gotGone {
			delete(f.got, id) // what was known of its tags is out of date
		}
	case errors.Is(err, cloud.ErrNotFound):
		i.refused = "DigitalOcean knows no such droplet"
	case errors.As(err, &refused):
		i.refused = refusal(refused)
	default:
		f.throttled(err, now)
	}
	f.imports[id] = i
}

func (f *Facts) throttled(err error, now time.Time) {
	var t *cloud.Throttled
	if errors.As(err, &t) {
		// A clock that runs apart from the cloud's must not make a tight loop.
		f.Hold = later(f.Hold, later(t.Until, now.Add(time.Second)))
	}
}

// Prune forgets what the records, as of a state that includes all that this
// leader wrote, have taken in or no longer ask for.
func (f *Facts) Prune(s *inventory.State) {
	for name, o := range f.outcomes {
		if d := s.Droplets[name]; d == nil || d.ID != 0 || !d.Asked.Equal(o.asked) {
			delete(f.outcomes, name)
		}
	}
	if len(f.got)+len(f.deletes)+len(f.imports) == 0 {
		return
	}
	recorded := recordedIDs(s.Droplets)
	listed := func(id int64) bool { return f.List != nil && f.List.byID[id] != nil }
	for id, g := range f.got {
		// What is gone must be remembered until a list sent afterwards lacks it.
		if _, ok := recorded[id]; !ok && !listed(id) && f.List != nil && f.List.Sent.After(g.at) && !importing(s, id) {
			delete(f.got, id)
		}
	}
	for id := range f.deletes {
		if _, ok := recorded[id]; !ok && !listed(id) {
			delete(f.deletes, id)
		}
	}
	for id := range f.imports {
		_, ok := recorded[id]
		if ok && listed(id) || !ok && !importing(s, id) {
			delete(f.imports, id)
		}
	}
}

// importing says that some pool waits for the droplet with this id.
func importing(s *inventory.State, id int64) bool {
	for _, p := range s.Pools {
		if slices.Contains(p.Import, id) {
			return true
		}
	}
	return false
}

func refusal(r *cloud.Refused) string {
	if r.Message == "" {
		return r.ID
	}
	return r.Message
}

func recordedIDs(droplets map[string]*inventory.Droplet) map[int64]string {
	ids := make(map[int64]string, len(droplets))
	for name, d := range droplets {
		if d.ID != 0 {
			ids[d.ID] = name
		}
	}
	return ids
}
