package fleet

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/doproxy/doproxy/cloud"
)

// listPage is how many droplets one page of the cloud's list has.
const listPage = 200

// scarce is how few calls a class may be left with before polling is stretched,
// and stretchMost by how much at most.
const scarce, stretchMost = 100, 10

// may is how many calls of a class may still start in this pass. Those already
// planned, of classes before it, are taken off.
func (p *planner) may(c cloud.Class) int {
	if p.Budget == nil {
		return math.MaxInt
	}
	return max(0, p.Budget[c].N-p.spent)
}

// wants plans n calls of a class, as far as it may, and says how many.
func (p *planner) wants(c cloud.Class, n int, what string) int {
	most := p.may(c)
	if n > most {
		p.outOfBudget(c, what)
		n = most
	}
	p.spent += n
	return n
}

// outOfBudget notes until when calls wait. If some can start now, their ends
// wake the loop.
func (p *planner) outOfBudget(c cloud.Class, what string) {
	a := p.Budget[c]
	if a.N > 0 {
		return
	}
	until := later(a.Until, p.now.Add(time.Second))
	p.at(until)
	p.note("budget."+c.String(), "budget."+c.String(), "", "", fmt.Sprintf(
		"%s wait until %s: the account's DigitalOcean API calls of this minute or hour are used up, but for those kept for what is more urgent; see doproxy status",
		what, until.UTC().Format(time.RFC3339)))
}

// startEnds keeps as many deletes and adoptions as may be started now. What does
// not fit is planned again when one is over.
func (p *planner) startEnds() {
	p.free = max(0, p.Settings.CallParallel-len(p.f.calling))
	p.out.Deletes = p.fit(p.out.Deletes)
	p.out.Deletes = p.out.Deletes[:p.wants(cloud.Delete, len(p.out.Deletes), "deletes")]
	p.free -= len(p.out.Deletes)
	p.out.Adopts = p.out.Adopts[:min(len(p.out.Adopts), p.free)]
	p.out.Adopts = p.out.Adopts[:p.wants(cloud.Delete, len(p.out.Adopts), "tags")]
	p.free -= len(p.out.Adopts)
}

// startLooks does so with the list, gets and the prices.
func (p *planner) startLooks() {
	if p.out.List {
		pages := 1
		if p.f.List != nil {
			pages += len(p.f.List.All) / listPage
		}
		p.out.List = p.may(cloud.Poll) > 0
		p.wants(cloud.Poll, pages, "lists")
	}
	p.out.Gets = slices.DeleteFunc(p.out.Gets, func(id int64) bool { return slices.Contains(p.out.Deletes, id) })
	p.free = min(p.free, p.Settings.GetParallel-p.f.gets)
	p.out.Gets = p.fit(p.out.Gets)
	p.out.Gets = p.out.Gets[:p.wants(cloud.Poll, len(p.out.Gets), "gets")]
	if p.out.Prices {
		p.out.Prices = p.wants(cloud.Poll, 1, "prices") == 1
	}
}

func (p *planner) fit(ids []int64) []int64 {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return ids[:min(len(ids), max(0, p.free))]
}

// stretch makes the time between two lists longer when few calls are left.
func (p *planner) stretch(every time.Duration) time.Duration {
	left := p.may(cloud.Poll)
	if left >= scarce {
		return every
	}
	return every * time.Duration(min(scarce/max(left, 1), stretchMost))
}
