package fleet

import (
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// lately is how long an entry of Pool.Creates counts: an hour from the end of
// its minute.
const lately = time.Hour + time.Minute

// counts says that an entry is of the last hour. One from far ahead was written
// by a clock that was wrong.
func counts(entry inventory.Count, now time.Time) bool {
	return now.Before(entry.Time.Add(lately)) && entry.Time.Before(now.Add(time.Hour))
}

// ledger adds a pool's creates of the last hour to the bill.
func (p *planner) ledger(pool *inventory.Pool) {
	for _, entry := range pool.Creates {
		if counts(entry, p.now) {
			p.bill.create(entry.N, entry.Time.Add(lately))
		}
	}
}

// createdLately adds to the bill a droplet that was put on record before the
// ledger begins, and that came to be later, or is still to.
func (p *planner) createdLately(m *member) {
	if m.d.Adopted || m.remove || m.d.Created.IsZero() || p.now.Before(m.d.Created.Truncate(time.Minute).Add(lately)) {
		return
	}
	switch {
	case m.d.ID == 0 && m.standing != gone:
		p.bill.create(1, p.now.Add(time.Hour))
	case m.d.Active.IsZero() && !m.d.Phase.Leaving():
		p.bill.create(1, m.d.Since.Add(time.Hour))
	case p.now.Before(m.d.Active.Add(time.Hour)):
		p.bill.create(1, m.d.Active.Add(time.Hour))
	}
}

// create counts n, until a time.
func (b *bill) create(n int, until time.Time) {
	b.creates += n
	if b.renewed.IsZero() || until.Before(b.renewed) {
		b.renewed = until
	}
}

// enter counts a name that is put on record now, and forgets what is long past.
func enter(entries []inventory.Count, now time.Time) []inventory.Count {
	minute := now.Truncate(time.Minute)
	next := make([]inventory.Count, 0, len(entries)+1)
	entered := false
	for _, entry := range entries {
		switch {
		case !counts(entry, now):
			continue
		case entry.Time.Equal(minute):
			entry.N++
			entered = true
		}
		next = append(next, entry)
	}
	if !entered {
		next = append(next, inventory.Count{Time: minute, N: 1})
	}
	return next
}
