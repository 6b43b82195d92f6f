package raft

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	hraft "github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// snapshotVersion is raised when an older doproxy would misread a snapshot.
const snapshotVersion = 1

// fsm lets the library apply the log to the machine. applied is told of each
// entry, in order; fail is called once if the machine breaks.
type fsm struct {
	*machine
	applied func(index, term uint64)
}

// Apply implements raft.FSM. Its answer is a *storev1.Answer.
func (f fsm) Apply(l *hraft.Log) any {
	c := new(storev1.Command)
	if err := proto.Unmarshal(l.Data, c); err != nil || unknown(c.ProtoReflect()) {
		c = &storev1.Command{} // of no kind: it breaks the machine
	}
	a := f.apply(l.Index, l.Term, c, time.Now())
	f.applied(l.Index, l.Term)
	return a
}

// StoreConfiguration implements raft.ConfigurationStore: who waits for an index
// must hear of entries that change no key too.
func (f fsm) StoreConfiguration(index uint64, _ hraft.Configuration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index = max(f.index, index)
	f.wake()
}

// snapshot is the machine at one index. The keys are shared with it, the rest copied.
type snapshot struct {
	header   *storev1.SnapshotHeader
	keys     *iradix.Tree[inventory.KV]
	leases   map[inventory.LeaseID]lease
	sessions map[uint64]session
}

// Snapshot implements raft.FSM. It is quick; Persist runs beside later entries.
func (f fsm) Snapshot() (hraft.FSMSnapshot, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.broken != nil {
		return nil, f.broken
	}
	s := &snapshot{
		header: &storev1.SnapshotHeader{
			Version: snapshotVersion, Index: f.index, Term: f.term, Revision: int64(f.revision),
			Leases: uint64(len(f.leases)), Sessions: uint64(len(f.sessions)), Keys: uint64(f.keys.Len()),
		},
		keys:     f.keys,
		leases:   make(map[inventory.LeaseID]lease, len(f.leases)),
		sessions: make(map[uint64]session, len(f.sessions)),
	}
	for id, l := range f.leases {
		s.leases[id] = *l
	}
	for id, old := range f.sessions {
		copied := *old
		copied.answers = maps.Clone(old.answers)
		s.sessions[id] = copied
	}
	return s, nil
}

// Persist implements raft.FSMSnapshot. The sink is synced, and given its name,
// when it is closed: one that was interrupted is never read.
func (s *snapshot) Persist(sink hraft.SnapshotSink) error {
	w := bufio.NewWriterSize(sink, 1<<16)
	err := s.write(w)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

func (s *snapshot) write(w io.Writer) error {
	put := func(m proto.Message) error { _, err := protodelim.MarshalTo(w, m); return err }
	if err := put(s.header); err != nil {
		return err
	}
	for id, l := range s.leases {
		if err := put(&storev1.LeaseRecord{Id: int64(id), TtlMs: l.ttl.Milliseconds(), Renewed: l.renewed}); err != nil {
			return err
		}
	}
	for id, x := range s.sessions {
		if err := put(&storev1.SessionRecord{Id: id, Used: x.used, Floor: x.floor, Answers: x.answers}); err != nil {
			return err
		}
	}
	var err error
	s.keys.Root().Walk(func(_ []byte, kv inventory.KV) bool {
		err = put(&storev1.KeyRecord{Key: kv.Key, Value: kv.Value, Created: int64(kv.Created), Mod: int64(kv.Mod), Lease: int64(kv.Lease)})
		return err != nil
	})
	return err
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() {}

// Restore implements raft.FSM. Leases begin their life anew. Watches are told
// that what they asked for is compacted.
func (f fsm) Restore(from io.ReadCloser) error {
	defer from.Close()
	r := bufio.NewReaderSize(from, 1<<16)
	get := func(m proto.Message) error {
		return protodelim.UnmarshalOptions{MaxSize: 1 << 30}.UnmarshalFrom(r, m)
	}
	h := new(storev1.SnapshotHeader)
	if err := get(h); err != nil {
		return fmt.Errorf("reading a snapshot: %w", err)
	}
	if h.Version != snapshotVersion {
		return fmt.Errorf("a snapshot of version %d, and this doproxy knows %d: install a newer doproxy on this node", h.Version, snapshotVersion)
	}
	m := newMachine()
	m.index, m.term, m.revision = h.Index, h.Term, inventory.Revision(h.Revision)
	m.compacted = m.revision
	now := time.Now()
	for range h.Leases {
		l := new(storev1.LeaseRecord)
		if err := get(l); err != nil {
			return fmt.Errorf("reading a snapshot's leases: %w", err)
		}
		m.leases[inventory.LeaseID(l.Id)] = &lease{
			ttl: time.Duration(l.TtlMs) * time.Millisecond, renewed: l.Renewed, since: now, keys: map[string]struct{}{},
		}
	}
	for range h.Sessions {
		x := new(storev1.SessionRecord)
		if err := get(x); err != nil {
			return fmt.Errorf("reading a snapshot's sessions: %w", err)
		}
		if x.Answers == nil {
			x.Answers = map[uint64]*storev1.Answer{}
		}
		m.sessions[x.Id] = &session{used: x.Used, floor: x.Floor, answers: x.Answers}
	}
	keys := m.keys.Txn()
	for range h.Keys {
		kv := new(storev1.KeyRecord)
		if err := get(kv); err != nil {
			return fmt.Errorf("reading a snapshot's keys: %w", err)
		}
		id := inventory.LeaseID(kv.Lease)
		if l := m.leases[id]; l != nil {
			l.keys[kv.Key] = struct{}{}
		}
		keys.Insert([]byte(kv.Key), inventory.KV{
			Key: kv.Key, Value: kv.Value, Created: inventory.Revision(kv.Created), Mod: inventory.Revision(kv.Mod), Lease: id,
		})
	}
	m.keys = keys.Commit()

	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys, f.revision, f.index, f.term = m.keys, m.revision, m.index, m.term
	f.leases, f.sessions, f.broken = m.leases, m.sessions, nil
	f.history, f.compacted = nil, m.compacted
	f.contested = true // it is not in the snapshot
	f.wake()
	return nil
}
