package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

var (
	// forming changes the members once: it is not sent twice, and not elsewhere.
	forming = effort{perCall: time.Minute}
	// joining also copies the store.
	joining = effort{perCall: 11 * time.Minute}
)

// leastTTL and mostTTL bound a token's life, as the server does.
const leastTTL, mostTTL = time.Minute, 720 * time.Hour

func (c *client) clusterCommand() *cobra.Command {
	members := c.clusterMembersCommand()
	cmd := &cobra.Command{
		Use: "cluster", GroupID: groupCluster,
		Short: "Show the members of the integrated store; form it, change them",
		Long: `Form the integrated store (raft), and change its members. Each is a node whose
doproxy.yml has raft.address. The first one begins the store with init, each other
one joins with a token that a member makes.`,
		Example: "  doproxy cluster init                     # on the first node\n  doproxy cluster token                    # on a member, for each other node\n  doproxy cluster join - < token           # on the other node\n  doproxy cluster members",
		Args:    cobra.NoArgs, RunE: members.RunE,
	}
	cmd.AddCommand(c.clusterInitCommand(), c.clusterJoinCommand(), c.clusterTokenCommand(), members,
		c.clusterRemoveCommand(), c.clusterStepDownCommand())
	return cmd
}

// oneServer refuses several servers where the node that is asked makes the
// difference.
func (s *session) oneServer(op string) error {
	if len(s.servers) > 1 {
		return usage("%s is about the node that is asked, and there are %d: name one with --server", op, len(s.servers))
	}
	return nil
}

// notFormed makes the end of a change of the members a failure, which says what
// to do if it is not known whether it was done.
func (s *session) notFormed(op, look string, err error) error {
	f := s.fail(op, err)
	if (&Failure{Err: err}).reason() == "OUTCOME_UNKNOWN" { // which says it itself
		return f
	}
	if s.doubt != nil && (passing(err) || s.ctx.Err() != nil) {
		return withMend(f, "it may have been done all the same: look with `"+look+"` before you ask again")
	}
	return f
}

func (c *client) clusterInitCommand() *cobra.Command {
	req := &doproxyv1.InitStoreRequest{}
	cmd := &cobra.Command{
		Use: "init", Short: "Begin a new store with this node as its first member",
		Long: `Begin a new store with the node that is asked as its first member. On one node
only: on each other one use join. It is refused on a node that is a member, and where
DigitalOcean has droplets of a cluster that this node does not know.`,
		Example: "  doproxy cluster init",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: c.run(func(s *session, _ []string) error {
			if err := s.oneServer("cluster init"); err != nil {
				return err
			}
			res, err := ask(s, forming, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.InitStoreRequest) (*doproxyv1.InitStoreResponse, error) {
				return doproxyv1.NewStoreServiceClient(cc).InitStore(ctx, req)
			})
			if err != nil {
				return s.notFormed("cluster init", "doproxy store status", err)
			}
			if s.format == "json" {
				return writeJSON(s.out, protoJSON(res))
			}
			res = cleaned(res)
			_, err = fmt.Fprintf(s.out, `%s %s is the first member of store %s.
It stops with this one. Have two more nodes join, one after the other:
  doproxy cluster token         here, for each of them
  doproxy cluster join TOKEN    there
`, s.style.green("Success:"), nodeID(res.GetNode()), res.GetCluster())
			return err
		}),
	}
	cmd.Flags().BoolVar(&req.Force, "force", false, "although DigitalOcean has droplets of another cluster")
	return cmd
}

func (c *client) clusterJoinCommand() *cobra.Command {
	var abandon bool
	cmd := &cobra.Command{
		Use: "join TOKEN", Short: "Have this node join the store that a token is of",
		Long: `Have the node that is asked join the store that a token is of, and wait until it
keeps up. It votes once it has been stable for a while.

- reads the token from standard input: one on the command line shows in the list of
processes for as long as the command runs, and in the shell's history.`,
		Example: "  doproxy cluster join - < token\n  ssh lb1 doproxy cluster token | doproxy cluster join -",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: c.run(func(s *session, args []string) error {
			if err := s.oneServer("cluster join"); err != nil {
				return err
			}
			token := args[0]
			if token == "-" {
				var err error
				if s.opts.Interactive(s.in) {
					fmt.Fprint(s.err, "Token: ")
				}
				if token, err = s.readLine(); err != nil {
					return s.fail("cluster join", err)
				}
			}
			if token = strings.TrimSpace(token); token == "" {
				f := usage("cluster join: the token is empty")
				f.Mend = []string{"make one on a member with `doproxy cluster token`"}
				return f
			}
			return s.join(token, abandon)
		}),
	}
	cmd.Flags().BoolVar(&abandon, "abandon", false, "give up a store that this node alone is, such as one begun by mistake")
	return cmd
}

func (s *session) join(token string, abandon bool) error {
	res, err := ask(s, joining, &doproxyv1.JoinStoreRequest{Token: token, Abandon: abandon}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.JoinStoreRequest) (*doproxyv1.JoinStoreResponse, error) {
		return doproxyv1.NewStoreServiceClient(cc).JoinStore(ctx, req)
	})
	if err != nil {
		return s.notFormed("cluster join", "doproxy cluster members", err)
	}
	if s.format == "json" {
		return writeJSON(s.out, protoJSON(res))
	}
	res = cleaned(res)
	fmt.Fprintf(s.out, "%s %s is a member of the store and keeps up.\n", s.style.green("Success:"), nodeID(res.GetNode()))
	if res.GetMembership() != nil {
		_, err = io.WriteString(s.out, voterText(s.style, res.GetMembership()))
	}
	return err
}

func (c *client) clusterTokenCommand() *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "token", Short: "Make a token with which one node may join",
		Long: `Make a token with which one node may join. It is a secret, and good once. On a pipe
nothing but the token is written.`,
		Example: "  doproxy cluster token\n  doproxy cluster token --ttl 10m | ssh lb2 doproxy cluster join -",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is good for, 1m to 720h")
	_ = cmd.RegisterFlagCompletionFunc("ttl", cobra.FixedCompletions([]string{"10m", "1h", "24h"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = c.run(func(s *session, _ []string) error {
		if ttl < leastTTL || ttl > mostTTL {
			return usage("--ttl %v: want 1m to 720h", ttl)
		}
		res, err := ask(s, changing, &doproxyv1.CreateJoinTokenRequest{Ttl: durationpb.New(ttl)}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.CreateJoinTokenRequest) (*doproxyv1.CreateJoinTokenResponse, error) {
			return doproxyv1.NewStoreServiceClient(cc).CreateJoinToken(ctx, req)
		})
		switch {
		case err != nil:
			return s.fail("cluster token", err)
		case s.format == "json":
			return writeJSON(s.out, protoJSON(res))
		}
		_, err = fmt.Fprintln(s.out, clean(res.GetToken()))
		if s.format == "table" {
			left := short(res.GetExpireTime().AsTime().Sub(s.opts.Now()))
			fmt.Fprintf(s.err, "\nOn the new node, within %s:\n  doproxy cluster join -    and paste it\n", left)
		}
		return err
	})
	return cmd
}

func (c *client) clusterMembersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "members", Short: "Show the members of the store, and how many may be lost",
		Example: "  doproxy cluster members\n  doproxy cluster members -o json | jq .tolerates",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: c.run(func(s *session, _ []string) error {
			m, err := s.members()
			if err != nil {
				return s.fail("cluster members", err)
			}
			switch s.format {
			case "json":
				return writeJSON(s.out, protoJSON(m))
			case "table":
				_, err = io.WriteString(s.out, s.style.membersTable(s.opts.Now(), m))
			default:
				_, err = io.WriteString(s.out, membersPlain(s.opts.Now(), m))
			}
			return err
		}),
	}
}

func getStore(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.GetStoreRequest) (*doproxyv1.GetStoreResponse, error) {
	return doproxyv1.NewStoreServiceClient(cc).GetStore(ctx, req)
}

// members asks one node after the other until one knows them.
func (s *session) members() (*doproxyv1.Membership, error) {
	res, err := ask(s, reading, &doproxyv1.GetStoreRequest{}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.GetStoreRequest) (*doproxyv1.GetStoreResponse, error) {
		res, err := getStore(ctx, cc, req)
		if err == nil && res.GetError() != "" {
			err = status.Error(codes.Unavailable, res.GetError())
		}
		return res, err
	})
	if err != nil {
		return nil, err
	}
	if res.GetMembership() == nil {
		return nil, &Failure{
			Op: "cluster members", Exit: ExitRefused, Err: fmt.Errorf("the store of %s is %s, whose members are not doproxy's", nodeID(clean(res.GetNode())), clean(res.GetStore())),
			Mend: []string{"for the integrated store set raft.address in the node's doproxy.yml and restart its agent, then `doproxy cluster init` or `doproxy cluster join`"},
		}
	}
	return res.GetMembership(), nil
}

func (c *client) clusterRemoveCommand() *cobra.Command {
	req := &doproxyv1.RemoveMemberRequest{}
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use: "remove NODE", Short: "Take a member out of the store for good",
		Long: `Show what is left without a member, ask, and take it out. A member that was removed
comes back only by joining anew. It is refused where the members left would be too
few, or too few of them healthy, for the store to go on.`,
		Example: "  doproxy cluster remove lb3 --dry-run\n  doproxy cluster remove lb3",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeMember,
	}
	cmd.Flags().BoolVar(&req.Force, "force", false, "even if the store stops by it")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be left and change nothing")
	cmd.RunE = c.run(func(s *session, args []string) error {
		req.Node = nodeName(args[0])
		if req.Node == "" {
			return usage("cluster remove: the node is empty: see `doproxy cluster members`")
		}
		return s.removeMember(req, yes, dryRun)
	})
	return cmd
}

func (s *session) removeMember(req *doproxyv1.RemoveMemberRequest, yes, dryRun bool) error {
	id := nodeID(req.GetNode())
	op := "cluster remove " + id
	plan, err := s.askRemove(reading, &doproxyv1.RemoveMemberRequest{Node: req.GetNode(), Force: req.GetForce(), ValidateOnly: true})
	if err != nil {
		return s.fail(op, err)
	}
	switch {
	case s.format == "json" && dryRun:
		return writeJSON(s.out, map[string]any{"dry_run": true, "remove": protoJSON(plan)})
	case s.format != "json" && (dryRun || !yes):
		if _, err := io.WriteString(s.out, removalText(s.style, s.opts.Now(), plan)); err != nil || dryRun {
			return err
		}
	}
	if !yes {
		if err := s.agree(op, "Remove "+clean(id)+"?", "look with `doproxy "+op+" --dry-run`, then add --yes"); err != nil {
			return err
		}
	}
	done, err := s.askRemove(forming, req)
	switch {
	case err != nil:
		return s.notFormed(op, "doproxy cluster members", err)
	case s.format == "json":
		return writeJSON(s.out, map[string]any{"dry_run": false, "remove": protoJSON(done)})
	}
	done = cleaned(done)
	_, err = fmt.Fprintf(s.out, "%s %s is no member of the store any more.\n%s", s.style.green("Success:"), nodeID(done.GetRemoved().GetNode()), voterText(s.style, done.GetLeft()))
	return err
}

func (s *session) askRemove(e effort, req *doproxyv1.RemoveMemberRequest) (*doproxyv1.RemoveMemberResponse, error) {
	return ask(s, e, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.RemoveMemberRequest) (*doproxyv1.RemoveMemberResponse, error) {
		return doproxyv1.NewStoreServiceClient(cc).RemoveMember(ctx, req)
	})
}

func (c *client) clusterStepDownCommand() *cobra.Command {
	return &cobra.Command{
		Use: "step-down", Short: "Have another member lead the store",
		Example: "  doproxy cluster step-down",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: c.run(func(s *session, _ []string) error {
			res, err := ask(s, forming, &doproxyv1.StepDownRequest{}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.StepDownRequest) (*doproxyv1.StepDownResponse, error) {
				return doproxyv1.NewStoreServiceClient(cc).StepDown(ctx, req)
			})
			switch {
			case err != nil:
				return s.notFormed("cluster step-down", "doproxy cluster members", err)
			case s.format == "json":
				return writeJSON(s.out, protoJSON(res))
			}
			from, to := dash(nodeID(clean(res.GetFrom()))), nodeID(clean(res.GetTo()))
			if to == "" {
				_, err = fmt.Fprintf(s.out, "%s %s leads the store no more. See who does with `doproxy cluster members`.\n", s.style.green("Success:"), from)
			} else {
				_, err = fmt.Fprintf(s.out, "%s %s leads the store; it was %s.\n", s.style.green("Success:"), to, from)
			}
			return err
		}),
	}
}

func (c *client) completeMember(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.forCompletion(cmd, func(s *session) (words []string) {
		m, err := s.members()
		if err != nil {
			return nil
		}
		for _, one := range cleaned(m).GetMembers() {
			if name := nodeID(one.GetNode()); strings.HasPrefix(name, prefix) {
				words = append(words, name+"\t"+memberState(s.opts.Now(), one))
			}
		}
		return words
	})
}
