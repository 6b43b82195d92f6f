package dosim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// Admin is a client of a simulator's own calls, those under /_sim/. The
// simulator may run in another process.
type Admin struct {
	// URL is the simulator's, like "http://127.0.0.1:8081".
	URL string
	// Client sends the calls; nil is http.DefaultClient.
	Client *http.Client
}

// SetFault adds a fault and returns it with its ID.
func (a Admin) SetFault(ctx context.Context, f Fault) (Fault, error) {
	var out Fault
	err := a.call(ctx, http.MethodPost, "faults", f, &out)
	return out, err
}

// Faults are the faults that are set and not used up.
func (a Admin) Faults(ctx context.Context) ([]Fault, error) {
	var out struct{ Faults []Fault }
	err := a.call(ctx, http.MethodGet, "faults", nil, &out)
	return out.Faults, err
}

// ClearFault removes one fault.
func (a Admin) ClearFault(ctx context.Context, id string) error {
	return a.call(ctx, http.MethodDelete, "faults/"+id, nil, nil)
}

// ClearFaults removes all faults. Calls that hang go on hanging.
func (a Admin) ClearFaults(ctx context.Context) error {
	return a.call(ctx, http.MethodDelete, "faults", nil, nil)
}

// Calls counts what was asked of the API since the start or the last ResetCalls.
func (a Admin) Calls(ctx context.Context) (CallCounts, error) {
	var out CallCounts
	err := a.call(ctx, http.MethodGet, "calls", nil, &out)
	return out, err
}

// ResetCalls sets all counts to zero.
func (a Admin) ResetCalls(ctx context.Context) error {
	return a.call(ctx, http.MethodDelete, "calls", nil, nil)
}

// Droplets are all droplets that exist, ascending by id, whether or not lists
// of the API show them yet.
func (a Admin) Droplets(ctx context.Context) ([]DropletView, error) {
	var out struct{ Droplets []DropletView }
	err := a.call(ctx, http.MethodGet, "droplets", nil, &out)
	return out.Droplets, err
}

// Droplet is one droplet.
func (a Admin) Droplet(ctx context.Context, id int) (DropletView, error) {
	var out DropletView
	err := a.call(ctx, http.MethodGet, "droplets/"+strconv.Itoa(id), nil, &out)
	return out, err
}

// DropletChange says what to change of a droplet; nil leaves as it is.
type DropletChange struct {
	NeverBoot *bool     `json:"never_boot,omitempty"`
	NoApp     *bool     `json:"no_app,omitempty"`
	Slow      *Duration `json:"slow,omitempty"`
	Status    *int      `json:"status,omitempty"`
	Load      *Load     `json:"load,omitempty"` // replaces the whole load
}

// SetDroplet changes a droplet's behaviour or load, at once.
func (a Admin) SetDroplet(ctx context.Context, id int, c DropletChange) (DropletView, error) {
	var out DropletView
	err := a.call(ctx, http.MethodPatch, "droplets/"+strconv.Itoa(id), c, &out)
	return out, err
}

// KillApp closes a droplet's HTTP server and cuts its connections; the droplet
// stays "active".
func (a Admin) KillApp(ctx context.Context, id int) error {
	dead := true
	_, err := a.SetDroplet(ctx, id, DropletChange{NoApp: &dead})
	return err
}

// ReviveApp opens a droplet's HTTP server again.
func (a Admin) ReviveApp(ctx context.Context, id int) error {
	dead := false
	_, err := a.SetDroplet(ctx, id, DropletChange{NoApp: &dead})
	return err
}

// Host says that a droplet is a machine that really runs at a loopback address:
// from now on the droplet has it as its private and public IPv4, and the
// simulator neither runs nor closes an HTTP server for it. Deleting the droplet
// works as for others and ends no process.
func (a Admin) Host(ctx context.Context, dropletID int, address netip.Addr) error {
	return a.call(ctx, http.MethodPut, "droplets/"+strconv.Itoa(dropletID)+"/host", hostBody{address}, nil)
}

// Assigns are the assigns and unassigns of reserved IPs that took effect since
// the start or the last ResetAssigns, the oldest first; of very many, the newest
// 10,000.
func (a Admin) Assigns(ctx context.Context) ([]Assign, error) {
	var out struct{ Assigns []Assign }
	err := a.call(ctx, http.MethodGet, "assigns", nil, &out)
	return out.Assigns, err
}

// ResetAssigns empties the list of assigns.
func (a Admin) ResetAssigns(ctx context.Context) error {
	return a.call(ctx, http.MethodDelete, "assigns", nil, nil)
}

// NextCreates gives a behaviour to the next count droplets that are created,
// after those that earlier calls of NextCreates are about.
func (a Admin) NextCreates(ctx context.Context, count int, b Behaviour) error {
	return a.call(ctx, http.MethodPost, "next-creates", nextCreate{Count: count, Behaviour: b}, nil)
}

// ClearNextCreates lets the next droplets behave well.
func (a Admin) ClearNextCreates(ctx context.Context) error {
	return a.call(ctx, http.MethodDelete, "next-creates", nil, nil)
}

// call sends in as JSON, if it is not nil, and reads the answer into out, if
// that is not nil.
func (a Admin) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("simulator: encode %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(a.URL, "/")+"/_sim/"+path, body)
	if err != nil {
		return fmt.Errorf("simulator: %w", err)
	}
	client := a.Client
	if client == nil {
		client = http.DefaultClient
	}
	res, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("simulator: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("simulator: read the answer of %s %s: %w", method, path, err)
	}
	if res.StatusCode != http.StatusOK {
		var refused struct{ Error string }
		if json.Unmarshal(answer, &refused) != nil || refused.Error == "" {
			refused.Error = res.Status
		}
		return fmt.Errorf("simulator: %s %s: %w", method, path, errors.New(refused.Error))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("simulator: decode the answer of %s %s: %w", method, path, err)
	}
	return nil
}
