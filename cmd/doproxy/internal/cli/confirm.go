package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func (c *client) confirmCommand() *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use: "confirm [POOL]", GroupID: groupCluster,
		Short: "Let go the droplets that the wipe guard holds",
		Long: `Show the droplets that would go without a request that asked for it, and which the
wipe guard holds; ask, and let exactly these go. A confirmation holds for an hour.`,
		Example: "  doproxy confirm --dry-run\n  doproxy confirm web\n  doproxy confirm web --yes",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: c.completePool,
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what is held and change nothing")
	cmd.RunE = c.run(func(s *session, args []string) error {
		pool := ""
		if len(args) > 0 {
			pool = poolName(args[0])
		}
		return s.confirm(pool, yes, dryRun)
	})
	return cmd
}

func (s *session) confirm(pool string, yes, dryRun bool) error {
	op := strings.TrimSpace("confirm " + poolID(pool))
	held, err := s.askConfirm(&doproxyv1.ConfirmRequest{Pool: pool, ValidateOnly: true})
	if err != nil {
		return s.fail(op, err)
	}
	names := heldNames(held.GetConditions())
	done := false
	if len(names) > 0 && !dryRun {
		if s.format != "json" {
			if _, err := io.WriteString(s.out, heldText(s.style, s.opts.Now(), held.GetConditions())); err != nil {
				return err
			}
		}
		if !yes {
			question := fmt.Sprintf("Let %s go?", theseDroplets(len(names)))
			if err := s.agree(op, question, "look with `doproxy "+op+" --dry-run`, then `doproxy "+op+" --yes`"); err != nil {
				return err
			}
		}
		held, err = s.askConfirm(&doproxyv1.ConfirmRequest{Pool: pool, Hostnames: names})
		if err != nil {
			f := s.fail(op, err)
			if status.Code(err) == codes.FailedPrecondition {
				return withMend(f, "what is held changed meanwhile: run `doproxy "+op+"` again and look")
			}
			return f
		}
		done = true
	}
	switch {
	case s.format == "json":
		return writeJSON(s.out, map[string]any{"dry_run": dryRun, "confirmed": done, "conditions": protoList(held.GetConditions())})
	case len(names) == 0:
		fmt.Fprintln(s.out, "Nothing is held.")
	case dryRun:
		if _, err := io.WriteString(s.out, heldText(s.style, s.opts.Now(), held.GetConditions())); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "Would let %s go.\n", theseDroplets(len(names)))
	default:
		fmt.Fprintf(s.out, "Confirmed: %s go. See it with `doproxy watch`.\n", fewNames(names))
	}
	return nil
}

// askConfirm gives an empty answer where the server refuses because nothing is
// held.
func (s *session) askConfirm(req *doproxyv1.ConfirmRequest) (*doproxyv1.ConfirmResponse, error) {
	res, err := ask(s, changing, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ConfirmRequest) (*doproxyv1.ConfirmResponse, error) {
		return doproxyv1.NewClusterServiceClient(cc).Confirm(ctx, req)
	})
	if f := (&Failure{Err: err}); err != nil && f.reason() == "NOTHING_HELD" && len(req.GetHostnames()) == 0 {
		return &doproxyv1.ConfirmResponse{}, nil
	}
	if err == nil && res == nil {
		err = errors.New("the node gave no answer")
	}
	return res, err
}

func theseDroplets(n int) string {
	if n == 1 {
		return "this droplet"
	}
	return fmt.Sprintf("these %d droplets", n)
}

// heldNames are the droplets of conditions, each once: several nodes may hold
// the same.
func heldNames(conditions []*doproxyv1.Condition) []string {
	var names []string
	for _, c := range conditions {
		names = append(names, c.GetHostnames()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// heldText is what is held, why and since when, with every name.
func heldText(st style, now time.Time, conditions []*doproxyv1.Condition) string {
	var b strings.Builder
	for _, c := range conditions {
		c = cleaned(c)
		if len(c.GetHostnames()) == 0 {
			continue
		}
		where := ""
		if c.GetNode() != "" {
			where = nodeID(c.GetNode()) + ": "
		}
		since := ""
		if c.GetTime() != nil {
			since = " (for " + ago(now, c.GetTime()) + ")"
		}
		b.WriteString(st.yellow(wrap(fmt.Sprintf("%s %s%s%s", st.sign("▲", "!"), where, c.GetMessage(), since), st.width, "  ")) + "\n")
		b.WriteString("  " + wrap(strings.Join(c.GetHostnames(), " "), st.width, "  ") + "\n")
	}
	return b.String()
}
