package raft

import (
	"fmt"

	"github.com/doproxy/doproxy/inventory"
)

var (
	errNoLeader = fmt.Errorf("%w: the members have no leader: are more than half of them up, and do they reach each other?", inventory.ErrUnavailable)
	errNoStore  = fmt.Errorf("%w: this node belongs to no store yet: run `doproxy cluster init` on the first node, `doproxy cluster join` on each other", inventory.ErrUnavailable)
	errClosed   = fmt.Errorf("%w: it is closed", inventory.ErrUnavailable)
)

// errUnknown is an ErrUnavailable that trying again does not mend.
var errUnknown = fmt.Errorf("%w: whether it was done is not known", inventory.ErrUnavailable)
