package dosim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// The kinds of faults.
const (
	// FaultLatency delays the call by Latency, then does it as usual. The work
	// is done even when the client has left by then.
	FaultLatency = "latency"
	// FaultError answers with Status, ErrorID and Message.
	FaultError = "error"
	// FaultHang never answers: the client times out.
	FaultHang = "hang"
	// FaultReset resets the TCP connection.
	FaultReset = "reset"
	// FaultCapacity answers 422 "Size is not available in this region." without
	// doing the work.
	FaultCapacity = "capacity"
)

// When a fault strikes.
const (
	// Before the work: nothing was done.
	Before = "before"
	// After the work: it was done, and the client does not learn of it.
	After = "after"
)

// Fault makes calls of an endpoint go wrong.
type Fault struct {
	// ID is given by the simulator.
	ID string `json:"id"`
	// Method is the calls' HTTP method; "" is any.
	Method string `json:"method"`
	// Path is the calls' path: a template as the API's reference writes it,
	// like "/v2/droplets/{droplet_id}", or a pattern in which * is one segment
	// and a last ** is any rest of at least one. "" is any.
	Path string `json:"path"`
	// Kind is one of the kinds above.
	Kind string `json:"kind"`
	// When is Before or After the work. "" is After for hang and Before for
	// error and reset; the other kinds have no choice.
	When string `json:"when"`
	// Latency is how long latency delays.
	Latency Duration `json:"latency"`
	// Status is what error answers with, 400 to 599; 0 is 500.
	Status int `json:"status"`
	// ErrorID and Message are the error's body; "" is DigitalOcean's own for the status.
	ErrorID string `json:"error_id"`
	Message string `json:"message"`
	// Count is how many calls the fault strikes before it is gone; 0 is no end.
	Count int `json:"count"`
	// Probability is that with which a matching call is struck; 0 is always.
	Probability float64 `json:"probability"`
}

// normal fills in what "" stands for, or says what is wrong.
func (f Fault) normal() (Fault, error) {
	var errs []error
	defaults := map[string]string{FaultLatency: Before, FaultError: Before, FaultHang: After, FaultReset: Before, FaultCapacity: Before}
	when, known := defaults[f.Kind]
	if !known {
		errs = append(errs, fmt.Errorf("kind is %q: give latency, error, hang, reset or capacity", f.Kind))
	}
	if f.When == "" {
		f.When = when
	}
	if f.When != Before && f.When != After {
		errs = append(errs, fmt.Errorf("when is %q: give before or after", f.When))
	}
	if f.When == After && (f.Kind == FaultLatency || f.Kind == FaultCapacity) {
		errs = append(errs, fmt.Errorf("when is \"after\": %s strikes before the work", f.Kind))
	}
	if (f.Kind == FaultLatency) != (f.Latency > 0) {
		errs = append(errs, fmt.Errorf("latency is %s: give a positive duration with kind latency, and none with others", f.Latency))
	}
	if f.Kind == FaultError && f.Status == 0 {
		f.Status = http.StatusInternalServerError
	}
	if f.Kind == FaultError && (f.Status < 400 || f.Status > 599) {
		errs = append(errs, fmt.Errorf("status is %d: give an HTTP status of 400 to 599", f.Status))
	}
	if f.Kind != FaultError && (f.Status != 0 || f.ErrorID != "" || f.Message != "") {
		errs = append(errs, errors.New("status, error_id and message go with kind error only"))
	}
	if f.Count < 0 {
		errs = append(errs, fmt.Errorf("count is %d: give 0 or more", f.Count))
	}
	if f.Probability < 0 || f.Probability > 1 {
		errs = append(errs, fmt.Errorf("probability is %v: give 0 to 1", f.Probability))
	}
	if f.Path != "" && !strings.HasPrefix(f.Path, "/") {
		errs = append(errs, fmt.Errorf("path is %q: begin it with a slash, like \"/v2/droplets\"", f.Path))
	}
	f.Method = strings.ToUpper(f.Method)
	return f, errors.Join(errs...)
}

// matches tells whether a call is one of those that the fault is about.
func (f Fault) matches(method, template, path string) bool {
	if f.Method != "" && f.Method != method {
		return false
	}
	switch {
	case f.Path == "":
		return true
	case strings.Contains(f.Path, "{"):
		return matchSegments(f.Path, template)
	default:
		return matchSegments(f.Path, path)
	}
}

func matchSegments(pattern, path string) bool {
	want, have := strings.Split(pattern, "/"), strings.Split(strings.TrimSuffix(path, "/"), "/")
	for i, w := range want {
		if i >= len(have) {
			return false
		}
		if w == "**" && i == len(want)-1 {
			return true
		}
		variable := strings.HasPrefix(w, "{") && strings.HasPrefix(have[i], "{")
		if w != "*" && w != have[i] && !variable {
			return false
		}
	}
	return len(want) == len(have)
}

// answer is what an error or capacity fault answers.
func (f Fault) answer() answer {
	if f.Kind == FaultCapacity {
		return outOfCapacity
	}
	id, message := f.ErrorID, f.Message
	known := map[int][2]string{
		401: {"Unauthorized", "Unable to authenticate you"},
		403: {"forbidden", "You do not have access for the attempted action."},
		404: {"not_found", "The resource you requested could not be found."},
		422: {"unprocessable_entity", "request payload validation failed"},
		429: {"too_many_requests", "API rate limit exceeded."},
		503: {"service_unavailable", "Service Unavailable"},
	}
	usual, ok := known[f.Status]
	if !ok {
		usual = [2]string{"server_error", "Unexpected server-side error"}
	}
	if id == "" {
		id = usual[0]
	}
	if message == "" {
		message = usual[1]
	}
	return refuse(f.Status, id, message)
}

// blow is what the faults do to one call: a delay, and at most one fault of
// another kind.
type blow struct {
	latency time.Duration
	fault   *Fault
}

// strike decides which faults hit a call and returns the faults that are left.
// chance draws a number of 0 to 1; the input is not changed.
func strike(faults []Fault, method, template, path string, chance func() float64) (blow, []Fault) {
	var b blow
	left := make([]Fault, 0, len(faults))
	for _, f := range faults {
		hit := f.matches(method, template, path) &&
			(f.Kind == FaultLatency || b.fault == nil) &&
			(f.Probability == 0 || chance() < f.Probability)
		if hit {
			if f.Kind == FaultLatency {
				b.latency += time.Duration(f.Latency)
			} else {
				struck := f
				b.fault = &struck
			}
			if f.Count == 1 {
				continue // used up
			}
			if f.Count > 1 {
				f.Count--
			}
		}
		left = append(left, f)
	}
	return b, left
}

func (b blow) is(kind, when string) bool {
	return b.fault != nil && b.fault.Kind == kind && b.fault.When == when
}

// refusal is the answer that the blow puts in the place of the right one, if any.
func (b blow) refusal(when string) (answer, bool) {
	if b.is(FaultError, when) || b.is(FaultCapacity, when) {
		return b.fault.answer(), true
	}
	return answer{}, false
}

// chance draws for Fault.Probability.
func chance() float64 { return rand.Float64() }
