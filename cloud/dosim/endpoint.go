package dosim

import (
	"crypto/subtle"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// handle is what an API call does; it is called with Sim.mu held.
type handle func(r *request) answer

// endpoint makes an API call of a handle: it counts the call, lets the faults
// that are set have their way, and checks the token and the rate limit.
func (s *Sim) endpoint(method, template string, h handle) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(r)
		b := s.arrived(method, template, r.URL.Path)
		if err != nil {
			s.write(w, method, template, badRequest(err.Error()), nil)
			return
		}
		s.wait(b.latency)
		if s.lose(w, r, method, template, b, Before) {
			return
		}
		a, limits := s.work(&request{http: r, body: body}, h, b)
		if s.lose(w, r, method, template, b, After) {
			return
		}
		s.write(w, method, template, a, limits)
	}
}

// arrived counts a call and decides which faults hit it.
func (s *Sim) arrived(method, template, path string) blow {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls.arrived(method, template)
	if len(s.state.Faults) == 0 {
		return blow{}
	}
	b, left := strike(s.state.Faults, method, template, path, chance)
	if len(left) != len(s.state.Faults) || b.fault != nil {
		s.changed()
	}
	s.state.Faults = left
	return b
}

func (s *Sim) answered(method, template string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls.answered(method, template, status)
}

// wait delays a call, whether or not its client is still there.
func (s *Sim) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
}

// lose hangs or resets a call if that is its fault, and tells that it did.
func (s *Sim) lose(w http.ResponseWriter, r *http.Request, method, template string, b blow, when string) bool {
	switch {
	case b.is(FaultHang, when):
		s.answered(method, template, 0)
		select {
		case <-r.Context().Done():
		case <-s.ctx.Done():
		}
	case b.is(FaultReset, when):
		s.answered(method, template, 0)
	default:
		return false
	}
	reset(w)
	return true
}

// reset ends the connection with a TCP reset, or as abruptly as the server can.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, isTCP := conn.(*net.TCPConn); isTCP {
		_ = tcp.SetLinger(0) // a plain close is the next best
	}
	_ = conn.Close()
}

// work does the call and turns the answer's body into JSON while the state
// cannot change.
func (s *Sim) work(r *request, h handle, b blow) (answer, http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.now = time.Now()
	if !s.authorized(r.http) {
		return unauthorized, nil
	}
	allowed, limits := s.limiter.take(r.now)
	if !allowed {
		return tooManyRequests, limits
	}
	if a, refused := b.refusal(Before); refused {
		return a, limits
	}
	a := h(r)
	if r.http.Method != http.MethodGet && a.status < 300 {
		s.changed()
	}
	if a, refused := b.refusal(After); refused {
		return a, limits
	}
	if _, isError := a.body.(errorBody); a.body != nil && !isError {
		encoded, err := json.Marshal(a.body)
		if err != nil {
			s.log.Error("answer not encoded", "path", r.http.URL.Path, "error", err)
			return refuse(http.StatusInternalServerError, "server_error", "Unexpected server-side error"), limits
		}
		a.body = json.RawMessage(encoded)
	}
	return a, limits
}

func (s *Sim) authorized(r *http.Request) bool {
	token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return found && subtle.ConstantTimeCompare([]byte(token), []byte(s.options.Token)) == 1
}

// write sends an answer as DigitalOcean sends it. An answer's body is an
// errorBody, JSON that is ready, or nothing.
func (s *Sim) write(w http.ResponseWriter, method, template string, a answer, limits http.Header) {
	s.answered(method, template, a.status)
	h := w.Header()
	for k, v := range limits {
		h[k] = v
	}
	id := newUUID()
	h.Set("x-request-id", id)
	h.Set("content-type", "application/json; charset=utf-8")
	var body []byte
	switch b := a.body.(type) {
	case errorBody:
		b.RequestID = id
		body, _ = json.Marshal(b) // three strings
	case json.RawMessage:
		body = b
	default:
		w.WriteHeader(a.status)
		return
	}
	h.Set("content-length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // a client that left needs no answer
}
