package ingress

import (
	"fmt"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// Defaults of what an operator may set. See inventory.Ingress.
const (
	failAfter   = 300 * time.Millisecond
	settleAfter = 30 * time.Second
	staleAfter  = 15 * time.Second
	holdDown    = 5 * time.Second
	defaultTTL  = 60 // seconds
)

// Bounds of the hold-down: no move waits longer for the last one than
// holdDownMax, and moves older than movesKept are forgotten.
const (
	holdDownMax = 2 * time.Minute
	movesKept   = 10 * time.Minute
)

// Settings are the leader's own times. A zero value means the default named.
type Settings struct {
	// CallTimeout bounds every call to the cloud. Default 10 s.
	CallTimeout time.Duration
	// AuditEvery is how often all reserved IPs are listed, DNSAuditEvery how often
	// the records of each name are. Defaults 30 s, 60 s.
	AuditEvery, DNSAuditEvery time.Duration
	// VerifyEvery is the pause between looks at an address whose assignment the
	// cloud took and does not show yet, doubled with each look up to 5 s.
	// VerifyFor is how long that may take before it is assigned again. Defaults
	// 200 ms, 10 s.
	VerifyEvery, VerifyFor time.Duration
	// RetryMin and RetryMax bound the pause after a call that failed: RetryMin
	// after the first, doubled with each more. Defaults 200 ms, 30 s.
	RetryMin, RetryMax time.Duration
	// RefusedFor is how long an address is not given to a node that the cloud
	// refused it. Default 5 min.
	RefusedFor time.Duration
	// Settle is how long after a DNS change's deadline the cloud's records must
	// not show it before it is taken for not done. It must exceed the lag of the
	// cloud's lists. Default 5 s.
	Settle time.Duration
	// ListFresh is how old a list of a name's records may be for a record to be
	// deleted on its word. Default 5 s.
	ListFresh time.Duration
}

func (s Settings) withDefaults() Settings {
	for _, f := range s.fields() {
		if *f.d == 0 {
			*f.d = f.value
		}
	}
	return s
}

type field struct {
	name  string
	d     *time.Duration
	value time.Duration
}

func (s *Settings) fields() []field {
	return []field{
		{"call timeout", &s.CallTimeout, 10 * time.Second},
		{"audit every", &s.AuditEvery, 30 * time.Second},
		{"DNS audit every", &s.DNSAuditEvery, time.Minute},
		{"verify every", &s.VerifyEvery, 200 * time.Millisecond},
		{"verify for", &s.VerifyFor, 10 * time.Second},
		{"retry min", &s.RetryMin, 200 * time.Millisecond},
		{"retry max", &s.RetryMax, 30 * time.Second},
		{"refused for", &s.RefusedFor, 5 * time.Minute},
		{"settle", &s.Settle, 5 * time.Second},
		{"list fresh", &s.ListFresh, 5 * time.Second},
	}
}

// Validate names the first setting that cannot be.
func (s Settings) Validate() error {
	for _, f := range s.fields() {
		if *f.d < 0 {
			return fmt.Errorf("ingress: %s is %s: it must not be negative", f.name, *f.d)
		}
	}
	if s = s.withDefaults(); s.RetryMax < s.RetryMin {
		return fmt.Errorf("ingress: retry max %s is below retry min %s: raise it", s.RetryMax, s.RetryMin)
	}
	return nil
}

// backoff is RetryMin doubled for each failure after the first, up to RetryMax.
func (s Settings) backoff(failures int) time.Duration {
	return double(s.RetryMin, failures-1, s.RetryMax)
}

// double is d doubled so many times, at most limit.
func double(d time.Duration, times int, limit time.Duration) time.Duration {
	for range times {
		if d >= limit {
			break
		}
		d *= 2
	}
	return min(d, limit)
}

// times are the operator's, with their defaults.
type times struct{ fail, settle, stale, hold time.Duration }

func timesOf(in inventory.Ingress) times {
	return times{
		fail:   in.FailAfter.Or(failAfter),
		settle: in.SettleAfter.Or(settleAfter),
		stale:  in.StaleAfter.Or(staleAfter),
		hold:   in.HoldDown.Or(holdDown),
	}
}
