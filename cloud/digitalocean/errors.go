package digitalocean

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/digitalocean/godo"

	"github.com/doproxy/doproxy/cloud"
)

// translate turns godo's error into one of cloud's, wrapped with what failed.
// With byID the request named one thing, and a 404 says that it is gone.
func translate(err error, byID bool, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), meaning(err, byID))
}

func meaning(err error, byID bool) error {
	var answer *godo.ErrorResponse
	if !errors.As(err, &answer) || answer.Response == nil {
		return unanswered(err)
	}
	status := answer.Response.StatusCode
	p, _ := answer.Response.Body.(*problem)
	if p == nil {
		p = &problem{}
	}
	switch {
	case status == http.StatusTooManyRequests:
		return &cloud.Throttled{Until: retryAfter(answer.Response.Header, time.Now())}
	case p.ID == "", status < 400, status == http.StatusRequestTimeout, status >= 500:
		// Also what a proxy on the way answered: a page of its own with status
		// 404 must not pass for the API's word that something is gone.
		text := p.Message
		if text == "" {
			text = http.StatusText(status)
		}
		return fmt.Errorf("%w: status %d: %s", cloud.ErrAmbiguous, status, text)
	case status == http.StatusNotFound && byID:
		return cloud.ErrNotFound
	}
	return &cloud.Refused{Status: status, ID: p.ID, Message: p.Message}
}

// unlessBusy makes ErrAmbiguous of a refusal that is only for now: an action on
// the address or the droplet is under way, and how it ends is not known yet.
// The API has no id of its own for it, only words: "The reserved IP already has
// a pending event.", "Droplet already has a pending event."
func unlessBusy(err error) error {
	var refused *cloud.Refused
	if errors.As(err, &refused) && refused.Status == http.StatusUnprocessableEntity &&
		strings.Contains(strings.ToLower(refused.Message), "pending event") {
		return fmt.Errorf("%w: try again: %s (status %d)", cloud.ErrAmbiguous, refused.Message, refused.Status)
	}
	return err
}

// unanswered is an error without an answer. It is certain that nothing was done
// only where no connection came about.
func unanswered(err error) error {
	var op *net.OpError
	switch {
	case errors.Is(err, errToken):
		return &cloud.Refused{ID: "no_token", Message: err.Error()}
	case errors.As(err, &op) && op.Op == "dial":
		return &cloud.Refused{ID: "unreachable", Message: "cannot reach the API: " + op.Error()}
	}
	return fmt.Errorf("%w: %w", cloud.ErrAmbiguous, err)
}

// retryAfter is when a throttled caller may come again: as Retry-After says, else
// RateLimit-Reset if none of the hour's requests remains, else in a minute; at
// most an hour from now.
func retryAfter(h http.Header, now time.Time) time.Time {
	until := now.Add(time.Minute)
	if s, err := strconv.Atoi(h.Get("Retry-After")); err == nil && s >= 0 {
		until = now.Add(time.Duration(s) * time.Second)
	} else if left, err := strconv.Atoi(h.Get("RateLimit-Remaining")); err == nil && left > 0 {
		// The hour's requests are not used up, so it was the minute's limit.
	} else if unix, err := strconv.ParseInt(h.Get("RateLimit-Reset"), 10, 64); err == nil {
		until = time.Unix(unix, 0)
	}
	if most := now.Add(time.Hour); until.After(most) {
		until = most
	}
	return until
}
