package raft

import (
	"fmt"

	"github.com/doproxy/doproxy/inventory"
)

var (
	errNoLeader = fmt.Errorf("%w: the members have no leader: are more than half of them up, and do they reach each other?", inventory.ErrUnavailable)
	errNoStore  = fmt.Errorf("%w yet: run `doproxy cluster init` on the first node, `doproxy cluster join` on each other", inventory.ErrNotMember)
	errClosed   = fmt.Errorf("%w: it is closed", inventory.ErrUnavailable)
)

// errUnknown is an ErrUnavailable that trying again does not mend.
var errUnknown = fmt.Errorf("%w: whether it was done is not known", inventory.ErrUnavailable)

// expelled is an inventory.ErrRefused: a server has no part in the store any more,
// and must not vote in it.
type expelled struct{ why string }

func (e *expelled) Error() string {
	return "this member " + e.why + ": join anew with `doproxy cluster join`"
}
func (e *expelled) Unwrap() error { return inventory.ErrRefused }
