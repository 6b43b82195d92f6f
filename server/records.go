package server

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// Reasons of the calls on records.
const (
	ReasonRecordNotFound = "RECORD_NOT_FOUND" // NOT_FOUND
	ReasonRecordCounts   = "RECORD_COUNTS"    // FAILED_PRECONDITION: only what was set aside can be deleted so
	ReasonRecordChanged  = "RECORD_CHANGED"   // ABORTED: it is of another revision by now
)

const maxKey = 1024

// recordKey is the whole key of a record.
func (s *Server) recordKey(field, key string) (string, error) {
	prefix := s.keys.Prefix()
	switch {
	case key == "" && field == "key":
		return "", invalid(field, key, "is missing: see doproxy store records")
	case len(key) > maxKey:
		return "", invalid(field, key, fmt.Sprintf("is too long: at most %d bytes", maxKey))
	case strings.HasPrefix(key, prefix):
		return key, nil
	case strings.HasPrefix(key, "/"):
		return "", invalid(field, key, "is of no record of this cluster: they begin with "+prefix)
	}
	return prefix + key, nil
}

// ListRecords implements pb.StoreServiceServer.
func (s *Server) ListRecords(ctx context.Context, req *pb.ListRecordsRequest) (*pb.ListRecordsResponse, error) {
	prefix, err := s.recordKey("prefix", req.GetPrefix())
	if err != nil {
		return nil, err
	}
	var l inventory.Listing
	err = s.call(ctx, func(ctx context.Context) error {
		l, err = s.store.List(ctx, prefix)
		return err
	})
	if err != nil {
		return nil, err
	}
	aside := s.mirror.State().Unreadable
	resp := &pb.ListRecordsResponse{Revision: int64(l.Revision), Records: make([]*pb.Record, len(l.KVs))}
	for i, kv := range l.KVs {
		resp.Records[i] = recordToProto(kv, aside[kv.Key])
		resp.Records[i].Value = nil
	}
	return resp, nil
}

// GetRecord implements pb.StoreServiceServer.
func (s *Server) GetRecord(ctx context.Context, req *pb.GetRecordRequest) (*pb.GetRecordResponse, error) {
	kv, err := s.record(ctx, req.GetKey())
	if err != nil {
		return nil, err
	}
	return &pb.GetRecordResponse{Record: recordToProto(kv, s.mirror.State().Unreadable[kv.Key])}, nil
}

func (s *Server) record(ctx context.Context, key string) (inventory.KV, error) {
	key, err := s.recordKey("key", key)
	if err != nil {
		return inventory.KV{}, err
	}
	kv, err := s.get(ctx, key)
	if err == nil && kv.Mod == 0 {
		err = &problem{code: codes.NotFound, reason: ReasonRecordNotFound,
			message:  fmt.Sprintf("there is no record %s: doproxy store records lists those that there are", key),
			metadata: map[string]string{"key": key}}
	}
	return kv, err
}

// DeleteRecord implements pb.StoreServiceServer.
func (s *Server) DeleteRecord(ctx context.Context, req *pb.DeleteRecordRequest) (*pb.DeleteRecordResponse, error) {
	key, err := s.recordKey("key", req.GetKey())
	if err != nil {
		return nil, err
	}
	w := wish{target: "delete record " + key, dry: req.GetValidateOnly()}
	out, err := change(ctx, s, w, func(st *inventory.State) (d decision[*pb.Record], err error) {
		kv, err := s.record(ctx, key)
		if err != nil {
			return d, err
		}
		why, aside := st.Unreadable[key]
		switch {
		case req.GetRevision() != 0 && req.GetRevision() != int64(kv.Mod):
			return d, &problem{code: codes.Aborted, reason: ReasonRecordChanged, metadata: map[string]string{"key": key, "revision": fmt.Sprint(int64(kv.Mod))},
				message: fmt.Sprintf("the record %s changed since revision %d was read: get it again and decide anew; nothing was changed", key, req.GetRevision())}
		case !aside:
			return d, &problem{code: codes.FailedPrecondition, reason: ReasonRecordCounts, subject: key, metadata: map[string]string{"key": key},
				message: fmt.Sprintf("the record %s can be read, and counts: change what it is about instead (doproxy delete, pools delete, apply, node forget); nothing was changed", key)}
		}
		d.replaces = true
		d.answer = recordToProto(kv, why)
		d.txn.Add(inventory.Guard{Key: key, Mod: kv.Mod}, inventory.Op{Key: key, Delete: true})
		d.event = &inventory.Event{Type: "record.deleted", Message: "record " + key + ", which was set aside, was deleted by request"}
		return d, nil
	})
	return &pb.DeleteRecordResponse{Record: out.answer}, err
}
