package dosim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/google/renameio/v2"
)

// saveDelay gathers changes into one writing of the state file. What changed
// that shortly before a kill -9 of the simulator is lost.
const saveDelay = 50 * time.Millisecond

// readState reads a state file; nil when there is none.
func readState(name string) (*state, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the state file: %w", err)
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("state file %s is not one of the simulator's; move it away to begin anew: %w", name, err)
	}
	if st.Version != stateVersion || st.Prefix < 1 || st.Prefix > 255 {
		return nil, fmt.Errorf("state file %s has version %d and prefix 127.%d; this simulator writes version %d: move the file away to begin anew",
			name, st.Version, st.Prefix, stateVersion)
	}
	return &st, nil
}

// saver writes the state file some time after it is asked to.
type saver struct {
	name     string
	snapshot func() ([]byte, error)
	log      *slog.Logger
	wanted   chan struct{}
	stop     chan struct{}
	done     chan struct{}
}

func newSaver(name string, snapshot func() ([]byte, error), log *slog.Logger) *saver {
	s := &saver{name: name, snapshot: snapshot, log: log,
		wanted: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

// request asks for a writing. It does not wait.
func (s *saver) request() {
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// close writes the file a last time.
func (s *saver) close() error {
	close(s.stop)
	<-s.done
	return s.save()
}

func (s *saver) run() {
	defer close(s.done)
	for {
		select {
		case <-s.wanted:
		case <-s.stop:
			return
		}
		select {
		case <-time.After(saveDelay):
		case <-s.stop:
			return
		}
		if err := s.save(); err != nil {
			s.log.Error("state not kept", "error", err)
		}
	}
}

func (s *saver) save() error {
	b, err := s.snapshot()
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	if err := renameio.WriteFile(s.name, b, 0o600); err != nil {
		return fmt.Errorf("write the state file: %w", err)
	}
	return nil
}

// snapshot is the state as the file has it.
func (s *Sim) snapshot() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return json.Marshal(s.state)
}
