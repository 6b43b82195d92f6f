package digitalocean

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/doproxy/doproxy/cloud"
)

// transport adds the token, notes the request limit, spends from the budget, and
// keeps from an error's body what godo leaves out.
type transport struct {
	next   http.RoundTripper
	token  func() (string, error)
	seen   func(Limits)
	budget *cloud.Budget // nil: none is kept
}

// errToken: the request was not sent for want of a token.
var errToken = errors.New("reading the API token")

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := t.token()
	if token = strings.TrimSpace(token); err == nil && token == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, fmt.Errorf("%w: %w", errToken, err)
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+token)
	if t.budget != nil {
		t.budget.Spend(time.Now())
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	t.note(resp)
	if resp.StatusCode >= 300 {
		keepProblem(resp)
	}
	return resp, nil
}

// note takes in what an answer says of the request limit.
func (t *transport) note(resp *http.Response) {
	l, told := limitsOf(resp.Header)
	if told {
		t.seen(l)
	}
	if t.budget == nil {
		return
	}
	if told {
		t.budget.Told(l.Limit, l.Remaining, l.Reset)
	}
	if resp.StatusCode == http.StatusTooManyRequests {
		t.budget.Hold(retryAfter(resp.Header, time.Now()))
	}
}

func limitsOf(h http.Header) (Limits, bool) {
	limit, err1 := strconv.Atoi(h.Get("RateLimit-Limit"))
	remaining, err2 := strconv.Atoi(h.Get("RateLimit-Remaining"))
	reset, err3 := strconv.ParseInt(h.Get("RateLimit-Reset"), 10, 64)
	return Limits{Limit: limit, Remaining: remaining, Reset: time.Unix(reset, 0), At: time.Now()},
		err1 == nil && err2 == nil && err3 == nil
}

// problem is an answer's body with the error that it holds, in the API's form. A
// body of another form was not written by the API: ID is empty.
type problem struct {
	io.Reader
	ID      string `json:"id"`
	Message string `json:"message"`
}

func (*problem) Close() error { return nil }

const maxProblem = 64 << 10

func keepProblem(resp *http.Response) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	resp.Body.Close()
	p := &problem{Reader: bytes.NewReader(body)}
	if err != nil || json.Unmarshal(body, p) != nil {
		p.ID, p.Message = "", ""
	}
	resp.Body = p
}
