package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func (c *client) printCommand() *cobra.Command {
	var pool string
	cmd := &cobra.Command{
		Use: "print", Aliases: []string{"list"}, GroupID: GroupDroplets,
		Short: "Show the droplets behind the load balancers",
		Long: `Show the inventory: a table in a terminal, one line a droplet elsewhere.

The number before each droplet is its index, which delete takes.`,
		Example: "  doproxy print\n  doproxy print --pool web -o json",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&pool, "pool", "", "only this pool's")
	_ = cmd.RegisterFlagCompletionFunc("pool", c.completePools)
	cmd.RunE = c.run(func(s *session, _ []string) error { return s.print(pool) })
	return cmd
}

func (s *session) print(pool string) error {
	list, err := s.listDroplets(poolName(pool))
	if err != nil {
		return s.fail("print", err)
	}
	now := s.opts.Now()
	shown := seen{Time: now, Etag: list.GetEtag(), Names: make([]string, 0, len(list.GetDroplets()))}
	for _, d := range list.GetDroplets() {
		shown.Names = append(shown.Names, d.GetName())
	}
	if err := s.remember(shown); err != nil {
		fmt.Fprintf(s.err, "doproxy: warning: cannot remember this print, delete will not take its indexes: %v\n", err)
	}
	if s.format == "json" {
		return writeJSON(s.out, dropletsJSON(list))
	}
	held := s.heldPools(pool)
	if s.format == "table" {
		_, err = io.WriteString(s.out, dropletsTable(s.style, now, list.GetDroplets(), held, list.GetStale()))
		return err
	}
	if _, err := io.WriteString(s.out, dropletsPlain(list.GetDroplets())); err != nil {
		return err
	}
	if list.GetStale() != "" {
		fmt.Fprintf(s.err, "doproxy: warning: the store is out of reach, this is the inventory as last seen: %s\n", clean(list.GetStale()))
	}
	for _, p := range held {
		for _, line := range heldLines(now, p) {
			fmt.Fprintf(s.err, "doproxy: warning: %s\n", line)
		}
	}
	return nil
}

// heldPools are those whose creates are held back. An inventory without them is
// worth printing: an error is an empty list.
func (s *session) heldPools(pool string) (held []*doproxyv1.Pool) {
	pools, err := s.listPools()
	if err != nil {
		return nil
	}
	for _, p := range pools {
		if len(heldLines(s.opts.Now(), p)) > 0 && (pool == "" || p.GetName() == poolName(pool)) {
			held = append(held, p)
		}
	}
	return held
}

// dropletsJSON is `print -o json`: each droplet with its index.
func dropletsJSON(list *doproxyv1.ListDropletsResponse) any {
	droplets := make([]json.RawMessage, len(list.GetDroplets()))
	for i, d := range list.GetDroplets() {
		droplets[i] = json.RawMessage(fmt.Sprintf(`{"index":%d,%s`, i, protoJSON(d)[1:]))
	}
	cost, _ := spent(list.GetDroplets())
	return struct {
		Etag       string            `json:"etag"`
		Stale      string            `json:"stale"`
		CostHourly float64           `json:"cost_hourly"`
		Droplets   []json.RawMessage `json:"droplets"`
	}{list.GetEtag(), list.GetStale(), cost, droplets}
}

// listDroplets reads all pages. If the inventory changes in between, it begins
// anew: indexes must belong to one etag.
func (s *session) listDroplets(parent string) (*doproxyv1.ListDropletsResponse, error) {
	const tries = 5
	for range tries {
		all, whole, err := s.listDropletsOnce(parent)
		if err != nil || whole {
			return all, err
		}
	}
	return nil, status.Errorf(codes.Aborted, "the inventory changed %d times while it was read", tries)
}

func (s *session) listDropletsOnce(parent string) (all *doproxyv1.ListDropletsResponse, whole bool, err error) {
	req := &doproxyv1.ListDropletsRequest{Parent: parent}
	for {
		page, err := ask(s, reading, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ListDropletsRequest) (*doproxyv1.ListDropletsResponse, error) {
			return doproxyv1.NewDropletServiceClient(cc).ListDroplets(ctx, req)
		})
		if err != nil {
			return nil, false, err
		}
		if all == nil {
			all = page
		} else {
			if page.GetEtag() != all.GetEtag() {
				return nil, false, nil
			}
			all.Droplets = append(all.Droplets, page.GetDroplets()...)
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return all, true, nil
		}
	}
}

// poolName makes a resource name of a pool's name; both are taken.
func poolName(pool string) string {
	if pool == "" {
		return ""
	}
	return "pools/" + poolID(pool)
}

func (c *client) createCommand() *cobra.Command {
	var req struct {
		count          int32
		pool, id       string
		noWait, dryRun bool
	}
	cmd := &cobra.Command{
		Use: "create", GroupID: GroupDroplets,
		Short: "Create droplets and add them to the load balancers",
		Long: `Raise what a pool wants by COUNT and follow the new droplets until they serve on
all nodes. Ctrl-C stops following, not the work.`,
		Example: "  doproxy create\n  doproxy create -n 2 --pool web",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().Int32VarP(&req.count, "count", "n", 1, "how many")
	cmd.Flags().StringVar(&req.pool, "pool", "", "in this pool; may be left out while there is one only")
	cmd.Flags().BoolVar(&req.noWait, "no-wait", false, "return when the wish is on record")
	cmd.Flags().BoolVar(&req.dryRun, "dry-run", false, "say what would come of it and its cost, and change nothing")
	cmd.Flags().StringVar(&req.id, "request-id", "", "requests with the same id within an hour count once (default a random one)")
	_ = cmd.RegisterFlagCompletionFunc("pool", c.completePools)
	cmd.RunE = c.run(func(s *session, _ []string) error {
		if req.count < 1 {
			return usage("-n %d: want 1 or more", req.count)
		}
		if req.id == "" {
			req.id = newRequestID()
		}
		return s.create(&doproxyv1.CreateDropletsRequest{
			Parent: poolName(req.pool), Count: req.count, RequestId: req.id, ValidateOnly: req.dryRun, NoWait: req.noWait,
		})
	})
	return cmd
}

func (s *session) create(req *doproxyv1.CreateDropletsRequest) error {
	op := "create"
	if req.GetParent() != "" {
		op = "create in " + poolID(req.GetParent())
	}
	brief := req.GetNoWait() || req.GetValidateOnly()
	d := s.display(creating)
	d.quiet = d.quiet || brief
	var forecast *doproxyv1.Forecast
	p, err := s.follow(d, brief, func(ctx context.Context, cc grpc.ClientConnInterface) (receiver[*doproxyv1.Progress], error) {
		stream, err := doproxyv1.NewDropletServiceClient(cc).CreateDroplets(ctx, req)
		return progressOf(&forecast, stream, err)
	})
	d.close()
	if status.Code(err) == codes.Aborted && s.format != "json" {
		// Others changed what is wanted: some may serve all the same.
		_, _ = io.WriteString(s.out, successLines(s.style, served(p), createdVerb))
	}
	if err != nil {
		return s.followFailure(op, p, req.GetRequestId(), err)
	}
	if s.format == "json" {
		if err := s.progressResult(req.GetRequestId(), req.GetValidateOnly(), p, forecast); err != nil {
			return err
		}
	} else if brief {
		verb := "Requested"
		if req.GetValidateOnly() {
			verb = "Would request"
		}
		fmt.Fprintf(s.out, "%s %s in %s, wanted %d.\n", verb, counted(p.GetTotal(), "droplet"), poolID(p.GetPool().GetName()), p.GetPool().GetDesired())
		fmt.Fprint(s.out, forecastText(s.style, forecast))
	}
	if brief {
		return nil
	}
	made := served(p)
	if s.format != "json" {
		if _, err := io.WriteString(s.out, successLines(s.style, made, createdVerb)); err != nil {
			return err
		}
	}
	if short := p.GetTotal() - int32(len(made)); short > 0 {
		why := p.GetReason()
		if why == "" {
			why = "what is wanted was changed meanwhile, or they were lost"
		}
		return &Failure{Op: op, Err: fmt.Errorf("%d of %s did not come to serve: %s", short, counted(p.GetTotal(), "droplet"), why), Mend: []string{"see `doproxy status`"}}
	}
	return nil
}

// served are the droplets of a create that came to serve.
func served(p *doproxyv1.Progress) (made []*doproxyv1.Droplet) {
	for _, d := range p.GetDroplets() {
		if d.GetPhase() == doproxyv1.Phase_PHASE_SERVING {
			made = append(made, d)
		}
	}
	return made
}

// progressResult is what create and delete give with -o json.
func (s *session) progressResult(requestID string, dryRun bool, p *doproxyv1.Progress, forecast *doproxyv1.Forecast) error {
	out := struct {
		RequestID string          `json:"request_id"`
		DryRun    bool            `json:"dry_run"`
		Progress  json.RawMessage `json:"progress"`
		Forecast  any             `json:"forecast"`
	}{requestID, dryRun, protoJSON(p), nil}
	if forecast != nil {
		out.Forecast = protoJSON(forecast)
	}
	return writeJSON(s.out, out)
}

func (c *client) deleteCommand() *cobra.Command {
	var req struct {
		id             string
		noWait, dryRun bool
	}
	cmd := &cobra.Command{
		Use: "delete INDEX|NAME|ID ...", GroupID: GroupDroplets,
		Short: "Take exactly these droplets away",
		Long: `Drain the droplets, remove them from every HAProxy and delete them, lowering what
is wanted by as many: all of them, or none when one of them cannot be.

A number below 10,000 is an INDEX of the print just seen in this terminal. It is
refused when the inventory changed since. A larger number is DigitalOcean's ID.
Ctrl-C stops following, not the work.`,
		Example: "  doproxy delete 0\n  doproxy delete auto-nginx-3 4202645",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("say which droplets to delete: INDEX, NAME or ID")
			}
			return nil
		},
		ValidArgsFunction: c.completeDroplets,
	}
	cmd.Flags().BoolVar(&req.noWait, "no-wait", false, "return when the wish is on record")
	cmd.Flags().BoolVar(&req.dryRun, "dry-run", false, "say what would be deleted and the cost, and change nothing")
	cmd.Flags().StringVar(&req.id, "request-id", "", "requests with the same id within an hour count once (default a random one)")
	cmd.RunE = c.run(func(s *session, args []string) error {
		shown, ok := s.recall()
		which, err := pick(args, shown, ok, s.opts.Now())
		if err != nil {
			err.Op = "delete"
			if ok && err.Exit != ExitStale && s.outdated(args, shown) {
				// The indexes may be wrong only because the print is old.
				err = &Failure{
					Op: "delete " + named(args), Exit: ExitStale,
					Err: errors.New("the inventory changed since the print: run doproxy print again; nothing was changed"),
				}
			}
			return err
		}
		if req.id == "" {
			req.id = newRequestID()
		}
		return s.delete(named(args), &doproxyv1.DeleteDropletsRequest{
			Names: which.names, Etag: which.etag, RequestId: req.id, ValidateOnly: req.dryRun, NoWait: req.noWait,
		})
	})
	return cmd
}

// outdated tells whether there is an index among the arguments and the inventory
// is known to have changed since the print that it is of.
func (s *session) outdated(args []string, shown seen) bool {
	if !slices.ContainsFunc(args, func(arg string) bool { _, is := parseIndex(arg, shown); return is }) {
		return false
	}
	list, err := s.listDroplets("")
	return err == nil && list.GetEtag() != shown.Etag
}

// named are the arguments as an error shows them: quoted where they hold what
// no terminal should be given.
func named(args []string) string {
	shown := slices.Clone(args)
	for i, arg := range shown {
		if clean(arg) != arg {
			shown[i] = strconv.Quote(arg)
		}
	}
	return strings.Join(shown, " ")
}

func (s *session) delete(what string, req *doproxyv1.DeleteDropletsRequest) error {
	op := "delete " + what
	brief := req.GetNoWait() || req.GetValidateOnly()
	d := s.display(deleting)
	d.quiet = d.quiet || brief
	var forecast *doproxyv1.Forecast
	p, err := s.follow(d, brief, func(ctx context.Context, cc grpc.ClientConnInterface) (receiver[*doproxyv1.Progress], error) {
		stream, err := doproxyv1.NewDropletServiceClient(cc).DeleteDroplets(ctx, req)
		return progressOf(&forecast, stream, err)
	})
	d.close()
	if err != nil {
		failure := s.followFailure(op, p, req.GetRequestId(), err)
		if f := (*Failure)(nil); errors.As(failure, &f) && status.Code(err) == codes.Aborted && req.GetEtag() != "" && f.reason() != "CONTENDED" && !strings.Contains(f.why(), "doproxy print") {
			f.Mend = append([]string{"run `doproxy print` and look again: an index may mean another droplet now"}, f.Mend...)
		}
		return failure
	}
	if s.format == "json" {
		return s.progressResult(req.GetRequestId(), req.GetValidateOnly(), p, forecast)
	}
	if brief {
		verb := "Requested: delete"
		if req.GetValidateOnly() {
			verb = "Would delete"
		}
		for _, d := range p.GetDroplets() {
			fmt.Fprintf(s.out, "%s %s (pvt ip: %s, id: %s) from %s.\n", verb, clean(d.GetHostname()), dash(clean(d.GetPrivateIpv4())), idOf(d.GetId()), poolID(clean(d.GetPool())))
		}
		fmt.Fprint(s.out, forecastText(s.style, forecast))
		return nil
	}
	_, err = io.WriteString(s.out, successLines(s.style, deletedDroplets(p), deletedVerb))
	return err
}
