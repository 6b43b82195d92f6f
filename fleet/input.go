package fleet

import (
	"time"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// Input is all that Plan looks at. Plan changes none of it.
type Input struct {
	Now      time.Time
	Settings Settings // as withDefaults leaves them
	// UID is the cluster's as it was when the term began.
	UID   string
	State *inventory.State
	Facts *Facts
	// Budget is what the account lets each class of calls do now; nil is no bound.
	Budget *cloud.Allowances
	// Floor is, by hostname prefix, an ordinal below which names may have been
	// used though the pool's record says otherwise: the store may have been
	// restored from an older copy.
	Floor map[string]int64
}

// Decision is what to do next, in this order: commit each group's writes, then
// make its creates; meanwhile the other calls. All of it is safe to do in part.
type Decision struct {
	Groups  []Group
	Deletes []int64 // ids to delete at the cloud
	Gets    []int64 // ids to ask for
	Adopts  []Adopt // droplets to tag
	List    bool    // ask for the list now
	// Next is when to plan again though nothing was heard; zero is never.
	Next time.Time
	// Notes are conditions that last, for people.
	Notes []Note
	// Usage is what of the limits is used; its API fields are the loop's to fill.
	Usage inventory.Usage
	// Prices says that the list of prices is wanted.
	Prices bool
	// Verified and Differences are as in News, empty unless a look is done now.
	Verified    string
	Differences []inventory.Difference

	counted bool // Usage is: the inventory was fit to be read
}

// Group is one transaction, and what may be done once it is committed.
type Group struct {
	Writes  []Write
	Creates []Create
	Events  []inventory.Event
}

// Write replaces or deletes one record, guarded by the revision at which it was
// read: that in the value's Mod, where zero asks that there is none yet.
// Exactly one of Pool, Droplet and Member is set.
type Write struct {
	Pool    *inventory.Pool
	Droplet *inventory.Droplet
	Member  *inventory.Member
	Delete  bool
}

// Create asks for droplets whose records bear Asked by then. The call must be
// over at Asked plus Settings.CreateTimeout.
type Create struct {
	Pool     string
	Names    []string
	Template inventory.Template
	Asked    time.Time
}

// Adopt tags a droplet as one of a pool.
type Adopt struct {
	ID   int64
	Pool string
}

// Note is a condition that stands. Its Key tells it from others; it is worth an
// event when it first appears.
type Note struct {
	Key string
	inventory.Event
	// Names of droplets that `doproxy confirm` would let go, sorted.
	Names []string

	told bool // its event came with a record's change
}

// News is what the leader has to tell; see inventory.Report.
type News struct {
	// Conditions that stand, by Key, each with the time since when.
	Conditions []inventory.Condition
	Usage      inventory.Usage
	Prices     map[string]float64
	CloudError string // of the last list, empty when it went well
	// Verified is the id of the last inventory.Verify that is done, Differences
	// what it found.
	Verified    string
	Differences []inventory.Difference
}
