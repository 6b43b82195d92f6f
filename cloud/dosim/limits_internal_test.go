package dosim

import (
	"net/http"
	"testing"
	"time"
)

func TestLimiterForgetsAfterItsSpan(t *testing.T) {
	l := newLimiter(4, 2)
	at := time.Unix(1_800_000_000, 0)
	step := func(after time.Duration, want bool) http.Header {
		t.Helper()
		at = at.Add(after)
		got, h := l.take(at)
		if got != want {
			t.Fatalf("at %s allowed is %v", at, got)
		}
		return h
	}
	step(0, true)
	step(10*time.Second, true)
	if h := step(0, false); h.Get("retry-after") != "50" || h.Get("ratelimit-limit") != "4" || h.Get("ratelimit-remaining") != "2" {
		t.Errorf("refused for the minute: %v", h)
	}
	step(50*time.Second, true) // the first is a minute old
	step(10*time.Second, true)
	if h := step(time.Minute, false); h.Get("ratelimit-remaining") != "0" || h.Get("ratelimit-reset") != "1800003600" {
		t.Errorf("refused for the hour: %v", h)
	}
	step(58*time.Minute, true)
}

func TestLimiterWithoutLimits(t *testing.T) {
	l := newLimiter(0, 0)
	for range 1000 {
		if ok, h := l.take(time.Unix(1, 0)); !ok || len(h) != 0 {
			t.Fatal(ok, h)
		}
	}
}
