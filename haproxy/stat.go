package haproxy

import (
	"bytes"
	"context"
	"strings"
	"time"
)

// ServerHealth is what HAProxy sees of one server.
type ServerHealth struct {
	Backend, Name string
	// Checked says that at least one health check of this server has ended.
	Checked bool
	// Up says that the last check passed and HAProxy holds the server for up.
	Up bool
	// Sessions are running now, Queue wait for this server.
	Sessions, Queue int
	Weight          int
	// Rate is the sessions begun in the last second; Total since the worker
	// began. Errors counts failed connections and broken answers.
	Rate          int
	Total, Errors uint64
	// Status is HAProxy's word: UP, DRAIN, DOWN, MAINT, "UP 1/3" …; Check is
	// the last check's, such as L7OK or L4CON.
	Status, Check string
}

// Sample is what HAProxy sees of everything at one time.
type Sample struct {
	// Revision had already been applied one sample earlier, so that no sessions
	// here means no sessions after that revision took effect.
	Revision int64
	At       time.Time
	// Servers by backend/server.
	Servers map[string]ServerHealth
	// Sessions are the clients' now, RequestRate their requests in the last
	// second, Requests since the worker began.
	Sessions    int
	RequestRate int
	Requests    uint64
}

// Stat asks for the figures of all servers and frontends. Revision is 0.
func (r *Runtime) Stat(ctx context.Context) (Sample, error) {
	var s sampler
	return s.sample(ctx, r)
}

// sampler asks again and again and keeps what the samples have in common: the
// names.
type sampler struct {
	reader statReader
	names  map[string]serverName
	words  map[string]string
	key    []byte
}

type serverName struct{ key, backend, name string }

func (s *sampler) sample(ctx context.Context, r *Runtime) (Sample, error) {
	if s.names == nil {
		s.names, s.words = map[string]serverName{}, map[string]string{}
	}
	out := Sample{Servers: make(map[string]ServerHealth, len(s.names))}
	err := r.scan(ctx, "show stat -1 5 -1", func(answer []byte) error {
		out.At = time.Now()
		return s.reader.read(answer, func(row *statRow) {
			if row.frontend {
				if string(row.backend) != "doproxy_stats" {
					out.Sessions += row.sessions
					out.RequestRate += row.requestRate
					out.Requests += row.requests
				}
				return
			}
			n := s.nameOf(row)
			check := s.word(bytes.TrimPrefix(row.checkStatus, []byte("* "))) // a check is under way
			h := ServerHealth{
				Backend: n.backend, Name: n.name,
				Sessions: row.sessions, Queue: row.queue, Weight: row.weight,
				Rate: row.requestRate, Total: row.requests, Errors: row.errors,
				Status: s.word(row.status), Check: check,
			}
			h.Checked = check != "" && check != "UNK" && check != "INI"
			h.Up = passed(check) && !strings.HasPrefix(h.Status, "DOWN") && !strings.HasPrefix(h.Status, "MAINT")
			out.Servers[n.key] = h
		})
	})
	if len(s.names) > 2*len(out.Servers)+64 {
		s.names = nil // many are gone for good
	}
	return out, err
}

// passed says that a check_status is one of a passed check.
func passed(check string) bool {
	switch check {
	case "L4OK", "L6OK", "L7OK", "L7OKC":
		return true
	}
	return false
}

func (s *sampler) nameOf(row *statRow) serverName {
	s.key = append(append(append(s.key[:0], row.backend...), '/'), row.name...)
	n, ok := s.names[string(s.key)]
	if !ok {
		key := string(s.key)
		n = serverName{key: key, backend: key[:len(row.backend)], name: key[len(row.backend)+1:]}
		s.names[key] = n
	}
	return n
}

// word returns the string of b, the same one for the same bytes.
func (s *sampler) word(b []byte) string {
	if w, ok := s.words[string(b)]; ok {
		return w
	}
	if len(s.words) > 1000 {
		clear(s.words)
	}
	w := string(b)
	s.words[w] = w
	return w
}

// ServersState asks for the state of all servers: backend name to servers
// sorted by name.
func (r *Runtime) ServersState(ctx context.Context) (map[string][]ServerState, error) {
	var out map[string][]ServerState
	err := r.scan(ctx, "show servers state", func(answer []byte) (err error) {
		out, err = parseServersState(answer)
		return err
	})
	return out, err
}
