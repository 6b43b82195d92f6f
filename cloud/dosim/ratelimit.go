package dosim

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// limiter keeps DigitalOcean's two rate limits. A call counts for an hour, or a
// minute, from when it was answered; refused calls do not count.
type limiter struct {
	hour, minute window
}

func newLimiter(hour, minute int) *limiter {
	return &limiter{hour: window{limit: hour, span: time.Hour}, minute: window{limit: minute, span: time.Minute}}
}

// take counts a call if it is allowed, and returns the headers that tell the
// client where it stands; none when nothing is limited. The headers are about
// the hour, as at DigitalOcean, unless only minutes are limited.
func (l *limiter) take(now time.Time) (bool, http.Header) {
	l.hour.expire(now)
	l.minute.expire(now)
	h := http.Header{}
	allowed := true
	for _, w := range []*window{&l.hour, &l.minute} {
		if w.full() {
			allowed = false
			h.Set("retry-after", seconds(w.oldest(now).Add(w.span).Sub(now)))
		}
	}
	if allowed {
		l.hour.add(now)
		l.minute.add(now)
	}
	shown := &l.hour
	if shown.limit == 0 {
		shown = &l.minute
	}
	if shown.limit > 0 {
		h.Set("ratelimit-limit", strconv.Itoa(shown.limit))
		h.Set("ratelimit-remaining", strconv.Itoa(shown.limit-len(shown.times)))
		h.Set("ratelimit-reset", strconv.FormatInt(shown.oldest(now).Add(shown.span).Unix(), 10))
	}
	return allowed, h
}

// window is the calls of the last span; a limit of 0 is none.
type window struct {
	limit int
	span  time.Duration
	times []time.Time
}

func (w *window) expire(now time.Time) {
	n := 0
	for n < len(w.times) && now.Sub(w.times[n]) >= w.span {
		n++
	}
	w.times = w.times[n:]
}

func (w *window) full() bool { return w.limit > 0 && len(w.times) >= w.limit }

func (w *window) add(now time.Time) {
	if w.limit > 0 {
		w.times = append(w.times, now)
	}
}

func (w *window) oldest(now time.Time) time.Time {
	if len(w.times) == 0 {
		return now
	}
	return w.times[0]
}

// seconds rounds up, as Retry-After wants it.
func seconds(d time.Duration) string { return strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))) }
