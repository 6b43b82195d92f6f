package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

const (
	// rebuildQuiet is how long nothing new may come until a rebuild is done that
	// does not know how many droplets there are.
	rebuildQuiet = 15 * time.Second
	// rebuildPatience is the same for one that knows, and misses some.
	rebuildPatience = 2 * time.Minute
)

func (c *client) rebuildCommand() *cobra.Command {
	var fromCloud, yes, dryRun bool
	var uid string
	cmd := &cobra.Command{
		Use: "rebuild --from-cloud --uid UID", GroupID: groupCluster,
		Short: "Make the inventory anew after the store was lost for good",
		Long: `Make the inventory anew in a store that has lost it. Pools and settings are those
that the asked node remembers. Every droplet that bears the lost cluster's tag,
doproxy:UID, is adopted; none is created, changed or deleted, and HAProxies serve
on throughout. It is refused while the store holds droplets.

Without --uid the answer names the uid that the node remembers. It also stands in
each backup and on each droplet's tag. Ctrl-C stops following, not the work.`,
		Example: "  doproxy rebuild --from-cloud\n  doproxy rebuild --from-cloud --uid 01K8Z3M1Q5WVH2TB6Y0D4XJ9RC --dry-run\n  doproxy rebuild --from-cloud --uid 01K8Z3M1Q5WVH2TB6Y0D4XJ9RC",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&fromCloud, "from-cloud", false, "from DigitalOcean's tags, the only source there is")
	cmd.Flags().StringVar(&uid, "uid", "", "of the cluster that was lost")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be made and change nothing")
	_ = cmd.RegisterFlagCompletionFunc("uid", cobra.NoFileCompletions)
	cmd.RunE = c.run(func(s *session, _ []string) error {
		if !fromCloud {
			f := usage("rebuild needs --from-cloud: DigitalOcean's tags are what it rebuilds from")
			f.Mend = []string{"to bring pools and settings back from a file: `doproxy restore -f FILE`"}
			return f
		}
		return s.rebuild(uid, yes, dryRun)
	})
	return cmd
}

func (s *session) rebuild(uid string, yes, dryRun bool) error {
	// Asked without a uid, the node says which it remembers.
	plan, err := s.askRebuild(reading, &doproxyv1.RebuildRequest{Uid: uid, ValidateOnly: true})
	if err != nil {
		return s.fail("rebuild", err)
	}
	if uid == "" {
		return usage("rebuild needs --uid UID, the lost cluster's: it stands in each backup, and on each droplet as the tag doproxy:UID")
	}
	if s.format != "json" {
		if _, err := io.WriteString(s.out, rebuildText(s.style, uid, plan)); err != nil {
			return err
		}
	}
	if dryRun {
		if s.format == "json" {
			return writeJSON(s.out, map[string]any{"dry_run": true, "rebuild": protoJSON(plan), "adopted": 0, "serving": 0})
		}
		return nil
	}
	if !yes {
		if err := s.agree("rebuild", "Make the inventory anew?", "look with --dry-run, then add --yes"); err != nil {
			return err
		}
	}
	// A second one may find droplets in the store, and is refused then.
	done, err := s.askRebuild(effort{perCall: answerTime}, &doproxyv1.RebuildRequest{Uid: uid})
	if err != nil {
		f := s.fail("rebuild", err)
		if s.doubt != nil {
			return withMend(f, "see with `doproxy status` whether droplets are being adopted before you ask again")
		}
		return f
	}
	end, err := s.followRebuild(done.GetDroplets())
	if err != nil {
		return err
	}
	if s.format == "json" {
		return writeJSON(s.out, map[string]any{"dry_run": false, "rebuild": protoJSON(done), "adopted": end.adopted, "serving": end.serving})
	}
	_, err = fmt.Fprintf(s.out, "%s %s adopted, %d serving. Compare with `doproxy verify`.\n", s.style.green("Success:"), counted(end.adopted, "droplet"), end.serving)
	return err
}

func (s *session) askRebuild(e effort, req *doproxyv1.RebuildRequest) (*doproxyv1.RebuildResponse, error) {
	return ask(s, e, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.RebuildRequest) (*doproxyv1.RebuildResponse, error) {
		return doproxyv1.NewClusterServiceClient(cc).Rebuild(ctx, req)
	})
}

// rebuildText explains what a rebuild does.
func rebuildText(st style, uid string, plan *doproxyv1.RebuildResponse) string {
	plan = cleaned(plan)
	var b strings.Builder
	line := func(format string, args ...any) {
		b.WriteString(wrap(fmt.Sprintf(format, args...), st.width, "  ") + "\n")
	}
	line("The inventory of cluster %s is made anew in the store.", st.bold(clean(uid)))
	if plan.GetUnknownUid() {
		b.WriteString(st.yellow(wrap(st.sign("▲", "!")+" The node does not know this uid. Pools are made from the droplets' tags, without settings: bring those back with `doproxy restore -f FILE`.", st.width, "  ")) + "\n")
	} else {
		names := make([]string, len(plan.GetPools()))
		for i, p := range plan.GetPools() {
			names[i] = fmt.Sprintf("%s (wants %d)", poolID(p.GetName()), p.GetDesired())
		}
		line("Pools: %s, as the node remembers them.", noneOr(listed(names)))
		line("Droplets: %s expected at DigitalOcean.", countedAs(int(plan.GetDroplets()), "droplet is", "droplets are"))
	}
	line("Every droplet with the tag doproxy:%s is adopted. None is created, changed or deleted; HAProxies serve on.", clean(uid))
	return b.String()
}

// rebuildView is how far a rebuild has come.
type rebuildView struct {
	expected, adopted, serving int32 // expected is 0 if it is not known
}

func (v rebuildView) title() string  { return "rebuild" }
func (v rebuildView) reason() string { return "" }

func (v rebuildView) plain() string {
	if v.expected == 0 {
		return fmt.Sprintf("adopted %s, %d serving", counted(v.adopted, "droplet"), v.serving)
	}
	return fmt.Sprintf("adopted %d of %s, %d serving", v.adopted, counted(v.expected, "droplet"), v.serving)
}

func (v rebuildView) lines(st style, elapsed time.Duration, note string) []string {
	lines := []string{"Rebuilding the inventory" + st.dim("  "+short(elapsed)), ""}
	total := max(v.expected, v.adopted)
	width := min(40, max(10, st.width-24))
	for _, row := range []stage{{"adopted", v.adopted}, {"serving", v.serving}} {
		lines = append(lines, fmt.Sprintf("  %-9s  %s  %d/%d", row.name, st.bar(int(row.count), int(total), width), row.count, total))
	}
	return append(st.noted(lines, note), "")
}

// done tells whether as many as expected serve.
func (v rebuildView) done() bool { return v.expected > 0 && v.serving >= v.expected }

// adoption counts the droplets on record, and those of them that serve.
func adoption(expected int32, w *poolWatch) rebuildView {
	v := rebuildView{expected: expected}
	for _, d := range w.droplets {
		v.adopted++
		if d.GetPhase() == doproxyv1.Phase_PHASE_SERVING {
			v.serving++
		}
	}
	return v
}

var errQuiet = errors.New("nothing new came")

// followRebuild watches droplets come until as many as expected serve or, if
// that is not known, no more come.
func (s *session) followRebuild(expected int32) (rebuildView, error) {
	quiet := s.opts.rebuildQuiet
	if expected > 0 {
		quiet = rebuildPatience
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	timer := time.AfterFunc(quiet, func() { cancel(errQuiet) })
	defer timer.Stop()
	sub := *s
	sub.ctx = ctx
	d := s.display(rebuilding)
	now := rebuildView{expected: expected}
	// A node that has no inventory yet answers later: it is asked until then.
	err := sub.try(effort{repeat: true, persist: true, forever: true, note: d.lost}, func(ctx context.Context, cc grpc.ClientConnInterface, contact func()) error {
		contact()
		stream, err := doproxyv1.NewDropletServiceClient(cc).WatchDroplets(ctx, &doproxyv1.WatchDropletsRequest{})
		if err != nil {
			return err
		}
		watched := newPoolWatch()
		for {
			m, err := stream.Recv()
			if err != nil {
				return endOfStream(err)
			}
			watched.apply(m)
			if v := adoption(expected, watched); v != now {
				now = v
				timer.Reset(quiet)
			}
			d.show(now)
			if now.done() {
				return nil
			}
		}
	})
	d.close()
	switch {
	case err == nil:
		return now, nil
	case s.ctx.Err() != nil:
		return now, s.onRecord("rebuild", s.ended(), "see it with `doproxy status` or `doproxy watch`")
	case !errors.Is(context.Cause(ctx), errQuiet):
		return now, s.onRecord("rebuild", err, "see it with `doproxy status` or `doproxy watch`")
	case expected == 0:
		return now, nil
	}
	return now, &Failure{
		Op: "rebuild", Exit: ExitTimeout,
		Err:  fmt.Errorf("%s, and nothing new for %v; the work goes on", now.plain(), quiet),
		Mend: []string{"see with `doproxy status` what holds it up, and with `doproxy verify` what is missing"},
	}
}
