// Package pki holds what the members of the integrated store prove themselves
// with: the cluster's own certificates, and the tokens that let a node join.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	authorityYears = 20
	memberYears    = 10
	// backdated is for clocks that run apart.
	backdated = 24 * time.Hour
)

// Authority is a cluster's own certificate authority. Whoever has its key may
// make members; it is kept in the replicated store.
type Authority struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	cluster string
}

// NewAuthority makes one for a new cluster.
func NewAuthority(cluster string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: cluster},
		NotBefore: now.Add(-backdated), NotAfter: now.AddDate(authorityYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{cert: cert, key: key, cluster: cluster}, nil
}

// ParseAuthority reads what CertPEM and KeyPEM gave.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, fmt.Errorf("the store's CA certificate: %w", err)
	}
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("the store's CA key is no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the store's CA key: %w", err)
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || !private.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the store's CA key and certificate do not belong together")
	}
	return &Authority{cert: cert, key: private, cluster: cert.Subject.CommonName}, nil
}

// CertPEM is the authority's certificate, which members trust.
func (a *Authority) CertPEM() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// KeyPEM is the authority's secret.
func (a *Authority) KeyPEM() []byte { return encodeKey(a.key) }

// Sign makes a member's certificate from its request, which must be of that id.
func (a *Authority) Sign(csrPEM []byte, id string, now time.Time) (certPEM []byte, err error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil {
		return nil, errors.New("the certificate request is no PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("the certificate request: %w", err)
	}
	if id == "" || csr.Subject.CommonName != id {
		return nil, fmt.Errorf("the certificate request is of %q, not of %q", csr.Subject.CommonName, id)
	}
	until := now.AddDate(memberYears, 0, 0)
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: id}, DNSNames: []string{ServerName(a.cluster)},
		NotBefore: now.Add(-backdated), NotAfter: until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, csr.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return encode("CERTIFICATE", der), nil
}

// Fingerprint is the SHA-256 of a certificate, in hex.
func Fingerprint(caCertPEM []byte) (string, error) {
	cert, err := parseCert(caCertPEM)
	if err != nil {
		return "", err
	}
	return fingerprint(cert), nil
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// ServerName is what every member of a cluster is called in its certificate:
// members are told apart by their id, and their addresses may change.
func ServerName(cluster string) string { return cluster + ".store.doproxy" }

// NewRequest makes a member's key, and asks for a certificate with that id.
func NewRequest(id string) (keyPEM, csrPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: id}}, key)
	if err != nil {
		return nil, nil, err
	}
	return encodeKey(key), encode("CERTIFICATE REQUEST", csr), nil
}

// Mutual is the TLS of a member, to listen and to dial. The listening side takes
// connections without a certificate too, since a node that joins has none yet:
// whoever handles a connection asks Peer.
func Mutual(certPEM, keyPEM, caPEM []byte, cluster string) (server, client *tls.Config, err error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, nil, err
	}
	ca, err := parseCert(caPEM)
	if err != nil {
		return nil, nil, err
	}
	pair.Certificate = append(pair.Certificate, ca.Raw) // for Joining
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	server = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool,
	}
	client = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
		RootCAs: pool, ServerName: ServerName(cluster),
	}
	return server, client, nil
}

// Peer is the id in the certificate that the other side proved, if it did.
func Peer(state tls.ConnectionState) (id string, ok bool) {
	if len(state.VerifiedChains) == 0 {
		return "", false
	}
	return state.PeerCertificates[0].Subject.CommonName, true
}

// Joining is the TLS of a node that knows only the fingerprint of the CA: it
// trusts the CA that the member presents if that is the one.
func Joining(fingerprintHex, cluster string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: ServerName(cluster),
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(state tls.ConnectionState) error {
			pool := x509.NewCertPool()
			found := false
			for _, cert := range state.PeerCertificates {
				if cert.IsCA && fingerprint(cert) == fingerprintHex {
					pool.AddCert(cert)
					found = true
				}
			}
			if !found {
				return errors.New("this is not the cluster that the token is of: its CA has another fingerprint")
			}
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: ServerName(cluster)})
			return err
		},
	}
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func encode(kind string, der []byte) []byte {
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der})
	return b.Bytes()
}

func encodeKey(key crypto.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err) // an ECDSA key can be marshalled
	}
	return encode("PRIVATE KEY", der)
}
