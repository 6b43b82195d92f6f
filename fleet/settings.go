package fleet

import (
	"fmt"
	"time"
)

// Settings are the leader's own times and bounds, the same for every pool. A
// zero value means the default named.
type Settings struct {
	// CreateTimeout bounds one create call, counted from the moment that is on
	// record as the droplet's Asked. Default 30 s.
	CreateTimeout time.Duration
	// CallTimeout bounds every other call to the cloud. Default 30 s.
	CallTimeout time.Duration
	// Settle is how long after a create's deadline the cloud's list must have
	// gone without a name before that name is asked for again. It must exceed
	// the list's lag. Default 30 s.
	Settle time.Duration
	// ListLag is how long after a droplet came to be the list may still lack it.
	// Default 30 s.
	ListLag time.Duration
	// RemoveDeadline bounds the wait for live nodes to take a droplet out of
	// their HAProxy before it is deleted. Default 30 s.
	RemoveDeadline time.Duration

	// RetryMin and RetryMax bound how long creates are held back after a failure:
	// RetryMin after the first, doubled for each more. Defaults 5 s, 5 min.
	RetryMin, RetryMax time.Duration
	// StopAfter is how many failures in a row make a pool stop creating until an
	// operator says otherwise. Negative is never. Default 10.
	StopAfter int
	// EarlyDeath is how long a droplet must have served for its end at the cloud
	// not to count as a failure. Default 10 min.
	EarlyDeath time.Duration
	// PollFirst to PollBusy is how often the cloud's list is asked for while
	// something is on its way there, the longer that takes the more seldom;
	// PollIdle is for when nothing is. Defaults 1 s, 5 s, 60 s.
	PollFirst, PollBusy, PollIdle time.Duration

	// CreateParallel is how many create calls of one pool may be under way.
	// Default 4.
	CreateParallel int
	// CallParallel is how many deletes, gets and adoptions may be under way, and
	// GetParallel how many of these may be gets. Defaults 16, 10.
	CallParallel, GetParallel int
	// VanishGuard: when all of at least this many droplets are missing from the
	// cloud's list at once, the leader takes none of them for gone and creates
	// nothing, as it would with a token of the wrong account. Negative is never.
	// Default 3.
	VanishGuard int
}

func (s Settings) withDefaults() Settings {
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&s.CreateTimeout, 30*time.Second)
	def(&s.CallTimeout, 30*time.Second)
	def(&s.Settle, 30*time.Second)
	def(&s.ListLag, 30*time.Second)
	def(&s.RemoveDeadline, 30*time.Second)
	def(&s.RetryMin, 5*time.Second)
	def(&s.RetryMax, 5*time.Minute)
	def(&s.EarlyDeath, 10*time.Minute)
	def(&s.PollFirst, time.Second)
	def(&s.PollBusy, 5*time.Second)
	def(&s.PollIdle, time.Minute)
	count := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	count(&s.CreateParallel, 4)
	count(&s.CallParallel, 16)
	count(&s.GetParallel, 10)
	count(&s.VanishGuard, 3)
	count(&s.StopAfter, 10)
	return s
}

// Validate names the first setting that cannot be.
func (s Settings) Validate() error {
	s = s.withDefaults()
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"create timeout", s.CreateTimeout},
		{"call timeout", s.CallTimeout},
		{"settle", s.Settle},
		{"list lag", s.ListLag},
		{"remove deadline", s.RemoveDeadline},
		{"retry min", s.RetryMin},
		{"retry max", s.RetryMax},
		{"early death", s.EarlyDeath},
		{"poll first", s.PollFirst},
		{"poll busy", s.PollBusy},
		{"poll idle", s.PollIdle},
	} {
		if f.d < 0 {
			return fmt.Errorf("%s is %s: it must not be negative", f.name, f.d)
		}
	}
	for _, f := range []struct {
		name string
		n    int
	}{
		{"create parallel", s.CreateParallel},
		{"call parallel", s.CallParallel},
		{"get parallel", s.GetParallel},
	} {
		if f.n < 0 {
			return fmt.Errorf("%s is %d: it must be at least 1", f.name, f.n)
		}
	}
	if s.RetryMax < s.RetryMin {
		return fmt.Errorf("retry max %s is below retry min %s", s.RetryMax, s.RetryMin)
	}
	return nil
}

// backoff is RetryMin doubled for each failure after the first, up to RetryMax.
func (s Settings) backoff(failures int) time.Duration {
	d := s.RetryMin
	for i := 1; i < failures && d < s.RetryMax; i++ {
		d *= 2
	}
	return min(d, s.RetryMax)
}
