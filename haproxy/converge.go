package haproxy

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// audit asks HAProxy what it has. What differs from what it was believed to
// have is repaired by the converge that follows.
func (w *owner) audit(ctx context.Context, now time.Time) error {
	have, err := w.o.Runtime.ServersState(ctx)
	if err != nil {
		return err
	}
	w.nextAudit = now.Add(w.o.AuditInterval)
	drift := driftOf(w.have, have)
	w.have = have
	if w.running != nil && w.file.edited() {
		w.o.Logger.Warn("haproxy's configuration file was changed by another: writing it again", "file", w.file.path)
		w.file.content, w.file.dirty = nil, true
		drift = append(drift, Drift{Subject: w.file.path, Message: "the file was changed by another"})
	}
	if len(drift) > 0 {
		w.o.Logger.Warn("haproxy is not as it was left: repairing", "differences", len(drift))
		w.update(func(s *Status) { s.Repairs += len(drift) })
	}
	for _, waiting := range w.auditing {
		waiting <- audited{drift, nil}
	}
	w.auditing = nil
	return nil
}

// Drift is one thing in which a HAProxy is not as its Sync had left it.
type Drift struct {
	Subject string // backend/server, or the file
	Message string
}

// driftOf says how what HAProxy has differs from what it was believed to have;
// nil believed is no belief.
func driftOf(believed, have map[string][]ServerState) (drift []Drift) {
	if believed == nil {
		return nil
	}
	messages := map[ChangeKind]string{
		Remove: "there is a server that was not put there", Add: "the server is missing, or has another address",
		EnableChecks: "its health checks are off", Ready: "it was put into maintenance or drain by hand", SetWeight: "its weight was changed",
	}
	for name, servers := range have {
		if slices.Equal(servers, believed[name]) {
			continue
		}
		for _, c := range Diff(servers, believed[name]) {
			drift = append(drift, Drift{Subject: name + "/" + c.Server.Name, Message: messages[c.Kind]})
		}
	}
	for name, servers := range believed {
		if _, ok := have[name]; ok {
			continue
		}
		for _, s := range servers {
			drift = append(drift, Drift{Subject: name + "/" + s.Name, Message: "its whole backend is missing"})
		}
	}
	slices.SortFunc(drift, func(a, b Drift) int {
		return cmp.Or(strings.Compare(a.Subject, b.Subject), strings.Compare(a.Message, b.Message))
	})
	return drift
}

// states is what HAProxy should have for the servers of a backend.
func (w *owner) states(b *Backend) []ServerState {
	out := make([]ServerState, len(b.Servers))
	hold := len(w.unconfirmed) > 0
	for i := range b.Servers {
		s := &b.Servers[i]
		out[i] = ServerState{Name: s.Name, Address: s.Address, Port: s.Port, Weight: s.Weight, Checks: true}
		if hold && s.Weight > 0 {
			if _, ok := w.unconfirmed[b.Name+"/"+s.Name]; ok {
				out[i].Weight = 0
			}
		}
	}
	return out
}

// effective returns cfg with the weights that servers have while they are
// held: what belongs into the file.
func (w *owner) effective(cfg Config) Config {
	if len(w.unconfirmed) == 0 {
		return cfg
	}
	cfg.Backends = slices.Clone(cfg.Backends)
	for i := range cfg.Backends {
		b := &cfg.Backends[i]
		cloned := false
		for j := range b.Servers {
			if b.Servers[j].Weight == 0 {
				continue
			}
			if _, ok := w.unconfirmed[b.Name+"/"+b.Servers[j].Name]; !ok {
				continue
			}
			if !cloned {
				b.Servers, cloned = slices.Clone(b.Servers), true
			}
			b.Servers[j].Weight = 0
		}
	}
	return cfg
}

// converge makes the changes that can be made at run time. A *CommandError
// says that HAProxy refused one; any other error that it does not answer.
func (w *owner) converge(ctx context.Context, now time.Time) error {
	target := w.target()
	for again := true; again; {
		var b batch
		for i := range target.Backends {
			backend := &target.Backends[i]
			w.plan(&b, backend, Diff(w.have[backend.Name], w.states(backend)), now)
		}
		if err := w.execute(ctx, &b, now); err != nil {
			return err
		}
		again = b.again && len(b.commands) > 0
	}
	w.forget()
	if w.invalid == nil && w.inPlace() {
		w.update(func(s *Status) { s.Applied, s.Wanted = w.wantRev, w.wantRev })
	}
	return nil
}

// execute sends the commands and notes each outcome. All are tried; the first
// refusal is returned.
func (w *owner) execute(ctx context.Context, b *batch, now time.Time) error {
	if len(b.commands) == 0 {
		return nil
	}
	answers, err := w.o.Runtime.Do(ctx, b.commands...)
	if err != nil {
		return err
	}
	w.file.dirty = true
	var refusal error
	for _, op := range b.ops {
		err := w.outcome(op, answers[op.from:op.to], b.commands[op.from:op.to], now)
		if err != nil && refusal == nil {
			refusal = err
		}
	}
	return refusal
}

// batch is a row of commands and what each is for.
type batch struct {
	commands []string
	ops      []op
	again    bool // a server is to be added once its namesake has gone
}

type op struct {
	backend  string
	change   Change
	from, to int
}

func (b *batch) add(backend string, c Change, commands ...string) {
	from := len(b.commands)
	b.commands = append(b.commands, commands...)
	b.ops = append(b.ops, op{backend, c, from, len(b.commands)})
}

// plan writes the commands of one backend's changes.
func (w *owner) plan(b *batch, backend *Backend, changes []Change, now time.Time) {
	if len(changes) == 0 {
		return
	}
	options := backend.ServerOptions()
	blocked := map[string]bool{} // added in this batch, or cannot be yet
	for _, c := range changes {
		name := c.Server.Name
		key := backend.Name + "/" + name
		switch c.Kind {
		case Add:
			if blocked[name] {
				b.again = true
				continue
			}
			blocked[name] = true
			s := Server{Name: name, Address: c.Server.Address, Port: c.Server.Port}
			b.add(backend.Name, c, addCommand(backend.Name, s, options), "enable health "+key, "enable server "+key)
		case Remove:
			l, ok := w.leaving[key]
			switch {
			case !ok:
				b.add(backend.Name, c, stateCommand(backend.Name, name, "maint"), "del server "+key)
			case now.Before(l.next):
			case now.Sub(l.since) >= w.o.RemoveDeadline:
				w.o.Logger.Warn("cutting the connections of a removed server: its deadline has passed", "server", key)
				b.add(backend.Name, c, "shutdown sessions server "+key, "del server "+key)
			default:
				b.add(backend.Name, c, "del server "+key)
			}
			// Should it come back under another address, then by the next
			// converge: only then is it known to have gone.
			blocked[name] = true
		case EnableChecks:
			b.add(backend.Name, c, "enable health "+key)
		case Ready:
			b.add(backend.Name, c, stateCommand(backend.Name, name, "ready"))
		case SetWeight:
			if !blocked[name] {
				b.add(backend.Name, c, weightCommand(backend.Name, name, c.Server.Weight))
			}
		}
	}
}

// outcome reads the answers of one change and notes what HAProxy has now.
func (w *owner) outcome(o op, answers, commands []string, now time.Time) error {
	name := o.change.Server.Name
	key := o.backend + "/" + name
	servers := w.have[o.backend]
	i, found := slices.BinarySearchFunc(servers, name, func(s ServerState, name string) int { return strings.Compare(s.Name, name) })
	switch o.change.Kind {
	case Add:
		if err := errors.Join(expect(commands[0], answers[0], answerAdded), expect(commands[1], answers[1], ""), expect(commands[2], answers[2], "")); err != nil {
			return err
		}
		state := o.change.Server
		state.Weight, state.Admin, state.Checks = 0, 0, true
		if w.have == nil {
			w.have = map[string][]ServerState{}
		}
		w.have[o.backend] = slices.Insert(servers, i, state)
		w.unconfirmed[key] = now
		return nil
	case Remove:
		last := len(answers) - 1
		err := expect(commands[last], answers[last], answerDeleted)
		switch {
		case err == nil || errors.Is(err, ErrNoServer):
			if found {
				w.have[o.backend] = slices.Delete(servers, i, i+1)
			}
			delete(w.leaving, key)
			delete(w.unconfirmed, key)
			return nil
		case errors.Is(err, ErrBusy):
			l, ok := w.leaving[key]
			if !ok {
				l = leaving{since: now, pause: 10 * time.Millisecond}
			}
			l.next = now.Add(l.pause)
			l.pause = min(2*l.pause, 500*time.Millisecond)
			w.leaving[key] = l
			if found {
				servers[i].Admin |= ForcedMaint
			}
			return nil
		}
		return err
	}
	if err := expect(commands[0], answers[0], ""); err != nil {
		return err
	}
	if found {
		switch o.change.Kind {
		case EnableChecks:
			servers[i].Checks = true
		case Ready:
			servers[i].Admin = 0
			delete(w.leaving, key)
		case SetWeight:
			servers[i].Weight = o.change.Server.Weight
		}
	}
	return nil
}

// forget drops notes about servers that are gone.
func (w *owner) forget() {
	for key := range w.leaving {
		if !w.has(key) {
			delete(w.leaving, key)
		}
	}
	for key := range w.unconfirmed {
		if !w.has(key) {
			delete(w.unconfirmed, key)
		}
	}
}

func (w *owner) has(key string) bool {
	backend, name, _ := strings.Cut(key, "/")
	_, ok := slices.BinarySearchFunc(w.have[backend], name, func(s ServerState, name string) int { return strings.Compare(s.Name, name) })
	return ok
}

// wantedWeight is the weight that a server should have once it is not held.
func (w *owner) wantedWeight(key string) uint16 {
	if w.want == nil {
		return 0
	}
	backend, name, _ := strings.Cut(key, "/")
	b := w.want.backend(backend)
	if b == nil {
		return 0
	}
	i, ok := slices.BinarySearchFunc(b.Servers, name, func(s Server, name string) int { return strings.Compare(s.Name, name) })
	if !ok {
		return 0
	}
	return b.Servers[i].Weight
}

// held counts the servers that should serve but wait for their first check.
func (w *owner) held() int {
	n := 0
	for key := range w.unconfirmed {
		if w.wantedWeight(key) > 0 {
			n++
		}
	}
	return n
}
