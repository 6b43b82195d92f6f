package raft

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	hraft "github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/raft/pki"
	storev1 "github.com/doproxy/doproxy/proto/doproxy/store/v1"
)

// The store's own keys, beside those of the inventory.
const (
	systemPrefix  = "_store/"
	caCertKey     = systemPrefix + "ca/cert"
	caKeyKey      = systemPrefix + "ca/key"
	memberPrefix  = systemPrefix + "members/" // MemberRecord by server id
	removedPrefix = systemPrefix + "removed/" // why, by server id
	tokenPrefix   = systemPrefix + "tokens/"  // TokenRecord by token id
)

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// Init begins a new store, of which this node is the first member. It returns
// the store's id once it takes writes.
func (n *Node) Init(ctx context.Context) (cluster string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if why := n.expelled.Load(); why != nil {
		return "", why
	}
	if m := n.member.Load(); m != nil {
		return "", inventory.Refuse("node %s is a member of store %s already", n.opts.Name, m.Cluster)
	}
	if err := n.vacant(false); err != nil {
		return "", err
	}
	id := &identity{ID: n.opts.Name + "-" + randomHex(4), Node: n.opts.Name, Cluster: randomHex(6), Plain: n.opts.Plain, Founder: true}
	var files []file
	if !id.Plain {
		authority, err := pki.NewAuthority(id.Cluster, time.Now())
		if err != nil {
			return "", err
		}
		key, csr, err := pki.NewRequest(id.ID)
		if err != nil {
			return "", err
		}
		cert, err := authority.Sign(csr, id.ID, time.Now())
		if err != nil {
			return "", err
		}
		files = append(files, file{caKeyFile, authority.KeyPEM()}, file{caFile, authority.CertPEM()}, file{certFile, cert}, file{keyFile, key})
	}
	if err := writeFiles(n.opts.Dir, append(files, id.file())...); err != nil {
		return "", err
	}
	if err := n.start(id); err != nil {
		return "", err
	}
	_, err = n.List(ctx, systemPrefix)
	return id.Cluster, err
}

// begin looks whether the log is what the identity says, and begins a store's
// first log.
func (m *member) begin(conf *hraft.Config, stable hraft.StableStore) error {
	if m.Founder && !m.Begun {
		if err := m.beginAnew(stable); err != nil {
			return err
		}
	}
	has, err := hraft.HasExistingState(m.disk.log, stable, m.disk.snaps)
	if err == nil && m.Begun {
		// A snapshot alone is not enough: the votes are with the log.
		var term uint64
		term, err = stable.GetUint64([]byte("CurrentTerm")) // 0 if it is not there
		has = has && term > 0
	}
	switch {
	case err != nil:
		return err
	case !has && m.Begun:
		// It may have voted, and must not vote again as the same server.
		return fmt.Errorf("the log in %s is gone: move the directory away, start the agent and join anew with `doproxy cluster join`", m.opts.Dir)
	case !has && m.Founder:
		return hraft.BootstrapCluster(conf, m.disk.log, stable, m.disk.snaps, m.trans, hraft.Configuration{Servers: []hraft.Server{{
			ID: hraft.ServerID(m.ID), Address: hraft.ServerAddress(m.opts.Address),
		}}})
	}
	return nil
}

// beginAnew clears what a founder has that was ended between the two writes of
// the library's BootstrapCluster: a term, and no log. Nobody else knew of it.
func (m *member) beginAnew(stable hraft.StableStore) error {
	last, _, err := m.disk.last()
	if err != nil || last > 0 {
		return err
	}
	return stable.SetUint64([]byte("CurrentTerm"), 0)
}

// mark writes down that the log has begun.
func (m *member) mark() {
	m.identityMu.Lock()
	defer m.identityMu.Unlock()
	if m.Begun {
		return
	}
	m.Begun, m.Founder = true, false
	if err := writeFiles(m.opts.Dir, m.identity.file()); err != nil {
		m.Begun = false // again with the next look
		m.logger.Error("cannot write to the store's disk", "error", err)
	}
}

// Token makes a token that lets one node join, once, until it expires.
func (n *Node) Token(ctx context.Context, ttl time.Duration) (token string, expires time.Time, err error) {
	if ttl < time.Minute || ttl > 30*24*time.Hour {
		return "", time.Time{}, inventory.Refuse("a token's life of %s: use 1m to 720h", ttl)
	}
	m, err := n.running()
	if err != nil {
		return "", time.Time{}, err
	}
	l, err := n.List(ctx, systemPrefix)
	if err != nil {
		return "", time.Time{}, err
	}
	fingerprint := ""
	if !m.Plain {
		ca := valueOf(l, caCertKey)
		if ca == nil {
			return "", time.Time{}, fmt.Errorf("%w: the store's own certificate is not there yet", inventory.ErrUnavailable)
		}
		if fingerprint, err = pki.Fingerprint(ca); err != nil {
			return "", time.Time{}, err
		}
	}
	var addresses []string
	for _, s := range m.raft.GetConfiguration().Configuration().Servers {
		addresses = append(addresses, string(s.Address))
	}
	expires = time.Now().Add(ttl).Truncate(time.Second)
	t := pki.NewToken(m.Cluster, addresses, fingerprint, expires)
	record, err := proto.Marshal(&storev1.TokenRecord{Hash: t.Hash(), ExpiresMs: expires.UnixMilli()})
	if err != nil {
		return "", time.Time{}, err
	}
	txn := inventory.Txn{Ops: []inventory.Op{{Key: tokenPrefix + t.ID, Value: record}}}
	for _, kv := range below(l, tokenPrefix) {
		old := new(storev1.TokenRecord)
		if proto.Unmarshal(kv.Value, old) == nil && time.Now().UnixMilli() > old.ExpiresMs && len(txn.Ops) < inventory.MaxOps {
			txn.Ops = append(txn.Ops, inventory.Op{Key: kv.Key, Delete: true})
		}
	}
	if _, err := n.Commit(ctx, txn); err != nil {
		return "", time.Time{}, err
	}
	return t.String(), expires, nil
}

// Join makes this node a member of the store that the token is of. It returns
// when the member has what the others have. With abandon, a store of which this
// node is the only member is given up for it. left, if not nil, is called when
// nothing of a former store is to be read any more, and nothing of this one yet.
func (n *Node) Join(ctx context.Context, token string, abandon bool, left func()) error {
	t, err := pki.ParseToken(token)
	if err != nil {
		return inventory.Refuse("%s", err)
	}
	switch {
	case time.Now().After(t.Expires):
		return inventory.Refuse("the token expired at %s: make another with `doproxy cluster token`", t.Expires.UTC().Format(time.DateTime))
	case (t.Fingerprint == "") != n.opts.Plain:
		return inventory.Refuse("raft.plain is %t on this node, and the store that the token is of has it otherwise", n.opts.Plain)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.vacant(abandon); err != nil {
		return err
	}
	id := &identity{ID: n.opts.Name + "-" + randomHex(4), Node: n.opts.Name, Cluster: t.Cluster, Plain: n.opts.Plain}
	request := &storev1.JoinRequest{TokenId: t.ID, Secret: t.Secret, Node: n.opts.Name, Address: n.opts.Address, Id: id.ID, Inventory: n.opts.Inventory}
	var key []byte
	if !id.Plain {
		if key, request.Csr, err = pki.NewRequest(id.ID); err != nil {
			return err
		}
	}
	r, err := n.askToJoin(ctx, t, request)
	if err != nil {
		return err
	}
	if err := n.vacate(); err != nil {
		return err
	}
	if left != nil {
		left()
	}
	// Of an init that ended before there was an identity: it is not this store's.
	if err := os.Remove(filepath.Join(n.opts.Dir, caKeyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := n.savePeers(t.Addresses); err != nil {
		return err
	}
	if err := writeFiles(n.opts.Dir, file{caFile, r.Ca}, file{certFile, r.Certificate}, file{keyFile, key}, id.file()); err != nil {
		return err
	}
	if err := n.start(id); err != nil {
		return err
	}
	for {
		m := n.member.Load()
		if why := m.refused.Load(); why != nil {
			return errors.Join(*why, n.undo(m))
		}
		if err := m.catchUp(ctx); err == nil {
			return nil
		}
		select {
		case <-n.open.Done():
			return errClosed
		case <-ctx.Done():
			return fmt.Errorf("%w: this node has joined, and has nothing from the leader yet: can the other members reach it at raft.address %s? Their logs tell", inventory.ErrUnavailable, n.opts.Address)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// askToJoin asks one member after the other.
func (n *Node) askToJoin(ctx context.Context, t pki.Token, request *storev1.JoinRequest) (*storev1.JoinResponse, error) {
	way := &network{dialer: n.opts.dial}
	if way.dialer == nil {
		way.dialer = dialTCP
	}
	security := pki.Joining(t.Fingerprint, t.Cluster)
	if t.Fingerprint == "" {
		security = nil
	}
	errs := []error{errors.New("no member let this node join")}
	for _, address := range t.Addresses {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return way.dial(ctx, address, speakJoin, security)
			}))
		if err != nil {
			return nil, err
		}
		callCtx, cancel := context.WithTimeout(ctx, 2*n.opts.Timeout)
		r, err := storev1.NewJoinServiceClient(conn).Join(callCtx, request)
		cancel()
		conn.Close()
		switch s := status.Convert(err); {
		case err == nil:
			return r, nil
		case s.Code() == codes.FailedPrecondition:
			return nil, inventory.Refuse("%s", s.Message())
		default:
			errs = append(errs, fmt.Errorf("%s: %s", address, s.Message()))
		}
	}
	return nil, fmt.Errorf("%w: %w", inventory.ErrUnavailable, errors.Join(errs...))
}

// joinService answers nodes that are no members yet.
type joinService struct {
	storev1.UnimplementedJoinServiceServer
	*member
}

func (s joinService) Join(ctx context.Context, r *storev1.JoinRequest) (*storev1.JoinResponse, error) {
	answer, err := s.letJoin(ctx, r)
	if err != nil {
		return nil, rpcError(err)
	}
	return answer, nil
}

var errToken = inventory.Refuse("the token is not known: it was used, is too old, or is of another store; make another with `doproxy cluster token`")

func (m *member) letJoin(ctx context.Context, r *storev1.JoinRequest) (*storev1.JoinResponse, error) {
	l, err := m.List(ctx, systemPrefix)
	if err != nil {
		return nil, err
	}
	var token inventory.KV
	for _, kv := range below(l, tokenPrefix) {
		if kv.Key == tokenPrefix+r.TokenId {
			token = kv
		}
	}
	known := new(storev1.TokenRecord)
	if err := proto.Unmarshal(token.Value, known); err != nil {
		return nil, err
	}
	hash := pki.Token{Secret: r.Secret}.Hash()
	if token.Mod == 0 || time.Now().UnixMilli() > known.ExpiresMs || subtle.ConstantTimeCompare([]byte(hash), []byte(known.Hash)) != 1 {
		return nil, errToken
	}
	if r.Inventory != m.opts.Inventory && r.Inventory != "" && m.opts.Inventory != "" {
		return nil, inventory.Refuse("node %s is of cluster %q, and this store is that of cluster %q: set `cluster: %[3]s` in the node's doproxy.yml and restart its agent", r.Node, r.Inventory, m.opts.Inventory)
	}
	if err := m.newcomer(r, l); err != nil {
		return nil, err
	}
	if err := m.nameTaken(ctx, r.Node); err != nil {
		return nil, err
	}
	record, err := proto.Marshal(&storev1.MemberRecord{Id: r.Id, Node: r.Node, Address: r.Address})
	if err != nil {
		return nil, err
	}
	answer := &storev1.JoinResponse{}
	if !m.Plain {
		authority, err := pki.ParseAuthority(valueOf(l, caCertKey), valueOf(l, caKeyKey))
		if err != nil {
			return nil, err
		}
		if answer.Certificate, err = authority.Sign(r.Csr, r.Id, time.Now()); err != nil {
			return nil, inventory.Refuse("%s", err)
		}
		answer.Ca = authority.CertPEM()
	}
	// Whoever deletes it first has used it. By the record the server is known: one
	// without is let in by no leader, whatever certificate it has.
	_, err = m.Commit(ctx, inventory.Txn{
		Guards: []inventory.Guard{{Key: token.Key, Mod: token.Mod}, {Key: memberPrefix + r.Id}},
		Ops:    []inventory.Op{{Key: token.Key, Delete: true}, {Key: memberPrefix + r.Id, Value: record}},
	})
	if errors.Is(err, inventory.ErrConflict) {
		return nil, errToken
	}
	return answer, err
}

// newcomer refuses an id that is, or was, another server's.
func (m *member) newcomer(r *storev1.JoinRequest, l inventory.Listing) error {
	suffix, ok := strings.CutPrefix(r.Id, r.Node+"-")
	taken := valueOf(l, memberPrefix+r.Id) != nil || valueOf(l, removedPrefix+r.Id) != nil ||
		slices.ContainsFunc(m.raft.GetConfiguration().Configuration().Servers, func(s hraft.Server) bool { return string(s.ID) == r.Id })
	if !ok || r.Node == "" || len(suffix) < 8 || strings.Trim(suffix, "0123456789abcdef") != "" || taken {
		return inventory.Refuse("the id %q is not one of a new member of node %q", r.Id, r.Node)
	}
	return nil
}

// nameTaken refuses the name of a node whose member is alive.
func (m *member) nameTaken(ctx context.Context, node string) error {
	for _, s := range m.raft.GetConfiguration().Configuration().Servers {
		if m.nodeOf(s.ID) != node {
			continue
		}
		if p, err := m.progressOf(ctx, s); err == nil && p.Id == string(s.ID) {
			return inventory.Refuse("a member of node %s is alive at %s: give this node another name (`node` in doproxy.yml), or first `doproxy cluster remove %[1]s`", node, s.Address)
		}
	}
	return nil
}

func valueOf(l inventory.Listing, key string) []byte {
	for _, kv := range l.KVs {
		if kv.Key == key {
			return kv.Value
		}
	}
	return nil
}

func below(l inventory.Listing, prefix string) (kvs []inventory.KV) {
	for _, kv := range l.KVs {
		if len(kv.Key) > len(prefix) && kv.Key[:len(prefix)] == prefix {
			kvs = append(kvs, kv)
		}
	}
	return kvs
}
