package raft

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
)

// TestSealedWithoutIndex: entries that a new leader had deleted from the end of
// the log do not keep a member from starting again, wherever it was stopped.
func TestSealedWithoutIndex(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func(dir string) *disk {
		t.Helper()
		d, err := openDisk(dir, hclog.NewNullLogger())
		must(err)
		return d
	}
	store := func(log hraft.LogStore, from, to, term uint64) {
		t.Helper()
		for i := from; i <= to; i++ {
			must(log.StoreLog(&hraft.Log{Index: i, Term: term, Data: []byte{byte(i)}}))
		}
	}
	has := func(d *disk, terms ...uint64) {
		t.Helper()
		last, err := d.log.LastIndex()
		if err != nil || last != uint64(len(terms)) {
			t.Fatalf("the last is %d of %d: %v", last, len(terms), err)
		}
		for i, term := range terms {
			var l hraft.Log
			if err := d.log.GetLog(uint64(i+1), &l); err != nil || l.Term != term || l.Data[0] != byte(i+1) {
				t.Errorf("entry %d: %+v, %v", i+1, l, err)
			}
		}
	}

	t.Run("reopened", func(t *testing.T) {
		dir := t.TempDir()
		d := open(dir)
		store(d.log, 1, 5, 1)
		must(d.log.DeleteRange(4, 5))
		has(d, 1, 1, 1)
		store(d.log, 4, 6, 2)
		must(d.log.DeleteRange(6, 6))
		store(d.log, 6, 7, 3)
		for term := uint64(4); term < 6; term++ {
			must(d.close())
			d = open(dir)
			store(d.log, term+4, term+4, term)
		}
		has(d, 1, 1, 1, 2, 2, 3, 3, 4, 5)
		must(d.close())
	})

	// first is the segment that entries are deleted of.
	const first = "00000000000000000001-0000000000000000.wal"
	cut := func(dir string) (before []byte, d *disk) {
		d = open(dir)
		store(d.log, 1, 5, 1)
		before, err := os.ReadFile(filepath.Join(dir, walDir, first))
		must(err)
		must(d.log.DeleteRange(4, 5))
		return before, d
	}
	t.Run("stopped before the copy was in its place", func(t *testing.T) {
		dir := t.TempDir()
		before, d := cut(dir)
		at := filepath.Join(dir, walDir, first)
		copied := d.meta.copyOf(firstSegment(t, d))
		must(d.close())
		must(os.MkdirAll(filepath.Dir(copied), 0o700))
		must(os.Rename(at, copied))
		must(os.WriteFile(at, before, 0o600))
		d = open(dir)
		has(d, 1, 1, 1)
		must(d.close())
	})
	t.Run("a copy that was never meant to be", func(t *testing.T) {
		dir := t.TempDir()
		before, d := cut(dir)
		info := firstSegment(t, d)
		info.IndexStart += 8
		copied := d.meta.copyOf(info)
		must(d.close())
		must(os.MkdirAll(filepath.Dir(copied), 0o700))
		must(os.WriteFile(copied, before, 0o600))
		d = open(dir)
		has(d, 1, 1, 1)
		must(d.close())
	})
	t.Run("left by the library alone", func(t *testing.T) {
		dir := t.TempDir()
		at := filepath.Join(dir, walDir)
		must(os.MkdirAll(at, 0o700))
		meta := &metadb.BoltMetaDB{}
		log, err := wal.Open(at, wal.WithSegmentSize(segmentSize), wal.WithMetaStore(meta))
		must(err)
		store(log, 1, 5, 1)
		must(log.DeleteRange(4, 5))
		must(log.Close())
		must(meta.Close())
		d := open(dir)
		has(d, 1, 1, 1)
		must(d.close())
	})
}

func firstSegment(t *testing.T, d *disk) types.SegmentInfo {
	t.Helper()
	state, err := d.meta.BoltMetaDB.Load(d.meta.dir)
	if err != nil || len(state.Segments) == 0 {
		t.Fatalf("%d segments: %v", len(state.Segments), err)
	}
	return state.Segments[0]
}
