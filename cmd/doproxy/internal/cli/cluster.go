package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// reloadTime is how long reloading all nodes may take.
const reloadTime = 2 * time.Minute

func (c *client) statusCommand() *cobra.Command {
	var events int32
	var watch bool
	cmd := &cobra.Command{
		Use: "status", GroupID: groupCluster,
		Short:   "Show leader, nodes, pools and the last events",
		Example: "  doproxy status\n  doproxy status --watch\n  doproxy status -o json | jq -r .leader",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().Int32Var(&events, "events", 10, "how many of the last events")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every second until Ctrl-C")
	cmd.RunE = c.run(func(s *session, _ []string) error {
		if events < 1 {
			return usage("--events %d: want 1 or more", events)
		}
		if watch {
			return s.watchStatus(events)
		}
		res, err := s.getStatus(events)
		if err != nil {
			return s.fail("status", err)
		}
		if s.format == "json" {
			return writeJSON(s.out, json.RawMessage(protoJSON(res)))
		}
		_, err = io.WriteString(s.out, s.statusText(s.style, res))
		return err
	})
	return cmd
}

func (s *session) statusText(st style, res *doproxyv1.GetStatusResponse) string {
	if s.format == "table" {
		return statusTable(st, s.opts.Now(), res)
	}
	return statusPlain(s.opts.Now(), res)
}

func (s *session) getStatus(events int32) (*doproxyv1.GetStatusResponse, error) {
	return s.askStatus(reading, events)
}

func (s *session) askStatus(e effort, events int32) (*doproxyv1.GetStatusResponse, error) {
	return ask(s, e, &doproxyv1.GetStatusRequest{Events: events}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.GetStatusRequest) (*doproxyv1.GetStatusResponse, error) {
		return doproxyv1.NewClusterServiceClient(cc).GetStatus(ctx, req)
	})
}

// watchStatus shows the status again and again; a node that does not answer is
// shown as such, once one has.
func (s *session) watchStatus(events int32) error {
	screen := &area{w: s.out}
	for first := true; ; first = false {
		res, err := s.getStatus(events)
		if s.ctx.Err() != nil {
			return s.watchEnd("status")
		}
		if err != nil && first {
			return s.fail("status", err)
		}
		st := s.style
		if width, height, ok := s.opts.Terminal(s.out); ok {
			st.width, st.height = width, height
		}
		switch {
		case err != nil && s.format != "table":
			fmt.Fprintf(s.err, "doproxy: status: %s\n", clean((&Failure{Err: err}).Error()))
		case s.format == "json":
			err = writeJSONLine(s.out, json.RawMessage(protoJSON(res)))
		case s.format == "table" && st.live:
			text := ""
			if err != nil {
				text = st.red(clean((&Failure{Err: err}).Error())) + "\n"
			} else {
				text = s.statusText(st, res)
			}
			screen.draw(st, strings.Split(strings.TrimRight(text, "\n"), "\n"))
		default:
			_, err = io.WriteString(s.out, s.statusText(st, res)+"\n")
		}
		if err != nil && res != nil {
			return err
		}
		select {
		case <-s.ctx.Done():
			return s.watchEnd("status")
		case <-time.After(time.Second):
		}
	}
}

// watchEnd is no error when the user ended what only ends so.
func (s *session) watchEnd(op string) error {
	if err := s.ended(); !errors.Is(err, context.Canceled) {
		return s.fail(op, err)
	}
	return nil
}

func (c *client) reloadCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "reload", GroupID: groupCluster,
		Short:   "Render the configuration anew and reload HAProxy with it",
		Long:    "Render the configuration anew, check it and reload HAProxy with it, on the node\nthat is asked. A configuration that fails leaves the old one serving.",
		Example: "  doproxy reload\n  doproxy reload --all",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&all, "all", false, "on every live node")
	cmd.RunE = c.run(func(s *session, _ []string) error {
		e := effort{perCall: reloadTime}
		res, err := ask(s, e, &doproxyv1.ReloadRequest{All: all}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ReloadRequest) (*doproxyv1.ReloadResponse, error) {
			return doproxyv1.NewNodeServiceClient(cc).Reload(ctx, req)
		})
		if err != nil {
			return s.fail("reload", err)
		}
		return s.showReload(res)
	})
	return cmd
}

func (s *session) showReload(res *doproxyv1.ReloadResponse) error {
	var failed []string
	for _, r := range cleaned(res).GetResults() {
		if r.GetError() != "" {
			failed = append(failed, nodeID(r.GetNode())+": "+r.GetError())
		} else if s.format != "json" {
			fmt.Fprintf(s.out, "%s %s reloaded (%s so far).\n", s.style.green("Success:"), nodeID(r.GetNode()), countedTo(r.GetReloads(), "reload"))
		}
	}
	if s.format == "json" {
		if err := writeJSON(s.out, json.RawMessage(protoJSON(res))); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return &Failure{Op: "reload", Err: errors.New(strings.Join(failed, "; ")), Exit: ExitFailed, Mend: []string{"the old configuration still serves; see the new one with `doproxy generate`"}}
	}
	return nil
}

func countedTo(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (c *client) generateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "generate", GroupID: groupCluster,
		Short:   "Print the rendered HAProxy configuration and touch nothing",
		Example: "  doproxy generate | diff /etc/haproxy/haproxy.cfg -",
		Args:    cobra.NoArgs,
		RunE: c.run(func(s *session, _ []string) error {
			res, err := ask(s, reading, &doproxyv1.RenderRequest{}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.RenderRequest) (*doproxyv1.RenderResponse, error) {
				return doproxyv1.NewNodeServiceClient(cc).Render(ctx, req)
			})
			if err != nil {
				return s.fail("generate", err)
			}
			if s.format == "json" {
				return writeJSON(s.out, json.RawMessage(protoJSON(res)))
			}
			_, err = io.WriteString(s.out, res.GetConfig())
			return err
		}),
	}
}
