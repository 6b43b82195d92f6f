package dosim

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Behaviour is how a droplet misbehaves; the zero value behaves well.
type Behaviour struct {
	// NeverBoot keeps the droplet "new" for ever.
	NeverBoot bool `json:"never_boot"`
	// NoApp closes the droplet's HTTP server, or never opens it: connections
	// are refused while the droplet stays "active".
	NoApp bool `json:"no_app"`
	// Slow is added before every answer of the droplet's HTTP server.
	Slow Duration `json:"slow"`
	// Status is what the droplet's HTTP server answers every request with,
	// health checks too; 0 is its usual answers.
	Status int `json:"status"`
}

func (b Behaviour) validate() error {
	if b.Slow < 0 {
		return fmt.Errorf("slow is %s: give a duration of 0 or more", b.Slow)
	}
	if b.Status != 0 && (b.Status < 200 || b.Status > 599) {
		return fmt.Errorf("status is %d: give an HTTP status of 200 to 599, or 0", b.Status)
	}
	return nil
}

// Load is what a droplet's metrics report. Nil fields are made up, plausibly
// and the same for the same droplet and time.
type Load struct {
	// CPU is the used part of all the droplet's processors, in percent.
	CPU *float64 `json:"cpu,omitempty"`
	// Load1, Load5 and Load15 are load averages.
	Load1  *float64 `json:"load_1,omitempty"`
	Load5  *float64 `json:"load_5,omitempty"`
	Load15 *float64 `json:"load_15,omitempty"`
	// Memory and Disk are the used parts, in percent.
	Memory *float64 `json:"memory,omitempty"`
	Disk   *float64 `json:"disk,omitempty"`
	// BandwidthIn and BandwidthOut are Mbit/s, public and private each.
	BandwidthIn  *float64 `json:"bandwidth_in,omitempty"`
	BandwidthOut *float64 `json:"bandwidth_out,omitempty"`
	// Missing answers with no series at all, as for a droplet without the
	// metrics agent.
	Missing bool `json:"missing,omitempty"`
}

func (l Load) validate() error {
	var errs []error
	for _, f := range []struct {
		name    string
		value   *float64
		percent bool
	}{
		{"cpu", l.CPU, true}, {"memory", l.Memory, true}, {"disk", l.Disk, true},
		{"load_1", l.Load1, false}, {"load_5", l.Load5, false}, {"load_15", l.Load15, false},
		{"bandwidth_in", l.BandwidthIn, false}, {"bandwidth_out", l.BandwidthOut, false},
	} {
		switch {
		case f.value == nil:
		case *f.value < 0:
			errs = append(errs, fmt.Errorf("load.%s is %v: give 0 or more", f.name, *f.value))
		case f.percent && *f.value > 100:
			errs = append(errs, fmt.Errorf("load.%s is %v: give a percentage, 0 to 100", f.name, *f.value))
		}
	}
	return errors.Join(errs...)
}

// Duration is a time.Duration that is written like "1.5s" in JSON.
type Duration time.Duration

// String is the duration as Go writes it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the duration as a string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads a string like "250ms".
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is not a duration: write it like \"250ms\"", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration: write it like \"250ms\"", s)
	}
	*d = Duration(v)
	return nil
}
