package raft

import (
	"context"
	"fmt"
	"time"

	hraft "github.com/hashicorp/raft"
)

// verifier asks a quorum whether this member leads, once for all who want to
// know at a time.
type verifier struct {
	ctx   context.Context // the member's
	raft  *hraft.Raft
	trans *transport
	asks  chan chan<- verified
}

// verified: in term this member led at some time after the question, and the log
// was committed up to index before it.
type verified struct {
	index, term uint64
	err         error
}

func newVerifier(ctx context.Context, r *hraft.Raft, trans *transport) *verifier {
	return &verifier{ctx: ctx, raft: r, trans: trans, asks: make(chan chan<- verified, 64)}
}

func (v *verifier) run() {
	for {
		var asking []chan<- verified
		select {
		case <-v.ctx.Done():
			return
		case a := <-v.asks:
			asking = append(asking, a)
		}
		for more := true; more; {
			select {
			case a := <-v.asks:
				asking = append(asking, a)
			default:
				more = false
			}
		}
		// What is committed now has all that was answered before the question;
		// that this member leads must hold after.
		answer := verified{index: v.raft.CommitIndex()}
		answer.term, answer.err = v.lead(time.Now())
		for _, a := range asking {
			a <- answer
		}
	}
}

// lead is the term in which this member led at some time after asked. The library
// alone does not tell (raft 1.8.0): it counts what members without a vote answer,
// and what others answered to a message of before the question.
func (v *verifier) lead(asked time.Time) (uint64, error) {
	for {
		v.trans.asked.Store(time.Now().UnixNano())
		err := settled(v.ctx, v.raft.VerifyLeader())
		v.trans.asked.Store(0)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errNoLeader, err)
		}
		// That has a message sent to each; its answer may be still to come.
		for late := time.After(5 * time.Millisecond); late != nil; {
			term := v.raft.CurrentTerm()
			enough, more := v.trans.heard(term, asked)
			if enough {
				return term, nil
			}
			select {
			case <-v.ctx.Done():
				return 0, errClosed
			case <-more:
			case <-late:
				late = nil
			}
		}
	}
}

func (v *verifier) ask(ctx context.Context) verified {
	answer := make(chan verified, 1)
	select {
	case v.asks <- answer:
	case <-v.ctx.Done():
		return verified{err: errClosed}
	case <-ctx.Done():
		return verified{err: ctx.Err()}
	}
	select {
	case a := <-answer:
		return a
	case <-v.ctx.Done():
		return verified{err: errClosed}
	case <-ctx.Done():
		return verified{err: ctx.Err()}
	}
}

// verifiedIndex is an index that has every write that was answered before the
// call. The error is inventory.ErrUnavailable or ctx's.
func (l *leading) verifiedIndex(ctx context.Context) (uint64, error) {
	v := l.verify.ask(ctx)
	if v.err == nil && v.term != l.term {
		// It led again, and may not know yet what was committed between.
		v.err = errNoLeader
	}
	return v.index, v.err
}
