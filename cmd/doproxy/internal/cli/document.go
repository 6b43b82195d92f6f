package cli

import (
	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// Document is what a configuration file defines of the cluster.
type Document struct {
	// Pools to create or change. A desired of zero leaves what is wanted as it is.
	Pools []*doproxyv1.Pool
	// Settings are nil if the file has none. If it has one part of them, the
	// other is nil and stays as it is.
	Settings *doproxyv1.Settings
}
