package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// part is something that runs until its context ends. One that returns nil
// before that has done its work; an error ends the agent.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// stopWithin bounds the end of one part. What takes longer is left behind and
// named, since the process ends anyway.
const stopWithin = 10 * time.Second

// runParts starts parts in order, and when ctx ends or one fails stops them in
// the opposite order, each only after the one before has stopped.
func runParts(ctx context.Context, logger *slog.Logger, parts []part) error {
	type running struct {
		part
		stop context.CancelFunc
		done chan error // receives once
	}
	failed := make(chan struct{}, len(parts))
	var started []running
	for _, p := range parts {
		partCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := running{p, stop, make(chan error, 1)}
		go func() {
			err := r.run(partCtx)
			if partCtx.Err() != nil && errors.Is(err, partCtx.Err()) {
				err = nil
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", r.name, err)
				failed <- struct{}{}
			}
			r.done <- err
		}()
		started = append(started, r)
	}
	select {
	case <-ctx.Done():
		logger.Info("stopping")
	case <-failed:
	}
	var errs []error
	for _, r := range slices.Backward(started) {
		r.stop()
		select {
		case err := <-r.done:
			errs = append(errs, err)
		case <-time.After(stopWithin):
			errs = append(errs, fmt.Errorf("%s did not stop within %s", r.name, stopWithin))
		}
	}
	return errors.Join(errs...)
}
