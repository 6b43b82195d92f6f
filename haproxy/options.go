package haproxy

import (
	"errors"
	"log/slog"
	"text/template"
	"time"
)

// Options are what a Sync needs. Intervals of 0 mean the defaults named beside
// them.
type Options struct {
	// Process and Runtime are the HAProxy to keep. Required.
	Process Process
	Runtime *Runtime
	// Binary is the program that checks files. Empty: FindBinary.
	Binary string
	// ConfigFile is the file that HAProxy reads. Required. Beside it appear
	// "<file>.new" while one is checked and "<file>.unconfirmed" from before a
	// file is replaced until HAProxy is known to run it.
	ConfigFile string
	// Template gives the operator's template; it is called for every rendering
	// that may lead to a reload. Nil: the default template.
	Template func() (*template.Template, error)
	Logger   *slog.Logger
	// OnStatus and OnSample are called from the goroutine that owns HAProxy;
	// they must not block.
	OnStatus func(Status)
	OnSample func(Sample)

	AuditInterval     time.Duration // of comparing HAProxy's own answer; 10 s
	StatsInterval     time.Duration // of samples at rest; 2 s
	FastStatsInterval time.Duration // of samples while a server boots or drains; 250 ms
	FlushInterval     time.Duration // least time between two writes of the file; 100 ms
	// RemoveDeadline is how long a removed server may finish what it is
	// answering before its connections are cut; 30 s.
	RemoveDeadline time.Duration
	// HoldDeadline is how long a server that HAProxy has just got may be kept
	// at weight 0 while its first check has not ended; 15 s.
	HoldDeadline  time.Duration
	ReloadTimeout time.Duration // of one reload; 30 s
	RetryMin      time.Duration // first pause after a failed apply; 500 ms
	RetryMax      time.Duration // longest pause; 30 s
}

// Validate says what is missing.
func (o Options) Validate() error {
	var v validation
	v.check(filePath(o.ConfigFile), "config_file", o.ConfigFile, "must be an absolute path of letters, digits and ._-+@/")
	err := errors.Join(v...)
	if o.Process == nil {
		err = errors.Join(err, errors.New("process: is missing"))
	}
	if o.Runtime == nil {
		err = errors.Join(err, errors.New("runtime: is missing"))
	}
	return err
}

func (o Options) withDefaults() Options {
	if o.Binary == "" {
		o.Binary = FindBinary()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Template == nil {
		o.Template = func() (*template.Template, error) { return builtin, nil }
	}
	if o.OnStatus == nil {
		o.OnStatus = func(Status) {}
	}
	if o.OnSample == nil {
		o.OnSample = func(Sample) {}
	}
	o.AuditInterval = or(o.AuditInterval, 10*time.Second)
	o.StatsInterval = or(o.StatsInterval, 2*time.Second)
	o.FastStatsInterval = or(o.FastStatsInterval, 250*time.Millisecond)
	o.FlushInterval = or(o.FlushInterval, 100*time.Millisecond)
	o.RemoveDeadline = or(o.RemoveDeadline, 30*time.Second)
	o.HoldDeadline = or(o.HoldDeadline, 15*time.Second)
	o.ReloadTimeout = or(o.ReloadTimeout, 30*time.Second)
	o.RetryMin = or(o.RetryMin, 500*time.Millisecond)
	o.RetryMax = or(o.RetryMax, 30*time.Second)
	return o
}

// State is how it stands with a HAProxy.
type State string

// The states.
const (
	// Starting: HAProxy has not been seen yet.
	Starting State = "starting"
	// Running: HAProxy runs and has taken everything that was applied.
	Running State = "running"
	// Failed: HAProxy does not run, or refuses what was applied; Status.Error
	// says which and why. What it ran before it runs on, if it can.
	Failed State = "failed"
)

// Status is what a node tells of its HAProxy.
type Status struct {
	State State
	Since time.Time // of State
	// Wanted is the revision last given to Apply, Applied the last one that
	// took effect. (If another reloads HAProxy, it takes up to StatsInterval
	// until that is noticed; a Sample's Revision is never ahead of what the
	// worker that takes connections has.) Held counts the servers that are kept at weight 0 until
	// their first check has ended, though they should serve.
	Wanted, Applied int64
	Held            int
	// Connected says that HAProxy answers on its runtime socket.
	Connected bool
	Version   string
	PID       int // of the worker
	MasterPID int
	// Reloads, Repairs (differences that neither Apply nor this Sync had
	// made) and Starts count since Run began.
	Reloads, Repairs, Starts int
	// Error is the last failure while it lasts.
	Error   string
	ErrorAt time.Time
}
