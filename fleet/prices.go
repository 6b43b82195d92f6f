package fleet

import (
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// pricesEvery is how often the list of prices is asked for.
const pricesEvery = 6 * time.Hour

// price of a size, US dollars an hour, as this leader was told or the one before.
func (p *planner) price(size string) (dollars float64, known bool) {
	if p.f.Prices != nil {
		dollars, known = p.f.Prices[size]
	} else if p.State.Report != nil {
		dollars, known = p.State.Report.Prices[size]
	}
	return dollars, known
}

// priceOf a droplet: its own, or that of its size.
func (p *planner) priceOf(d *inventory.Droplet) (dollars float64, known bool) {
	if d.PriceHourly > 0 {
		return d.PriceHourly, true
	}
	return p.price(d.Size)
}

// pricing says when the list of prices is due: once a term and every few hours,
// sooner when a limit of cost waits for it.
func (p *planner) pricing() {
	f := p.f
	if f.pricing {
		return
	}
	var due time.Time
	switch {
	case f.pricesFailures > 0 && p.limits().CostHourly > 0:
		due = f.pricesTried.Add(p.Settings.backoff(f.pricesFailures))
	case f.pricesFailures > 0, f.Prices != nil && p.priceless: // a new size, perhaps
		due = f.pricesTried.Add(p.Settings.RetryMax)
	case f.Prices != nil:
		due = f.pricesTried.Add(pricesEvery)
	}
	if due = later(due, f.Hold); p.now.Before(due) {
		p.at(due)
		return
	}
	p.out.Prices = true
}

// StartPrices notes that the list of prices is about to be asked for.
func (f *Facts) StartPrices(now time.Time) {
	f.pricing = true
	f.pricesTried = now
}

// EndPrices takes in the prices of all sizes, or why there are none. It keeps
// the map.
func (f *Facts) EndPrices(now time.Time, prices map[string]float64, err error) {
	f.pricing = false
	if err != nil {
		f.pricesFailures++
		f.throttled(err, now)
		return
	}
	if prices == nil {
		prices = map[string]float64{}
	}
	f.pricesFailures, f.Prices = 0, prices
}
