package inventory

import (
	"fmt"
	"time"
)

// Duration is a time.Duration that records and configurations write as "2s".
type Duration time.Duration

// Or is the duration, or what is given when it is zero: p.DrainDeadline.Or(5 * time.Minute).
func (d Duration) Or(whenZero time.Duration) time.Duration {
	if d == 0 {
		return whenZero
	}
	return time.Duration(d)
}

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the form of time.Duration's String, such as 1m30s.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 2s or 1m30s", text)
	}
	*d = Duration(v)
	return nil
}
