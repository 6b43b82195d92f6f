package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func (c *client) pauseCommand() *cobra.Command {
	req := &doproxyv1.PauseRequest{}
	cmd := &cobra.Command{
		Use: "pause", GroupID: groupCluster,
		Short: "Stop every change at DigitalOcean",
		Long: `Stop every change at DigitalOcean: no create, delete or tag, no move of an address,
no change of a DNS record. Requests are taken, and wait. HAProxies go on as they
are. A failover by hand is refused. It lasts until doproxy resume.`,
		Example: "  doproxy pause --reason \"incident 4711\"\n  doproxy resume",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for whoever looks at the status")
	cmd.Flags().BoolVar(&req.ValidateOnly, "dry-run", false, "check the request and change nothing")
	_ = cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions)
	cmd.RunE = c.run(func(s *session, _ []string) error {
		res, err := ask(s, changing, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.PauseRequest) (*doproxyv1.PauseResponse, error) {
			return doproxyv1.NewClusterServiceClient(cc).Pause(ctx, req)
		})
		switch {
		case err != nil:
			return s.fail("pause", err)
		case s.format == "json":
			return writeJSON(s.out, map[string]any{"dry_run": req.GetValidateOnly(), "pause": protoJSON(res.GetPause())})
		case req.GetValidateOnly():
			fmt.Fprintln(s.out, "Would stop every change at DigitalOcean until `doproxy resume`.")
		default:
			fmt.Fprintln(s.out, "Paused: nothing changes at DigitalOcean until `doproxy resume`.")
		}
		return nil
	})
	return cmd
}

func (c *client) resumeCommand() *cobra.Command {
	req := &doproxyv1.ResumeRequest{}
	cmd := &cobra.Command{
		Use: "resume [POOL]", GroupID: groupCluster,
		Short:   "End a pause, or let a pool create again that stopped after failures",
		Example: "  doproxy resume\n  doproxy resume web",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: c.completePool,
	}
	cmd.Flags().BoolVar(&req.ValidateOnly, "dry-run", false, "check the request and change nothing")
	cmd.RunE = c.run(func(s *session, args []string) error {
		op := "resume"
		if len(args) > 0 {
			req.Pool = poolName(args[0])
			op += " " + poolID(req.GetPool())
		}
		res, err := ask(s, changing, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ResumeRequest) (*doproxyv1.ResumeResponse, error) {
			return doproxyv1.NewClusterServiceClient(cc).Resume(ctx, req)
		})
		switch {
		case err != nil:
			return s.fail(op, err)
		case s.format == "json":
			return writeJSON(s.out, map[string]any{"dry_run": req.GetValidateOnly(), "resumed": res.GetResumed()})
		}
		fmt.Fprintln(s.out, resumeText(req, res.GetResumed()))
		return nil
	})
	return cmd
}

func resumeText(req *doproxyv1.ResumeRequest, resumed bool) string {
	pool := poolID(req.GetPool())
	switch {
	case !resumed && pool == "":
		return "It was not paused."
	case !resumed:
		return pool + " had not stopped."
	case req.GetValidateOnly() && pool == "":
		return "Would end the pause."
	case req.GetValidateOnly():
		return "Would let " + pool + " create again."
	case pool == "":
		return "Resumed: what was asked for meanwhile is done now."
	}
	return "Resumed: " + pool + " creates again."
}
