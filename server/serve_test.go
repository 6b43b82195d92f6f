package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/inventorytest"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

func TestReflection(t *testing.T) {
	c := newCluster(t, 1)
	stream := must(reflectionpb.NewServerReflectionClient(c.nodes[0].conn).ServerReflectionInfo(t.Context()))
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, s := range must(stream.Recv()).GetListServicesResponse().GetService() {
		have[s.Name] = true
	}
	for _, want := range []string{"doproxy.v1.PoolService", "doproxy.v1.DropletService", "doproxy.v1.ClusterService", "doproxy.v1.NodeService", "doproxy.v1.StoreService", "grpc.health.v1.Health"} {
		if !have[want] {
			t.Errorf("reflection does not list %s: %v", want, have)
		}
	}
}

func TestHealthFollowsTheStore(t *testing.T) {
	c := newCluster(t, 1)
	n := c.nodes[0]
	client := healthpb.NewHealthClient(n.conn)
	watch := must(client.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "doproxy.v1.PoolService"}))
	until := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for must(watch.Recv()).Status != want {
		}
	}
	until(healthpb.HealthCheckResponse_SERVING)
	n.store.Partition()
	until(healthpb.HealthCheckResponse_NOT_SERVING)
	for _, name := range []string{"", "doproxy.v1.ClusterService"} {
		if got := must(client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})).Status; got != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q is %v while the store is down", name, got)
		}
	}
	n.store.Heal()
	until(healthpb.HealthCheckResponse_SERVING)
}

func TestShutdownEndsStreams(t *testing.T) {
	c := newCluster(t, 2)
	c.apply(webPool())
	n := c.nodes[0]
	droplets := must(n.drops.WatchDroplets(t.Context(), &pb.WatchDropletsRequest{}))
	must(droplets.Recv())
	health := must(healthpb.NewHealthClient(n.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{}))
	must(health.Recv())
	start := time.Now()
	n.stop()
	if took := time.Since(start); took > 1500*time.Millisecond {
		t.Errorf("the shutdown took %s: something held out to its deadline", took)
	}
	var err error
	for err == nil {
		_, err = droplets.Recv()
	}
	wantProblem(t, err, codes.Unavailable, server.ReasonShuttingDown)
}

func TestPanic(t *testing.T) {
	c := newCluster(t, 1)
	c.nodes[0].local.boom = true
	_, err := c.nodes[0].control.Render(t.Context(), &pb.RenderRequest{})
	wantProblem(t, err, codes.Internal, server.ReasonInternal)
	c.nodes[0].local.boom = false
	if r := must(c.nodes[0].control.Render(t.Context(), &pb.RenderRequest{})); r.Config != "global\n" || r.Path == "" {
		t.Errorf("render answered %v", r)
	}
}

func TestEvents(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(webPool())
	n := c.nodes[0]
	waitEvent(t, n, "pool.applied")
	watch := must(n.cluster.WatchEvents(t.Context(), &pb.WatchEventsRequest{}))
	first := must(watch.Recv())
	if first.Events[0].Type != "pool.applied" || first.Events[0].Node != "lb1" {
		t.Errorf("first: %v", first)
	}
	must(n.pools.ScalePool(t.Context(), desired(3)))
	if m := must(watch.Recv()); len(m.Events) != 1 || m.Events[0].Type != "pool.scaled" || m.Events[0].Message != "wanted: 2 → 3, by request" {
		t.Errorf("second: %v", m)
	}
	list := must(n.cluster.ListEvents(t.Context(), &pb.ListEventsRequest{PageSize: 1}))
	if len(list.Events) != 1 || list.Events[0].Type != "pool.applied" || list.NextPageToken == "" {
		t.Errorf("list: %v", list)
	}
	st := must(n.cluster.GetStatus(t.Context(), &pb.GetStatusRequest{Events: 1}))
	if len(st.Events) != 1 || st.Events[0].Type != "pool.scaled" || st.Uid == "" || st.Cluster != "test" {
		t.Errorf("status: %v", st)
	}
	if nodes := must(n.cluster.ListNodes(t.Context(), &pb.ListNodesRequest{})).Nodes; len(nodes) != 1 || nodes[0].Name != "nodes/lb1" {
		t.Errorf("nodes: %v", nodes)
	}
}

func TestReload(t *testing.T) {
	c := newCluster(t, 3)
	n := c.nodes[0]
	if r := must(n.control.Reload(t.Context(), &pb.ReloadRequest{})).Results; len(r) != 1 || r[0].Node != "lb1" || r[0].Error != "" || r[0].Reloads != 1 {
		t.Errorf("reload of one: %v", r)
	}
	n.local.err = errors.New("line 3: unknown keyword")
	if r := must(n.control.Reload(t.Context(), &pb.ReloadRequest{})).Results; r[0].Error != "line 3: unknown keyword" || r[0].Reloads != 1 {
		t.Errorf("reload of one that fails: %v", r)
	}

	// lb1 reloads, lb2 fails, lb3 goes away.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	agents := make(chan error, 1)
	go func() {
		agents <- c.store.Watch(ctx, keys.Reload(), 0, func(b inventory.Batch) error {
			for _, change := range b.Changes {
				id := strings.Split(string(change.Value), `"`)[3]
				c.report(&inventory.Node{Name: "lb1", Reloaded: id, Reloads: 2})
				c.report(&inventory.Node{Name: "lb2", Reloaded: id, Error: "line 7: no"})
				c.commit(inventory.Txn{Ops: []inventory.Op{{Key: keys.Node("lb3"), Delete: true}}})
			}
			return nil
		})
	}()
	r := must(c.nodes[2].control.Reload(t.Context(), &pb.ReloadRequest{All: true})).Results
	if len(r) != 3 || r[0].Error != "" || r[0].Reloads != 2 || r[1].Error != "line 7: no" || r[2].Error != "the node went away meanwhile" {
		t.Errorf("reload of all: %v", r)
	}
	cancel()
	<-agents
	c.sync(must(c.store.List(t.Context(), keys.Prefix())).Revision)
	// Nobody answers: the wait is bounded, and told.
	r = must(n.control.Reload(t.Context(), &pb.ReloadRequest{All: true})).Results
	if len(r) != 2 || !strings.Contains(r[0].Error, "has not told") {
		t.Errorf("reload that nobody answers: %v", r)
	}
}

func TestCheckListen(t *testing.T) {
	for addr, ok := range map[string]struct{ plain, tls bool }{
		"127.0.0.1:7421": {true, true}, "[::1]:7421": {true, true}, "localhost:7421": {true, true}, "127.9.9.9:0": {true, true},
		"unix:/run/doproxy.sock": {true, true}, "0.0.0.0:7421": {false, true}, ":7421": {false, true}, "[::]:7421": {false, true},
		"10.1.2.3:7421": {false, true}, "lb1.example.com:7421": {false, true}, "[::ffff:10.0.0.1]:1": {false, true},
		"unix:run.sock": {}, "7421": {}, "": {}, "127.0.0.1": {}, "127.0.0.1:": {},
	} {
		if err := server.CheckListen(addr, false); (err == nil) != ok.plain {
			t.Errorf("%q without TLS: %v", addr, err)
		}
		if err := server.CheckListen(addr, true); (err == nil) != ok.tls {
			t.Errorf("%q with TLS: %v", addr, err)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	addr := "unix:" + path
	l := must(server.Listen(t.Context(), addr, nil))
	if mode := must(os.Stat(path)).Mode().Perm(); mode != 0o600 {
		t.Errorf("the mode is %v", mode)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	if _, err := server.Listen(t.Context(), addr, nil); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("a socket that is answered on was taken: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after kill -9
	l.Close()
	must(server.Listen(t.Context(), addr, nil)).Close()
	if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Listen(t.Context(), addr, nil); err == nil || string(must(os.ReadFile(path))) != "precious" {
		t.Errorf("a file was taken for a socket: %v", err)
	}
}

// Mutual TLS; a certificate that is renewed on disk is the one of the next handshake.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := issue(t, dir, "ca", 1, nil, nil)
	serverCert, _ := issue(t, dir, "server", 2, ca, caKey)
	issue(t, dir, "client", 3, ca, caKey)
	at := func(name string) string { return filepath.Join(dir, name) }
	files := server.TLSFiles{Cert: at("server.crt"), Key: at("server.key"), ClientCA: at("ca.crt")}
	if _, err := server.LoadTLS(server.TLSFiles{Cert: files.Cert, Key: files.Key}, slog.Default()); err == nil {
		t.Error("TLS without a CA for clients was taken")
	}
	config := must(server.LoadTLS(files, slog.New(slog.DiscardHandler)))
	l := must(server.Listen(t.Context(), "127.0.0.1:0", config))
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).HandshakeContext(context.Background())
			_, _ = conn.Write([]byte("x"))
			conn.Close()
		}
	}()
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	dial := func(certs ...tls.Certificate) (*x509.Certificate, error) {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: certs, NextProtos: []string{"h2"}})
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			return nil, err
		}
		return conn.ConnectionState().PeerCertificates[0], nil
	}
	if _, err := dial(); err == nil {
		t.Error("a client without a certificate was let in")
	}
	client := must(tls.LoadX509KeyPair(at("client.crt"), at("client.key")))
	if got := must(dial(client)); !got.Equal(serverCert) {
		t.Error("another certificate than that of the file")
	}
	// The API itself over it.
	api := must(server.Listen(t.Context(), "127.0.0.1:0", config))
	c := &cluster{t: t, store: inventorytest.NewMemory()}
	c.start("lb1", api)
	conn := must(grpc.NewClient(api.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(
		&tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{client}}))))
	defer conn.Close()
	if st := must(pb.NewClusterServiceClient(conn).GetStatus(t.Context(), &pb.GetStatusRequest{})); st.Node != "lb1" {
		t.Errorf("status over TLS: %v", st)
	}

	renewed, _ := issue(t, dir, "server", 4, ca, caKey)
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(at("server.crt"), later, later); err != nil {
		t.Fatal(err)
	}
	if got := must(dial(client)); !got.Equal(renewed) {
		t.Error("the renewed certificate is not used")
	}
	if err := os.WriteFile(at("server.crt"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := must(dial(client)); !got.Equal(renewed) {
		t.Error("the last good certificate is not used")
	}
}

func issue(t *testing.T, dir, name string, serial int64, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey))
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(key))},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return must(x509.ParseCertificate(der)), key
}

// What the API accepts, HAProxy's side accepts too: nothing gets on record that
// no node could render.
func TestValidAgreesWithHAProxy(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`/[a-zA-Z0-9/._~!&()*+,;=:@?%#"'\\ -]{0,20}`), rapid.StringMatching(`(\*\.)?[a-zA-Z0-9.-]{1,20}`),
		rapid.SampledFrom(haproxy.Balances))
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		p := webPool()
		p.Backend = &pb.Backend{
			Port:       rapid.Uint32Range(0, 70000).Draw(t, "port"),
			Balance:    rapid.OneOf(rapid.Just(""), text).Draw(t, "balance"),
			HealthPath: rapid.OneOf(rapid.Just(""), text).Draw(t, "health"),
			Fall:       rapid.Int32Range(-2, 1100).Draw(t, "fall"), MaxConnections: rapid.Int32().Draw(t, "maxconn"),
			Hosts: rapid.SliceOfN(text, 0, 1).Draw(t, "hosts"), Paths: rapid.SliceOfN(text, 0, 1).Draw(t, "paths"),
		}
		// Fields are judged one by one, so that each has its chance to be accepted.
		for _, keep := range []func(*pb.Backend){
			func(b *pb.Backend) { b.Port = p.Backend.Port }, func(b *pb.Backend) { b.Balance = p.Backend.Balance },
			func(b *pb.Backend) { b.HealthPath = p.Backend.HealthPath }, func(b *pb.Backend) { b.Fall = p.Backend.Fall },
			func(b *pb.Backend) { b.MaxConnections = p.Backend.MaxConnections },
			func(b *pb.Backend) { b.Hosts = p.Backend.Hosts }, func(b *pb.Backend) { b.Paths = p.Backend.Paths },
		} {
			one := webPool()
			one.Backend = &pb.Backend{}
			keep(one.Backend)
			if server.ValidatePool(one) != nil {
				continue
			}
			accepted++
			spec, _ := server.PoolFromProto(one)
			b := spec.Backend
			config := haproxy.Config{
				Global: haproxy.Global{AdminSocket: "/run/admin.sock"},
				Backends: []haproxy.Backend{{Name: spec.Name, Balance: b.Balance, HealthCheckPath: b.HealthPath, CheckFall: b.Fall, CheckRise: b.Rise,
					CheckInter: time.Duration(b.CheckInterval), MaxConn: b.MaxConn, Hosts: b.Hosts, Paths: b.Paths}},
			}
			if err := config.Validate(); err != nil {
				t.Fatalf("the API accepts %v and HAProxy's side does not: %v", one.Backend, err)
			}
		}
	})
	if accepted == 0 {
		t.Error("nothing was ever accepted: the test proves nothing")
	}
}

func TestOptions(t *testing.T) {
	_, err := server.New(server.Options{Cluster: "test", Node: "Lb 1"})
	for _, want := range []string{"Store", "Leaser", "Keys", "Mirror", "Journal", "Local", "Logger", `"Lb 1"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
	if status.Code(err) != codes.Unknown {
		t.Errorf("an option's error is a status: %v", err)
	}
}
