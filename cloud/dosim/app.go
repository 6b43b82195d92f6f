package dosim

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"
)

// maxSlow bounds what a client can ask of /slow.
const maxSlow = 30 * time.Second

// app is a droplet's application: an HTTP server on the droplet's private
// address. Its behaviour may be changed while it serves.
type app struct {
	name     atomic.Pointer[string]
	id       int
	address  netip.Addr
	requests atomic.Int64
	slow     atomic.Int64 // nanoseconds added before every answer
	status   atomic.Int64 // the status of every answer; 0 is 200

	server *http.Server
	done   chan struct{}
}

// open starts to serve. A closed app can be opened again.
func (a *app) open(port int) error {
	l, err := net.Listen("tcp4", net.JoinHostPort(a.address.String(), strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("open the application of droplet %d: %w", a.id, err)
	}
	a.server = &http.Server{
		Handler:           http.HandlerFunc(a.serve),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	a.done = make(chan struct{})
	go func(s *http.Server, done chan struct{}) {
		defer close(done)
		_ = s.Serve(l) // always ends with ErrServerClosed, by close
	}(a.server, a.done)
	return nil
}

// opened tells whether the app serves.
func (a *app) opened() bool { return a.server != nil }

// close stops to listen and cuts all connections.
func (a *app) close() {
	if a.server == nil {
		return
	}
	_ = a.server.Close()
	<-a.done
	a.server = nil
}

func (a *app) serve(w http.ResponseWriter, r *http.Request) {
	a.requests.Add(1)
	if !pause(r, time.Duration(a.slow.Load())) {
		return
	}
	name := *a.name.Load()
	h := w.Header()
	h.Set("X-Droplet-Name", name)
	h.Set("X-Droplet-Id", strconv.Itoa(a.id))
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if status := a.status.Load(); status != 0 {
		w.WriteHeader(int(status))
		fmt.Fprintf(w, "%s answers %d as it was told to\n", name, status)
		return
	}
	switch {
	case r.Method == http.MethodPost || r.Method == http.MethodPut:
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(w, "%d\n", n)
	case r.URL.Path == "/health":
		io.WriteString(w, "ok\n")
	case r.URL.Path == "/slow":
		ms, err := strconv.Atoi(r.URL.Query().Get("ms"))
		if err != nil || ms < 0 || time.Duration(ms)*time.Millisecond > maxSlow {
			http.Error(w, "ms: give milliseconds, 0 to 30000", http.StatusBadRequest)
			return
		}
		if !pause(r, time.Duration(ms)*time.Millisecond) {
			return
		}
		fmt.Fprintf(w, "Droplet: %s, slept %d ms\n", name, ms)
	default:
		fmt.Fprintf(w, "Droplet: %s\nID: %d\nIP Address: %s\n", name, a.id, a.address)
	}
}

// pause waits, and says false when the client left first.
func pause(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
