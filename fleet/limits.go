package fleet

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// census counts what a pool has, each droplet in one place.
type census struct {
	alive  int // counts for what is wanted: neither leaving nor asked away
	billed int // is or may be at the cloud, whatever its phase; each costs money
	queued int // on record and certainly not at the cloud
}

func (pp *poolPlan) census() census {
	c := census{alive: pp.foreign, billed: pp.foreign + pp.spare}
	for i := range pp.members {
		m := &pp.members[i]
		switch {
		case m.standing == gone:
		case m.remove:
		case m.standing == unasked:
			c.queued++
		default:
			c.billed++
		}
		if m.alive() {
			c.alive++
		}
	}
	return c
}

// recorded counts the droplets alive whose record is not new.
func (pp *poolPlan) recorded() int {
	n := 0
	for i := range pp.members {
		if m := &pp.members[i]; m.was != nil && m.alive() {
			n++
		}
	}
	return n
}

// bill is what the cluster has of what its limits bound. Pools are planned in
// the order of their names, and each adds what it takes.
type bill struct {
	droplets int     // at the cloud, or may be
	cost     float64 // of these, US dollars an hour
	unpriced string  // size of one whose price is not known
	creates  int     // droplets put on record in the last hour, or long before and made since
	renewed  time.Time

	// Droplets on record that may be asked for any moment, of pools planned before.
	reserved     int
	reservedCost float64
}

func (p *planner) limits() inventory.Limits {
	if p.State.Settings == nil {
		return inventory.Limits{}
	}
	return p.State.Settings.Limits
}

// charge adds droplets of one kind to the bill.
func (b *bill) charge(n int, size string, price float64, known bool) {
	b.droplets += n
	b.cost += float64(n) * price
	if !known && (b.unpriced == "" || size < b.unpriced) {
		b.unpriced = cmp.Or(size, "unknown")
	}
}

// audit makes the bill: of all records, and of all that the list shows beside.
func (p *planner) audit() {
	b := &p.bill
	fresh := map[int64]bool{} // ids that came on record in this run
	for _, pp := range p.inOrder() {
		for i := range pp.members {
			m := &pp.members[i]
			if m.d.ID != 0 && (m.was == nil || m.was.ID == 0) {
				fresh[m.d.ID] = true
			}
			p.createdLately(m)
			if !m.remove && m.standing != gone && m.standing != unasked {
				price, known := p.priceOf(m.d)
				b.charge(1, m.d.Size, price, known)
			}
		}
		p.keepCounts(pp)
		p.ledger(pp.pool())
		if pp.foreign > 0 {
			for _, id := range pp.was.Import {
				if !fresh[id] && !p.inList(id) && p.record(id) == "" && p.f.imports[id].refused == "" && p.f.got[id].state != gotGone {
					g := p.f.got[id].droplet
					price, known := p.priceOf(&g.Droplet)
					b.charge(1, g.Size, price, known)
				}
			}
		}
	}
	p.auditStrangers(fresh)
}

// auditStrangers adds what is in no pool's plan: droplets on record whose pool is
// not, or that were set aside, and those that no record has.
func (p *planner) auditStrangers(fresh map[int64]bool) {
	b := &p.bill
	unplanned := len(p.unread) > 0
	for _, pp := range p.pools {
		unplanned = unplanned || pp == nil
	}
	if unplanned {
		for name, d := range p.State.Droplets {
			if (d.ID != 0 || !d.Asked.IsZero()) && (p.unread[name] || p.State.Pools[d.Pool] == nil) {
				price, known := p.priceOf(d)
				b.charge(1, d.Size, price, known)
			}
		}
	}
	if p.f.List == nil {
		return
	}
	for i := range p.f.List.All {
		c := &p.f.List.All[i]
		if d := p.State.Droplets[c.Name]; d != nil && d.ID == c.ID {
			continue
		}
		if p.f.got[c.ID].state == gotGone || p.record(c.ID) != "" || fresh[c.ID] {
			continue
		}
		price, known := p.priceOf(&c.Droplet)
		b.charge(1, c.Size, price, known)
	}
}

func (p *planner) inList(id int64) bool { return p.f.List != nil && p.f.List.byID[id] != nil }

// usage is what people are told of the bill.
func (b *bill) usage() inventory.Usage {
	return inventory.Usage{Droplets: b.droplets, CostHourly: round(b.cost), Creates: b.creates}
}

// bound is how many more droplets a pool may have for one of its limits.
type bound struct {
	n   int
	key string // such as cost_hourly
	why string // its value, what is used, and the mend
	at  time.Time
}

// tighter keeps the bound that leaves less.
func (b *bound) tighter(n int, key string, why func() string) {
	if n < b.n {
		*b = bound{n: max(0, n), key: key, why: why()}
	}
}

const raise = "raise it with doproxy apply or scale down"

// room is how many more of the pool's droplets may come to be at the cloud.
// Those that are leaving count until they are gone.
func (p *planner) room(pp *poolPlan, c census) bound {
	pool, limits, used := pp.pool(), p.limits(), &p.bill
	b := bound{n: math.MaxInt}
	b.tighter(pool.Max-c.billed, "max", func() string {
		return fmt.Sprintf("the pool's max is %d and %s at DigitalOcean; %s", pool.Max, are(c.billed), raise)
	})
	if limits.Droplets > 0 {
		b.tighter(limits.Droplets-used.droplets-used.reserved, "droplets", func() string {
			return fmt.Sprintf("limits.droplets is %d and %s there in all pools; %s", limits.Droplets, are(used.droplets+used.reserved), raise)
		})
	}
	if limits.CostHourly > 0 {
		p.affordable(&b, pool.Template.Size)
	}
	return b
}

// affordable bounds by what is left of the limit of cost.
func (p *planner) affordable(b *bound, size string) {
	limit, used := p.limits().CostHourly, &p.bill
	price, known := p.price(size)
	switch {
	case !known, used.unpriced != "":
		if known {
			size = used.unpriced
		}
		p.priceless = true
		b.tighter(0, "cost_hourly", func() string {
			return fmt.Sprintf("limits.cost_hourly is %s and the price of size %s is not known; it is asked for, or take the limit away with doproxy apply", money(limit), size)
		})
	case price > 0:
		spent := used.cost + used.reservedCost
		b.tighter(int(max(0, min((limit-spent)/price+1e-6, 1e6))), "cost_hourly", func() string {
			return fmt.Sprintf("limits.cost_hourly is %s and %s is spent, one more costs %s; %s", money(limit), money(spent), money(price), raise)
		})
	}
}

// names is how many more names may be put on record.
func (p *planner) names(pp *poolPlan, c census) bound {
	b := p.room(pp, c)
	b.n = max(0, b.n-c.queued)
	if limit := p.limits().CreatesHourly; limit > 0 {
		used := &p.bill
		b.tighter(limit-used.creates, "creates_hourly", func() string {
			return fmt.Sprintf("limits.creates_hourly is %d and %d %s created in the last hour; the next from %s on, or raise it with doproxy apply",
				limit, used.creates, plural(used.creates, "was", "were"), used.renewed.UTC().Format("15:04Z"))
		})
		if b.key == "creates_hourly" {
			b.at = used.renewed
		}
	}
	return b
}

// wait notes that droplets of a pool wait for a limit.
func (pp *poolPlan) wait(n int, b bound) {
	if n <= 0 || b.key == "" {
		return
	}
	pp.waiting += n
	pp.bound = b
}

// explain tells which limits hold the pool up.
func (p *planner) explain(pp *poolPlan) {
	if pp.leaving > 0 {
		p.explainLeave(pp)
	}
	if pp.waiting == 0 {
		return
	}
	p.at(pp.bound.at)
	p.note("limit."+pp.bound.key+" "+pp.name(), "limit."+pp.bound.key, pp.name(), "", fmt.Sprintf(
		"pool %s: %d of %d wanted droplets %s: %s", pp.name(), pp.waiting, pp.pool().Desired, plural(pp.waiting, "waits", "wait"), pp.bound.why))
}

// exits is how many more of a pool's droplets may start to leave unforced. Only
// those that are or may be at the cloud count.
func (p *planner) exits(pp *poolPlan) (n, leaving, all int) {
	for i := range pp.members {
		if m := &pp.members[i]; !m.remove && (m.standing == made || m.standing == asked) {
			all++
			if m.d.Phase.Leaving() {
				leaving++
			}
		}
	}
	percent := p.limits().LeavePercent
	if percent <= 0 {
		return math.MaxInt, leaving, all
	}
	return max(0, max(1, all*percent/100)-leaving), leaving, all
}

// explainLeave tells how many wait for their turn to leave.
func (p *planner) explainLeave(pp *poolPlan) {
	_, leaving, all := p.exits(pp)
	p.note("limit.leave_percent "+pp.name(), "limit.leave_percent", pp.name(), "", fmt.Sprintf(
		"pool %s: %d %s to leave: limits.leave_percent is %d%% and %d of %d %s on the way out; the next follows when one is gone, or raise it with doproxy apply",
		pp.name(), pp.leaving, plural(pp.leaving, "droplet waits", "droplets wait"), p.limits().LeavePercent, leaving, all, plural(leaving, "is", "are")))
}

// round a sum of prices to what prices have of decimals.
func round(dollars float64) float64 { return math.Round(dollars*1e5) / 1e5 }

// money has cents at least, and as many decimals as DigitalOcean's prices have.
func money(dollars float64) string {
	s := strconv.FormatFloat(round(dollars), 'f', -1, 64)
	whole, cents, _ := strings.Cut(s, ".")
	for len(cents) < 2 {
		cents += "0"
	}
	return "$" + whole + "." + cents
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func are(n int) string { return fmt.Sprintf("%d %s", n, plural(n, "is", "are")) }
