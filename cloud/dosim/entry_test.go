package dosim_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/doproxy/doproxy/cloud/dosim"
	"github.com/doproxy/doproxy/cloud/dosim/openapitest"
)

// machine is a process of its own, as far as the simulator can tell: it echoes
// lines with its name before them, and says goodbye when its client is done.
func (w *world) machine(name, address string, port int) {
	w.t.Helper()
	l, err := net.Listen("tcp4", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		w.t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.t.Cleanup(func() { c.Close() })
			go func() {
				defer c.Close()
				lines := bufio.NewScanner(c)
				for lines.Scan() {
					fmt.Fprintf(c, "%s: %s\n", name, lines.Text())
				}
				fmt.Fprintf(c, "%s: goodbye\n", name)
			}()
		}
	}()
	w.t.Cleanup(func() { l.Close(); <-stopped })
}

// talk is a connection to an address that is closed at the end.
type talk struct {
	*net.TCPConn
	lines *bufio.Reader
}

func (w *world) dial(address string, port int) (talk, error) {
	c, err := net.DialTimeout("tcp4", net.JoinHostPort(address, strconv.Itoa(port)), 10*time.Second)
	if err != nil {
		return talk{}, err
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return talk{c.(*net.TCPConn), bufio.NewReader(c)}, nil
}

// open is a connection on which a droplet has answered.
func (w *world) open(address string, port int, who string) talk {
	w.t.Helper()
	c, err := w.dial(address, port)
	w.must(err)
	if name, err := c.say("hello"); name != who {
		w.t.Fatalf("%q answers, want %s: %v", name, who, err)
	}
	return c
}

// say sends a line and returns who answered it.
func (c talk) say(line string) (string, error) {
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	answer, err := c.lines.ReadString('\n')
	name, _, _ := strings.Cut(answer, ":")
	return name, err
}

// answers asks who is behind an address, over a connection of its own.
func (w *world) answers(address string, port int) string {
	w.t.Helper()
	c, err := w.dial(address, port)
	if err == nil {
		defer c.Close()
		var name string
		if name, err = c.say("hello"); err == nil {
			return name
		}
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		w.t.Errorf("%s:%d: %v, want a reset", address, port, err)
	}
	return "reset"
}

// entryWorld is two hosted droplets and a reserved IP that nobody holds.
func entryWorld(t *testing.T, o dosim.Options) (w *world, a, b int, ip string, port int) {
	t.Helper()
	port = freePort(t)
	o.EntryPorts = []int{port}
	w = start(t, o, openapitest.AllowRefused())
	for i, name := range []string{"lb-1", "lb-2"} {
		id := w.create(name).ID
		address := fmt.Sprintf("%s.255.%d", w.sim.DropletPrefix(), i+1)
		w.machine(name, address, port)
		w.must(w.admin.Host(t.Context(), id, netip.MustParseAddr(address)))
		a, b = b, id
	}
	r, _, err := w.api.ReservedIPs.Create(t.Context(), &godo.ReservedIPCreateRequest{Region: "nyc3"})
	w.must(err)
	return w, a, b, r.IP, port
}

func (w *world) assign(ip string, droplet int) {
	w.t.Helper()
	_, _, err := w.api.ReservedIPActions.Assign(w.t.Context(), ip, droplet)
	w.must(err)
}

func TestEntryLeadsToTheHolder(t *testing.T) {
	w, a, b, ip, port := entryWorld(t, dosim.Options{})
	if who := w.answers(ip, port); who != "reset" {
		t.Errorf("unassigned: %s answers", who)
	}
	w.assign(ip, a)
	old := w.open(ip, port, "lb-1")
	w.assign(ip, b)
	if who := w.answers(ip, port); who != "lb-2" {
		t.Errorf("after the move: %s", who)
	}
	if who, err := old.say("again"); who != "lb-1" {
		t.Errorf("a connection of before the move: %q, %v", who, err)
	}
	// Half-closed: the droplet sees the end, and its last words come through.
	w.must(old.CloseWrite())
	if rest, err := io.ReadAll(old.lines); err != nil || string(rest) != "lb-1: goodbye\n" {
		t.Errorf("%q, %v", rest, err)
	}
	_, _, err := w.api.ReservedIPActions.Unassign(t.Context(), ip)
	w.must(err)
	if who := w.answers(ip, port); who != "reset" {
		t.Errorf("unassigned: %s answers", who)
	}
	_, err = w.api.ReservedIPs.Delete(t.Context(), ip)
	w.must(err)
	if _, err := net.Dial("tcp4", net.JoinHostPort(ip, strconv.Itoa(port))); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a released address: %v", err)
	}
}

func TestEntryCutsOnMove(t *testing.T) {
	w, a, b, ip, port := entryWorld(t, dosim.Options{CutOnMove: true})
	w.assign(ip, a)
	c := w.open(ip, port, "lb-1")
	w.assign(ip, b)
	if _, err := c.lines.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection of before the move: %v, want a reset", err)
	}
	if who := w.answers(ip, port); who != "lb-2" {
		t.Errorf("after the move: %s", who)
	}
}

func TestMoveTakesItsTime(t *testing.T) {
	const delay = 500 * time.Millisecond
	w, a, b, ip, port := entryWorld(t, dosim.Options{MoveDelay: delay})
	w.assign(ip, a)
	w.await("the first assign", func() bool { return w.answers(ip, port) == "lb-1" })
	w.must(w.admin.ResetAssigns(t.Context()))
	begun := time.Now()
	w.assign(ip, b)
	if r, _, err := w.api.ReservedIPs.Get(t.Context(), ip); err != nil || r.Droplet.ID != b {
		t.Errorf("at the API: %+v, %v", r, err)
	}
	if who := w.answers(ip, port); who != "lb-1" && time.Since(begun) < delay {
		t.Errorf("%s after the assign: %s", time.Since(begun), who)
	}
	w.await("the move", func() bool { return w.answers(ip, port) == "lb-2" })
	if took := time.Since(begun); took < delay {
		t.Errorf("the move took %s", took)
	}
	assigns, err := w.admin.Assigns(t.Context())
	w.must(err)
	if len(assigns) != 1 || assigns[0].Address.String() != ip || assigns[0].Droplet != b ||
		assigns[0].Asked.Before(begun.Add(-time.Second)) || assigns[0].At.Sub(assigns[0].Asked) < delay {
		t.Errorf("assigns: %+v", assigns)
	}
}

func TestEntryOfADropletThatGoes(t *testing.T) {
	w, a, _, ip, port := entryWorld(t, dosim.Options{})
	w.assign(ip, a)
	c := w.open(ip, port, "lb-1")
	_, err := w.api.Droplets.Delete(t.Context(), a)
	w.must(err)
	w.await("the droplet to be gone", func() bool { return w.exist() == 1 })
	if _, err := c.lines.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection to it: %v, want a reset", err)
	}
	if who := w.answers(ip, port); who != "reset" {
		t.Errorf("%s answers", who)
	}
}

// An address that the simulator's own droplet holds leads to its application,
// also after a restart.
func TestEntryOfASimulatedDroplet(t *testing.T) {
	port := freePort(t)
	o := dosim.Options{StateFile: filepath.Join(t.TempDir(), "state.json"), DropletPort: port, EntryPorts: []int{port}}
	first := start(t, o)
	d := first.serving("web-1")
	r, _, err := first.api.ReservedIPs.Create(t.Context(), &godo.ReservedIPCreateRequest{DropletID: d.ID})
	first.must(err)
	if status, body, err := first.ask("GET", r.IP, "/", nil); err != nil || status != 200 || !strings.Contains(body, "web-1") {
		t.Errorf("%d %q, %v", status, body, err)
	}
	first.must(first.sim.Close())
	w := start(t, o)
	w.await("the droplet", func() bool { return w.view(d.ID).App == "serving" })
	if status, body, err := w.ask("GET", r.IP, "/", nil); err != nil || status != 200 || !strings.Contains(body, "web-1") {
		t.Errorf("after a restart: %d %q, %v", status, body, err)
	}
}

// What neither side reads must not fill the simulator's memory, nor be lost.
func TestEntryCarriesMuch(t *testing.T) {
	port := freePort(t)
	w := start(t, dosim.Options{DropletPort: port, EntryPorts: []int{port}})
	r, _, err := w.api.ReservedIPs.Create(t.Context(), &godo.ReservedIPCreateRequest{DropletID: w.serving("web-1").ID})
	w.must(err)
	const size = 16 << 20
	if status, body, err := w.ask("PUT", r.IP, "/", io.LimitReader(zeros{}, size)); err != nil || status != 200 || body != itoa(size)+"\n" {
		t.Errorf("%d %q, %v", status, body, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Open connections must not keep the simulator from ending.
func TestCloseEndsEntryConnections(t *testing.T) {
	w, a, _, ip, port := entryWorld(t, dosim.Options{})
	w.assign(ip, a)
	c := w.open(ip, port, "lb-1")
	w.must(w.sim.Close())
	if _, err := c.lines.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
	if _, err := w.dial(ip, port); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the end: %v", err)
	}
}

func TestEntryPortInUse(t *testing.T) {
	w, _, _, _, port := entryWorld(t, dosim.Options{})
	l, err := net.Listen("tcp4", net.JoinHostPort(w.sim.DropletPrefix()+".252.2", strconv.Itoa(port)))
	w.must(err)
	defer l.Close()
	_, _, err = w.api.ReservedIPs.Create(t.Context(), &godo.ReservedIPCreateRequest{Region: "nyc3"})
	refused(t, err, 500, "open the entry port")
	if list, _, err := w.api.ReservedIPs.List(t.Context(), nil); err != nil || len(list) != 1 {
		t.Errorf("%d, %v", len(list), err)
	}
}

func TestHostedDroplet(t *testing.T) {
	w := start(t, dosim.Options{}, openapitest.AllowRefused())
	ctx := t.Context()
	d, other := w.serving("lb-1"), w.serving("lb-2")
	address := w.sim.DropletPrefix() + ".255.1"
	w.must(w.admin.Host(ctx, d.ID, netip.MustParseAddr(address)))
	if v := w.view(d.ID); v.App != "hosted" || v.Address != address {
		t.Errorf("view: %+v", v)
	}
	g, _, err := w.api.Droplets.Get(ctx, d.ID)
	w.must(err)
	private, _ := g.PrivateIPv4()
	public, _ := g.PublicIPv4()
	if private != address || public != address {
		t.Errorf("private %s, public %s", private, public)
	}
	w.must(w.admin.ReviveApp(ctx, d.ID))
	for _, a := range []string{address, d.Address} {
		if _, _, err := w.ask("GET", a, "/", nil); err == nil {
			t.Errorf("the simulator answers at %s", a)
		}
	}
	for _, bad := range []string{address, "10.0.0.1", "::1", w.sim.DropletPrefix() + ".252.1"} {
		if err := w.admin.Host(ctx, other.ID, netip.MustParseAddr(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	w.must(w.admin.Host(ctx, other.ID, netip.MustParseAddr(other.Address))) // a process may have the droplet's own
	if err := w.admin.Host(ctx, 1, netip.MustParseAddr("127.0.0.9")); err == nil {
		t.Error("no droplet was taken")
	}
}
