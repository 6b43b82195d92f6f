package cli

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// failoverPoll is how often a move is looked at whose stream was lost.
const failoverPoll = 500 * time.Millisecond

func (c *client) failoverCommand() *cobra.Command {
	req := &doproxyv1.FailoverRequest{}
	var to string
	cmd := &cobra.Command{
		Use: "failover ADDRESS", GroupID: groupCluster,
		Short: "Move a reserved IP to another node",
		Long: `Move a reserved IP to another node that is fit to serve, and follow it until
DigitalOcean confirms. Ctrl-C stops following, not the move.`,
		Example: "  doproxy failover 45.55.96.47\n  doproxy failover 45.55.96.47 --to lb-2",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeAddress,
	}
	cmd.Flags().StringVar(&to, "to", "", "the node that is to hold it (default any but the present holder)")
	cmd.Flags().BoolVar(&req.NoWait, "no-wait", false, "return when the wish is on record")
	cmd.Flags().BoolVar(&req.ValidateOnly, "dry-run", false, "say where it would go and change nothing")
	_ = cmd.RegisterFlagCompletionFunc("to", c.completeNodes)
	cmd.RunE = c.run(func(s *session, args []string) error {
		address, err := netip.ParseAddr(strings.TrimPrefix(args[0], "reservedIps/"))
		if err != nil {
			f := usage("%q is not an address: want a reserved IP such as 45.55.96.47", args[0])
			f.Op, f.Mend = "failover", []string{"see the addresses with `doproxy status`"}
			return f
		}
		req.Name, req.To = "reservedIps/"+address.String(), nodeName(to)
		return s.failover(address.String(), req)
	})
	return cmd
}

func (s *session) failover(address string, req *doproxyv1.FailoverRequest) error {
	op := "failover " + address
	brief := req.GetNoWait() || req.GetValidateOnly()
	d := s.display(moving)
	d.quiet = d.quiet || brief
	var last *doproxyv1.FailoverResponse
	// Sent twice, a move to any other node could become two moves. Once it is on
	// record, it is looked at instead.
	e := effort{repeat: req.GetTo() != "" || req.GetValidateOnly(), persist: true, note: d.lost}
	err := followStream(s, e, func(ctx context.Context, cc grpc.ClientConnInterface) (receiver[*doproxyv1.FailoverResponse], error) {
		stream, err := doproxyv1.NewNodeServiceClient(cc).Failover(ctx, req)
		if err != nil {
			return nil, err
		}
		return stream.Recv, nil
	}, func(m *doproxyv1.FailoverResponse) (over bool) {
		last = m
		d.show(moveView{address: address, ip: cleaned(m.GetReservedIp())})
		return brief || m.GetDone()
	})
	if err != nil && last != nil && passing(err) && s.ctx.Err() == nil {
		last, err = s.lookAtMove(d, address, last)
	}
	d.close()
	switch {
	case err != nil && last == nil:
		f := s.fail(op, err)
		if passing(err) && s.doubt != nil {
			return withMend(f, "see with `doproxy status` whether it moved before you ask again")
		}
		return f
	case err != nil:
		return s.onRecord(op, err, "see it with `doproxy status`")
	case s.format == "json":
		return writeJSON(s.out, map[string]any{"dry_run": req.GetValidateOnly(), "failover": protoJSON(last)})
	}
	_, err = io.WriteString(s.out, failoverText(s.style, address, req, cleaned(last)))
	return err
}

// lookAtMove follows a move by the status, once its stream is lost.
func (s *session) lookAtMove(d *display, address string, last *doproxyv1.FailoverResponse) (*doproxyv1.FailoverResponse, error) {
	for {
		e := reading
		e.persist, e.note = true, d.lost
		res, err := s.askStatus(e, 1)
		if err != nil {
			return last, err
		}
		for _, ip := range res.GetReservedIps() {
			if ip.GetAddress() != address {
				continue
			}
			last = &doproxyv1.FailoverResponse{ReservedIp: ip, Done: ip.GetWant() == "" && ip.GetNode() != "" && ip.GetVerifyTime() != nil}
			d.show(moveView{address: address, ip: cleaned(ip)})
		}
		if last.GetDone() {
			return last, nil
		}
		select {
		case <-s.ctx.Done():
			return last, s.ended()
		case <-time.After(failoverPoll):
		}
	}
}

// moveView is a reserved IP on its way to another node.
type moveView struct {
	address string
	// ip has clean strings.
	ip *doproxyv1.ReservedIp
}

func (v moveView) title() string  { return v.address }
func (v moveView) reason() string { return v.ip.GetError() }

func (v moveView) plain() string { return v.address + ": " + v.standing() }

// standing says how far the move is.
func (v moveView) standing() string {
	switch {
	case v.ip.GetWant() == "*":
		return "asked away from " + dash(nodeID(v.ip.GetNode()))
	case v.ip.GetWant() != "":
		return "asked to " + nodeID(v.ip.GetWant())
	case v.ip.GetNode() == "":
		return "no node can hold it"
	case v.ip.GetVerifyTime() == nil:
		return "to " + nodeID(v.ip.GetNode()) + ", not yet confirmed by DigitalOcean"
	}
	return "on " + nodeID(v.ip.GetNode()) + ", confirmed by DigitalOcean"
}

func (v moveView) lines(st style, elapsed time.Duration, note string) []string {
	lines := []string{fmt.Sprintf("Moving %s%s", st.bold(v.address), st.dim("  "+short(elapsed))), "", "  " + v.standing()}
	if v.ip.GetError() != "" {
		lines = append(append(lines, ""), st.heldUp(v.ip.GetError())...)
	}
	return append(st.noted(lines, note), "")
}

func failoverText(st style, address string, req *doproxyv1.FailoverRequest, m *doproxyv1.FailoverResponse) string {
	holder := nodeID(m.GetReservedIp().GetNode())
	switch {
	case req.GetValidateOnly():
		target := nodeID(m.GetTarget())
		if target == "" {
			target = nodeID(req.GetTo())
		}
		if target == "" {
			target = "another node"
		}
		if holder == "" {
			return fmt.Sprintf("Would move %s to %s.\n", address, target)
		}
		return fmt.Sprintf("Would move %s from %s to %s.\n", address, holder, target)
	case req.GetNoWait() && req.GetTo() != "":
		return fmt.Sprintf("Requested: move %s to %s.\n", address, nodeID(req.GetTo()))
	case req.GetNoWait():
		return fmt.Sprintf("Requested: move %s to another node.\n", address)
	}
	return fmt.Sprintf("%s %s is on %s.\n", st.green("Success:"), address, holder)
}

// completeAddress offers the reserved IPs.
func (c *client) completeAddress(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.forCompletion(cmd, func(s *session) (words []string) {
		res, err := s.getStatus(1)
		if err != nil {
			return nil
		}
		for _, ip := range cleaned(res).GetReservedIps() {
			if strings.HasPrefix(ip.GetAddress(), prefix) {
				words = append(words, ip.GetAddress()+"\ton "+dash(nodeID(ip.GetNode())))
			}
		}
		return words
	})
}
