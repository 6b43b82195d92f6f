package dosim

import "time"

const (
	actionInProgress = "in-progress"
	actionCompleted  = "completed"
	actionErrored    = "errored"
)

// noTime is when an action completes that another event completes.
var noTime time.Time

// action is a piece of work that takes its time.
type action struct {
	ID           int
	Type         string
	Status       string
	ResourceType string
	Resource     int
	Region       string
	Started      time.Time
	DoneAt       time.Time // when it completes by itself, or noTime
	Completed    time.Time

	// What the action does when it completes.
	Name  string `json:",omitempty"` // of rename and snapshot
	Size  string `json:",omitempty"` // of resize
	Image string `json:",omitempty"` // of rebuild and restore
}

func (a *action) finish(status string, now time.Time) {
	if a == nil || a.Status != actionInProgress {
		return
	}
	a.Status, a.Completed = status, now
}

func (a *action) body() actionBody {
	b := actionBody{
		ID: a.ID, Status: a.Status, Type: a.Type, StartedAt: a.Started.UTC().Truncate(time.Second),
		ResourceType: a.ResourceType, Region: findRegion(a.Region), RegionSlug: a.Region,
	}
	if a.Resource != 0 {
		b.ResourceID = &a.Resource
	}
	if !a.Completed.IsZero() {
		t := a.Completed.UTC().Truncate(time.Second)
		b.CompletedAt = &t
	}
	return b
}
