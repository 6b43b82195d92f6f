package digitalocean

import (
	"net/http"
	"testing"
	"time"
)

// The minute's limit is over in a minute, though RateLimit-Reset speaks of the
// hour's.
func TestThrottledUntil(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const soon, hour = "1800000600", "1800003600"
	for _, test := range []struct {
		name                        string
		retryAfter, remaining, when string
		want                        time.Duration
	}{
		{"the API says when", "7", "0", hour, 7 * time.Second},
		{"the minute's limit", "", "4846", hour, time.Minute},
		{"the hour's limit", "", "0", soon, 10 * time.Minute},
		{"the hour's limit, far off", "", "0", "1800099999", time.Hour},
		{"no word of it", "", "", "", time.Minute},
	} {
		h := http.Header{}
		for key, value := range map[string]string{"Retry-After": test.retryAfter, "RateLimit-Remaining": test.remaining, "RateLimit-Reset": test.when} {
			if value != "" {
				h.Set(key, value)
			}
		}
		if got := retryAfter(h, now).Sub(now); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}
