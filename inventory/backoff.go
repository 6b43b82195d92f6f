package inventory

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff spaces retries: the wait doubles from Min to Max, and half of it is
// chance, so that many clients of one store do not come back together.
type Backoff struct {
	Min, Max time.Duration
	next     time.Duration
}

// Reset says that it worked: the next wait is about Min again.
func (b *Backoff) Reset() { b.next = 0 }

// Wait waits, at most until ctx ends; it then returns ctx's error.
func (b *Backoff) Wait(ctx context.Context) error {
	b.next = min(max(b.next*2, b.Min), b.Max)
	timer := time.NewTimer(b.next/2 + rand.N(b.next/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
