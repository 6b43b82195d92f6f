package raft

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	hraft "github.com/hashicorp/raft"
)

// Remains is what a member that does not run has of the store.
type Remains struct {
	Cluster string
	ID      string
	// Term and Index are of the last entry in its log: of several members, the
	// one with the highest term, and among these the highest index, has most.
	Term, Index uint64
	// Others are the addresses of the members that its configuration names beside it.
	Others []string
}

// errNothing: there is no member in the directory.
var errNothing = errors.New("there is no member's data to recover from: recover on another node, and have this one join anew (doproxy cluster join)")

// Inspect tells what a directory has. Its agent must not run.
func Inspect(dir string, logger *slog.Logger) (Remains, error) {
	return recovery(dir, "", logger)
}

// Recover makes the member in a directory the only one, at this address: for
// when most members are lost for good. Writes that only those had are lost. The
// other members must not run, or run again with their data: they are refused
// afterwards and join anew. The agent must not run.
func Recover(dir, address string, logger *slog.Logger) (Remains, error) {
	return recovery(dir, address, logger)
}

func recovery(dir, address string, logger *slog.Logger) (r Remains, err error) {
	id, err := readIdentity(dir)
	if err == nil && id == nil {
		err = errNothing
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", dir, err)
	}
	r.Cluster, r.ID = id.Cluster, id.ID
	library := libraryLogger(logger)
	d, err := openDisk(dir, library)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	n := &Node{opts: Options{Dir: dir, Name: id.Node, snapshotEntries: defaultSnapshotEntries}, logger: logger}
	conf := n.config(id, library)
	_, trans := hraft.NewInmemTransport("")

	known, err := hraft.GetConfiguration(conf, fsm{newMachine(), func(uint64, uint64) {}}, d.log, d.log, d.snaps, trans)
	if err != nil {
		return r, fmt.Errorf("reading the log in %s: %w", dir, err)
	}
	if r.Index, r.Term, err = d.last(); err != nil {
		return r, err
	}
	var lost []string
	for _, s := range known.Servers {
		if string(s.ID) != id.ID {
			r.Others = append(r.Others, string(s.Address))
			lost = append(lost, string(s.ID))
		}
	}
	if address == "" {
		return r, nil
	}
	// Written first: it goes on without them only if it knows to refuse them.
	id.Recovered, id.Expelled = append(id.Recovered, lost...), ""
	if err := writeFiles(dir, id.file()); err != nil {
		return r, err
	}
	err = hraft.RecoverCluster(conf, fsm{newMachine(), func(uint64, uint64) {}}, d.log, d.log, d.snaps, trans, hraft.Configuration{
		Servers: []hraft.Server{{ID: hraft.ServerID(id.ID), Address: hraft.ServerAddress(address)}},
	})
	if err != nil {
		return r, fmt.Errorf("recovering the store in %s: %w", dir, err)
	}
	return r, nil
}

// forgetRecovery is for a recovery that ended before it had changed anything but
// the identity: those whom it was to leave out are members still.
func (m *member) forgetRecovery() error {
	unfinished := slices.ContainsFunc(m.raft.GetConfiguration().Configuration().Servers, func(s hraft.Server) bool {
		return slices.Contains(m.Recovered, string(s.ID))
	})
	if !unfinished {
		return nil
	}
	m.logger.Warn("a recovery of the store was begun here and did not end: nothing is left out")
	m.Recovered = nil
	return writeFiles(m.opts.Dir, m.identity.file())
}

// last is the last entry of the log, or of the snapshot if that is all.
func (d *disk) last() (index, term uint64, err error) {
	snaps, err := d.snaps.List()
	if err != nil {
		return 0, 0, err
	}
	if len(snaps) > 0 {
		index, term = snaps[0].Index, snaps[0].Term
	}
	end, err := d.log.LastIndex()
	if err != nil || end <= index {
		return index, term, err
	}
	var l hraft.Log
	if err := d.log.GetLog(end, &l); err != nil {
		return 0, 0, err
	}
	return l.Index, l.Term, nil
}
