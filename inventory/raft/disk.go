package raft

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// What is in a member's directory.
const (
	identityFile = "identity.json"
	caFile       = "ca.pem"
	caKeyFile    = "ca-key.pem" // only until the store has it
	certFile     = "cert.pem"
	keyFile      = "key.pem"
	peersFile    = "peers.json" // addresses of the others, to find the leader by
	lockFile     = "lock"
	walDir       = "wal"
	snapshotDir  = "snapshots" // the library's name
)

// identity says which server of which cluster a directory is. A directory that
// was emptied is another server, so that votes it gave are never given again.
type identity struct {
	ID      string `json:"id"`
	Node    string `json:"node"`
	Cluster string `json:"cluster"`
	Plain   bool   `json:"plain,omitempty"`
	// Founder is to begin the store: it has not yet.
	Founder bool `json:"founder,omitempty"`
	// Begun: its log is not empty. If it is found empty, it was lost.
	Begun bool `json:"begun,omitempty"`
	// Recovered are the servers that it goes on without, until the store knows.
	Recovered []string `json:"recovered,omitempty"`
	// Expelled is why the others go on without it: it votes no more.
	Expelled string `json:"expelled,omitempty"`
}

// readIdentity returns nil for a directory that is no server's yet.
func readIdentity(dir string) (*identity, error) {
	data, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	id := new(identity)
	if err := json.Unmarshal(data, id); err != nil || id.ID == "" || id.Cluster == "" {
		return nil, fmt.Errorf("%s is damaged: move %s away and join anew with `doproxy cluster join`", filepath.Join(dir, identityFile), dir)
	}
	return id, nil
}

// writeFiles writes small files, each as a whole, in this order. The identity
// comes last: without it the directory is nobody's.
func writeFiles(dir string, files ...file) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		if len(f.data) == 0 {
			continue
		}
		if err := renameio.WriteFile(filepath.Join(dir, f.name), f.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

type file struct {
	name string
	data []byte
}

func (id *identity) file() file {
	data, _ := json.MarshalIndent(id, "", "  ") // of strings: cannot fail
	return file{identityFile, append(data, '\n')}
}

func (n *Node) savePeers(addresses []string) error {
	data, err := json.Marshal(addresses)
	if err != nil {
		return err
	}
	return writeFiles(n.opts.Dir, file{peersFile, data})
}

func (n *Node) loadPeers() (addresses []string) {
	data, err := os.ReadFile(filepath.Join(n.opts.Dir, peersFile))
	if err == nil {
		_ = json.Unmarshal(data, &addresses)
	}
	return addresses
}

// disk is the log, the votes and the snapshots of a member.
type disk struct {
	lock  *os.File
	log   *wal.WAL
	meta  *sealer // the log's; it does not close it
	snaps *hraft.FileSnapshotStore
}

func (d *disk) close() error { return errors.Join(d.log.Close(), d.meta.Close(), d.lock.Close()) }

// lock keeps a second process off a member's directory until it is closed. The
// log's own lock would have it wait, for ever and without a word.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another process: is an agent running with the same state_dir? (%w)", dir, err)
	}
	return f, nil
}

const keptSnapshots = 2

func openDisk(dir string, logger hclog.Logger) (d *disk, err error) {
	at := filepath.Join(dir, walDir)
	if err := os.MkdirAll(at, 0o700); err != nil {
		return nil, err
	}
	d = &disk{meta: &sealer{}}
	if d.lock, err = lock(dir); err != nil {
		return nil, err
	}
	if d.snaps, err = hraft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, logger); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	d.log, err = wal.Open(at, wal.WithLogger(logger), wal.WithSegmentSize(segmentSize), wal.WithMetaStore(d.meta))
	if err != nil {
		err = errors.Join(err, d.meta.Close(), d.lock.Close())
		return nil, fmt.Errorf("opening the log in %s: %w; if it stays so, move %s away and join anew with `doproxy cluster join`", at, err, dir)
	}
	return d, nil
}

// segmentSize is preallocated for each file of the log: some ten thousand entries.
const segmentSize = 8 << 20

// room says whether a disk has some for the log to go on.
func room(dir string) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return err
	}
	if free := uint64(s.Bavail) * uint64(s.Bsize); free < 2*segmentSize {
		return fmt.Errorf("%s has %d MB free, and %d are needed", dir, free>>20, 2*segmentSize>>20)
	}
	return nil
}

// failing is the log of a disk that may be full. What the library (raft-wal 0.4.0)
// has in memory after a write that failed is not what the disk has, so nothing
// more is written; fail is called once, to have the log opened again.
type failing struct {
	*wal.WAL
	before func() // of tests
	fail   func(error)
	failed atomic.Pointer[error]
}

func (f *failing) do(write func() error) error {
	if err := f.failed.Load(); err != nil {
		return *err
	}
	if f.before != nil {
		f.before()
	}
	err := write()
	if err != nil && f.failed.CompareAndSwap(nil, &err) {
		f.fail(err)
	}
	return err
}

// StoreLog implements raft.LogStore.
func (f *failing) StoreLog(l *hraft.Log) error {
	return f.do(func() error { return f.WAL.StoreLog(l) })
}

// StoreLogs implements raft.LogStore.
func (f *failing) StoreLogs(logs []*hraft.Log) error {
	return f.do(func() error { return f.WAL.StoreLogs(logs) })
}

// DeleteRange implements raft.LogStore.
func (f *failing) DeleteRange(from, to uint64) error {
	return f.do(func() error { return f.WAL.DeleteRange(from, to) })
}

// steady is the stable store of a disk that may be full for a while. The library
// ends the process when a term cannot be written; a member that waits is to the
// others one that is away.
type steady struct {
	hraft.StableStore
	logger *slog.Logger
	closed <-chan struct{}
}

func (s *steady) Set(key, value []byte) error {
	return s.retry(func() error { return s.StableStore.Set(key, value) })
}

func (s *steady) SetUint64(key []byte, value uint64) error {
	return s.retry(func() error { return s.StableStore.SetUint64(key, value) })
}

func (s *steady) retry(write func() error) error {
	for {
		err := write()
		if err == nil {
			return nil
		}
		s.logger.Error("cannot write to the store's disk: this member waits", "error", err)
		select {
		case <-s.closed:
			// To the library's caller an error would be the process's end, and none
			// would be a vote that is not on disk.
			runtime.Goexit()
		case <-time.After(time.Second):
		}
	}
}

// sink gives the library's messages to ours: what it calls information is of no
// use to an operator, and what it repeats is told every now and then.
type sink struct {
	logger *slog.Logger
	mu     sync.Mutex
	told   map[string]time.Time // by message
}

func libraryLogger(logger *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Info})
	l.RegisterSink(&sink{logger: logger, told: map[string]time.Time{}})
	return l
}

// Accept implements hclog.SinkAdapter.
func (s *sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level < hclog.Warn || msg == "failed to get previous log" { // which an announcement meets that is faster than the entry
		s.logger.Debug(msg, args...)
		return
	}
	s.mu.Lock()
	now := time.Now()
	repeated := now.Sub(s.told[msg]) < 30*time.Second
	if !repeated {
		s.told[msg] = now
	}
	s.mu.Unlock()
	if repeated {
		s.logger.Debug(msg, args...)
		return
	}
	s.logger.Warn("store: "+msg, args...)
}
