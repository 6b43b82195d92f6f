// Package server is doproxy's gRPC API. Any node takes any request: one that
// changes something becomes a change of what is wanted, written to the store by
// a guarded transaction, and one that asks is answered from the node's own
// mirror, also while the store is down. Nothing is forwarded, and nothing here
// calls the cloud.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// Mirror is what the server asks of *inventory.Mirror.
type Mirror interface {
	State() *inventory.State
	Subscribe() (wake <-chan struct{}, cancel func())
	WaitRevision(ctx context.Context, rev inventory.Revision) (*inventory.State, error)
}

// Journal takes events. Record returns at once: an event that cannot be kept is
// the journal's to tell of. The server leaves ID and Time empty.
type Journal interface {
	Record(e inventory.Event)
}

// Local is this node's HAProxy. Its methods are safe for concurrent use.
type Local interface {
	// Reload renders the configuration, checks it and reloads HAProxy with it.
	// Its error says why the old worker still serves.
	Reload(ctx context.Context) error
	// Render renders the configuration and touches nothing. path is where the
	// agent keeps it.
	Render(ctx context.Context) (config []byte, path string, err error)
	// Reloads counts all reloads that the agent made.
	Reloads() int64
}

// Options are a server's dependencies. All are needed but Target, those of the
// store's own service and the durations.
type Options struct {
	Cluster string // name of the cluster
	Node    string // name of this node
	Store   inventory.Store
	Leaser  inventory.Leaser
	Keys    inventory.Keys
	Mirror  Mirror
	Journal Journal
	Local   Local
	Logger  *slog.Logger

	// Target, if not nil, tells which node an address would go to if an operator
	// asked for it: to, or any other than now if that is inventory.AnyNode. Its
	// error says for people why none can have it. It does not block.
	Target func(st *inventory.State, address netip.Addr, to string) (node string, err error)

	// StoreName is "etcd" or "raft". Empty is "etcd".
	StoreName string
	// StoreAdmin and Migrator are nil on a node that has no raft.address.
	StoreAdmin StoreAdmin
	Migrator   Migrator

	// CallTimeout bounds each call to the store. Zero is 5 s.
	CallTimeout time.Duration
	// ReloadTimeout bounds a reload, also one of all nodes, and a verify. Zero is 60 s.
	ReloadTimeout time.Duration
	// ShutdownTimeout is how long calls may end by themselves. Zero is 10 s.
	ShutdownTimeout time.Duration
}

// Validate says which options are missing.
func (o *Options) Validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("server: Options."+what+" is missing"))
		}
	}
	if err := inventory.ValidName(o.Cluster); err != nil {
		errs = append(errs, err)
	}
	if err := inventory.ValidName(o.Node); err != nil {
		errs = append(errs, err)
	}
	need(o.Store != nil, "Store")
	need(o.Leaser != nil, "Leaser")
	need(o.Keys.Prefix() != "", "Keys")
	need(o.Mirror != nil, "Mirror")
	need(o.Journal != nil, "Journal")
	need(o.Local != nil, "Local")
	need(o.Logger != nil, "Logger")
	if o.StoreName != "" && !storeKind(o.StoreName) {
		errs = append(errs, fmt.Errorf("server: Options.StoreName is %q: want %s", o.StoreName, storeKinds))
	}
	return errors.Join(errs...)
}

// Server answers the five services. Its methods are the gRPC methods; their
// errors are ready for the wire only behind the interceptors of NewGRPC.
type Server struct {
	pb.UnimplementedPoolServiceServer
	pb.UnimplementedDropletServiceServer
	pb.UnimplementedClusterServiceServer
	pb.UnimplementedNodeServiceServer
	pb.UnimplementedStoreServiceServer

	cluster, node string
	store         inventory.Store
	leaser        inventory.Leaser
	keys          inventory.Keys
	mirror        Mirror
	journal       Journal
	local         Local
	logger        *slog.Logger
	target        func(*inventory.State, netip.Addr, string) (string, error) // may be nil
	storeName     string
	storeAdmin    StoreAdmin // may be nil
	migrator      Migrator   // may be nil

	callTimeout, reloadTimeout, shutdownTimeout time.Duration

	stop     sync.Once
	stopping chan struct{} // closed when streams must end
}

// New makes a server. It starts nothing.
func New(o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Server{
		cluster: o.Cluster, node: o.Node,
		store: o.Store, leaser: o.Leaser, keys: o.Keys, mirror: o.Mirror, journal: o.Journal, local: o.Local, logger: o.Logger, target: o.Target,
		storeName: or(o.StoreName, "etcd"), storeAdmin: o.StoreAdmin, migrator: o.Migrator,
		callTimeout:     or(o.CallTimeout, 5*time.Second),
		reloadTimeout:   or(o.ReloadTimeout, 60*time.Second),
		shutdownTimeout: or(o.ShutdownTimeout, 10*time.Second),
		stopping:        make(chan struct{}),
	}, nil
}

// Register registers all services of the API.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	pb.RegisterPoolServiceServer(r, s)
	pb.RegisterDropletServiceServer(r, s)
	pb.RegisterClusterServiceServer(r, s)
	pb.RegisterNodeServiceServer(r, s)
	pb.RegisterStoreServiceServer(r, s)
}

// EndStreams ends every call that follows something, now and from now on, with
// UNAVAILABLE, so that clients go on at another node. Serve does it by itself.
func (s *Server) EndStreams() { s.stop.Do(func() { close(s.stopping) }) }

// state is the picture to answer from: an error if there never was one.
func (s *Server) state() (*inventory.State, error) {
	st := s.mirror.State()
	if !st.Listed && st.Revision == 0 {
		return nil, errNotReady
	}
	return st, nil
}

// stale says why the state may be old; empty when it is not.
func stale(st *inventory.State) string {
	if st.Err == nil {
		return ""
	}
	return st.Err.Error()
}
