package inventory

import (
	"errors"
	"fmt"
	"time"
)

// StoreMember is one server of the integrated store, as the one that leads sees it.
type StoreMember struct {
	ID      string // of its data directory: the node's name and a random suffix
	Node    string // the node's name
	Address string // host:port, where other members reach it
	Version string // of doproxy
	Leader  bool
	Voter   bool // else it follows, until it has been stable for a while or because there are voters enough
	// Healthy: it answers and keeps up.
	Healthy bool
	// Behind is how many entries it lacks; -1 is not known.
	Behind int64
	// Since is when Healthy changed last; zero is not known.
	Since time.Time
}

// Membership is all members of the integrated store.
type Membership struct {
	Cluster string // the store's own id
	Members []StoreMember
	// Tolerates is how many voters more may fail before the store stops.
	Tolerates int
}

// ErrRefused: what was asked of a store makes no sense as things are, or would do
// harm. The error that wraps it says why, and what to do. Nothing was changed.
var ErrRefused = errors.New("refused")

// Refuse makes an ErrRefused whose text is all of this.
func Refuse(format string, args ...any) error { return refusal{fmt.Sprintf(format, args...)} }

type refusal struct{ text string }

func (r refusal) Error() string { return r.text }
func (r refusal) Unwrap() error { return ErrRefused }

// ErrNotMember is an ErrUnavailable that waiting does not mend: this node has no
// part in the integrated store.
var ErrNotMember = fmt.Errorf("%w: this node belongs to no store", ErrUnavailable)
