package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// firstAnswer is how long a server may take to put a request on record.
const firstAnswer = 15 * time.Second

// newRequestID is a random one, for requests that must count once.
func newRequestID() string { return rand.Text() }

// receiver gives the next message of a stream.
type receiver[M any] func() (M, error)

// progressOf turns a stream of answers into a receiver of their progress. What
// they forecast goes to forecast.
func progressOf[Res any, M interface {
	*Res
	GetProgress() *doproxyv1.Progress
	GetForecast() *doproxyv1.Forecast
}](forecast **doproxyv1.Forecast, stream grpc.ServerStreamingClient[Res], err error) (receiver[*doproxyv1.Progress], error) {
	if err != nil {
		return nil, err
	}
	return func() (*doproxyv1.Progress, error) {
		res, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if f := M(res).GetForecast(); f != nil {
			*forecast = f
		}
		return M(res).GetProgress(), nil
	}, nil
}

// follow opens a stream of progress and shows it until the work is done or,
// with noWait, on record. A stream that is lost is opened again with the same
// request, whose id makes it count once. It returns the last progress seen even
// with an error: nil then means that nothing is known to be on record.
func (s *session) follow(d *display, noWait bool, open func(context.Context, grpc.ClientConnInterface) (receiver[*doproxyv1.Progress], error)) (*doproxyv1.Progress, error) {
	var last *doproxyv1.Progress
	e := effort{repeat: true, persist: true, note: d.lost}
	err := followStream(s, e, open, func(p *doproxyv1.Progress) (over bool) {
		last = p
		d.progress(p)
		return noWait || p.GetDone()
	})
	return last, err
}

// followStream opens a stream and gives each message to seen, until that says
// that it is over. A stream that is lost is opened again as far as e goes.
func followStream[M any](s *session, e effort, open func(context.Context, grpc.ClientConnInterface) (receiver[M], error), seen func(M) (over bool)) error {
	return s.try(e, func(ctx context.Context, cc grpc.ClientConnInterface, contact func()) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var silent atomic.Bool
		guard := time.AfterFunc(firstAnswer, func() { silent.Store(true); cancel() })
		defer guard.Stop()
		next, err := open(ctx, cc)
		if err != nil {
			return err
		}
		for {
			m, err := next()
			switch {
			case silent.Load():
				return status.Errorf(codes.DeadlineExceeded, "no answer within %v", firstAnswer)
			case err != nil:
				return endOfStream(err)
			}
			guard.Stop()
			contact()
			if seen(m) {
				return nil
			}
		}
	})
}

// onRecord makes the end of following work that is on record already into an
// error that says so.
func (s *session) onRecord(op string, err error, mend ...string) error {
	failure := s.fail(op, err)
	var f *Failure
	if !errors.As(failure, &f) {
		return failure
	}
	switch {
	case f.exit() == ExitInterrupted || f.exit() == ExitTimeout:
		f.Err = &wrapped{"stopped following, the work goes on: ", f.Err}
	case passing(err):
		f.Err = &wrapped{"lost sight of the work, which goes on: ", unclaimed(f.Err)}
	default:
		return f
	}
	f.Mend = append(f.Mend, mend...)
	return f
}

// followFailure makes the end of a follow that was not done into an error that
// tells what becomes of the work.
func (s *session) followFailure(op string, last *doproxyv1.Progress, requestID string, err error) error {
	failure := s.fail(op, err)
	var f *Failure
	if !errors.As(failure, &f) {
		return failure
	}
	stopped := f.exit() == ExitInterrupted || f.exit() == ExitTimeout
	switch {
	case last != nil && stopped:
		f.Err = &wrapped{"stopped following, the work goes on: ", f.Err}
	case last != nil && passing(err):
		f.Err = &wrapped{"lost sight of the work, which goes on: ", unclaimed(f.Err)}
	case last == nil && s.doubt != nil && (stopped || passing(err)):
		if changedNothing(err) { // of the last attempt only
			f.Err = s.doubt
		}
		if f.reason() != "OUTCOME_UNKNOWN" { // which says it itself
			f.Err = &wrapped{"not known whether it is on record: ", f.Err}
		}
		f.Mend = append(f.Mend, "it counts once with --request-id "+requestID)
		return f
	default:
		return f
	}
	f.Mend = append(f.Mend, "see it with `doproxy status` or `doproxy watch`",
		"or the same command with --request-id "+requestID)
	return f
}

// unclaimed is an answer without its claim that nothing was changed, which is
// about the last attempt only.
func unclaimed(err error) error {
	if !changedNothing(err) {
		return err
	}
	p := status.Convert(err).Proto()
	p.Message = strings.NewReplacer(" and nothing was changed", "", "; nothing was changed", "").Replace(p.GetMessage())
	return status.FromProto(p).Err()
}
