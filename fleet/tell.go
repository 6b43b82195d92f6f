package fleet

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

const (
	// usageEvery is the least time between two tellings of usage alone, and
	// callsEvery that of the account's API calls alone.
	usageEvery = time.Second
	callsEvery = 10 * time.Second
	// inherit is how long conditions of the leader before may take to be found
	// again, and go on as the same. Before the first list of a term, or as long as
	// firstNews, nothing is told: it would lack conditions that stand.
	inherit   = 2 * time.Minute
	firstNews = 5 * time.Second
)

// teller keeps what the leader has told, and since when conditions stand.
type teller struct {
	tell   func(News)
	began  time.Time
	stand  map[string]time.Time // conditions by key, since when
	before map[string]time.Time // those that the leader before reported
	told   *News
	last   time.Time
	news   News // what stands of it beyond one decision
}

func newTeller(tell func(News), began time.Time, report *inventory.Report) *teller {
	t := &teller{tell: tell, began: began, stand: map[string]time.Time{}, before: map[string]time.Time{}}
	if report != nil {
		for _, c := range report.Conditions {
			t.before[c.Key] = c.Since
		}
		t.news.Prices = report.Prices
	}
	return t
}

// conditions takes in the notes of a decision and returns those that are new, so
// that they are worth an event.
func (t *teller) conditions(notes []Note, now time.Time) (fresh []Note) {
	stand := make(map[string]time.Time, len(notes))
	t.news.Conditions = nil
	for _, n := range notes {
		since, stood := t.stand[n.Key]
		if !stood {
			if since, stood = t.before[n.Key]; stood && now.Sub(t.began) > inherit {
				stood = false
			}
			delete(t.before, n.Key)
		}
		if !stood {
			since = now.Round(0).UTC()
			if !n.told {
				fresh = append(fresh, n)
			}
		}
		stand[n.Key] = since
		t.news.Conditions = append(t.news.Conditions, inventory.Condition{
			Key: n.Key, Type: n.Type, Pool: n.Pool, Droplet: n.Droplet, Node: n.Node, Message: n.Message, Since: since, Names: n.Names,
		})
	}
	t.stand = stand
	return fresh
}

// publish tells what has changed, and returns when to come again for what is
// changed and not told; zero is not needed.
func (t *teller) publish(now time.Time, listed bool) (again time.Time) {
	if t.tell == nil {
		return time.Time{}
	}
	if due := t.began.Add(firstNews); !listed && t.told == nil && now.Before(due) {
		return due
	}
	if t.told != nil {
		due := now
		switch {
		case !t.told.same(&t.news):
		case own(t.told.Usage) != own(t.news.Usage):
			due = t.last.Add(usageEvery)
		case t.told.Usage != t.news.Usage:
			if due = t.last.Add(callsEvery); now.Before(due) {
				return time.Time{} // not worth a look of its own
			}
		default:
			return time.Time{}
		}
		if now.Before(due) {
			return due
		}
	}
	told := t.news
	t.told, t.last = &told, now
	t.tell(told)
	return time.Time{}
}

// own is usage without the account's API calls.
func own(u inventory.Usage) inventory.Usage {
	return inventory.Usage{Droplets: u.Droplets, CostHourly: u.CostHourly, Creates: u.Creates}
}

// same but for the usage.
func (n *News) same(other *News) bool {
	return n.CloudError == other.CloudError && n.Verified == other.Verified &&
		maps.Equal(n.Prices, other.Prices) && slices.Equal(n.Differences, other.Differences) &&
		slices.EqualFunc(n.Conditions, other.Conditions, func(a, b inventory.Condition) bool {
			return reflect.DeepEqual(a, b)
		})
}
