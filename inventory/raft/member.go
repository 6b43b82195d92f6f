package raft

import "time"

// Member is one server of the store, as the member that leads sees it.
type Member struct {
	ID      string // of this data directory: the node's name and a random suffix
	Node    string // the node's name
	Address string // host:port, where other members reach it
	Version string // of doproxy
	Leader  bool
	Voter   bool // else it follows, until it has been stable for a while or because there are voters enough
	// Healthy: it answers and keeps up.
	Healthy bool
	// Behind is how many entries it lacks; -1 is not known.
	Behind int64
	// Since is when Healthy changed last; zero is not known.
	Since time.Time
}

// Membership is all of them.
type Membership struct {
	Cluster string // the store's own id
	Members []Member
	// Tolerates is how many voters more may fail before the store stops.
	Tolerates int
}
