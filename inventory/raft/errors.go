package raft

import (
	"errors"
	"fmt"

	"github.com/doproxy/doproxy/inventory"
)

// ErrRefused: what was asked for makes no sense as things are, or would do harm.
// The error that wraps it says why, and what to do. Nothing was changed.
var ErrRefused = errors.New("refused")

var (
	errNoLeader = fmt.Errorf("%w: the members have no leader: are more than half of them up, and do they reach each other?", inventory.ErrUnavailable)
	errNoStore  = fmt.Errorf("%w: this node belongs to no store yet: run `doproxy cluster init` on the first node, `doproxy cluster join` on each other", inventory.ErrUnavailable)
	errClosed   = fmt.Errorf("%w: it is closed", inventory.ErrUnavailable)
)

// refusal is an ErrRefused whose text is all of it.
type refusal struct{ text string }

func (r refusal) Error() string               { return r.text }
func (r refusal) Unwrap() error               { return ErrRefused }
func refuse(format string, args ...any) error { return refusal{fmt.Sprintf(format, args...)} }

// errUnknown is an ErrUnavailable that trying again does not mend.
var errUnknown = fmt.Errorf("%w: whether it was done is not known", inventory.ErrUnavailable)
