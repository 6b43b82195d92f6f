package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Config says how etcd is reached.
type Config struct {
	Endpoints []string    // URLs of the members' client ports
	TLS       *tls.Config // nil for http endpoints
	Username  string      // empty without etcd's own authentication
	Password  string
	Timeout   time.Duration // of one call; default DefaultTimeout
}

// Dial returns a Store on the cluster at these endpoints. It does not wait for
// etcd: calls fail with inventory.ErrUnavailable until one endpoint answers.
// The caller closes the Store.
func Dial(cfg Config) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("etcd: no endpoints")
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{timeout: cfg.Timeout, close: cancel}
	s.dial = func() (*clientv3.Client, error) { return newClient(ctx, cfg) }
	if cfg.Username == "" {
		// Nothing is sent yet, so only the configuration can be wrong.
		if _, err := s.conn(); err != nil {
			cancel()
			return nil, err
		}
	}
	return s, nil
}

// newClient connects in the background, except with a user name: then it waits
// for a token, at most cfg.Timeout.
func newClient(ctx context.Context, cfg Config) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Context:     ctx,
		Endpoints:   cfg.Endpoints,
		TLS:         cfg.TLS,
		Username:    cfg.Username,
		Password:    cfg.Password,
		DialTimeout: cfg.Timeout,
		// gRPC raises the interval to its minimum of 10 s. The timeout is also
		// the socket's TCP_USER_TIMEOUT, which is what ends a half-open connection
		// with something in flight; Watch has a liveness check of its own.
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: time.Second,
		Logger:               zap.NewNop(), // errors are returned, and logged by the caller
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// gRPC's own backoff grows to two minutes, which is how long a healed
			// cluster would then go unused.
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: cfg.Timeout,
		})},
	})
}
