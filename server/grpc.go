package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// newGRPC is a grpc.Server with all services, reflection and health.
//
// Health: "" and the services that answer from what the node knows
// (ClusterService, NodeService), and StoreService, serve until the node shuts
// down. PoolService and DropletService, which write, serve only while the mirror
// is in step with the store.
func (s *Server) newGRPC() (*grpc.Server, *health.Server) {
	g := grpc.NewServer(
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		// Streams live for hours: a client may ask whether the other side still
		// is there, and so does the server.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
	)
	s.Register(g)
	h := health.NewServer()
	healthpb.RegisterHealthServer(g, h)
	reflection.Register(g)
	return g, h
}

// Serve answers on the listeners, which it closes, until ctx ends or one fails.
// At the end calls that follow something end at once with UNAVAILABLE, others
// have ShutdownTimeout. Call it once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	if len(listeners) == 0 {
		return errors.New("server: no listener")
	}
	g, h := s.newGRPC()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	errs := make(chan error, len(listeners))
	for _, l := range listeners {
		parts.Go(func() {
			err := g.Serve(l)
			if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				err = fmt.Errorf("serving the API on %s: %w", l.Addr(), err)
				errs <- err
				cancel(err)
			}
		})
	}
	parts.Go(func() { s.tellHealth(ctx, h) })
	<-ctx.Done()
	s.EndStreams()
	h.Shutdown()
	deadline := time.AfterFunc(s.shutdownTimeout, g.Stop)
	g.GracefulStop()
	deadline.Stop()
	parts.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// tellHealth keeps the health service in step with the mirror until ctx ends.
func (s *Server) tellHealth(ctx context.Context, h *health.Server) {
	wake, cancel := s.mirror.Subscribe()
	defer cancel()
	for _, name := range []string{"", pb.ClusterService_ServiceDesc.ServiceName, pb.NodeService_ServiceDesc.ServiceName, pb.StoreService_ServiceDesc.ServiceName} {
		h.SetServingStatus(name, healthpb.HealthCheckResponse_SERVING)
	}
	for {
		word := healthpb.HealthCheckResponse_NOT_SERVING
		if st := s.mirror.State(); st.Listed && st.Err == nil {
			word = healthpb.HealthCheckResponse_SERVING
		}
		h.SetServingStatus(pb.PoolService_ServiceDesc.ServiceName, word)
		h.SetServingStatus(pb.DropletService_ServiceDesc.ServiceName, word)
		select {
		case <-wake:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	err = s.guard(ctx, info.FullMethod, func() (err error) {
		resp, err = handler(ctx, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := stream.Context()
	if !strings.HasPrefix(info.FullMethod, "/doproxy.") {
		// Our own streams end by themselves at shutdown, once what they write is
		// written; health's would go on for ever.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		ended := make(chan struct{})
		defer close(ended)
		go func() {
			select {
			case <-s.stopping:
				cancel()
			case <-ended:
			}
		}()
		stream = &streamUntil{stream, ctx}
	}
	return s.guard(ctx, info.FullMethod, func() error { return handler(srv, stream) })
}

// streamUntil is a stream with another context.
type streamUntil struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamUntil) Context() context.Context { return s.ctx }

// guard runs a call: it survives a panic, turns the error into a status and
// tells the log how it went.
func (s *Server) guard(ctx context.Context, method string, call func() error) (err error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			s.logger.Error("a call panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
			err = toStatus(&problem{code: codes.Internal, reason: ReasonInternal, message: "something went wrong inside doproxy; the node's log has more"})
		}
		s.log(ctx, method, time.Since(start), err)
	}()
	err = call()
	if cause := err; cause != nil {
		err = toStatus(cause)
		if status.Code(err) == codes.Internal || errors.Is(cause, inventory.ErrUnavailable) {
			s.logger.Warn("a call failed", "method", method, "error", cause)
		}
	}
	return err
}

func (s *Server) log(ctx context.Context, method string, took time.Duration, err error) {
	if !s.logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	s.logger.Debug("call", "method", method, "code", status.Code(err).String(), "took", took, "from", from)
}
