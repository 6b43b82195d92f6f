package dosim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// entry listens on the reserved IPv4 addresses and forwards TCP to the droplets
// that hold them, at the same port. Its methods may be called with Sim.mu held:
// nothing here takes it, and only close waits.
type entry struct {
	ports []int
	cut   bool // connections end when their address moves
	ctx   context.Context
	end   context.CancelFunc
	wg    sync.WaitGroup

	mu     sync.Mutex
	doors  map[netip.Addr]*door
	closed bool
}

// door is one address. It is guarded by entry.mu.
type door struct {
	listeners []net.Listener
	holder    holder
	flows     map[*flow]struct{}
	shut      bool
}

// holder is the droplet that an address leads to; the zero value is none.
type holder struct {
	droplet int
	address netip.Addr
}

// dialTimeout bounds how long a connection waits for its droplet to accept it.
const dialTimeout = 5 * time.Second

var errEntryClosed = errors.New("the simulator is ending")

func newEntry(ports []int, cut bool) *entry {
	ctx, end := context.WithCancel(context.Background())
	return &entry{ports: ports, cut: cut, ctx: ctx, end: end, doors: map[netip.Addr]*door{}}
}

// open listens on an address, which leads nowhere yet.
func (e *entry) open(a netip.Addr) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errEntryClosed
	}
	d := &door{flows: map[*flow]struct{}{}}
	for _, port := range e.ports {
		l, err := net.Listen("tcp4", net.JoinHostPort(a.String(), strconv.Itoa(port)))
		if err != nil {
			d.close()
			return fmt.Errorf("open the entry port %d of reserved IP %s: %w", port, a, err)
		}
		d.listeners = append(d.listeners, l)
	}
	e.doors[a] = d
	for i, l := range d.listeners {
		e.wg.Add(1)
		go e.serve(d, l, e.ports[i])
	}
	return nil
}

// shut ends an address and resets its connections.
func (e *entry) shut(a netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d := e.doors[a]; d != nil {
		d.close()
		delete(e.doors, a)
	}
}

// point leads an address to another droplet. Connections that are open stay
// with theirs, unless they are to be cut.
func (e *entry) point(a netip.Addr, to holder) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := e.doors[a]
	if d == nil {
		return
	}
	d.holder = to
	for f := range d.flows {
		if e.cut && f.droplet != to.droplet {
			f.reset()
		}
	}
}

// moved tells that a droplet has another address now.
func (e *entry) moved(droplet int, to netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.doors {
		if d.holder.droplet == droplet {
			d.holder.address = to
		}
	}
}

// gone tells that a droplet is no more: its connections are reset.
func (e *entry) gone(droplet int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.doors {
		if d.holder.droplet == droplet {
			d.holder = holder{}
		}
		for f := range d.flows {
			if f.droplet == droplet {
				f.reset()
			}
		}
	}
}

// close ends all addresses and waits for their goroutines.
func (e *entry) close() {
	e.mu.Lock()
	e.closed = true
	for a, d := range e.doors {
		d.close()
		delete(e.doors, a)
	}
	e.mu.Unlock()
	e.end()
	e.wg.Wait()
}

func (d *door) close() {
	d.shut = true
	for _, l := range d.listeners {
		_ = l.Close()
	}
	for f := range d.flows {
		f.reset()
	}
}

func (e *entry) serve(d *door, l net.Listener, port int) {
	defer e.wg.Done()
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			e.wg.Add(1)
			go func() {
				defer e.wg.Done()
				e.forward(d, c.(*net.TCPConn), port)
			}()
		case errors.Is(err, net.ErrClosed):
			return
		default: // such as too many open files
			select {
			case <-time.After(10 * time.Millisecond):
			case <-e.ctx.Done():
				return
			}
		}
	}
}

// forward serves a connection until it ends. One that leads nowhere is reset.
func (e *entry) forward(d *door, client *net.TCPConn, port int) {
	e.mu.Lock()
	to := d.holder
	e.mu.Unlock()
	f := &flow{droplet: to.droplet, client: client}
	defer f.close()
	if !to.address.IsValid() {
		f.reset()
		return
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	server, err := dialer.DialContext(e.ctx, "tcp4", netip.AddrPortFrom(to.address, uint16(port)).String())
	if err != nil {
		f.reset()
		return
	}
	f.server = server.(*net.TCPConn)
	if !e.add(d, f) {
		f.reset()
		return
	}
	f.run()
	e.mu.Lock()
	delete(d.flows, f)
	e.mu.Unlock()
}

// add takes a connection in, unless it was cut before it was established.
func (e *entry) add(d *door, f *flow) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.shut || e.cut && d.holder.droplet != f.droplet {
		return false
	}
	d.flows[f] = struct{}{}
	return true
}
