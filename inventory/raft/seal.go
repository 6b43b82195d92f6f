package raft

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// sealer is the log's metadata. The log (raft-wal 0.4.0) seals a segment whose
// last entries are deleted without an index, and cannot read it when it is opened
// again (hashicorp/raft-wal#31). Here such a segment gets its index first.
//
// That is written to a copy beside it, which takes the segment's place once the
// metadata says so; Load ends what a crash cut short. A copy is named by the
// start of its index: one that the metadata does not name was never meant to be.
type sealer struct {
	metadb.BoltMetaDB
	dir    string
	sealed map[uint64]uint64 // start of the index, by segment
}

// sealDir holds copies on their way.
const sealDir = "seal"

// Load implements types.MetaStore.
func (s *sealer) Load(dir string) (types.PersistentState, error) {
	s.dir, s.sealed = dir, map[uint64]uint64{}
	state, err := s.BoltMetaDB.Load(dir)
	if err != nil {
		return state, err
	}
	for _, info := range state.Segments {
		if err := s.place(info); err != nil {
			return state, err
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, sealDir)); err != nil {
		return state, err
	}
	if broken(state) {
		// By a doproxy that knew nothing of this.
		if err := s.CommitState(state); err != nil {
			return state, err
		}
		return s.BoltMetaDB.Load(dir)
	}
	return state, nil
}

func broken(state types.PersistentState) bool {
	for _, info := range state.Segments {
		if !info.SealTime.IsZero() && info.IndexStart == 0 {
			return true
		}
	}
	return false
}

// CommitState implements types.MetaStore.
func (s *sealer) CommitState(state types.PersistentState) error {
	var placing []types.SegmentInfo
	segments := make([]types.SegmentInfo, len(state.Segments))
	for i, info := range state.Segments {
		if !info.SealTime.IsZero() && info.IndexStart == 0 {
			if s.sealed[info.ID] == 0 {
				at, err := s.seal(info)
				if err != nil {
					return fmt.Errorf("sealing a segment of the log: %w", err)
				}
				s.sealed[info.ID] = at
				info.IndexStart = at
				placing = append(placing, info)
			}
			info.IndexStart = s.sealed[info.ID]
		}
		segments[i] = info
	}
	state.Segments = segments
	if err := s.BoltMetaDB.CommitState(state); err != nil {
		for _, info := range placing {
			delete(s.sealed, info.ID)
		}
		return err
	}
	for _, info := range placing {
		if err := s.place(info); err != nil {
			return err
		}
	}
	return nil
}

// seal copies a segment and has the copy sealed, by an entry more than its size
// allows. The log's metadata says where the segment ends, so nobody reads that.
func (s *sealer) seal(info types.SegmentInfo) (indexStart uint64, err error) {
	dir := filepath.Join(s.dir, sealDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	name := segment.FileName(info)
	if err := copyFile(filepath.Join(dir, name), filepath.Join(s.dir, name)); err != nil {
		return 0, err
	}
	info.MaxIndex, info.SizeLimit = 0, 1
	w, err := segment.NewFiler(dir, walfs.New()).RecoverTail(info)
	if err != nil {
		return 0, err
	}
	err = w.Append([]types.LogEntry{{Index: w.LastIndex() + 1, Data: []byte("end")}})
	var sealed bool
	if err == nil {
		sealed, info.IndexStart, err = w.Sealed()
	}
	if err == nil && !sealed {
		err = errors.New("it has no index")
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return 0, err
	}
	err = os.Rename(filepath.Join(dir, name), s.copyOf(info))
	return info.IndexStart, errors.Join(err, syncDir(dir), syncDir(s.dir))
}

func (s *sealer) copyOf(info types.SegmentInfo) string {
	return filepath.Join(s.dir, sealDir, fmt.Sprintf("%s.%d", segment.FileName(info), info.IndexStart))
}

// place puts the copy of a segment, if there is one, where the segment is.
func (s *sealer) place(info types.SegmentInfo) error {
	err := os.Rename(s.copyOf(info), filepath.Join(s.dir, segment.FileName(info)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(s.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}
