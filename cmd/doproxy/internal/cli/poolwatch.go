package cli

import (
	"errors"
	"io"
	"slices"
	"strings"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// endOfStream makes an orderly end, which a watch never has, into a loss.
func endOfStream(err error) error {
	if errors.Is(err, io.EOF) {
		return errEnded
	}
	return err
}

// poolWatch is a pool's droplets as WatchDroplets tells them.
type poolWatch struct {
	began    bool
	droplets map[string]*doproxyv1.Droplet
}

func newPoolWatch() *poolWatch { return &poolWatch{droplets: map[string]*doproxyv1.Droplet{}} }

func (w *poolWatch) apply(m *doproxyv1.WatchDropletsResponse) {
	w.began = true
	for _, d := range m.GetDroplets() {
		w.droplets[d.GetName()] = d
	}
	for _, name := range m.GetDeleted() {
		delete(w.droplets, name)
	}
}

// progress is the pool's way to what it wants, as a create's progress is told.
func (w *poolWatch) progress(pool *doproxyv1.Pool) *doproxyv1.Progress {
	p := &doproxyv1.Progress{Pool: pool, Total: pool.GetDesired(), Reason: pool.GetReason()}
	leaving := false
	for _, d := range w.droplets {
		p.Droplets = append(p.Droplets, d)
		p.NodesLive = max(p.NodesLive, d.GetNodesLive())
		if isLeaving(d) {
			leaving = true
			continue
		}
		serves := d.GetPhase() == doproxyv1.Phase_PHASE_SERVING
		p.Requested++
		if serves || d.GetStatus() == "active" {
			p.Active++
		}
		if serves {
			p.Healthy++
		}
		if onAll(d) {
			p.Serving++
		}
	}
	slices.SortFunc(p.Droplets, func(a, b *doproxyv1.Droplet) int {
		if c := a.GetCreateTime().AsTime().Compare(b.GetCreateTime().AsTime()); c != 0 {
			return c
		}
		return strings.Compare(a.GetName(), b.GetName())
	})
	p.Done = !leaving && p.Requested == p.Total && p.Serving == p.Total
	return p
}
