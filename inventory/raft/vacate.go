package raft

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// vacant refuses a membership beside one that lasts; but for one, if abandon, that
// is the only one of its store. n.mu is held.
func (n *Node) vacant(abandon bool) error {
	if n.open.Err() != nil {
		return errClosed
	}
	if err := n.failed.Load(); err != nil {
		return inventory.Refuse("node %s is a member of a store already, and cannot write to its disk: %v", n.opts.Name, *err)
	}
	m := n.member.Load()
	switch {
	case m == nil && n.expelled.Load() == nil:
		return n.empty()
	case m == nil || m.alone() && abandon:
		return nil
	case m.alone():
		return inventory.Refuse("node %s is the only member of store %s: if that was begun by mistake, `doproxy cluster join --abandon` gives it up", n.opts.Name, m.Cluster)
	}
	return inventory.Refuse("node %s is a member of store %s already: to have it in another, remove it there first (`doproxy cluster remove %[1]s`). If it was removed, or left out, a moment ago, it is about to hear of it: try again", n.opts.Name, m.Cluster)
}

// alone says whether there is no other member.
func (m *member) alone() bool {
	servers := m.raft.GetConfiguration().Configuration().Servers
	return len(servers) == 1 && string(servers[0].ID) == m.ID
}

// vacate sets the data of a membership that vacant let pass aside. n.mu is held.
func (n *Node) vacate() error {
	var why any = n.expelled.Load()
	if m := n.member.Swap(nil); m != nil {
		why = "it is given up for another"
		n.notify()
		if err := m.stop(); err != nil {
			n.logger.Warn("stopping the former membership", "error", err)
		}
	} else if n.expelled.Load() == nil {
		return nil
	}
	aside, err := setAside(n.opts.Dir)
	if err != nil {
		return err
	}
	n.expelled.Store(nil)
	n.logger.Warn("the former membership's data is set aside", "directory", aside, "because", why)
	return nil
}

const asidePrefix = "removed-"

// setAside moves what is in a member's directory into one inside of it, so that it
// works where the directory is a disk of its own. The identity goes first: without
// it the directory is nobody's, and what is left of the rest is no member's.
func setAside(dir string) (aside string, err error) {
	aside = filepath.Join(dir, asidePrefix+time.Now().UTC().Format("20060102T150405.000Z"))
	if err := os.Mkdir(aside, 0o700); err != nil {
		return "", err
	}
	names := []string{identityFile}
	all, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range all {
		if e.Name() != identityFile && !strings.HasPrefix(e.Name(), asidePrefix) {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(aside, name)); err != nil {
			return "", err
		}
	}
	return aside, nil
}

// empty refuses a directory that has another member's log: a new one would take
// it for its own.
func (n *Node) empty() error {
	for _, name := range []string{identityFile, walDir, snapshotDir} {
		if _, err := os.Stat(filepath.Join(n.opts.Dir, name)); err != nil {
			continue
		}
		if name == identityFile {
			return inventory.Refuse("%s has a member's data: restart the agent to go on with it, or move the directory away first", n.opts.Dir)
		}
		return inventory.Refuse("%s has what is left of a former member (%s): move the directory away first", n.opts.Dir, name)
	}
	return nil
}

// undo takes back what a join that was refused in the end had begun.
func (n *Node) undo(m *member) error {
	n.member.Store(nil)
	n.notify()
	err := m.stop()
	// First what makes it a member: what is left of the rest is nobody's.
	err = errors.Join(err, os.Remove(filepath.Join(n.opts.Dir, identityFile)))
	all, readErr := os.ReadDir(n.opts.Dir)
	err = errors.Join(err, readErr)
	for _, e := range all {
		if !strings.HasPrefix(e.Name(), asidePrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(n.opts.Dir, e.Name())))
		}
	}
	return err
}
