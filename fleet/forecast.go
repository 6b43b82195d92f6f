package fleet

import (
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// Prediction is what a leader would make of a change, as far as can be told
// from the inventory alone.
type Prediction struct {
	Creates, Drains, Deletes []string // hostnames, sorted by age
	// Cost of all droplets an hour, in US dollars, before and when all is done.
	CostBefore, CostAfter float64
	Unpriced              []string // sizes whose price is not known
	// Holds say what would hold the change up, or stretch it.
	Holds []string
}

// Predict tells what would come of the inventory if it were as in after, which
// differs from before in its pools. Neither is changed.
func Predict(now time.Time, before, after *inventory.State) Prediction {
	return Prediction{}
}
