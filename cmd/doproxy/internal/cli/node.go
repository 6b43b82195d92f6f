package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func (c *client) nodeCommand() *cobra.Command {
	list := c.run(func(s *session, _ []string) error {
		nodes, err := s.listNodes()
		if err != nil {
			return s.fail("node list", err)
		}
		switch s.format {
		case "json":
			return writeJSON(s.out, map[string]any{"nodes": protoList(nodes)})
		case "table":
			_, err = io.WriteString(s.out, s.style.nodesTable(s.opts.Now(), nodes, 0))
		default:
			_, err = io.WriteString(s.out, nodesPlain(s.opts.Now(), nodes))
		}
		return err
	})
	cmd := &cobra.Command{
		Use: "node", Aliases: []string{"nodes"}, GroupID: groupCluster,
		Short:   "Show the nodes; drain, undrain or forget one",
		Example: "  doproxy nodes\n  doproxy node drain lb-2 --reason \"kernel update\"\n  doproxy node undrain lb-2\n  doproxy node forget lb-3",
		Args:    cobra.NoArgs, RunE: list,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "Show the nodes, alive or not", Example: "  doproxy node list -o json | jq -r '.nodes[].name'",
			Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions, RunE: list,
		},
		c.nodeDrainCommand(), c.nodeUndrainCommand(), c.nodeForgetCommand())
	return cmd
}

func (s *session) listNodes() ([]*doproxyv1.Node, error) {
	var nodes []*doproxyv1.Node
	req := &doproxyv1.ListNodesRequest{}
	for {
		page, err := ask(s, reading, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ListNodesRequest) (*doproxyv1.ListNodesResponse, error) {
			return doproxyv1.NewClusterServiceClient(cc).ListNodes(ctx, req)
		})
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, page.GetNodes()...)
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return nodes, nil
		}
	}
}

// nodeName makes a resource name of a node's name; both are taken.
func nodeName(node string) string {
	if node == "" {
		return ""
	}
	return "nodes/" + nodeID(node)
}

func (c *client) nodeDrainCommand() *cobra.Command {
	req := &doproxyv1.DrainNodeRequest{}
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Take a node out of service, so that a restart disturbs nobody",
		Long: `Take a node out of service: its reserved IPs move, its DNS records go, its
sessions may end. Follow it until a restart disturbs nobody. Ctrl-C stops
following, not the drain; node undrain ends it.`,
		Example: "  doproxy node drain lb-2 --reason \"kernel update\"",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeNode,
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for whoever looks at the status")
	cmd.Flags().BoolVar(&req.NoWait, "no-wait", false, "return when the wish is on record")
	cmd.Flags().BoolVar(&req.ValidateOnly, "dry-run", false, "say what would move and change nothing")
	_ = cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions)
	cmd.RunE = c.run(func(s *session, args []string) error {
		req.Name = nodeName(args[0])
		return s.drain(req)
	})
	return cmd
}

func (s *session) drain(req *doproxyv1.DrainNodeRequest) error {
	id := nodeID(req.GetName())
	op := "node drain " + id
	brief := req.GetNoWait() || req.GetValidateOnly()
	d := s.display(draining)
	d.quiet = d.quiet || brief
	var last *doproxyv1.DrainNodeResponse
	// A node that is drained already is drained no further: it may be sent twice.
	e := effort{repeat: true, persist: true, note: d.lost}
	err := followStream(s, e, func(ctx context.Context, cc grpc.ClientConnInterface) (receiver[*doproxyv1.DrainNodeResponse], error) {
		stream, err := doproxyv1.NewNodeServiceClient(cc).DrainNode(ctx, req)
		if err != nil {
			return nil, err
		}
		return stream.Recv, nil
	}, func(m *doproxyv1.DrainNodeResponse) (over bool) {
		last = m
		d.show(drainView{node: id, drain: cleaned(m), now: s.opts.Now()})
		return brief || m.GetDone()
	})
	d.close()
	switch {
	case err != nil && last == nil:
		return s.fail(op, err)
	case err != nil:
		return s.onRecord(op, err, "follow it again with `doproxy node drain "+id+"`, or end it with `doproxy node undrain "+id+"`")
	case s.format == "json":
		return writeJSON(s.out, map[string]any{"dry_run": req.GetValidateOnly(), "drain": protoJSON(last)})
	case req.GetValidateOnly():
		_, err = io.WriteString(s.out, drainForecast(s.style, id, cleaned(last)))
	case req.GetNoWait():
		_, err = fmt.Fprintf(s.out, "Requested: drain %s.\n", id)
	default:
		_, err = fmt.Fprintf(s.out, "%s is drained: a restart disturbs nobody.\n", id)
	}
	return err
}

func (c *client) nodeUndrainCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "undrain NODE", Short: "Put a drained node back into service",
		Long:    "Put a drained node back into service. It gets reserved IPs and DNS records again\nonce it has been fit for ingress.settle_after.",
		Example: "  doproxy node undrain lb-2",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeNode,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check the request and change nothing")
	cmd.RunE = c.run(func(s *session, args []string) error {
		id := nodeID(args[0])
		res, err := ask(s, changing, &doproxyv1.UndrainNodeRequest{Name: nodeName(id), ValidateOnly: dryRun}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.UndrainNodeRequest) (*doproxyv1.UndrainNodeResponse, error) {
			return doproxyv1.NewNodeServiceClient(cc).UndrainNode(ctx, req)
		})
		switch {
		case err != nil:
			return s.fail("node undrain "+id, err)
		case s.format == "json":
			return writeJSON(s.out, map[string]any{"dry_run": dryRun, "node": json.RawMessage(protoJSON(res.GetNode()))})
		case dryRun:
			fmt.Fprintf(s.out, "Would put %s back into service.\n", id)
		default:
			fmt.Fprintf(s.out, "%s %s is back in service.\n", s.style.green("Success:"), id)
		}
		return nil
	})
	return cmd
}

func (c *client) nodeForgetCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "forget NODE", Short: "Forget a node that is gone for good",
		Long:    "Forget a node that is silent and will not come back. It is refused while the node\nis alive. One that comes back after all joins anew.",
		Example: "  doproxy node forget lb-3",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeSilent,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check the request and change nothing")
	cmd.RunE = c.run(func(s *session, args []string) error {
		id := nodeID(args[0])
		// Sent twice, the second would find no node: it is not repeated.
		once := effort{perCall: answerTime}
		_, err := ask(s, once, &doproxyv1.ForgetNodeRequest{Name: nodeName(id), ValidateOnly: dryRun}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ForgetNodeRequest) (*doproxyv1.ForgetNodeResponse, error) {
			return doproxyv1.NewNodeServiceClient(cc).ForgetNode(ctx, req)
		})
		switch {
		case err != nil:
			return s.fail("node forget "+id, err)
		case s.format == "json":
			return writeJSON(s.out, map[string]any{"dry_run": dryRun, "forgotten": nodeName(id)})
		case dryRun:
			fmt.Fprintf(s.out, "Would forget %s.\n", id)
		default:
			fmt.Fprintf(s.out, "%s %s forgotten.\n", s.style.green("Success:"), id)
		}
		return nil
	})
	return cmd
}

// nodeWords completes nodes; those that fit only.
func (c *client) nodeWords(cmd *cobra.Command, prefix string, fits func(*doproxyv1.Node) bool) ([]string, cobra.ShellCompDirective) {
	return c.forCompletion(cmd, func(s *session) (words []string) {
		nodes, err := s.listNodes()
		if err != nil {
			return nil
		}
		for _, n := range nodes {
			if name := nodeID(clean(n.GetName())); strings.HasPrefix(name, prefix) && fits(n) {
				words = append(words, name+"\t"+nodeState(s.opts.Now(), n))
			}
		}
		return words
	})
}

func anyNode(*doproxyv1.Node) bool { return true }

func (c *client) completeNodes(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.nodeWords(cmd, prefix, anyNode)
}

// completeNode is for commands that take one node.
func (c *client) completeNode(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.nodeWords(cmd, prefix, anyNode)
}

func (c *client) completeSilent(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.nodeWords(cmd, prefix, func(n *doproxyv1.Node) bool { return n.GetSilentTime() != nil })
}
