package haproxy

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrReloadFailed: HAProxy did not take the file; the old worker serves on.
var ErrReloadFailed = errors.New("haproxy refused the reload")

// Master speaks to the socket of a HAProxy in master-worker mode (haproxy -W
// -S). It keeps no connection: a reload would end it.
type Master struct{ path string }

// NewMaster returns a client of the master socket at path.
func NewMaster(path string) *Master { return &Master{path} }

// Proc asks the master for its processes.
func (m *Master) Proc(ctx context.Context) (Proc, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	answer, err := ask(ctx, m.path, "show proc")
	if err != nil {
		return Proc{}, err
	}
	return parseProc(answer)
}

// Reload makes the master read its file again and returns when the new worker
// runs. ErrReloadFailed says that there is none.
func (m *Master) Reload(ctx context.Context) error {
	before, err := m.Proc(ctx)
	if err != nil {
		return err
	}
	// The answer is empty, good or bad, up to 2.6; later versions answer at the
	// end of the reload. Either way "show proc" is what tells. The connection
	// may be cut by the master, which executes itself anew.
	if _, err := ask(ctx, m.path, "reload"); err != nil && ctx.Err() != nil {
		return err
	}
	for {
		now, err := m.Proc(ctx)
		switch {
		case err != nil: // the master is between two lives
		case now.MasterPID != before.MasterPID:
			return fmt.Errorf("haproxy: reload: master %d was replaced by %d meanwhile", before.MasterPID, now.MasterPID)
		case now.Failed > 0 && now.Reloads != before.Reloads:
			return ErrReloadFailed
		case now.Failed == 0 && now.WorkerPID != 0 && now.WorkerPID != before.WorkerPID:
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("haproxy: reload: no new worker: %w (last: %w)", context.Cause(ctx), errors.Join(err, errNoNewWorker))
		}
	}
}

var errNoNewWorker = errors.New("the old one still runs")
