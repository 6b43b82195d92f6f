package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// Import takes droplets that were made elsewhere into a pool, which may be
// empty while there is one only, and shows what came of it. cmd is a command
// below a root that Add has set up: its flags say which node to ask and how to
// show the answer.
func Import(cmd *cobra.Command, opts Options, pool string, ids []int64, dryRun bool) error {
	opts.setDefaults()
	c := &client{opts: opts, flags: flagsOf(cmd)}
	return c.run(func(s *session, _ []string) error {
		req := &doproxyv1.ImportDropletsRequest{Parent: poolName(pool), Ids: ids, ValidateOnly: dryRun}
		// Those in the inventory already are left alone: it may be sent twice.
		e := effort{repeat: true, persist: true, perCall: 6 * answerTime}
		res, err := ask(s, e, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ImportDropletsRequest) (*doproxyv1.ImportDropletsResponse, error) {
			return doproxyv1.NewDropletServiceClient(cc).ImportDroplets(ctx, req)
		})
		if err != nil {
			return s.fail("import", err)
		}
		if s.format == "json" {
			return writeJSON(s.out, json.RawMessage(protoJSON(res)))
		}
		verb := "imported into"
		if dryRun {
			verb = "would be imported into"
		}
		for _, id := range res.GetImporting() {
			fmt.Fprintf(s.out, "%d %s %s.\n", id, verb, poolID(clean(res.GetPool().GetName())))
		}
		if known := len(ids) - len(res.GetImporting()); known > 0 {
			fmt.Fprintf(s.out, "%d in the inventory already.\n", known)
		}
		return nil
	})(cmd, nil)
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
