package fleet

import (
	"fmt"
	"time"
)

// paused says that an operator wants no change at the cloud. Droplets that are
// draining go on to Deleting in the records; their delete calls wait.
func (p *planner) paused() bool { return p.State.Pause != nil }

func (p *planner) tellPause() {
	pause := p.State.Pause
	if pause == nil {
		return
	}
	why := ""
	if pause.Reason != "" {
		why = " (" + pause.Reason + ")"
	}
	p.note("paused", "fleet.paused", "", "", fmt.Sprintf(
		"paused on %s since %s%s: nothing is created, deleted or tagged at DigitalOcean; go on with doproxy resume",
		pause.Node, pause.Since.UTC().Format(time.RFC3339), why))
}
