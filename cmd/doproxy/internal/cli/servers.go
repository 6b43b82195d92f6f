package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// target is one address that --server names.
type target struct {
	network, address string
	// host is whom the certificate must name.
	host string
}

func (t target) String() string {
	if t.network == "unix" {
		return "unix://" + t.address
	}
	return t.address
}

// parseTargets reads --server: addresses with commas in between.
func parseTargets(list string) ([]target, error) {
	var targets []target
	for one := range strings.SplitSeq(list, ",") {
		t, err := parseTarget(strings.TrimSpace(one))
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func parseTarget(s string) (target, error) {
	if strings.HasPrefix(s, "/") {
		return target{"unix", s, "localhost"}, nil
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if strings.Trim(path, "/") == "" {
			return target{}, usage("--server %q names no path: write unix:///path/to/socket", s)
		}
		// unix:path is relative to the working directory, as in gRPC's names.
		path, err := filepath.Abs(path)
		if err != nil {
			return target{}, err
		}
		return target{"unix", path, "localhost"}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || port == "" || strings.Contains(host, "/") {
		return target{}, usage("--server %q is neither host:port nor unix:///path", s)
	}
	return target{"tcp", s, host}, nil
}

// server is one target and the connection to it.
type server struct {
	target
	conn *grpc.ClientConn
	// secure: it is spoken to over TLS; named: a certificate is shown to it.
	secure, named bool

	mu      sync.Mutex
	dialErr error // of the last attempt to connect
}

// newServer connects lazily. Close its conn.
func newServer(t target, secure *tls.Config) (*server, error) {
	s := &server{target: t}
	creds := insecure.NewCredentials()
	if secure != nil && t.network == "tcp" {
		config := secure.Clone()
		config.ServerName = t.host
		s.secure, s.named = true, len(config.Certificates) > 0
		creds = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient("passthrough:///"+t.address,
		grpc.WithTransportCredentials(creds),
		grpc.WithAuthority(t.host),
		grpc.WithContextDialer(s.dial),
		// A node that hangs or is cut off is noticed while a call is open.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 15 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithStatsHandler(traceHandler{}),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", t, err)
	}
	s.conn = conn
	return s, nil
}

// dial keeps the reason of a failure, in better words than the transport has.
func (s *server) dial(ctx context.Context, _ string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, s.network, s.address)
	s.mu.Lock()
	s.dialErr = err
	s.mu.Unlock()
	return conn, err
}

// explain turns an error of the transport into one that a user understands.
// Other errors come back as they are.
func (s *server) explain(err error, sent bool) error {
	if status.Code(err) != codes.Unavailable || sent {
		return err
	}
	s.mu.Lock()
	dialErr := s.dialErr
	s.mu.Unlock()
	why := strings.Trim(strings.TrimPrefix(status.Convert(err).Message(), "connection error: desc = "), `"`)
	why = strings.TrimPrefix(why, "transport: ")
	var op *net.OpError
	switch {
	case errors.As(dialErr, &op):
		why = op.Err.Error()
		var sys *os.SyscallError
		if errors.As(op.Err, &sys) {
			why = sys.Err.Error()
		}
	case dialErr != nil:
		why = dialErr.Error()
	}
	code, mend := codes.Unavailable, ""
	if s.secure && dialErr == nil {
		if mend = s.wanted(why); mend != "" {
			code = codes.Unauthenticated
		}
	}
	return &unreachable{status.Newf(code, "cannot connect to %s: %s", s.target, why), s.target, dialErr, mend}
}

// wanted is the mend when a node ended a TLS connection for want of a
// certificate that it trusts, else empty.
func (s *server) wanted(why string) string {
	_, alert, refused := strings.Cut(why, "remote error: tls: ")
	switch {
	case refused && strings.Contains(alert, "certificate") && s.named:
		return "the node does not take this certificate: show one of the authority that it trusts with --cert-file and --key-file"
	case refused && strings.Contains(alert, "certificate"):
		return "show a certificate with --cert-file and --key-file"
	case !s.named && (strings.HasSuffix(why, "EOF") || strings.HasSuffix(why, "connection reset by peer") || strings.HasSuffix(why, "broken pipe")):
		return "the node may want a certificate: show one with --cert-file and --key-file; or it may not speak TLS on " + s.address + ": leave out --tls"
	}
	return ""
}

// unreachable says that no connection came to be.
type unreachable struct {
	status *status.Status
	target target
	cause  error
	mend   string // not empty: the node is there and wants a certificate
}

func (u *unreachable) Error() string              { return u.status.Message() }
func (u *unreachable) GRPCStatus() *status.Status { return u.status }

// advice is what to try when no node could be reached.
func (u *unreachable) advice() []string {
	if u.mend != "" {
		return []string{u.mend}
	}
	if u.target.network != "unix" {
		return []string{"is the node up, and does it listen on " + u.target.address + "? Name others with --server HOST:PORT,HOST:PORT"}
	}
	if errors.Is(u.cause, os.ErrPermission) {
		return []string{"the socket is for root: use sudo, or name a node with --server HOST:PORT"}
	}
	return []string{"is the agent running here (`systemctl status doproxy`)? Name another node with --server HOST:PORT or DOPROXY_SERVER"}
}

// tlsConfig is nil when TLS is not asked for.
func (f *flags) tlsConfig() (*tls.Config, error) {
	if !f.tls && f.caFile == "" && f.certFile == "" && f.keyFile == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, usage("--ca-file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usage("--ca-file %s: no PEM certificate in it", f.caFile)
		}
	}
	if (f.certFile == "") != (f.keyFile == "") {
		return nil, usage("--cert-file and --key-file go together")
	}
	if f.certFile != "" {
		cert, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
		if err != nil {
			return nil, usage("--cert-file %s: %w", f.certFile, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// callTrace tells how far one call came.
type callTrace struct {
	mu             sync.Mutex
	sent, answered bool
}

func (t *callTrace) state() (sent, answered bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent, t.answered
}

type traceKey struct{}

// traceHandler fills the callTrace that a call's context carries.
type traceHandler struct{}

func (traceHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (traceHandler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	t, ok := ctx.Value(traceKey{}).(*callTrace)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch s.(type) {
	case *stats.OutHeader:
		t.sent = true
	case *stats.InHeader, *stats.InTrailer:
		t.answered = true
	}
}
func (traceHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (traceHandler) HandleConn(context.Context, stats.ConnStats)                       {}
