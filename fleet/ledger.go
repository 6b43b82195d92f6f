package fleet

import (
	"slices"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// lately is how long an entry of Pool.Creates counts: an hour from the end of
// its minute, and another minute for the call.
const lately = time.Hour + 2*time.Minute

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
	case m.d.Active.IsZero(): // it was made before it began to leave
		if end := m.d.Since.Add(time.Hour); p.now.Before(end) {
			p.bill.create(1, end)
		}
	case p.now.Before(m.d.Active.Add(time.Hour)):
		p.bill.create(1, m.d.Active.Add(time.Hour))
	}
}

// keepCounts moves, for droplets whose records go, the entry in the ledger to when
// they came to be, if that was long after they were put on record.
func (p *planner) keepCounts(pp *poolPlan) {
	if p.limits().CreatesHourly <= 0 || pp.unread {
		return
	}
	for i := range pp.members {
		m := &pp.members[i]
		if !m.remove || m.d.ID == 0 || m.d.Adopted {
			continue
		}
		made := m.d.Active
		if made.IsZero() {
			made = p.now
		}
		put := m.d.Created.Truncate(time.Minute)
		if made.Before(put.Add(2*time.Minute)) || !p.now.Before(made.Add(time.Hour)) {
			continue
		}
		if !m.withPool && pp.together() >= maxWrites { // its turn comes
			m.d, m.remove, m.event = m.was, false, ""
			continue
		}
		m.withPool = true
		pool := pp.edit()
		pool.Creates = enter(leaveOut(pool.Creates, put), made, p.now)
	}
}

// leaveOut takes one from the entry of a minute, if there is one.
func leaveOut(entries []inventory.Count, minute time.Time) []inventory.Count {
	entries = slices.Clone(entries)
	for i := range entries {
		if entries[i].Time.Equal(minute) {
			entries[i].N--
		}
	}
	return slices.DeleteFunc(entries, func(c inventory.Count) bool { return c.N <= 0 })
}

// create counts n, until a time.
func (b *bill) create(n int, until time.Time) {
	b.creates += n
	if b.renewed.IsZero() || until.Before(b.renewed) {
		b.renewed = until
	}
}

// enter counts one at a time, and forgets what is long past.
func enter(entries []inventory.Count, at, now time.Time) []inventory.Count {
	minute := at.Truncate(time.Minute)
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
		slices.SortFunc(next, func(a, b inventory.Count) int { return a.Time.Compare(b.Time) })
	}
	return next
}
