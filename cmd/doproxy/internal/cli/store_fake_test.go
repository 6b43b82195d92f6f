package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// storeFake is the store service of a fake: a store of three members.
type storeFake struct {
	untrusted  string
	raw        []*doproxyv1.Record
	store      string
	membership *doproxyv1.Membership
	unknown    string // why the membership is not known
	refuses    string // why a change of it is refused
	next       []string
}

func newStoreFake() storeFake {
	m := &doproxyv1.Membership{Cluster: "01JSTORE"}
	for i, name := range []string{"lb1", "lb2", "lb3"} {
		m.Members = append(m.Members, &doproxyv1.Member{
			Node: "nodes/" + name, Id: name + "-9f3a01c2", Address: "10.132.0." + count(int32(i+2)) + ":7477", Version: "1.4.0",
			Leader: i == 0, Voter: true, Healthy: true, Since: timestamppb.New(epoch.Add(-3 * time.Hour)),
		})
	}
	return storeFake{store: "raft", membership: counting(m)}
}

// counting fills what the members' health makes of the store.
func counting(m *doproxyv1.Membership) *doproxyv1.Membership {
	voters, healthy := votersOf(m)
	m.Tolerates = int32(max(0, healthy-(voters/2+1)))
	return m
}

// sick makes the i-th member unhealthy.
func (f *storeFake) sick(i int) {
	one := f.membership.Members[i]
	one.Healthy, one.Behind, one.Since = false, 1204, timestamppb.New(epoch.Add(-12*time.Second))
	counting(f.membership)
}

func (f *fake) GetStore(_ context.Context, req *doproxyv1.GetStoreRequest) (*doproxyv1.GetStoreResponse, error) {
	if err := f.begin(req); err != nil {
		return nil, err
	}
	res := &doproxyv1.GetStoreResponse{Store: f.store, Node: "nodes/lb2", Error: f.unknown, Untrusted: f.untrusted}
	if f.unknown == "" {
		res.Membership = f.membership
	}
	return res, nil
}

func (f *fake) change(m proto.Message) error {
	if err := f.begin(m); err != nil {
		return err
	}
	if f.refuses != "" {
		return status.Error(codes.FailedPrecondition, f.refuses)
	}
	return nil
}

func (f *fake) InitStore(_ context.Context, req *doproxyv1.InitStoreRequest) (*doproxyv1.InitStoreResponse, error) {
	return &doproxyv1.InitStoreResponse{Cluster: "01JSTORE", Node: "nodes/lb2"}, f.change(req)
}

func (f *fake) JoinStore(_ context.Context, req *doproxyv1.JoinStoreRequest) (*doproxyv1.JoinStoreResponse, error) {
	return &doproxyv1.JoinStoreResponse{Node: "nodes/lb2", Membership: f.membership}, f.change(req)
}

func (f *fake) CreateJoinToken(_ context.Context, req *doproxyv1.CreateJoinTokenRequest) (*doproxyv1.CreateJoinTokenResponse, error) {
	return &doproxyv1.CreateJoinTokenResponse{Token: "dpt1-secret", ExpireTime: timestamppb.New(epoch.Add(req.GetTtl().AsDuration()))}, f.change(req)
}

func (f *fake) RemoveMember(_ context.Context, req *doproxyv1.RemoveMemberRequest) (*doproxyv1.RemoveMemberResponse, error) {
	if err := f.change(req); err != nil {
		return nil, err
	}
	left := proto.Clone(f.membership).(*doproxyv1.Membership)
	i := slices.IndexFunc(left.Members, func(m *doproxyv1.Member) bool { return m.GetNode() == req.GetNode() })
	if i < 0 {
		return nil, status.Errorf(codes.NotFound, "the store has no member %q", nodeID(req.GetNode()))
	}
	res := &doproxyv1.RemoveMemberResponse{Removed: left.Members[i], Left: left}
	left.Members = slices.Delete(left.Members, i, i+1)
	counting(left)
	res.Stops = strings.Contains(voterSummary(left), "has stopped")
	if !req.GetValidateOnly() {
		f.membership = left
	}
	return res, nil
}

func (f *fake) StepDown(_ context.Context, req *doproxyv1.StepDownRequest) (*doproxyv1.StepDownResponse, error) {
	return &doproxyv1.StepDownResponse{From: "nodes/lb1", To: "nodes/lb3"}, f.change(req)
}

func (f *fake) MigrateStore(req *doproxyv1.MigrateStoreRequest, stream grpc.ServerStreamingServer[doproxyv1.MigrateStoreResponse]) error {
	if err := f.change(req); err != nil {
		return err
	}
	for n, line := range []string{"copying the inventory", "comparing both"} {
		if f.step != nil {
			if err := f.step(n); err != nil {
				return err
			}
		}
		if err := stream.Send(&doproxyv1.MigrateStoreResponse{Step: &doproxyv1.MigrateStoreResponse_Progress{Progress: line}}); err != nil {
			return err
		}
		if !f.rest(stream.Context()) {
			return stream.Context().Err()
		}
	}
	return stream.Send(&doproxyv1.MigrateStoreResponse{Step: &doproxyv1.MigrateStoreResponse_Result{Result: &doproxyv1.Migration{
		From: req.GetFrom(), To: req.GetTo(), Aborted: req.GetAbort(), Records: 10042, Digest: "9c1185a5", Held: durationpb.New(312 * time.Millisecond), Next: f.next,
	}}})
}

func (f *fake) ListRecords(_ context.Context, req *doproxyv1.ListRecordsRequest) (*doproxyv1.ListRecordsResponse, error) {
	res := &doproxyv1.ListRecordsResponse{Revision: 9}
	for _, r := range f.raw {
		if strings.HasPrefix(r.GetKey(), "/doproxy/default/"+req.GetPrefix()) {
			r := proto.Clone(r).(*doproxyv1.Record)
			r.Value = nil
			res.Records = append(res.Records, r)
		}
	}
	return res, f.begin(req)
}

func (f *fake) GetRecord(_ context.Context, req *doproxyv1.GetRecordRequest) (*doproxyv1.GetRecordResponse, error) {
	for _, r := range f.raw {
		if r.GetKey() == "/doproxy/default/"+req.GetKey() {
			return &doproxyv1.GetRecordResponse{Record: r}, f.begin(req)
		}
	}
	return nil, refusal(codes.NotFound, "RECORD_NOT_FOUND", "there is no such record", "", "")
}

func (f *fake) DeleteRecord(ctx context.Context, req *doproxyv1.DeleteRecordRequest) (*doproxyv1.DeleteRecordResponse, error) {
	res, err := f.GetRecord(ctx, &doproxyv1.GetRecordRequest{Key: req.GetKey()})
	if err != nil {
		return nil, err
	}
	if !req.GetValidateOnly() {
		f.raw = slices.DeleteFunc(f.raw, func(r *doproxyv1.Record) bool { return r == res.GetRecord() })
	}
	return &doproxyv1.DeleteRecordResponse{Record: res.GetRecord()}, f.begin(req)
}
