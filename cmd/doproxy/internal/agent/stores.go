package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	electionraft "github.com/doproxy/doproxy/election/raft"
	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/etcd"
	"github.com/doproxy/doproxy/inventory/raft"
)

// backend is a store that the inventory can be in.
type backend interface {
	inventory.Store
	inventory.Leaser
}

// stores are those that are configured: the one used, and another while the
// inventory moves.
type stores struct {
	used backend
	etcd *etcd.Store
	raft *raft.Node
}

// RaftDir is where a node's part of the integrated store is.
func RaftDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "raft") }

func openStores(cfg *config.Config, version string, logger *slog.Logger) (*stores, error) {
	s := &stores{}
	var err error
	if cfg.Etcd != nil {
		if s.etcd, err = dialEtcd(cfg.Etcd); err != nil {
			return nil, err
		}
		s.used = s.etcd
	}
	if cfg.Raft != nil {
		s.raft, err = raft.Open(raft.Options{
			Dir: RaftDir(cfg), Name: cfg.Node, Inventory: cfg.Cluster, Address: cfg.Raft.Address, Listen: cfg.Raft.Listen, Plain: cfg.Raft.Plain,
			NeverLead: cfg.NeverLead || cfg.Store != config.StoreRaft, DeadAfter: cfg.Raft.DeadAfter,
			Version: version, Logger: logger,
		})
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	if cfg.Store == config.StoreRaft {
		s.used = s.raft
	}
	return s, nil
}

func (s *stores) close() error {
	var errs []error
	if s.raft != nil {
		errs = append(errs, s.raft.Close())
	}
	if s.etcd != nil {
		errs = append(errs, s.etcd.Close())
	}
	return errors.Join(errs...)
}

// abstain is what a node does that must not lead.
func (a *agent) abstain(ctx context.Context) error {
	if a.cfg.Store != config.StoreRaft {
		<-ctx.Done()
		return ctx.Err()
	}
	return electionraft.Abstain(ctx, a.stores.raft)
}

func dialEtcd(c *config.Etcd) (*etcd.Store, error) {
	var security *tls.Config
	if c.CAFile != "" || c.CertFile != "" {
		security = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("etcd.ca_file: %w", err)
		}
		security.RootCAs = x509.NewCertPool()
		if !security.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd.ca_file: %s holds no PEM certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("etcd.cert_file and key_file: %w", err)
		}
		security.Certificates = []tls.Certificate{pair}
	}
	return etcd.Dial(etcd.Config{Endpoints: c.Endpoints, TLS: security, Username: c.Username, Password: string(c.Password)})
}
