package dosim

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

// What Options' zero values stand for.
const (
	DefaultToken        = "sim-token"
	DefaultDropletPort  = 8080
	DefaultDropletLimit = 10000
	// AutoPrefix lets the simulator choose a free /16 of 127.0.0.0/8.
	AutoPrefix = "auto"
)

// Options says how a simulator behaves. The zero value is usable: everything
// happens at once, nothing is limited and nothing is kept.
type Options struct {
	// Token is the bearer token that API calls must carry; "" is DefaultToken.
	Token string

	// BootDelay is how long a created droplet stays "new".
	BootDelay time.Duration
	// AppDelay is how long after "active" the droplet's HTTP server answers.
	AppDelay time.Duration
	// DeleteDelay is how long a deleted droplet still exists and answers.
	DeleteDelay time.Duration
	// ActionDelay is how long droplet and reserved IP actions stay "in-progress".
	ActionDelay time.Duration
	// ListLag is how long a created droplet is missing from lists. Getting it
	// by id works at once.
	ListLag time.Duration

	// DropletPort is the TCP port of every droplet's HTTP server; 0 is DefaultDropletPort.
	DropletPort int
	// DropletPrefix is the /16 that droplets get their addresses from, written
	// "127.100"; "" and "auto" choose a free one of 127.64 to 127.127.
	DropletPrefix string
	// EntryPorts are the TCP ports at which every reserved IPv4 address listens
	// and forwards to the droplet that holds it, to its private address and the
	// same port. Without any, nothing listens on reserved IPs.
	EntryPorts []int
	// MoveDelay is how long after an assign connections still go to the droplet
	// that held the address before.
	MoveDelay time.Duration
	// CutOnMove resets the connections that are open when their address moves;
	// else they stay with their droplet.
	CutOnMove bool

	// DropletLimit is how many droplets the account may have; 0 is DefaultDropletLimit.
	DropletLimit int

	// RateLimitHour and RateLimitMinute are how many calls are answered in any
	// hour and any minute; 0 is no limit.
	RateLimitHour   int
	RateLimitMinute int

	// StateFile keeps the state over restarts; "" keeps nothing. The file is
	// written shortly after a change, and by Close.
	StateFile string

	// Logger gets what happens to droplets; nil discards it.
	Logger *slog.Logger
}

// Validate reports every field that New would refuse.
func (o Options) Validate() error {
	var errs []error
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"BootDelay", o.BootDelay}, {"AppDelay", o.AppDelay}, {"DeleteDelay", o.DeleteDelay},
		{"ActionDelay", o.ActionDelay}, {"ListLag", o.ListLag},
		{"MoveDelay", o.MoveDelay},
	} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s is %s: give a duration of 0 or more", d.name, d.value))
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"DropletLimit", o.DropletLimit}, {"RateLimitHour", o.RateLimitHour}, {"RateLimitMinute", o.RateLimitMinute},
	} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("%s is %d: give 0 or more", n.name, n.value))
		}
	}
	if o.DropletPort < 0 || o.DropletPort > 65535 {
		errs = append(errs, fmt.Errorf("DropletPort is %d: give a TCP port, 1 to 65535", o.DropletPort))
	}
	for i, port := range o.EntryPorts {
		if port < 1 || port > 65535 {
			errs = append(errs, fmt.Errorf("EntryPorts has %d: give a TCP port, 1 to 65535", port))
		} else if slices.Contains(o.EntryPorts[:i], port) {
			errs = append(errs, fmt.Errorf("EntryPorts has %d twice: give it once", port))
		}
	}
	if o.DropletPrefix != "" && o.DropletPrefix != AutoPrefix {
		if _, err := parsePrefix(o.DropletPrefix); err != nil {
			errs = append(errs, fmt.Errorf("DropletPrefix: %w", err))
		}
	}
	return errors.Join(errs...)
}

// withDefaults fills in what the zero values stand for.
func (o Options) withDefaults() Options {
	if o.Token == "" {
		o.Token = DefaultToken
	}
	if o.DropletPort == 0 {
		o.DropletPort = DefaultDropletPort
	}
	if o.DropletPrefix == "" {
		o.DropletPrefix = AutoPrefix
	}
	if o.DropletLimit == 0 {
		o.DropletLimit = DefaultDropletLimit
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// parsePrefix reads "127.X" and returns X.
func parsePrefix(s string) (byte, error) {
	a, err := netip.ParseAddr(s + ".0.0")
	if err != nil || !a.Is4() || a.As4()[0] != 127 || a.As4()[1] == 0 {
		return 0, fmt.Errorf("%q is not a /16 of 127.0.0.0/8: write it like \"127.100\" (127.0 is the host's own), or \"auto\"", s)
	}
	return a.As4()[1], nil
}
