package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Token lets one node join a cluster, once.
type Token struct {
	Cluster     string    `json:"c"`
	Addresses   []string  `json:"a"`           // of members to ask
	Fingerprint string    `json:"f,omitempty"` // of the cluster's CA; empty without TLS
	ID          string    `json:"i"`
	Secret      string    `json:"s"`
	Expires     time.Time `json:"e"`
}

const (
	tokenPrefix  = "doproxy-join-"
	tokenVersion = "1-"
	checkLength  = 6 // bytes of the checksum
)

// NewToken makes one with a new id and secret.
func NewToken(cluster string, addresses []string, fingerprint string, expires time.Time) Token {
	var id [8]byte
	var secret [32]byte
	rand.Read(id[:])
	rand.Read(secret[:])
	return Token{
		Cluster: cluster, Addresses: addresses, Fingerprint: fingerprint,
		ID: hex.EncodeToString(id[:]), Secret: hex.EncodeToString(secret[:]), Expires: expires.UTC(),
	}
}

// Hash is what the store keeps of the secret.
func (t Token) Hash() string {
	sum := sha256.Sum256([]byte(t.Secret))
	return hex.EncodeToString(sum[:])
}

// String is one word without characters that a shell takes for its own.
func (t Token) String() string {
	data, err := json.Marshal(t)
	if err != nil {
		panic(err) // of strings and a time
	}
	sum := sha256.Sum256(data)
	return tokenPrefix + tokenVersion + base64.RawURLEncoding.EncodeToString(append(sum[:checkLength], data...))
}

var (
	errNoToken = errors.New("this is no join token: `doproxy cluster token` on a member makes one")
	errNewer   = errors.New("the token is of a newer doproxy: install that on this node too")
	errCut     = errors.New("the token is cut short or mistyped: copy the whole word")
)

// ParseToken reads a token as a person pastes it.
func ParseToken(s string) (Token, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok {
		return Token{}, errNoToken
	}
	version, _, _ := strings.Cut(rest, "-")
	rest, ok = strings.CutPrefix(rest, tokenVersion)
	if !ok && version != "" && strings.Trim(version, "0123456789") == "" {
		return Token{}, errNewer
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(data) < checkLength {
		return Token{}, errCut
	}
	sum := sha256.Sum256(data[checkLength:])
	var t Token
	if string(sum[:checkLength]) != string(data[:checkLength]) || json.Unmarshal(data[checkLength:], &t) != nil {
		return Token{}, errCut
	}
	if t.Cluster == "" || t.ID == "" || t.Secret == "" || len(t.Addresses) == 0 {
		return Token{}, errCut
	}
	return t, nil
}
