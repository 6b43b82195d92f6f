package haproxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// CommandError is an answer of HAProxy that is not the one of success.
type CommandError struct {
	Command string
	Answer  string
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("haproxy: %s: answered %q", e.Command, e.Answer)
}

// Sentinels for answers that callers tell apart.
var (
	// ErrNoServer: HAProxy knows no such server (or backend).
	ErrNoServer = errors.New("no such server")
	// ErrBusy: the server still has connections and cannot be deleted yet.
	ErrBusy = errors.New("server still has connections")
)

// Is lets errors.Is tell ErrNoServer and ErrBusy.
func (e *CommandError) Is(target error) bool {
	switch target {
	case ErrNoServer:
		return strings.HasPrefix(e.Answer, "No such server") || strings.HasPrefix(e.Answer, "No such backend")
	case ErrBusy:
		return strings.Contains(e.Answer, "still has connections")
	}
	return false
}

// Runtime speaks to the admin socket over one connection that is kept open and
// is opened again when needed. It may be used by several goroutines; their
// commands take turns.
type Runtime struct {
	path    string
	turn    chan struct{} // holds one token: the right to use session
	session *session
}

// commandTimeout bounds one exchange if the context does not.
const commandTimeout = 5 * time.Second

// NewRuntime returns a client of the admin socket at path. It does not connect.
func NewRuntime(path string) *Runtime {
	r := &Runtime{path: path, turn: make(chan struct{}, 1)}
	r.turn <- struct{}{}
	return r
}

// Close ends the connection; the next command opens another.
func (r *Runtime) Close() {
	<-r.turn
	r.drop()
	r.turn <- struct{}{}
}

func (r *Runtime) drop() {
	if r.session != nil {
		r.session.close()
		r.session = nil
	}
}

// Connect makes sure of a connection and returns a channel that is closed when
// it ends.
func (r *Runtime) Connect(ctx context.Context) (<-chan struct{}, error) {
	var dead <-chan struct{}
	err := r.use(ctx, func(ctx context.Context, s *session) error {
		dead = s.dead
		return nil
	})
	return dead, err
}

// use runs f with the session, which is dropped when f fails.
func (r *Runtime) use(ctx context.Context, f func(context.Context, *session) error) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	select {
	case <-r.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { r.turn <- struct{}{} }()
	if r.session != nil {
		select {
		case <-r.session.dead:
			r.drop()
		default:
		}
	}
	if r.session == nil {
		s, err := dialSession(ctx, r.path)
		if err != nil {
			return err
		}
		r.session = s
	}
	if err := f(ctx, r.session); err != nil {
		r.drop()
		return err
	}
	return nil
}

// Do sends commands, pipelined on one connection, and returns their answers
// without the newlines around them. An error means that some may not have been
// executed. No command may hold a newline or be longer than 8 kB.
func (r *Runtime) Do(ctx context.Context, commands ...string) ([]string, error) {
	for _, c := range commands {
		if strings.ContainsAny(c, "\r\n;\x00") || len(c) > maxBatch {
			return nil, fmt.Errorf("haproxy: command %.60q has a newline or a semicolon, or is over 8 kB", c)
		}
	}
	answers := make([]string, len(commands))
	err := r.use(ctx, func(ctx context.Context, s *session) error {
		return s.exchange(ctx, commands, func(i int, answer []byte) { answers[i] = string(answer) })
	})
	return answers, err
}

// scan sends one command and gives its answer to f without copying it.
func (r *Runtime) scan(ctx context.Context, command string, f func(answer []byte) error) error {
	var ferr error
	err := r.use(ctx, func(ctx context.Context, s *session) error {
		return s.exchange(ctx, []string{command}, func(_ int, answer []byte) { ferr = f(answer) })
	})
	if err != nil {
		return err
	}
	if ferr != nil {
		return fmt.Errorf("haproxy: %s: %w", command, ferr)
	}
	return nil
}

// one sends a command whose success is an answer that begins with want (an
// empty answer if want is empty).
func (r *Runtime) one(ctx context.Context, want, command string) error {
	answers, err := r.Do(ctx, command)
	if err != nil {
		return err
	}
	return expect(command, answers[0], want)
}

func expect(command, answer, want string) error {
	if want == "" && answer == "" || want != "" && strings.HasPrefix(answer, want) {
		return nil
	}
	return &CommandError{Command: command, Answer: answer}
}

const (
	answerAdded   = "New server registered."
	answerDeleted = "Server deleted."
)

func addCommand(backend string, s Server, options string) string {
	b := make([]byte, 0, 160)
	b = append(b, "add server "...)
	b = append(b, backend...)
	b = append(b, '/')
	b = append(b, s.Name...)
	b = append(b, ' ')
	b = appendHostPort(b, &s)
	b = append(b, ' ')
	b = append(b, options...)
	return string(append(b, " weight 0"...))
}

func weightCommand(backend, server string, weight uint16) string {
	return "set server " + backend + "/" + server + " weight " + strconv.Itoa(int(weight))
}

func stateCommand(backend, server, state string) string {
	return "set server " + backend + "/" + server + " state " + state
}

// AddServer adds a server with weight 0, whatever s.Weight says, switches its
// health checks on and makes it ready. options are Backend.ServerOptions.
func (r *Runtime) AddServer(ctx context.Context, backend string, s Server, options string) error {
	path := backend + "/" + s.Name
	commands := []string{addCommand(backend, s, options), "enable health " + path, "enable server " + path}
	answers, err := r.Do(ctx, commands...)
	if err != nil {
		return err
	}
	return errors.Join(
		expect(commands[0], answers[0], answerAdded),
		expect(commands[1], answers[1], ""),
		expect(commands[2], answers[2], ""),
	)
}

// SetWeight sets a server's weight: 0 to 256.
func (r *Runtime) SetWeight(ctx context.Context, backend, server string, weight uint16) error {
	return r.one(ctx, "", weightCommand(backend, server, weight))
}

// SetState sets a server's administrative state: ready, drain or maint.
func (r *Runtime) SetState(ctx context.Context, backend, server, state string) error {
	return r.one(ctx, "", stateCommand(backend, server, state))
}

// EnableHealth switches a server's checks on.
func (r *Runtime) EnableHealth(ctx context.Context, backend, server string) error {
	return r.one(ctx, "", "enable health "+backend+"/"+server)
}

// ShutdownSessions cuts all sessions of a server, running answers included.
func (r *Runtime) ShutdownSessions(ctx context.Context, backend, server string) error {
	return r.one(ctx, "", "shutdown sessions server "+backend+"/"+server)
}

// DeleteServer puts a server into maintenance and deletes it. While it has
// connections the error is ErrBusy: it stays in maintenance, takes no new
// session, and the call is to be repeated.
func (r *Runtime) DeleteServer(ctx context.Context, backend, server string) error {
	commands := []string{stateCommand(backend, server, "maint"), "del server " + backend + "/" + server}
	answers, err := r.Do(ctx, commands...)
	if err != nil {
		return err
	}
	return errors.Join(expect(commands[0], answers[0], ""), expect(commands[1], answers[1], answerDeleted))
}

// Info is the part of "show info" that is of use here.
type Info struct {
	Version   string
	PID       int
	Uptime    time.Duration
	Idle      int // percent
	Stopping  bool
	Requests  uint64 // HTTP requests since the worker began
	CurrConns int
}

// Info asks the worker for itself.
func (r *Runtime) Info(ctx context.Context) (Info, error) {
	var info Info
	err := r.scan(ctx, "show info", func(answer []byte) error {
		info = parseInfo(answer)
		if info.PID == 0 {
			return errors.New("the answer has no Pid")
		}
		return nil
	})
	return info, err
}
