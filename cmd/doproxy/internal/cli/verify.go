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

// verifyTime is how long the leader and all nodes may take to compare.
const verifyTime = time.Minute

func (c *client) verifyCommand() *cobra.Command {
	req := &doproxyv1.VerifyRequest{}
	cmd := &cobra.Command{
		Use: "verify", GroupID: groupCluster,
		Short: "Compare inventory, DigitalOcean and every HAProxy",
		Long: `Have the leader compare the inventory with DigitalOcean, and every node with its
HAProxy, now. Each difference is shown. The exit code is 9 if there is one, or if
somebody did not answer.`,
		Example: "  doproxy verify\n  doproxy verify --repair\n  doproxy verify -o json | jq '.differences[].kind'",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&req.Repair, "repair", false, "have what differs mended now rather than when it is due")
	cmd.RunE = c.run(func(s *session, _ []string) error { return s.verify(req) })
	return cmd
}

func (s *session) verify(req *doproxyv1.VerifyRequest) error {
	e := effort{repeat: true, persist: true, perCall: verifyTime}
	res, err := ask(s, e, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.VerifyRequest) (*doproxyv1.VerifyResponse, error) {
		return doproxyv1.NewClusterServiceClient(cc).Verify(ctx, req)
	})
	if err != nil {
		return s.fail("verify", err)
	}
	switch s.format {
	case "json":
		err = writeJSON(s.out, protoJSON(res))
	case "table":
		_, err = io.WriteString(s.out, verifyTable(s.style, res))
	default:
		_, err = io.WriteString(s.out, verifyPlain(res))
	}
	if err != nil {
		return err
	}
	return verifyFailure(res, req.GetRepair())
}

// verifyFailure is nil when all answered and nothing differs.
func verifyFailure(res *doproxyv1.VerifyResponse, repair bool) error {
	n, silent := len(res.GetDifferences()), res.GetUnanswered()
	var why, mend []string
	if n > 0 {
		words := countedAs(n, "difference", "differences")
		if repair {
			words += ", being mended"
			mend = append(mend, "see with `doproxy verify` in a moment whether they are gone, and with `doproxy status` what holds the rest up")
		} else {
			mend = append(mend, "have them mended now with `doproxy verify --repair`")
		}
		why = append(why, words)
	}
	if len(silent) > 0 {
		names := make([]string, len(silent))
		for i, u := range silent {
			names[i] = nodeID(u.GetWho())
			switch {
			case names[i] == "leader":
				mend = append(mend, "the leader did not answer: see with `doproxy status` whether a node leads and what it says of DigitalOcean")
			default:
				mend = append(mend, fmt.Sprintf("%s did not answer: is its agent running (`systemctl status doproxy` there)? If it is gone for good: `doproxy node forget %s`", names[i], names[i]))
			}
		}
		why = append(why, listed(names)+" did not answer")
	}
	if len(why) == 0 {
		return nil
	}
	return &Failure{Op: "verify", Err: errors.New(strings.Join(why, "; ")), Exit: ExitDiffers, Mend: mend}
}

// compared is what a verify without differences says.
func compared(res *doproxyv1.VerifyResponse) string {
	return fmt.Sprintf("no differences: %s, %s\n", counted(res.GetDroplets(), "droplet"), counted(res.GetNodes(), "node"))
}

func verifyPlain(res *doproxyv1.VerifyResponse) string {
	res = cleaned(res)
	var b strings.Builder
	for _, d := range res.GetDifferences() {
		where := ""
		if d.GetNode() != "" {
			where = " on " + nodeID(d.GetNode())
		}
		fmt.Fprintf(&b, "%s %s%s: %s\n", d.GetKind(), dash(d.GetSubject()), where, d.GetMessage())
	}
	for _, u := range res.GetUnanswered() {
		fmt.Fprintf(&b, "unanswered %s: %s\n", nodeID(u.GetWho()), u.GetReason())
	}
	if b.Len() == 0 {
		return compared(res)
	}
	return b.String()
}

// verifyTable has a row for each difference, its message below where the line
// is too short for it.
func verifyTable(st style, res *doproxyv1.VerifyResponse) string {
	res = cleaned(res)
	if len(res.GetDifferences())+len(res.GetUnanswered()) == 0 {
		return st.green(st.sign("✓", "+")) + " " + compared(res)
	}
	var b strings.Builder
	if len(res.GetDifferences()) > 0 {
		g := &grid{st: st, head: []string{"KIND", "SUBJECT", "NODE"}}
		for _, d := range res.GetDifferences() {
			g.add(st.yellow(d.GetKind()), st.bold(dash(d.GetSubject())), dash(nodeID(d.GetNode())))
		}
		b.WriteString(st.withMessages(g, "MESSAGE", func(i int) string { return res.GetDifferences()[i].GetMessage() }))
	}
	for _, u := range res.GetUnanswered() {
		b.WriteString(st.red(wrap(fmt.Sprintf("%s %s did not answer: %s", st.sign("✗", "!"), nodeID(u.GetWho()), u.GetReason()), st.width, "  ")) + "\n")
	}
	return b.String()
}
