package dosim

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// CallCount says how often a call was made since the counts were last reset.
type CallCount struct {
	Method string `json:"method"`
	// Path is the template of the path, like "/v2/droplets/{droplet_id}".
	Path  string `json:"path"`
	Count int    `json:"count"`
	// Statuses counts the answers by status. "0" is calls that get none:
	// those that hang, and connections that were reset.
	Statuses map[string]int `json:"statuses"`
}

// CallCounts are all calls to the API under /v2/, the refused ones too.
type CallCounts struct {
	Total int         `json:"total"`
	Calls []CallCount `json:"calls"`
}

// Of returns how often method was called on a path template.
func (c CallCounts) Of(method, path string) int {
	for _, x := range c.Calls {
		if x.Method == method && x.Path == path {
			return x.Count
		}
	}
	return 0
}

type callCounts struct {
	counts map[callKey]*CallCount
}

type callKey struct{ method, path string }

func newCallCounts() *callCounts { return &callCounts{counts: map[callKey]*CallCount{}} }

func (c *callCounts) of(method, path string) *CallCount {
	k := callKey{method, path}
	if c.counts[k] == nil {
		c.counts[k] = &CallCount{Method: method, Path: path, Statuses: map[string]int{}}
	}
	return c.counts[k]
}

func (c *callCounts) arrived(method, path string) { c.of(method, path).Count++ }

func (c *callCounts) answered(method, path string, status int) {
	c.of(method, path).Statuses[strconv.Itoa(status)]++
}

func (c *callCounts) reset() { clear(c.counts) }

func (c *callCounts) list() CallCounts {
	out := CallCounts{Calls: []CallCount{}}
	for _, call := range c.counts {
		copied := *call
		copied.Statuses = maps.Clone(call.Statuses)
		out.Total += call.Count
		out.Calls = append(out.Calls, copied)
	}
	slices.SortFunc(out.Calls, func(a, b CallCount) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Method, b.Method))
	})
	return out
}
