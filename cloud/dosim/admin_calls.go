package dosim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// nextCreate is the behaviour of the next Count droplets to be made.
type nextCreate struct {
	Count     int       `json:"count"`
	Behaviour Behaviour `json:"behaviour"`
}

// takeNextCreate is the behaviour of the droplet that is being made.
func (st *state) takeNextCreate() Behaviour {
	if len(st.NextCreates) == 0 {
		return Behaviour{}
	}
	first := &st.NextCreates[0]
	b := first.Behaviour
	if first.Count--; first.Count == 0 {
		st.NextCreates = st.NextCreates[1:]
	}
	return b
}

// DropletView is a droplet as the simulator knows it.
type DropletView struct {
	ID      int      `json:"id"`
	Name    string   `json:"name"`
	Status  string   `json:"status"`
	Address string   `json:"address"`
	Region  string   `json:"region"`
	Size    string   `json:"size"`
	Image   string   `json:"image"`
	Tags    []string `json:"tags"`
	// App is "serving" or "closed", or "hosted" for a machine that really runs.
	App string `json:"app"`
	// Requests is how many the droplet's HTTP server has had since the
	// simulator started.
	Requests int64 `json:"requests"`
	// Deleting is set between a delete and its taking effect.
	Deleting  bool      `json:"deleting"`
	CreatedAt time.Time `json:"created_at"`
	UserData  string    `json:"user_data,omitempty"`
	Behaviour Behaviour `json:"behaviour"`
	Load      Load      `json:"load"`
}

func (d *droplet) view() DropletView {
	v := DropletView{
		ID: d.ID, Name: d.Name, Status: d.Status, Address: d.Private.String(), Region: d.Region,
		Size: d.Size, Tags: orEmpty(slices.Clone(d.Tags)), App: "closed", Deleting: !d.GoneAt.IsZero(),
		Image: d.Image.Name, CreatedAt: d.Created.UTC(), UserData: d.UserData, Behaviour: d.Behaviour, Load: d.Load,
	}
	if d.Image.Slug != nil {
		v.Image = *d.Image.Slug
	}
	if d.Hosted {
		v.App = "hosted"
	}
	if d.app != nil {
		v.Requests = d.app.requests.Load()
		if d.app.opened() {
			v.App = "serving"
		}
	}
	return v
}

// adminRoutes are the simulator's own calls. They need no token: the simulator
// is to be reached by its users only.
func (s *Sim) adminRoutes(mux *http.ServeMux) {
	admin := func(pattern string, h func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			body, err := h(r)
			var encoded []byte
			if err == nil {
				encoded, err = json.Marshal(body)
			}
			if r.Method != http.MethodGet {
				s.changed()
			}
			s.mu.Unlock()
			writeAdmin(w, encoded, err)
		})
	}
	admin("/_sim/", func(r *http.Request) (any, error) {
		return nil, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, errAdminNotFound)
	})
	admin("GET /_sim/droplets", s.adminDroplets)
	admin("GET /_sim/droplets/{id}", s.adminDroplet)
	admin("PATCH /_sim/droplets/{id}", s.adminSetDroplet)
	admin("PUT /_sim/droplets/{id}/host", s.adminHost)
	admin("GET /_sim/assigns", s.adminAssigns)
	admin("DELETE /_sim/assigns", s.adminResetAssigns)
	admin("GET /_sim/calls", func(*http.Request) (any, error) { return s.calls.list(), nil })
	admin("DELETE /_sim/calls", func(*http.Request) (any, error) { s.calls.reset(); return s.calls.list(), nil })
	admin("GET /_sim/faults", func(*http.Request) (any, error) { return map[string]any{"faults": orEmpty(s.state.Faults)}, nil })
	admin("POST /_sim/faults", s.adminAddFault)
	admin("DELETE /_sim/faults", s.adminClearFaults)
	admin("DELETE /_sim/faults/{id}", s.adminClearFaults)
	admin("GET /_sim/next-creates", s.adminNextCreates)
	admin("POST /_sim/next-creates", s.adminAddNextCreate)
	admin("DELETE /_sim/next-creates", func(r *http.Request) (any, error) {
		s.state.NextCreates = nil
		return s.adminNextCreates(r)
	})
}

var errAdminNotFound = errors.New("there is no such thing in the simulator")

func writeAdmin(w http.ResponseWriter, body []byte, err error) {
	w.Header().Set("content-type", "application/json; charset=utf-8")
	if err != nil {
		status := http.StatusBadRequest
		if errors.Is(err, errAdminNotFound) {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		body, _ = json.Marshal(map[string]string{"error": err.Error()}) // a string
	}
	_, _ = w.Write(append(body, '\n'))
}

// decodeAdmin reads a body strictly: a misspelt field is an error.
func decodeAdmin(r *http.Request, v any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("the body is not what this call takes: %w", err)
	}
	return nil
}

func (s *Sim) adminDroplets(*http.Request) (any, error) {
	views := []DropletView{}
	for _, d := range s.state.Droplets {
		views = append(views, d.view())
	}
	return map[string]any{"droplets": views}, nil
}

func (s *Sim) adminDroplet(r *http.Request) (any, error) {
	id, _ := strconv.Atoi(r.PathValue("id")) // what is not a number is not found
	d := s.state.droplet(id)
	if d == nil {
		return nil, fmt.Errorf("droplet %s: %w", r.PathValue("id"), errAdminNotFound)
	}
	return d.view(), nil
}
