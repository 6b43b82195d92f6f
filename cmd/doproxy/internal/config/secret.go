package config

import "log/slog"

// Secret is text that shows itself to nobody who prints, logs or encodes it,
// except to YAML: a file that is written is there to be read again.
type Secret string

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

func (s Secret) GoString() string { return s.String() }

// LogValue keeps the text out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON keeps the text out of JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalYAML writes the text.
func (s Secret) MarshalYAML() (any, error) { return string(s), nil }
