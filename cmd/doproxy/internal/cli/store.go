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

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func (c *client) storeCommand() *cobra.Command {
	status := c.storeStatusCommand()
	cmd := &cobra.Command{
		Use: "store", GroupID: groupCluster,
		Short:   "Show which store holds the inventory, move it to the other, or look at its records",
		Example: "  doproxy store status\n  doproxy store migrate --from etcd --to raft\n  doproxy store get pools/web",
		Args:    cobra.NoArgs, RunE: status.RunE,
	}
	cmd.AddCommand(status, c.storeMigrateCommand(), c.storeRecordsCommand(), c.storeGetCommand(), c.storeDeleteCommand())
	return cmd
}

func (c *client) storeStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show which store a node uses, and whether the integrated one is formed",
		Example: "  doproxy store status\n  doproxy store status -o json | jq -r .store",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: c.run(func(s *session, _ []string) error {
			res, err := ask(s, reading, &doproxyv1.GetStoreRequest{}, getStore)
			switch {
			case err != nil:
				return s.fail("store status", err)
			case s.format == "json":
				return writeJSON(s.out, protoJSON(res))
			case s.format == "table":
				_, err = io.WriteString(s.out, s.style.storeTable(s.opts.Now(), res))
			default:
				_, err = io.WriteString(s.out, storePlain(s.opts.Now(), res))
			}
			return err
		}),
	}
}

func storePlain(now time.Time, res *doproxyv1.GetStoreResponse) string {
	res = cleaned(res)
	var b strings.Builder
	fmt.Fprintf(&b, "store: %s (asked: %s)\n", dash(res.GetStore()), dash(nodeID(res.GetNode())))
	if m := res.GetMembership(); m != nil {
		voters, healthy := votersOf(m)
		fmt.Fprintf(&b, "raft: %s (in use: %s, members: %d, voters: %d, healthy voters: %d, tolerates: %d)\n", dash(m.GetCluster()), yesNo(res.GetStore() == "raft" && res.GetUntrusted() == ""), len(m.GetMembers()), voters, healthy, m.GetTolerates())
	}
	return b.String() + style{}.storeNotes(now, res)
}

func (st style) storeTable(now time.Time, res *doproxyv1.GetStoreResponse) string {
	res = cleaned(res)
	head := []string{"store " + st.bold(dash(res.GetStore())), "asked " + dash(nodeID(res.GetNode()))}
	if m := res.GetMembership(); m != nil {
		head = append(head, "integrated store "+dash(m.GetCluster()))
	}
	return st.clip(strings.Join(head, st.dim("  "+st.dot()+"  "))) + "\n" + st.storeNotes(now, res)
}

// storeNotes is what the integrated store can lose, and what is wrong with it.
func (st style) storeNotes(now time.Time, res *doproxyv1.GetStoreResponse) string {
	m := res.GetMembership()
	if why := res.GetUntrusted(); why != "" {
		if m == nil {
			return st.alarm(why)
		}
		return st.alarm(why) + st.memberNotes(now, m) + voterText(st, m)
	}
	switch {
	case res.GetError() != "" && res.GetStore() == "raft":
		return st.alarm(res.GetError())
	case res.GetError() != "":
		return st.warning("the integrated store is not in use, and does not answer: " + res.GetError())
	case m == nil:
		return ""
	case res.GetStore() == "raft":
		return st.memberNotes(now, m) + voterText(st, m)
	default:
		return st.memberNotes(now, m) + voterText(st, m) +
			wrap(fmt.Sprintf("It is not in use. Move the inventory there with `doproxy store migrate --from %s --to raft`.", res.GetStore()), st.width, "  ") + "\n"
	}
}

func (c *client) storeMigrateCommand() *cobra.Command {
	req := &doproxyv1.MigrateStoreRequest{}
	var yes bool
	cmd := &cobra.Command{
		Use: "migrate --from STORE --to STORE", Short: "Move the inventory from one store to the other, in use",
		Long: `Move the inventory between etcd and the integrated store (raft), while it is used,
and compare both. Traffic is served throughout; changes are held up for a moment.
Both stores must be there: the integrated one is formed with the cluster command.

Ctrl-C stops it where it is. The same command goes on; with --abort it is given up,
and the inventory stays where it was.`,
		Example: "  doproxy store migrate --from etcd --to raft\n  doproxy store migrate --from etcd --to raft --abort",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&req.From, "from", "", "the store that has the inventory: etcd or raft")
	cmd.Flags().StringVar(&req.To, "to", "", "the other store")
	cmd.Flags().BoolVar(&req.Abort, "abort", false, "give up a migration that was begun")
	cmd.Flags().BoolVar(&req.Force, "force", false, "with --abort: though the other store does not answer, as it is lost for good")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	for _, flag := range []string{"from", "to"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions([]string{"etcd", "raft"}, cobra.ShellCompDirectiveNoFileComp))
	}
	cmd.RunE = c.run(func(s *session, _ []string) error {
		for _, f := range [][2]string{{"--from", req.GetFrom()}, {"--to", req.GetTo()}} {
			if f[1] != "etcd" && f[1] != "raft" {
				return usage("store migrate: %s %q: want etcd or raft", f[0], f[1])
			}
		}
		if req.GetForce() && !req.GetAbort() {
			return usage("store migrate: --force is for --abort: leave it out")
		}
		if req.GetFrom() == req.GetTo() {
			return usage("store migrate: --to %s is the store that --from names: want the other one", req.GetTo())
		}
		return s.migrate(req, yes)
	})
	return cmd
}

func (s *session) migrate(req *doproxyv1.MigrateStoreRequest, yes bool) error {
	const op = "store migrate"
	from, to := req.GetFrom(), req.GetTo()
	if !yes {
		question := fmt.Sprintf("Move the inventory from %s to %s?", from, to)
		if req.GetAbort() {
			question = fmt.Sprintf("Give up the move from %s to %s?", from, to)
		}
		if err := s.agree(op, question, "add --yes"); err != nil {
			return err
		}
	}
	var res *doproxyv1.Migration
	begun := false
	// Asked for twice, it goes on; but after a failure somebody is to look first.
	err := followStream(s, effort{}, func(ctx context.Context, cc grpc.ClientConnInterface) (receiver[*doproxyv1.MigrateStoreResponse], error) {
		stream, err := doproxyv1.NewStoreServiceClient(cc).MigrateStore(ctx, req)
		if err != nil {
			return nil, err
		}
		return stream.Recv, nil
	}, func(m *doproxyv1.MigrateStoreResponse) (over bool) {
		begun = true
		if line := m.GetProgress(); line != "" && s.format != "json" && !s.flags.noProgress {
			fmt.Fprintln(s.err, clean(line))
		}
		res = m.GetResult()
		return res != nil
	})
	switch {
	case err != nil && begun && !req.GetAbort() && status.Code(err) != codes.FailedPrecondition: // which is a refusal
		same := fmt.Sprintf("doproxy store migrate --from %s --to %s", from, to)
		return withMend(s.fail(op, err), "`"+same+"` goes on where it stopped", "`"+same+" --abort` gives it up")
	case err != nil:
		return s.fail(op, err)
	case s.format == "json":
		return writeJSON(s.out, protoJSON(res))
	}
	_, err = io.WriteString(s.out, migrationText(s.style, res))
	return err
}

func migrationText(st style, res *doproxyv1.Migration) string {
	res = cleaned(res)
	var b strings.Builder
	line := func(format string, args ...any) {
		b.WriteString(wrap(fmt.Sprintf(format, args...), st.width, "  ") + "\n")
	}
	if res.GetAborted() {
		line("%s given up: the inventory stays in %s.", st.green("Success:"), res.GetFrom())
	} else {
		line("%s %s holds the inventory. Both stores were compared and hold the same: %s, digest %s.", st.green("Success:"), res.GetTo(), countedTo(res.GetRecords(), "record"), dash(res.GetDigest()))
		if res.GetHeld() != nil {
			line("Changes were held up for %v.", res.GetHeld().AsDuration().Round(time.Millisecond))
		}
	}
	for _, next := range res.GetNext() {
		line("%s", next)
	}
	return b.String()
}
