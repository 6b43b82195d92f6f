package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func (c *client) scaleCommand() *cobra.Command {
	var wait, dryRun bool
	var id string
	cmd := &cobra.Command{
		Use: "scale POOL=N|POOL=+N|POOL=-N ...", GroupID: groupPools,
		Short: "Set how many droplets a pool wants",
		Long: `Set how many droplets a pool wants, or change it by a number with a sign.
With several pools each is checked before the first is changed.`,
		Example: "  doproxy scale web=5\n  doproxy scale web=+2 api=-1 --wait",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("say which pool to scale to how many: POOL=N")
			}
			return nil
		},
		ValidArgsFunction: c.completeScale,
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "follow until the pool has come to its new size")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would come of it and its cost, and change nothing")
	cmd.Flags().StringVar(&id, "request-id", "", "requests with the same id within an hour count once (default a random one; for one pool)")
	cmd.RunE = c.run(func(s *session, args []string) error {
		reqs, err := parseScales(args, id)
		if err != nil {
			return err
		}
		return s.scale(reqs, dryRun, wait)
	})
	return cmd
}

func parseScales(args []string, id string) ([]*doproxyv1.ScalePoolRequest, error) {
	if id != "" && len(args) > 1 {
		return nil, usage("--request-id is for one pool, not %d", len(args))
	}
	seen := map[string]bool{}
	reqs := make([]*doproxyv1.ScalePoolRequest, len(args))
	for i, arg := range args {
		pool, number, ok := strings.Cut(arg, "=")
		n, err := strconv.ParseInt(number, 10, 32)
		signed := strings.HasPrefix(number, "+") || strings.HasPrefix(number, "-")
		switch {
		case !ok || pool == "":
			return nil, usage("%q: want POOL=N, such as web=5 or web=+2", arg)
		case err != nil:
			return nil, usage("%q: %q is not a whole number up to %d", arg, number, math.MaxInt32)
		case signed && n == 0:
			return nil, usage("%q changes nothing", arg)
		case seen[poolName(pool)]:
			return nil, usage("pool %s is named twice", poolID(pool))
		}
		seen[poolName(pool)] = true
		req := &doproxyv1.ScalePoolRequest{Name: poolName(pool), RequestId: id}
		if req.RequestId == "" {
			req.RequestId = newRequestID()
		}
		if signed {
			req.Target = &doproxyv1.ScalePoolRequest_Delta{Delta: int32(n)}
		} else {
			req.Target = &doproxyv1.ScalePoolRequest_Desired{Desired: int32(n)}
		}
		reqs[i] = req
	}
	return reqs, nil
}

func (s *session) scale(reqs []*doproxyv1.ScalePoolRequest, dryRun, wait bool) error {
	var done []*doproxyv1.ScalePoolResponse
	if dryRun || len(reqs) > 1 {
		for _, req := range reqs {
			// A check has no id: it must not use up the one that counts.
			check := &doproxyv1.ScalePoolRequest{Name: req.GetName(), Target: req.GetTarget(), ValidateOnly: true}
			res, err := s.scaleOne(check)
			if err != nil {
				return s.fail("scale "+poolID(req.GetName()), err)
			}
			if dryRun {
				done = append(done, res)
			}
		}
	}
	for _, req := range reqs {
		if dryRun {
			break
		}
		res, err := s.scaleOne(req)
		if err != nil {
			return s.followFailure("scale "+poolID(req.GetName()), nil, req.GetRequestId(), err)
		}
		done = append(done, res)
		if s.format != "json" {
			fmt.Fprint(s.out, scaleText(s.style, res, false))
		}
	}
	if dryRun && s.format != "json" {
		for _, res := range done {
			fmt.Fprint(s.out, scaleText(s.style, res, true)+forecastText(s.style, res.GetForecast()))
		}
	}
	if wait && !dryRun {
		for i, res := range done {
			pool, err := s.settle(res.GetPool())
			if err != nil {
				return err
			}
			done[i].Pool = pool
		}
	}
	if s.format == "json" {
		return writeJSON(s.out, map[string]any{"dry_run": dryRun, "scaled": protoList(done)})
	}
	return nil
}

func scaleText(st style, res *doproxyv1.ScalePoolResponse, dryRun bool) string {
	pool, before, after := poolID(clean(res.GetPool().GetName())), res.GetPreviousDesired(), res.GetPool().GetDesired()
	there := res.GetPool().GetServing() + res.GetPool().GetStarting()
	switch {
	case before == after && there > after: // as after an old copy of the store: they stayed until somebody said how many
		return fmt.Sprintf("%s: wanted %d already, and %d are there: the others are let go\n", pool, after, there)
	case before == after:
		return fmt.Sprintf("%s: wanted %d already\n", pool, after)
	case dryRun:
		return fmt.Sprintf("%s: would want %d %s %d\n", pool, before, st.arrow(), after)
	default:
		return fmt.Sprintf("%s: wanted %d %s %d\n", pool, before, st.arrow(), after)
	}
}

func (s *session) scaleOne(req *doproxyv1.ScalePoolRequest) (*doproxyv1.ScalePoolResponse, error) {
	return ask(s, changing, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ScalePoolRequest) (*doproxyv1.ScalePoolResponse, error) {
		return doproxyv1.NewPoolServiceClient(cc).ScalePool(ctx, req)
	})
}

// settle follows a pool until it has as many droplets as it wants, all of them
// serving on all live nodes and none leaving.
func (s *session) settle(pool *doproxyv1.Pool) (*doproxyv1.Pool, error) {
	d := s.display(scaling)
	defer d.close()
	op := "scale " + poolID(pool.GetName())
	e := effort{repeat: true, persist: true, note: d.lost}
	err := s.try(e, func(ctx context.Context, cc grpc.ClientConnInterface, contact func()) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := doproxyv1.NewDropletServiceClient(cc).WatchDroplets(ctx, &doproxyv1.WatchDropletsRequest{Parent: pool.GetName()})
		if err != nil {
			return err
		}
		messages, lost := make(chan *doproxyv1.WatchDropletsResponse), make(chan error, 1)
		received := make(chan struct{})
		go func() {
			defer close(received)
			for {
				m, err := stream.Recv()
				if err != nil {
					lost <- err
					return
				}
				select {
				case messages <- m:
				case <-ctx.Done():
					return
				}
			}
		}()
		defer func() { cancel(); <-received }()
		watched := newPoolWatch()
		refresh := time.NewTicker(time.Second) // what is wanted may change too
		defer refresh.Stop()
		for {
			select {
			case err := <-lost:
				return endOfStream(err)
			case m := <-messages:
				watched.apply(m)
			case <-refresh.C:
			}
			if !watched.began {
				continue
			}
			contact()
			res, err := doproxyv1.NewPoolServiceClient(cc).GetPool(ctx, &doproxyv1.GetPoolRequest{Name: pool.GetName()})
			if err != nil {
				return err
			}
			pool = res.GetPool()
			p := watched.progress(pool)
			d.progress(p)
			if p.GetDone() {
				return nil
			}
		}
	})
	d.close()
	if err == nil {
		return pool, nil
	}
	failure := s.fail(op, err)
	if f := (*Failure)(nil); errors.As(failure, &f) {
		f.Err = &wrapped{"stopped following, the work goes on: ", f.Err}
		f.Mend = append(f.Mend, "see it with `doproxy status` or `doproxy watch`")
	}
	return nil, failure
}
