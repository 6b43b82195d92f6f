package election

import (
	"context"
	"sync"
	"time"
)

// Rounds has a leader look at what there is to do, again and again, in one
// goroutine. Calls to others run beside it; what they bring is noted between two
// looks.
type Rounds struct {
	gap             time.Duration
	pause, maxPause time.Duration

	calls     sync.WaitGroup
	results   chan func(now time.Time)
	over      chan struct{} // closed when nobody takes results any more
	notBefore time.Time     // after a failure
	failures  int           // in a row
}

// NewRounds has gap as the least time between two looks; the first change after a
// quiet time is looked at at once. After a failure it is pause, and twice as long
// after each further one in a row, up to maxPause.
func NewRounds(gap, pause, maxPause time.Duration) *Rounds {
	return &Rounds{gap: gap, pause: pause, maxPause: maxPause, results: make(chan func(time.Time)), over: make(chan struct{})}
}

// Run looks until ctx ends: at once, and then when wake receives, when a call has
// ended, and at the time that the look before returned, if that is not zero.
func (r *Rounds) Run(ctx context.Context, wake <-chan struct{}, look func(context.Context) (next time.Time)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		earliest := time.Now().Add(r.gap)
		next := look(ctx)
		if r.notBefore.After(earliest) {
			earliest = r.notBefore
		}
		r.rest(ctx, wake, timer, earliest, next)
	}
}

// rest waits until something happened or next has come, and in any case until
// earliest.
func (r *Rounds) rest(ctx context.Context, wake <-chan struct{}, timer *time.Timer, earliest, next time.Time) {
	due := false
	for {
		now := time.Now()
		if due && !now.Before(earliest) {
			return
		}
		var alarm <-chan time.Time
		switch {
		case due:
			timer.Reset(earliest.Sub(now))
			alarm = timer.C
		case !next.IsZero():
			timer.Reset(next.Sub(now))
			alarm = timer.C
		}
		heard := wake
		if due {
			heard = nil // it is heard already
		}
		select {
		case <-ctx.Done():
			return
		case <-heard:
			due = true
		case result := <-r.results:
			result(time.Now())
			due = true
		case <-alarm:
			due = true
		}
	}
}

// Call runs do beside the looks, until a deadline. What it returns is run between
// two looks.
func (r *Rounds) Call(ctx context.Context, deadline time.Time, do func(context.Context) (result func(now time.Time))) {
	r.calls.Go(func() {
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		result := do(ctx)
		select {
		case r.results <- result:
		case <-r.over:
		}
	})
}

// Results are what calls bring that end after Run; the receiver runs them.
func (r *Rounds) Results() <-chan func(now time.Time) { return r.results }

// End returns when all calls have ended. It drops what they bring.
func (r *Rounds) End() {
	close(r.over)
	r.calls.Wait()
}

// Failed holds the next look back, and returns until when.
func (r *Rounds) Failed() time.Time {
	pause := r.pause
	for i := 0; i < r.failures && pause < r.maxPause; i++ {
		pause *= 2
	}
	r.failures++
	r.notBefore = time.Now().Add(min(pause, r.maxPause))
	return r.notBefore
}

// Succeeded ends a row of failures.
func (r *Rounds) Succeeded() { r.failures, r.notBefore = 0, time.Time{} }
