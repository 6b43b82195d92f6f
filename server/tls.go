package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// TLSFiles are PEM files. They are read again when one changes: a renewed
// certificate takes no restart.
type TLSFiles struct {
	Cert, Key string
	// ClientCA has the CAs of clients that are let in.
	ClientCA string
	// AnyClient lets in clients without a certificate: everyone who reaches the
	// port. Something else must then keep strangers away.
	AnyClient bool
}

// LoadTLS reads the files. What it returns reads them again for a handshake once
// one has changed; files that are then broken are told to the logger, and the
// last good ones stay.
func LoadTLS(f TLSFiles, logger *slog.Logger) (*tls.Config, error) {
	switch {
	case f.Cert == "" || f.Key == "":
		return nil, errors.New("TLS needs a certificate and its key: set both")
	case f.ClientCA == "" && !f.AnyClient:
		return nil, errors.New("TLS without a CA for clients lets in everyone who reaches the port: set the client CA's file, or say that any client may come in")
	}
	r := &tlsReloader{files: f, logger: logger}
	stamp, err := r.stat()
	if err != nil {
		return nil, err
	}
	if r.config, err = r.read(); err != nil {
		return nil, err
	}
	r.stamp = stamp
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(), nil },
	}, nil
}

type tlsReloader struct {
	files  TLSFiles
	logger *slog.Logger

	mu     sync.Mutex
	config *tls.Config
	stamp  [3]stamp
}

type stamp struct {
	modified time.Time
	size     int64
}

func (r *tlsReloader) stat() (out [3]stamp, err error) {
	for i, path := range []string{r.files.Cert, r.files.Key, r.files.ClientCA} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return out, err
		}
		out[i] = stamp{info.ModTime(), info.Size()}
	}
	return out, nil
}

func (r *tlsReloader) read() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(r.files.Cert, r.files.Key)
	if err != nil {
		return nil, fmt.Errorf("reading certificate %s and key %s: %w", r.files.Cert, r.files.Key, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{cert}}
	if r.files.ClientCA != "" {
		pem, err := os.ReadFile(r.files.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("reading the client CA: %w", err)
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM form", r.files.ClientCA)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}

func (r *tlsReloader) current() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, err := r.stat()
	if err == nil && now == r.stamp {
		return r.config
	}
	if err == nil {
		r.stamp = now // broken files are told of once
		var config *tls.Config
		if config, err = r.read(); err == nil {
			r.config = config
		}
	}
	if err != nil {
		r.logger.Warn("the TLS files changed and cannot be used: the last good ones stay", "error", err)
	}
	return r.config
}
