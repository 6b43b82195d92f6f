package cloud

import (
	"sync"
	"time"
)

// Class is what a call to the cloud is for. The lower goes first when calls are
// scarce.
type Class int

const (
	// Failover moves the addresses that clients come to.
	Failover Class = iota
	// Delete ends what costs money.
	Delete
	// Create makes droplets.
	Create
	// Poll looks: lists and gets.
	Poll

	classes
)

func (c Class) String() string {
	return [...]string{"failover", "delete", "create", "poll"}[c]
}

// minuteLimit is the API's own. Source: DigitalOcean API v2, "Rate limit": 5,000
// an hour, which each answer tells of, and 250 in any minute, which none does.
const minuteLimit = 250

// reserve is the share of the account's calls, in percent, that each class must
// leave to those before it.
var reserve = [classes]int{Failover: 0, Delete: 4, Create: 10, Poll: 20}

// Budget watches the account's calls, which others may use too, and divides
// them. Whoever talks to the cloud spends from it; planners look at it first.
// The zero Budget is that of an account of which nothing was told. Its methods
// are safe for concurrent use.
type Budget struct {
	mu        sync.Mutex
	sent      []time.Time // own calls of the last minute, oldest first
	limit     int
	remaining int
	reset     time.Time
	told      bool
	asked     time.Time // the last call since told; zero if there was none
	hold      time.Time
}

// Allowance is what one class may do now: N calls, and if that is none, no
// sooner than Until.
type Allowance struct {
	N     int
	Until time.Time
}

// Allowances of all classes.
type Allowances [classes]Allowance

// Spend counts a call that is sent now.
func (b *Budget) Spend(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(now)
	b.sent = append(b.sent, now)
	if b.told {
		b.remaining, b.asked = max(0, b.remaining-1), now
	}
}

// Told takes in what an answer said: calls left of an hour's limit, and when
// the oldest counts no more.
func (b *Budget) Told(limit, remaining int, reset time.Time) {
	if limit <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit, b.remaining, b.reset, b.told, b.asked = limit, remaining, reset, true, time.Time{}
}

// Hold says that the cloud refuses calls until a time.
func (b *Budget) Hold(until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if until.After(b.hold) {
		b.hold = until
	}
}

// Allowances are what each class may do now.
func (b *Budget) Allowances(now time.Time) (all Allowances) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(now)
	for c := range classes {
		perMinute := minuteLimit * (100 - reserve[c]) / 100
		a := Allowance{N: max(0, perMinute-len(b.sent))}
		if a.N == 0 {
			a.Until = b.sent[len(b.sent)-perMinute].Add(time.Minute)
		}
		hour, until := b.hour(c, now)
		if hour == 0 {
			a.Until = later(a.Until, until)
		}
		a.N = min(a.N, hour)
		if now.Before(b.hold) {
			a = Allowance{Until: later(a.Until, b.hold)}
		}
		all[c] = a
	}
	return all
}

// lookWait bounds how long the answer to a call is waited for that is to tell
// what is left of the hour.
const lookWait = 10 * time.Second

// hour is what a class may do of the hour's limit, and if that is none, no
// sooner than when.
//
// At reset the oldest call counts no more, and others follow it: how many, the
// answer to one more call tells. Until it has, classes that must leave something
// to others send no second one.
func (b *Budget) hour(c Class, now time.Time) (n int, until time.Time) {
	left := max(0, b.remaining-b.limit*reserve[c]/100)
	switch {
	case !b.told:
		return minuteLimit, time.Time{}
	case now.Before(b.reset):
		return left, b.reset
	case reserve[c] == 0:
		return minuteLimit, time.Time{} // the cloud itself says no if it must
	case left > 0:
		return left, time.Time{}
	case b.asked.Before(b.reset), !now.Before(b.asked.Add(lookWait)):
		return 1, time.Time{}
	}
	return 0, b.asked.Add(lookWait)
}

// Usage is the hour's limit and what is left of it, as last told (limit 0: not
// told yet), and the calls sent in the last minute.
func (b *Budget) Usage(now time.Time) (limit, remaining int, reset time.Time, minute int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(now)
	return b.limit, b.remaining, b.reset, len(b.sent)
}

func (b *Budget) forget(now time.Time) {
	n := 0
	for n < len(b.sent) && now.Sub(b.sent[n]) >= time.Minute {
		n++
	}
	b.sent = b.sent[n:]
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
