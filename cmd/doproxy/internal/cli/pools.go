package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func (c *client) poolsCommand() *cobra.Command {
	list := c.run(func(s *session, _ []string) error {
		pools, err := s.listPools()
		if err != nil {
			return s.fail("pools", err)
		}
		switch s.format {
		case "json":
			return writeJSON(s.out, map[string]any{"pools": protoList(pools)})
		case "table":
			_, err = io.WriteString(s.out, poolsTable(s.style, s.opts.Now(), pools))
		default:
			_, err = io.WriteString(s.out, poolsPlain(s.opts.Now(), pools))
		}
		return err
	})
	cmd := &cobra.Command{
		Use: "pools", GroupID: groupPools, Short: "Show the pools; get or delete one",
		Example: "  doproxy pools\n  doproxy pools get web -o yaml > web.yml\n  doproxy pools delete web",
		Args:    cobra.NoArgs, RunE: list,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "Show the pools", Args: cobra.NoArgs, RunE: list},
		c.poolsGetCommand(), c.poolsDeleteCommand())
	return cmd
}

func (c *client) poolsGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show one pool, with -o yaml in the form that apply takes",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.completePool,
		RunE: c.run(func(s *session, args []string) error {
			res, err := ask(s, reading, &doproxyv1.GetPoolRequest{Name: poolName(args[0])}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.GetPoolRequest) (*doproxyv1.GetPoolResponse, error) {
				return doproxyv1.NewPoolServiceClient(cc).GetPool(ctx, req)
			})
			if err != nil {
				return s.fail("pools get "+poolID(args[0]), err)
			}
			switch s.format {
			case "json":
				return writeJSON(s.out, json.RawMessage(protoJSON(res.GetPool())))
			case "table":
				_, err = io.WriteString(s.out, poolText(s.style, s.opts.Now(), res.GetPool()))
			case "yaml":
				text, formatErr := s.opts.Format(Document{Pools: []*doproxyv1.Pool{res.GetPool()}})
				if formatErr != nil {
					return &Failure{Op: "pools get " + poolID(args[0]), Err: formatErr}
				}
				_, err = s.out.Write(text)
			default:
				_, err = io.WriteString(s.out, poolsPlain(s.opts.Now(), []*doproxyv1.Pool{res.GetPool()}))
			}
			return err
		}, "yaml"),
	}
}

func (c *client) poolsDeleteCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Forget a pool that has no droplets",
		Args: cobra.ExactArgs(1), ValidArgsFunction: c.completePool,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check the request and change nothing")
	cmd.RunE = c.run(func(s *session, args []string) error {
		name := poolID(args[0])
		// Sent twice, the second would find no pool: it is not repeated.
		once := effort{perCall: answerTime}
		_, err := ask(s, once, &doproxyv1.DeletePoolRequest{Name: poolName(name), ValidateOnly: dryRun}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.DeletePoolRequest) (*doproxyv1.DeletePoolResponse, error) {
			return doproxyv1.NewPoolServiceClient(cc).DeletePool(ctx, req)
		})
		switch {
		case err != nil:
			return s.fail("pools delete "+name, err)
		case s.format == "json":
			return writeJSON(s.out, map[string]any{"dry_run": dryRun, "deleted": poolName(name)})
		case dryRun:
			fmt.Fprintf(s.out, "Would delete pool %s.\n", name)
		default:
			fmt.Fprintf(s.out, "%s pool %s deleted.\n", s.style.green("Success:"), name)
		}
		return nil
	})
	return cmd
}

func (s *session) listPools() ([]*doproxyv1.Pool, error) {
	var pools []*doproxyv1.Pool
	req := &doproxyv1.ListPoolsRequest{}
	for {
		page, err := ask(s, reading, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ListPoolsRequest) (*doproxyv1.ListPoolsResponse, error) {
			return doproxyv1.NewPoolServiceClient(cc).ListPools(ctx, req)
		})
		if err != nil {
			return nil, err
		}
		pools = append(pools, page.GetPools()...)
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return pools, nil
		}
	}
}
