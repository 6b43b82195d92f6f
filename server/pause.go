package server

import (
	"context"
	"time"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// maxReason bounds what people write to explain a request.
const maxReason = 500

func (v *violations) reason(reason string) {
	v.check(len(reason) <= maxReason, "reason", reason, "is too long: at most 500 bytes")
}

// pausedText says for people that, since when and why.
func pausedText(p *inventory.Pause) string {
	text := "every change at the cloud is paused"
	if !p.Since.IsZero() {
		text += " since " + p.Since.UTC().Format(time.RFC3339)
	}
	if p.Reason != "" {
		text += " (" + p.Reason + ")"
	}
	return text
}

// Pause implements pb.ClusterServiceServer. A pause that stands stays as it is.
func (s *Server) Pause(ctx context.Context, req *pb.PauseRequest) (*pb.PauseResponse, error) {
	var v violations
	v.reason(req.GetReason())
	if err := v.err(); err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	out, err := change(ctx, s, wish{target: "pause", dry: req.GetValidateOnly()}, func(st *inventory.State) (d decision[*pb.PauseResponse], err error) {
		if _, bad := st.Unreadable[s.keys.Pause()]; bad {
			d.answer = &pb.PauseResponse{Pause: PauseToProto(st.Pause)} // whatever it says, it stands
			return d, nil
		}
		if st.Pause != nil {
			d.txn.Guards = []inventory.Guard{{Key: s.keys.Pause(), Mod: st.Pause.Mod}}
			d.answer = &pb.PauseResponse{Pause: PauseToProto(st.Pause)}
			return d, nil
		}
		p := &inventory.Pause{Since: now, Node: s.node, Reason: req.GetReason()}
		d.txn.Add(inventory.PutPause(s.keys, p))
		d.answer = &pb.PauseResponse{Pause: PauseToProto(p)}
		d.event = &inventory.Event{Type: "cluster.paused", Message: "every change at the cloud is paused, by request" + because(p.Reason)}
		return d, nil
	})
	return out.answer, err
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// Resume implements pb.ClusterServiceServer.
func (s *Server) Resume(ctx context.Context, req *pb.ResumeRequest) (*pb.ResumeResponse, error) {
	w := wish{target: "resume " + req.GetPool(), dry: req.GetValidateOnly()}
	decide := s.resume(ctx)
	if req.GetPool() != "" {
		pool, err := parsePool("pool", req.GetPool())
		if err != nil {
			return nil, err
		}
		decide = s.resumePool(pool)
	}
	out, err := change(ctx, s, w, decide)
	if err != nil {
		return nil, err
	}
	return &pb.ResumeResponse{Resumed: out.answer}, nil
}

// resume ends a pause. One whose record cannot be read holds too, and ends too.
func (s *Server) resume(ctx context.Context) func(*inventory.State) (decision[bool], error) {
	return func(st *inventory.State) (d decision[bool], err error) {
		if st.Pause == nil {
			d.txn.Guards = []inventory.Guard{{Key: s.keys.Pause()}}
			return d, nil
		}
		p := *st.Pause
		if _, d.replaces = st.Unreadable[s.keys.Pause()]; d.replaces {
			kv, err := s.get(ctx, s.keys.Pause())
			if err != nil {
				return d, err
			}
			p.Mod = kv.Mod
		}
		d.txn.Add(inventory.DeletePause(s.keys, &p))
		d.answer = true
		d.event = &inventory.Event{Type: "cluster.resumed", Message: "the pause ends, by request"}
		return d, nil
	}
}

// resumePool lets a pool create again that stopped or waits after failures.
func (s *Server) resumePool(pool string) func(*inventory.State) (decision[bool], error) {
	return func(st *inventory.State) (d decision[bool], err error) {
		p, err := s.poolToChange(st, pool, "")
		if err != nil {
			return d, err
		}
		next := *p
		tryAgain(&next)
		s.putPool(&d.txn, p, &next)
		d.answer = len(d.txn.Ops) > 0
		d.event = &inventory.Event{Type: "pool.resumed", Pool: pool, Message: "creates go on, by request"}
		return d, nil
	}
}
