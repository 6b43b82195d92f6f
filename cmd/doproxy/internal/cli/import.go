package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// importPoll is how often an import that is followed is looked at.
const importPoll = 500 * time.Millisecond

// ImportOptions is what `doproxy import` is asked for.
type ImportOptions struct {
	// Pool takes the droplets; it may be empty while there is one only.
	Pool string
	// IDs are DigitalOcean's, at least one.
	IDs []int64
	// DryRun checks the request and changes nothing.
	DryRun bool
	// NoWait returns when the wish is on record.
	NoWait bool
}

// Import takes droplets that were made elsewhere into a pool and follows them
// until each serves or was refused. cmd is a command below a root that Add has
// set up: its flags say which node to ask and how to show the answer.
func Import(cmd *cobra.Command, opts Options, what ImportOptions) error {
	opts.setDefaults()
	c := &client{opts: opts, flags: flagsOf(cmd)}
	return c.run(func(s *session, _ []string) error { return s.importDroplets(what) })(cmd, nil)
}

func (s *session) importDroplets(what ImportOptions) error {
	brief := what.DryRun || what.NoWait
	told := newRecent(10_000)
	if !brief {
		// What was told before is not about this import.
		if err := s.skipKept(told); err != nil {
			return s.fail("import", err)
		}
	}
	req := &doproxyv1.ImportDropletsRequest{Parent: poolName(what.Pool), Ids: what.IDs, ValidateOnly: what.DryRun}
	// Those in the inventory already are left alone: it may be sent twice.
	e := effort{repeat: true, persist: true, perCall: 6 * answerTime}
	res, err := ask(s, e, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ImportDropletsRequest) (*doproxyv1.ImportDropletsResponse, error) {
		return doproxyv1.NewDropletServiceClient(cc).ImportDroplets(ctx, req)
	})
	if err != nil {
		return s.fail("import", err)
	}
	pool := poolID(clean(res.GetPool().GetName()))
	if s.format != "json" {
		for _, id := range res.GetImporting() {
			switch {
			case what.DryRun:
				fmt.Fprintf(s.out, "%d would be imported into %s.\n", id, pool)
			case what.NoWait:
				fmt.Fprintf(s.out, "Requested: import %d into %s.\n", id, pool)
			}
		}
		if known := len(what.IDs) - len(res.GetImporting()); known > 0 {
			fmt.Fprintf(s.out, "%d in the inventory already.\n", known)
		}
		if what.DryRun {
			fmt.Fprint(s.out, forecastText(s.style, res.GetForecast()))
		}
	}
	f := &importing{session: s, told: told, pool: pool, waiting: slices.Clone(res.GetImporting()), imported: []int64{}, refused: []refusedImport{}}
	if !brief {
		if err := f.follow(); err != nil {
			return err
		}
	}
	if s.format == "json" {
		err := writeJSON(s.out, map[string]any{
			"dry_run": what.DryRun, "requested": json.RawMessage(protoJSON(res)), "imported": f.imported, "refused": f.refused,
		})
		if err != nil {
			return err
		}
	}
	return f.failure()
}

// importing is an import that is followed.
type importing struct {
	*session
	pool     string
	told     *recent         // events
	waiting  []int64         // neither serving nor refused yet
	seen     map[int64]bool  // those that were in the inventory
	imported []int64         // those that serve
	refused  []refusedImport // those that never will
}

type refusedImport struct {
	ID     int64  `json:"id"`
	Reason string `json:"reason"`
	exit   int
}

// follow looks again and again until nothing is awaited any more.
func (f *importing) follow() error {
	if len(f.waiting) > 0 && !f.flags.noProgress && f.format != "json" {
		fmt.Fprintf(f.err, "%s: importing %s\n", f.pool, counted(int32(len(f.waiting)), "droplet"))
	}
	f.seen = map[int64]bool{}
	for len(f.waiting) > 0 {
		err := f.look()
		if err == nil && len(f.waiting) > 0 {
			select {
			case <-f.ctx.Done():
				err = f.ended()
			case <-time.After(importPoll):
			}
		}
		if err != nil {
			failure := f.fail("import", err)
			if g := (*Failure)(nil); errors.As(failure, &g) {
				g.Err = &wrapped{"stopped following, the work goes on: ", g.Err}
				g.Mend = append(g.Mend, "see it with `doproxy print` or `doproxy watch`")
			}
			return failure
		}
	}
	return nil
}

// look sorts out those that serve by now and those that were refused.
func (f *importing) look() error {
	e := reading
	e.persist = true
	req := &doproxyv1.ListEventsRequest{}
	for {
		page, err := ask(f.session, e, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ListEventsRequest) (*doproxyv1.ListEventsResponse, error) {
			return doproxyv1.NewClusterServiceClient(cc).ListEvents(ctx, req)
		})
		if err != nil {
			return err
		}
		for _, event := range page.GetEvents() {
			if f.told.add(event.GetId()) {
				f.event(event)
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	droplets, err := f.listDroplets("pools/" + f.pool)
	if err != nil {
		return err
	}
	there := map[int64]bool{}
	for _, d := range droplets.GetDroplets() {
		if id := d.GetId(); id != 0 && !isLeaving(d) {
			there[id], f.seen[id] = true, true
			if onAll(d) && f.drop(id) {
				f.imported = append(f.imported, id)
				if f.format != "json" {
					fmt.Fprintf(f.out, "%s %d imported and added to backend.\n", f.style.green("Success:"), id)
				}
			}
		}
	}
	for _, id := range slices.Clone(f.waiting) {
		if f.seen[id] && !there[id] {
			f.refuse(id, "it was taken away again before it served", ExitStale)
		}
	}
	return nil
}

// event is one that happened since the import was asked for.
func (f *importing) event(e *doproxyv1.Event) {
	if poolID(e.GetPool()) != f.pool {
		return
	}
	var id int64
	words, reason, _ := strings.Cut(clean(e.GetMessage()), ": ")
	switch e.GetType() {
	case "import.refused": // "droplet 42: why"
		if _, err := fmt.Sscanf(words, "droplet %d", &id); err != nil {
			return
		}
		exit := ExitRefused
		if strings.Contains(reason, "no such droplet") {
			exit = ExitNotFound
		}
		f.refuse(id, reason, exit)
	case "import.waiting":
		if f.format != "json" {
			fmt.Fprintf(f.err, "doproxy: warning: import: %s\n", clean(e.GetMessage()))
		}
	}
}

func (f *importing) refuse(id int64, reason string, exit int) {
	if f.drop(id) {
		f.refused = append(f.refused, refusedImport{id, reason, exit})
	}
}

// drop is false when the id is not awaited.
func (f *importing) drop(id int64) bool {
	i := slices.Index(f.waiting, id)
	if i >= 0 {
		f.waiting = slices.Delete(f.waiting, i, i+1)
	}
	return i >= 0
}

// failure has a line for each droplet that was refused.
func (f *importing) failure() error {
	if len(f.refused) == 0 {
		return nil
	}
	lines, exit := make([]string, len(f.refused)), f.refused[0].exit
	for i, r := range f.refused {
		lines[i] = fmt.Sprintf("%d was not imported into %s: %s", r.ID, f.pool, r.Reason)
		if r.exit != exit {
			exit = ExitRefused
		}
	}
	return &Failure{Op: "import", Err: errors.New(strings.Join(lines, "\n")), Exit: exit}
}

// flagsOf reads the persistent flags that Add has put on cmd's root.
func flagsOf(cmd *cobra.Command) flags {
	text := func(name string) string {
		if f := cmd.Flag(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	f := flags{
		server: text("server"), output: text("output"), tls: text("tls") == "true",
		caFile: text("ca-file"), certFile: text("cert-file"), keyFile: text("key-file"),
		noProgress: text("no-progress") == "true",
	}
	f.timeout, _ = cmd.Flags().GetDuration("timeout")
	return f
}
