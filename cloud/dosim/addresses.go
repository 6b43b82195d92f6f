package dosim

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// The /16 of a simulator, 127.X, is divided by its third byte: 0 holds the
// guard listener, 1 to 124 are private addresses of droplets, 128 to 251 their
// public addresses, 252 and 253 are reserved IPs, 254 and 255 are left to
// others on the same machine.
const (
	firstPrivate   = 1
	lastPrivate    = 124
	publicOffset   = 127
	firstReserved  = 252
	lastReserved   = 253
	firstAutomatic = 64
	lastAutomatic  = 127
)

// claimPrefix takes a /16 for this simulator by listening on 127.X.0.1 at the
// droplets' port for as long as it runs: of all simulators on a machine with
// the same port, one holds a given X. The caller closes the listener.
func claimPrefix(prefix string, port int) (byte, net.Listener, error) {
	if prefix != AutoPrefix {
		x, err := parsePrefix(prefix)
		if err != nil {
			return 0, nil, err
		}
		l, err := guard(x, port)
		if err != nil {
			return 0, nil, fmt.Errorf("claim the droplet prefix 127.%d, which another simulator or program may hold: %w", x, err)
		}
		return x, l, nil
	}
	var last error
	for x := firstAutomatic; x <= lastAutomatic; x++ {
		l, err := guard(byte(x), port)
		if err == nil {
			return byte(x), l, nil
		}
		last = err
	}
	return 0, nil, fmt.Errorf("claim a droplet prefix: none of 127.%d to 127.%d is free at port %d: %w", firstAutomatic, lastAutomatic, port, last)
}

func guard(x byte, port int) (net.Listener, error) {
	return net.Listen("tcp4", net.JoinHostPort(netip.AddrFrom4([4]byte{127, x, 0, 1}).String(), strconv.Itoa(port)))
}

var errNoAddress = errors.New("all addresses are in use")

// takePrivate returns the next free private address after cursor, an index
// that only grows, so that an address is not used again soon after its
// droplet is gone.
func takePrivate(x byte, cursor *int, used func(netip.Addr) bool) (netip.Addr, error) {
	return take(x, firstPrivate, lastPrivate, cursor, used)
}

func takeReserved(x byte, cursor *int, used func(netip.Addr) bool) (netip.Addr, error) {
	return take(x, firstReserved, lastReserved, cursor, used)
}

func take(x byte, first, last int, cursor *int, used func(netip.Addr) bool) (netip.Addr, error) {
	const perByte = 254 // .1 to .254
	total := (last - first + 1) * perByte
	for range total {
		i := *cursor % total
		*cursor++
		a := netip.AddrFrom4([4]byte{127, x, byte(first + i/perByte), byte(1 + i%perByte)})
		if !used(a) {
			return a, nil
		}
	}
	return netip.Addr{}, errNoAddress
}

// publicOf returns the public address that goes with a private one.
func publicOf(private netip.Addr) netip.Addr {
	b := private.As4()
	b[2] += publicOffset
	return netip.AddrFrom4(b)
}
