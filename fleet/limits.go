package fleet

import "github.com/doproxy/doproxy/inventory"

// census counts what a pool has, each droplet in one place.
type census struct {
	alive  int // counts for what is wanted: neither leaving nor asked away
	billed int // is or may be at the cloud, whatever its phase; each costs money
	queued int // on record and certainly not at the cloud
}

// room is how many more droplets the pool's limits let come to be at the cloud.
// Those that are leaving count until they are gone. Further limits belong here.
func room(pool *inventory.Pool, c census) int {
	return max(0, pool.Max-c.billed)
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
