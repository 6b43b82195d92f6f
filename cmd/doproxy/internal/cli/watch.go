package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func (c *client) watchCommand() *cobra.Command {
	var onlyNew bool
	cmd := &cobra.Command{
		Use: "watch", GroupID: groupCluster,
		Short:   "Follow events until Ctrl-C",
		Long:    "Show what is held up now, the events kept and then each new one, until Ctrl-C. A\nconnection that is lost is made again; no event is shown twice.",
		Example: "  doproxy watch\n  doproxy watch --new -o json | jq -r .type",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&onlyNew, "new", false, "leave out the events kept")
	cmd.RunE = c.run(func(s *session, _ []string) error { return s.watch(onlyNew) })
	return cmd
}

func (s *session) watch(onlyNew bool) error {
	shown := newRecent(10_000)
	if onlyNew {
		// Those that are kept now count as shown, so that a new connection can
		// ask for all that were missed.
		if err := s.skipKept(shown); err != nil {
			return s.fail("watch", err)
		}
	}
	s.showStanding()
	noted := false
	e := effort{repeat: true, persist: true, forever: true, note: func(err error, _ time.Duration) {
		if !noted {
			fmt.Fprintf(s.err, "doproxy: watch: %s; trying again\n", clean((&Failure{Err: err}).Error()))
		}
		noted = true
	}}
	var broken error // of our own output
	err := s.try(e, func(ctx context.Context, cc grpc.ClientConnInterface, contact func()) error {
		stream, err := doproxyv1.NewClusterServiceClient(cc).WatchEvents(ctx, &doproxyv1.WatchEventsRequest{})
		if err != nil {
			return err
		}
		if _, err := stream.Header(); err == nil {
			contact()
		}
		for {
			res, err := stream.Recv()
			if err != nil {
				return endOfStream(err)
			}
			contact()
			noted = false
			for _, event := range res.GetEvents() {
				if !shown.add(event.GetId()) {
					continue
				}
				if broken = s.showEvent(event); broken != nil {
					return nil
				}
			}
		}
	})
	switch {
	case broken != nil:
		return broken
	case s.ctx.Err() != nil:
		return s.watchEnd("watch")
	default:
		return s.fail("watch", err)
	}
}

func (s *session) showEvent(e *doproxyv1.Event) error {
	if s.format == "json" {
		return writeJSONLine(s.out, json.RawMessage(protoJSON(e)))
	}
	line := eventPlain(e)
	if s.format == "table" {
		line = eventLine(s.style, e)
	}
	_, err := io.WriteString(s.out, line+"\n")
	return err
}

func (s *session) skipKept(shown *recent) error {
	req := &doproxyv1.ListEventsRequest{}
	for {
		page, err := ask(s, reading, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ListEventsRequest) (*doproxyv1.ListEventsResponse, error) {
			return doproxyv1.NewClusterServiceClient(cc).ListEvents(ctx, req)
		})
		if err != nil {
			return err
		}
		for _, e := range page.GetEvents() {
			shown.add(e.GetId())
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return nil
		}
	}
}

// recent remembers the last ids, so many.
type recent struct {
	ids  map[string]bool
	ring []string
	next int
}

func newRecent(n int) *recent { return &recent{ids: map[string]bool{}, ring: make([]string, n)} }

// add is false when id was there.
func (r *recent) add(id string) bool {
	if r.ids[id] {
		return false
	}
	delete(r.ids, r.ring[r.next])
	r.ids[id], r.ring[r.next] = true, id
	r.next = (r.next + 1) % len(r.ring)
	return true
}

// showStanding tells above the events what holds work up now: events tell of
// when it began only. A node that does not answer is told of by the watch.
func (s *session) showStanding() {
	if s.format == "json" {
		return
	}
	res, err := s.getStatus(1)
	if err != nil {
		return
	}
	if s.format == "table" {
		if text := standingText(s.style, s.opts.Now(), res); text != "" {
			_, _ = io.WriteString(s.out, text+"\n")
		}
		return
	}
	for line := range strings.Lines(standingText(style{}, s.opts.Now(), res)) {
		fmt.Fprintf(s.err, "doproxy: warning: %s\n", strings.TrimSpace(strings.TrimLeft(line, "✗▲! ")))
	}
}
