package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// answerTime is how long one call to one server may take to answer.
	answerTime = 10 * time.Second
	// lostPatience is how long contact that was lost is sought again.
	lostPatience = 30 * time.Second
	// refusedPatience is how long a request that every server refuses for now
	// is repeated: an election of the store's leader takes less.
	refusedPatience = 5 * time.Second
)

var errTimeout = errors.New("--timeout is over")

// session is one run of one command.
type session struct {
	*client
	ctx      context.Context
	in       io.Reader
	out, err io.Writer
	format   string // table, plain or json
	style    style  // of out
	errStyle style  // of err
	servers  []*server
	turn     int // the server asked now
	// doubt is the last failed attempt of the last try that may have been put on
	// record all the same; nil when it is certain that nothing was.
	doubt error
}

// run makes a command's RunE: it opens a session and closes it. Formats beside
// table, plain and json are those that this command alone knows.
func (c *client) run(f func(s *session, args []string) error, formats ...string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s, err := c.open(cmd, formats...)
		if err != nil {
			return err
		}
		defer s.close()
		ctx, cancel := s.ctx, context.CancelFunc(func() {})
		if c.flags.timeout > 0 {
			ctx, cancel = context.WithTimeoutCause(ctx, c.flags.timeout, errTimeout)
		}
		defer cancel()
		s.ctx = ctx
		return f(s, args)
	}
}

func (c *client) open(cmd *cobra.Command, formats ...string) (*session, error) {
	s := &session{client: c, ctx: cmd.Context(), in: cmd.InOrStdin(), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr()}
	s.style, s.errStyle = c.styleOf(s.out), c.styleOf(s.err)
	switch s.format = c.flags.output; s.format {
	case "":
		s.format = "plain"
		if s.style.terminal {
			s.format = "table"
		}
	default:
		if err := checkFormat(s.format, formats...); err != nil {
			return nil, err
		}
	}
	if c.flags.timeout < 0 {
		return nil, usage("--timeout %v is negative", c.flags.timeout)
	}
	targets, err := parseTargets(c.serverList())
	if err != nil {
		return nil, err
	}
	secure, err := c.flags.tlsConfig()
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		srv, err := newServer(t, secure)
		if err != nil {
			s.close()
			return nil, &Failure{Err: err}
		}
		s.servers = append(s.servers, srv)
	}
	return s, nil
}

// checkFormat refuses a value of -o that is none of table, plain and json, nor
// of those that this command alone knows.
func checkFormat(format string, more ...string) error {
	if known := append([]string{"table", "plain", "json"}, more...); !contains(known, format) {
		return usage("-o %q: want %s", format, strings.Join(known, ", "))
	}
	return nil
}

func (c *client) serverList() string {
	if c.flags.server != "" {
		return c.flags.server
	}
	if env := c.opts.Getenv("DOPROXY_SERVER"); env != "" {
		return env
	}
	return DefaultServer
}

func (s *session) close() {
	for _, srv := range s.servers {
		_ = srv.conn.Close()
	}
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}

// effort says how hard to try.
type effort struct {
	// repeat: the request may arrive twice, because it changes nothing or
	// because its request id makes it count once.
	repeat bool
	// persist: keep trying for a while when a server was reached and then lost,
	// or refuses for now. Otherwise each server is asked once.
	persist bool
	// forever: once there was contact, never give up.
	forever bool
	// perCall bounds one attempt; zero is no bound, for streams.
	perCall time.Duration
	// note is told why another attempt is made; may be nil.
	note func(err error, left time.Duration)
}

var (
	reading  = effort{repeat: true, perCall: answerTime}
	changing = effort{repeat: true, persist: true, perCall: answerTime}
)

// attempt is one try at a call. It reports contact when it has an answer that
// proves the request to be on record, which starts the patience anew.
type attempt func(ctx context.Context, cc grpc.ClientConnInterface, contact func()) error

// try makes a call at one server after the other as far as e goes. Its errors
// are gRPC statuses, or the context's.
func (s *session) try(e effort, call attempt) error {
	s.doubt = nil
	since, contacted, lost := s.opts.Now(), false, false
	wait := 100 * time.Millisecond
	contact := func() { since, contacted, wait = s.opts.Now(), true, 100*time.Millisecond }
	for {
		var err error
		for range s.servers {
			var sent, answered bool
			err, sent, answered = s.once(e, call, contact)
			if err == nil {
				return nil
			}
			if sent && !changedNothing(err) {
				s.doubt = err
			}
			if s.ctx.Err() != nil {
				return s.ended()
			}
			if !passing(err) || sent && !e.repeat {
				return err
			}
			lost = lost || sent && !answered
			s.turn = (s.turn + 1) % len(s.servers)
			if !contacted && !sent {
				continue // nobody there: ask the next
			}
			if e.persist && !answered {
				break // take a breath before the next
			}
		}
		patience := refusedPatience
		if lost || contacted {
			patience = lostPatience
		}
		if s.flags.timeout > 0 {
			patience = s.flags.timeout
		}
		left := since.Add(patience).Sub(s.opts.Now())
		var nobody *unreachable
		switch {
		case e.forever && contacted:
		case !e.persist, left <= 0:
			return err
		case errors.As(err, &nobody) && !lost && !contacted:
			return err
		}
		if e.note != nil {
			e.note(err, left)
		}
		select {
		case <-s.ctx.Done():
			return s.ended()
		case <-time.After(wait):
		}
		wait = min(2*wait, 2*time.Second)
	}
}

func (s *session) once(e effort, call attempt, contact func()) (err error, sent, answered bool) {
	trace := &callTrace{}
	ctx := context.WithValue(s.ctx, traceKey{}, trace)
	cancel := context.CancelFunc(func() {})
	if e.perCall > 0 {
		ctx, cancel = context.WithTimeout(ctx, e.perCall)
	}
	defer cancel()
	srv := s.servers[s.turn]
	err = call(ctx, srv.conn, contact)
	sent, answered = trace.state()
	switch {
	case err == nil:
	case ctx.Err() != nil && s.ctx.Err() == nil:
		err = status.Errorf(codes.DeadlineExceeded, "no answer from %s within %v", srv, e.perCall)
	default:
		err = srv.explain(err, sent)
	}
	return err, sent, answered
}

// ended says why the session's context has ended.
func (s *session) ended() error {
	if errors.Is(context.Cause(s.ctx), errTimeout) {
		return status.Errorf(codes.DeadlineExceeded, "no end within --timeout %v", s.flags.timeout)
	}
	return s.ctx.Err()
}

// errEnded says that a server ended a stream before its work was done.
var errEnded = status.Error(codes.Unavailable, "the server ended the call early")

// passing tells whether another server, or the same one later, may do better.
func passing(err error) bool {
	var nobody *unreachable
	if errors.As(err, &nobody) {
		return true
	}
	switch s := status.Convert(err); s.Code() {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return true
	case codes.Internal:
		return strings.Contains(s.Message(), "RST_STREAM")
	}
	return false
}

// changedNothing tells whether a server said so.
func changedNothing(err error) bool {
	switch (&Failure{Err: err}).reason() {
	case "STORE_UNAVAILABLE", "NODE_BEHIND", "INVENTORY_NOT_READY", "CONTENDED":
		return true
	}
	return false
}

// fail makes err the failure of op, with advice where the cause is known here.
func (s *session) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	var f *Failure
	if errors.As(err, &f) {
		return err
	}
	f = &Failure{Op: op, Err: err}
	var nobody *unreachable
	if errors.As(err, &nobody) {
		f.Mend = nobody.advice()
		if errors.Is(nobody.cause, os.ErrPermission) {
			f.Exit = ExitDenied
		}
		if len(s.servers) > 1 {
			f.Err = &wrapped{fmt.Sprintf("none of %d servers answers, the last: ", len(s.servers)), err}
		}
	}
	if errors.Is(err, context.Canceled) {
		f.Err, f.Exit = errors.New("interrupted"), ExitInterrupted
	}
	return f
}

// wrapped puts words before an error.
type wrapped struct {
	words string
	err   error
}

func (w *wrapped) Error() string { return w.words + w.err.Error() }
func (w *wrapped) Unwrap() error { return w.err }

// ask makes a call with one answer.
func ask[Req, Res any](s *session, e effort, req *Req, method func(context.Context, grpc.ClientConnInterface, *Req) (*Res, error)) (*Res, error) {
	var res *Res
	err := s.try(e, func(ctx context.Context, cc grpc.ClientConnInterface, _ func()) (err error) {
		res, err = method(ctx, cc, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}
