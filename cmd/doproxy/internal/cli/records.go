package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func (c *client) storeRecordsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "records [PREFIX]", Short: "List the inventory's records as they stand in the store",
		Example: "  doproxy store records\n  doproxy store records droplets/web/",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: c.run(func(s *session, args []string) error {
			req := &doproxyv1.ListRecordsRequest{Prefix: strings.Join(args, "")}
			res, err := ask(s, reading, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ListRecordsRequest) (*doproxyv1.ListRecordsResponse, error) {
				return doproxyv1.NewStoreServiceClient(cc).ListRecords(ctx, req)
			})
			switch {
			case err != nil:
				return s.fail("store records", err)
			case s.format == "json":
				return writeJSON(s.out, protoJSON(res))
			case s.format == "table":
				_, err = io.WriteString(s.out, s.style.recordsTable(cleaned(res)))
			default:
				_, err = io.WriteString(s.out, recordsPlain(cleaned(res)))
			}
			return err
		}),
	}
}

func recordNote(r *doproxyv1.Record) string {
	switch {
	case r.GetSetAside() != "":
		return "set aside: " + r.GetSetAside()
	case r.GetLeased():
		return "leased"
	}
	return ""
}

func recordsPlain(res *doproxyv1.ListRecordsResponse) string {
	var b strings.Builder
	for _, r := range res.GetRecords() {
		fmt.Fprintf(&b, "%s (revision: %d, bytes: %d)", r.GetKey(), r.GetRevision(), r.GetSize())
		if note := recordNote(r); note != "" {
			b.WriteString(" " + note)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (st style) recordsTable(res *doproxyv1.ListRecordsResponse) string {
	g := &grid{st: st, head: []string{"KEY", "REVISION", "BYTES", ""}, right: []int{1, 2}}
	for _, r := range res.GetRecords() {
		note := st.dim(recordNote(r))
		if r.GetSetAside() != "" {
			note = st.yellow(recordNote(r))
		}
		g.add(r.GetKey(), strconv.FormatInt(r.GetRevision(), 10), strconv.FormatInt(r.GetSize(), 10), note)
	}
	return st.clipLines(g.String()) + "\n" + countedTo(int64(len(res.GetRecords())), "record") + "\n"
}

func (c *client) storeGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get KEY", Short: "Print a record as it stands in the store",
		Example: "  doproxy store get droplets/web/web-3\n  doproxy store get pools/web | jq .",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeRecord,
		RunE: c.run(func(s *session, args []string) error {
			res, err := ask(s, reading, &doproxyv1.GetRecordRequest{Key: args[0]}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.GetRecordRequest) (*doproxyv1.GetRecordResponse, error) {
				return doproxyv1.NewStoreServiceClient(cc).GetRecord(ctx, req)
			})
			switch {
			case err != nil:
				return s.fail("store get "+args[0], err)
			case s.format == "json":
				return writeJSON(s.out, protoJSON(res.GetRecord()))
			}
			if why := clean(res.GetRecord().GetSetAside()); why != "" {
				fmt.Fprint(s.err, s.style.warning("it is set aside: "+why))
			}
			text := string(res.GetRecord().GetValue())
			if s.format == "table" { // nobody's record gets at the terminal
				text = clean(text)
			}
			_, err = fmt.Fprintln(s.out, text)
			return err
		}),
	}
}

func (c *client) storeDeleteCommand() *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use: "delete KEY", Short: "Delete a record that was set aside",
		Long: `Delete a record that cannot be read, or that is none of doproxy's, and that was set
aside therefore. Any other is refused: change what it is about instead.`,
		Example: "  doproxy store delete droplets/web/web-3",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeRecord,
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be deleted and change nothing")
	cmd.RunE = c.run(func(s *session, args []string) error { return s.deleteRecord(args[0], yes, dryRun) })
	return cmd
}

func (s *session) deleteRecord(key string, yes, dryRun bool) error {
	op := "store delete " + key
	req := &doproxyv1.DeleteRecordRequest{Key: key, ValidateOnly: true}
	plan, err := s.askDelete(reading, req)
	switch {
	case err != nil:
		return s.fail(op, err)
	case s.format == "json" && dryRun:
		return writeJSON(s.out, map[string]any{"dry_run": true, "record": protoJSON(plan.GetRecord())})
	case s.format != "json" && (dryRun || !yes):
		r := cleaned(plan.GetRecord())
		fmt.Fprintf(s.out, "%s (revision: %d, bytes: %d) %s\n%s\n", r.GetKey(), r.GetRevision(), r.GetSize(), recordNote(r), clean(string(r.GetValue())))
		if dryRun {
			return nil
		}
	}
	if !yes {
		if err := s.agree(op, "Delete it?", "look with `doproxy "+op+" --dry-run`, then add --yes"); err != nil {
			return err
		}
	}
	req.ValidateOnly, req.Revision = false, plan.GetRecord().GetRevision()
	done, err := s.askDelete(changing, req)
	if err != nil && (&Failure{Err: err}).reason() == "RECORD_NOT_FOUND" { // the answer of a first try was lost
		done, err = plan, nil
	}
	switch {
	case err != nil:
		return s.fail(op, err)
	case s.format == "json":
		return writeJSON(s.out, map[string]any{"dry_run": false, "record": protoJSON(done.GetRecord())})
	}
	_, err = fmt.Fprintf(s.out, "%s %s is deleted.\n", s.style.green("Success:"), clean(done.GetRecord().GetKey()))
	return err
}

func (s *session) askDelete(e effort, req *doproxyv1.DeleteRecordRequest) (*doproxyv1.DeleteRecordResponse, error) {
	return ask(s, e, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.DeleteRecordRequest) (*doproxyv1.DeleteRecordResponse, error) {
		return doproxyv1.NewStoreServiceClient(cc).DeleteRecord(ctx, req)
	})
}

func (c *client) completeRecord(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.forCompletion(cmd, func(s *session) (words []string) {
		res, err := ask(s, reading, &doproxyv1.ListRecordsRequest{Prefix: prefix}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ListRecordsRequest) (*doproxyv1.ListRecordsResponse, error) {
			return doproxyv1.NewStoreServiceClient(cc).ListRecords(ctx, req)
		})
		if err != nil {
			return nil
		}
		for _, r := range res.GetRecords() {
			key := r.GetKey()
			if !strings.HasPrefix(prefix, "/") { // without "/doproxy/{cluster}/"
				if parts := strings.SplitN(key, "/", 4); len(parts) == 4 {
					key = parts[3]
				}
			}
			words = append(words, clean(key))
		}
		return words
	})
}
