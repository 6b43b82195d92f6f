package server

import (
	"context"

	"google.golang.org/grpc"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// GetStatus implements pb.ClusterServiceServer. It answers whatever happens.
func (s *Server) GetStatus(_ context.Context, req *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	if req.GetEvents() < 0 {
		return nil, invalid("events", req.GetEvents(), "must not be negative")
	}
	st := s.mirror.State()
	resp := &pb.GetStatusResponse{
		Cluster:    s.cluster,
		Store:      s.storeName,
		Revision:   int64(st.Revision),
		Leader:     st.Leader.Name,
		StoreError: stale(st),
		Node:       s.node,
		CloudError: cloudError(st),
		Usage:      usageToProto(st),
		Settings:   SettingsToProto(st.Settings),
		Pause:      PauseToProto(st.Pause),

		ReservedIps: reservedIPs(st),
		DnsRecords:  dnsRecords(st, ""),
	}
	if st.Report != nil {
		resp.Conditions = conditionsToProto(st.Report.Conditions)
	}
	if st.Meta != nil {
		resp.Uid = st.Meta.UID
	}
	if st.Err != nil {
		resp.StoreErrorTime = timestamp(st.Since)
	}
	for _, name := range nodeNames(st) {
		resp.Nodes = append(resp.Nodes, NodeToProto(st, name))
	}
	for _, p := range st.SortedPools() {
		resp.Pools = append(resp.Pools, PoolToProto(p, st.PoolDroplets(p.Name)))
		resp.InventoryRevision = max(resp.InventoryRevision, int64(p.Mod))
	}
	for _, d := range st.Droplets {
		resp.CostHourly += d.PriceHourly
		resp.InventoryRevision = max(resp.InventoryRevision, int64(d.Mod))
	}
	n := int(or(req.GetEvents(), 10))
	for _, e := range st.Events[max(0, len(st.Events)-n):] {
		resp.Events = append(resp.Events, EventToProto(e))
	}
	for _, key := range sortedKeys(st.Unreadable) {
		resp.Unreadable = append(resp.Unreadable, &pb.UnreadableRecord{Key: key, Error: st.Unreadable[key]})
	}
	return resp, nil
}

// cloudError is of the leader's last talk with the cloud. Before it has told of
// one, it is why creates are held back.
func cloudError(st *inventory.State) string {
	if st.Report != nil {
		return st.Report.CloudError
	}
	for _, p := range st.SortedPools() {
		if p.Reason != "" {
			return p.Reason
		}
	}
	return ""
}

// ListNodes implements pb.ClusterServiceServer.
func (s *Server) ListNodes(_ context.Context, req *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	st, err := s.state()
	if err != nil {
		return nil, err
	}
	names, next, err := page(nodeNames(st), func(name string) string { return name }, "nodes", req.GetPageSize(), 1000, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListNodesResponse{NextPageToken: next}
	for _, name := range names {
		resp.Nodes = append(resp.Nodes, NodeToProto(st, name))
	}
	return resp, nil
}

// ListEvents implements pb.ClusterServiceServer. Pages go from the oldest kept on.
func (s *Server) ListEvents(_ context.Context, req *pb.ListEventsRequest) (*pb.ListEventsResponse, error) {
	st, err := s.state()
	if err != nil {
		return nil, err
	}
	events, next, err := page(st.Events, func(e inventory.Event) string { return e.ID }, "events", req.GetPageSize(), 200, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListEventsResponse{NextPageToken: next}
	for _, e := range events {
		resp.Events = append(resp.Events, EventToProto(e))
	}
	return resp, nil
}

// WatchEvents implements pb.ClusterServiceServer. An event of a node whose
// clock is behind comes when it comes, though its id sorts earlier. If more
// happens between two messages than a state keeps, the oldest are not sent.
func (s *Server) WatchEvents(req *pb.WatchEventsRequest, stream grpc.ServerStreamingServer[pb.WatchEventsResponse]) error {
	var sent map[string]bool
	return s.follow(stream.Context(), func(st *inventory.State) (bool, error) {
		resp := &pb.WatchEventsResponse{}
		kept := make(map[string]bool, len(st.Events))
		first := sent == nil
		for _, e := range st.Events {
			kept[e.ID] = true
			if !sent[e.ID] && !(first && req.GetOnlyNew()) {
				resp.Events = append(resp.Events, EventToProto(e))
			}
		}
		sent = kept
		if len(resp.Events) == 0 {
			return false, nil
		}
		return false, stream.Send(resp)
	})
}
