package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/doproxy/doproxy/inventory"
)

const (
	// A stream that was silent for probeEvery is asked for its progress; one that
	// leaves this unanswered for another probeWithin is given up. The client alone
	// would wait for ever for a cluster that is gone.
	probeEvery  = time.Second
	probeWithin = 2 * time.Second
	// Until the first answer it is asked more often: a stream that catches up
	// does not answer.
	probeFirst = 100 * time.Millisecond
)

var watches atomic.Int64

var errSilent = errors.New("the stream is silent")

// Watch implements inventory.Store.
func (s *Store) Watch(ctx context.Context, prefix string, after inventory.Revision, each func(inventory.Batch) error) error {
	op := fmt.Sprintf("watching %s after %d", prefix, after)
	if err := ctx.Err(); err != nil {
		return err
	}
	client, err := s.conn()
	if err != nil {
		return translate(ctx, op, err)
	}
	// The client shares one stream among the watches whose contexts carry the
	// same metadata. This one gets its own, so that the answer to a request for
	// progress is about it alone.
	streamCtx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx),
		"doproxy-watch", strconv.FormatInt(watches.Add(1), 10)))
	defer cancel()

	s.mu.Lock()
	w := &watch{client: client, ctx: streamCtx, cancel: cancel, at: after, cluster: s.cluster, each: each}
	s.mu.Unlock()
	if err := w.run(prefix, after); w.failed != nil {
		return w.failed
	} else {
		return translate(ctx, op, err)
	}
}

// watch is one stream.
type watch struct {
	client  *clientv3.Client
	ctx     context.Context
	cancel  context.CancelFunc
	each    func(inventory.Batch) error
	at      inventory.Revision // all up to here was delivered
	cluster uint64
	failed  error // of each
}

func (w *watch) run(prefix string, after inventory.Revision) error {
	// Without WithFragment a revision comes whole. The watch begins with after
	// itself, whose events are dropped: a watcher of a revision that is yet to
	// come is never told of progress (progressIfSync in etcd's
	// watchable_store.go). What happens in its first 100 ms may come as late as
	// that, since etcd then treats it as one that has to catch up.
	//
	// The client's Watch returns when the stream stands, which may be never.
	giveUp := time.AfterFunc(probeEvery+probeWithin, w.cancel)
	responses := w.client.Watch(w.ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(max(int64(after), 1)), clientv3.WithCreatedNotify())
	if !giveUp.Stop() {
		return fmt.Errorf("%w: no stream within %s", inventory.ErrUnavailable, probeEvery+probeWithin)
	}
	heard := time.Now()
	created := false
	every := probeFirst
	tick := time.NewTimer(every)
	defer tick.Stop()
	for {
		select {
		case resp, ok := <-responses:
			if !ok {
				return inventory.ErrUnavailable
			}
			delivered, err := w.take(resp)
			if err != nil {
				return err
			}
			heard = time.Now()
			if delivered {
				every = probeEvery
			}
			if resp.Created {
				created = true
				w.probe(every)
			}
		case <-tick.C:
			silent := time.Since(heard)
			switch {
			case silent > probeEvery+probeWithin:
				return fmt.Errorf("%w: %w for %s", inventory.ErrUnavailable, errSilent, silent.Round(time.Millisecond))
			case silent < every:
				tick.Reset(every - silent)
				continue
			case created:
				w.probe(every)
			}
			tick.Reset(every)
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
}

// probe asks for an answer. A failure shows as silence.
func (w *watch) probe(within time.Duration) {
	ctx, cancel := context.WithTimeout(w.ctx, within)
	defer cancel()
	_ = w.client.RequestProgress(ctx)
}

// take hands on one response. It says whether a batch was delivered.
func (w *watch) take(resp clientv3.WatchResponse) (delivered bool, err error) {
	if resp.CompactRevision != 0 {
		return false, inventory.ErrCompacted
	}
	if err := resp.Err(); err != nil {
		return false, err
	}
	header := inventory.Revision(resp.Header.Revision)
	if w.cluster != 0 && resp.Header.ClusterId != 0 && resp.Header.ClusterId != w.cluster {
		return false, fmt.Errorf("%w: this is another cluster than the one listed", inventory.ErrCompacted)
	}
	if header < w.at {
		return false, fmt.Errorf("%w: the store has only come to revision %d", inventory.ErrCompacted, header)
	}
	batch := inventory.Batch{Revision: header}
	switch {
	case resp.Created && header > w.at:
		return false, nil // what led to it is yet to come
	case len(resp.Events) > 0:
		batch = batchOf(resp.Events, w.at)
		if len(batch.Changes) == 0 {
			return false, nil
		}
	}
	w.at = batch.Revision
	if err := w.each(batch); err != nil {
		w.failed = err
		return true, err
	}
	return true, nil
}

// batchOf takes whole revisions past after. The header's revision may be ahead
// of them while the stream catches up.
func batchOf(events []*clientv3.Event, after inventory.Revision) inventory.Batch {
	changes := make([]inventory.Change, 0, len(events))
	for _, e := range events {
		if inventory.Revision(e.Kv.ModRevision) > after {
			changes = append(changes, inventory.Change{KV: kvOf(e.Kv), Deleted: e.Type == clientv3.EventTypeDelete})
		}
	}
	if len(changes) == 0 {
		return inventory.Batch{Revision: after}
	}
	return inventory.Batch{Revision: changes[len(changes)-1].Mod, Changes: changes}
}
