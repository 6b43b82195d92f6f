package etcd

import (
	"context"
	"time"
)

const (
	// A call that does no harm when it is made twice is made again when there is
	// no answer for hedgeAfter: the client's next pick is another member. One that
	// hangs with its connections open costs half a second then, rather than the
	// whole timeout; gRPC takes more than 10 s to find out.
	hedgeAfter = 500 * time.Millisecond
	hedgeMax   = 3
)

// hedge returns the first good answer, or an error once every call under way has
// failed. It waits for all that it started.
func hedge[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, hedgeMax)
	waiting, started := 0, 0
	start := func() {
		started++
		waiting++
		go func() {
			v, err := call(ctx)
			answers <- answer{v, err}
		}()
	}
	defer func() {
		cancel()
		for ; waiting > 0; waiting-- {
			<-answers
		}
	}()
	start()
	next := time.NewTicker(hedgeAfter)
	defer next.Stop()
	for {
		select {
		case a := <-answers:
			waiting--
			if a.err == nil || waiting == 0 {
				return a.value, a.err
			}
		case <-next.C:
			if started < hedgeMax {
				start()
			}
		}
	}
}
