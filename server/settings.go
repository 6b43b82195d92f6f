package server

import (
	"context"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// GetSettings implements pb.ClusterServiceServer.
func (s *Server) GetSettings(context.Context, *pb.GetSettingsRequest) (*pb.GetSettingsResponse, error) {
	st, err := s.state()
	if err != nil {
		return nil, err
	}
	return &pb.GetSettingsResponse{Settings: SettingsToProto(st.Settings)}, nil
}

// ApplySettings implements pb.ClusterServiceServer.
func (s *Server) ApplySettings(ctx context.Context, req *pb.ApplySettingsRequest) (*pb.ApplySettingsResponse, error) {
	var v violations
	v.settings(req.GetSettings(), "settings.")
	if err := v.err(); err != nil {
		return nil, err
	}
	wanted := SettingsFromProto(req.GetSettings())
	w := wish{target: "apply settings", dry: req.GetValidateOnly()}
	out, err := change(ctx, s, w, func(st *inventory.State) (d decision[*pb.ApplySettingsResponse], err error) {
		have := SettingsETag(st.Settings)
		if etag := req.GetEtag(); etag != "" && etag != have {
			return d, settingsChanged(etag, have)
		}
		next := *st.Settings
		next.Limits, next.Ingress = wanted.Limits, wanted.Ingress
		guard, op := inventory.PutSettings(s.keys, &next)
		d.txn.Guards = append(d.txn.Guards, guard)
		resp := &pb.ApplySettingsResponse{Settings: SettingsToProto(&next)}
		d.answer = resp
		if resp.Settings.Etag == have {
			return d, nil
		}
		d.txn.Ops = append(d.txn.Ops, op)
		changed := settingChanges(SettingsToProto(st.Settings), resp.Settings)
		for _, c := range changed {
			resp.Changes = append(resp.Changes, &pb.SettingChange{Field: c.Field, Before: c.Before, After: c.After})
		}
		d.event = &inventory.Event{Type: "settings.changed", Message: "settings changed: " + summary(changed)}
		return d, nil
	})
	return out.answer, err
}
