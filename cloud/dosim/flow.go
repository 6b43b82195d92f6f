package dosim

import (
	"io"
	"net"
)

// flowBuffer is what a connection holds of what its reader has not taken yet, in
// bytes and for each direction.
const flowBuffer = 32 << 10

// flow is a connection from a client to a droplet.
type flow struct {
	droplet        int
	client, server *net.TCPConn // server is nil before it is established
}

// run copies both ways until both have ended. An end is passed on as an end, so
// that a half-closed connection stays so, and a reset as a reset.
func (f *flow) run() {
	back := make(chan struct{})
	go func() {
		defer close(back)
		f.copy(f.client, f.server)
	}()
	f.copy(f.server, f.client)
	<-back
}

func (f *flow) copy(to, from *net.TCPConn) {
	// The wrappers keep io from splicing, which takes a pipe for each direction.
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, flowBuffer))
	if err != nil {
		f.reset()
		return
	}
	_ = to.CloseWrite() // fails when the other side has left, which its own copy sees
}

// reset ends both sides with a reset. It may be called at any time, and again.
func (f *flow) reset() {
	for _, c := range []*net.TCPConn{f.client, f.server} {
		if c != nil {
			_ = c.SetLinger(0) // fails when it is closed already
			_ = c.Close()
		}
	}
}

// close ends both sides after all was sent.
func (f *flow) close() {
	_ = f.client.Close()
	if f.server != nil {
		_ = f.server.Close()
	}
}
