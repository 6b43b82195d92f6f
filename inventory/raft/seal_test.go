package raft

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
)

// TestSealedWithoutIndex: entries that a new leader had deleted from the end of
// the log do not keep a member from starting again.
func TestSealedWithoutIndex(t *testing.T) {
	dir := t.TempDir()
	open := func() *disk {
		t.Helper()
		d, err := openDisk(dir, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	store := func(d *disk, from, to uint64, term uint64) {
		t.Helper()
		for i := from; i <= to; i++ {
			if err := d.log.StoreLog(&hraft.Log{Index: i, Term: term, Data: []byte{byte(i)}}); err != nil {
				t.Fatal(err)
			}
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
	d := open()
	store(d, 1, 5, 1)
	if err := d.log.DeleteRange(4, 5); err != nil {
		t.Fatal(err)
	}
	has(d, 1, 1, 1)
	store(d, 4, 6, 2)
	if err := d.log.DeleteRange(6, 6); err != nil {
		t.Fatal(err)
	}
	store(d, 6, 7, 3)
	has(d, 1, 1, 1, 2, 2, 3, 3)
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	// A copy that was never meant to be is forgotten.
	stray := filepath.Join(dir, walDir, sealDir)
	if err := os.MkdirAll(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stray, "x.wal"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = open()
	has(d, 1, 1, 1, 2, 2, 3, 3)
	store(d, 8, 8, 4)
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	d = open()
	has(d, 1, 1, 1, 2, 2, 3, 3, 4)
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
}
