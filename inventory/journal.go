package inventory

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	journalQueue  = 256            // events that wait while the store is away
	journalBatch  = 64             // events in one transaction
	journalLife   = 24 * time.Hour // of an event, at least
	journalLease  = time.Hour      // how long one lease takes new events
	journalFlush  = time.Second    // for what is queued when Run ends
	journalMaxTry = 5              // of one batch that the store refuses
)

// Journal records events, best effort: whoever records one neither waits nor
// fails. Events expire with their lease, about a day later.
type Journal struct {
	store  Store
	leaser Leaser
	keys   Keys
	logger *slog.Logger
	queue  chan Event

	mu      sync.Mutex
	entropy *ulid.MonotonicEntropy
	last    uint64 // the newest id's milliseconds
	dropped int

	// Run's own.
	lease   LeaseID
	granted time.Time
}

// NewJournal returns a journal that queues events until Run writes them.
func NewJournal(store Store, leaser Leaser, keys Keys, logger *slog.Logger) *Journal {
	return &Journal{
		store: store, leaser: leaser, keys: keys, logger: logger,
		queue:   make(chan Event, journalQueue),
		entropy: ulid.Monotonic(rand.Reader, 0),
	}
}

// Record queues an event, and gives it the ID, and the time unless it has one.
// When the queue is full the event is dropped, and counted in the log.
func (j *Journal) Record(e Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now().UTC()
	if e.Time.IsZero() {
		e.Time = now
	}
	j.last = max(j.last, ulid.Timestamp(now)) // ids grow even if the clock is set back
	id, err := ulid.New(j.last, j.entropy)
	if err != nil { // 2^80 events in one millisecond
		j.dropped++
		return
	}
	e.ID = id.String()
	select {
	case j.queue <- e:
	default:
		j.dropped++
	}
}

// Run writes the events until ctx ends, then what is still queued if the store
// takes it within a second; it returns ctx's error.
func (j *Journal) Run(ctx context.Context) error {
	backoff := Backoff{Min: 200 * time.Millisecond, Max: 10 * time.Second}
	for {
		select {
		case e := <-j.queue:
			batch := j.batch(e)
			if !j.write(ctx, batch, &backoff) && ctx.Err() != nil {
				j.flush(ctx, batch)
				return ctx.Err()
			}
		case <-ctx.Done():
			j.flush(ctx, nil)
			return ctx.Err()
		}
	}
}

// batch adds to an event those that wait behind it.
func (j *Journal) batch(first ...Event) []Event {
	batch := first
	for len(batch) < journalBatch {
		select {
		case e := <-j.queue:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

// write tries until it works, ctx ends, or the store refused too often. An
// event that was written twice is one event, since it has an id.
func (j *Journal) write(ctx context.Context, batch []Event, backoff *Backoff) bool {
	refused := 0
	for {
		err := j.commit(ctx, batch)
		switch {
		case err == nil:
			backoff.Reset()
			j.mu.Lock()
			dropped := j.dropped
			j.dropped = 0
			j.mu.Unlock()
			if dropped > 0 {
				j.logger.Warn("events were dropped while the store was away", "count", dropped)
			}
			return true
		case ctx.Err() != nil:
			return false
		case errors.Is(err, ErrLeaseLost):
			j.lease = 0
		case !errors.Is(err, ErrUnavailable):
			if refused++; refused >= journalMaxTry {
				j.logger.Error("the store refuses events", "count", len(batch), "error", err)
				return false
			}
		}
		if backoff.Wait(ctx) != nil {
			return false
		}
	}
}

func (j *Journal) commit(ctx context.Context, batch []Event) error {
	if j.lease == 0 || time.Since(j.granted) > journalLease {
		// Never renewed: it ends a day after its last event, at the latest.
		id, err := j.leaser.Grant(ctx, journalLife+journalLease)
		if err != nil {
			return err
		}
		j.lease, j.granted = id, time.Now()
	}
	var txn Txn
	for _, e := range batch {
		txn.Ops = append(txn.Ops, PutEvent(j.keys, e, j.lease))
	}
	_, err := j.store.Commit(ctx, txn)
	return err
}

func (j *Journal) flush(ctx context.Context, batch []Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalFlush)
	defer cancel()
	for batch = j.batch(batch...); len(batch) > 0; batch = j.batch() {
		if err := j.commit(ctx, batch); err != nil {
			j.logger.Warn("events were lost on the way out", "count", len(batch)+len(j.queue), "error", err)
			return
		}
	}
}
