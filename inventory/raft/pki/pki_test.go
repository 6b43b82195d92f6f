package pki

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// side is a member's TLS, to listen and to dial.
type side struct{ server, client *tls.Config }

func newAuthority(t *testing.T, cluster string) *Authority {
	t.Helper()
	a, err := NewAuthority(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newSide(t *testing.T, a *Authority, id string, now time.Time) side {
	t.Helper()
	// As it comes out of the store.
	a, err := ParseAuthority(a.CertPEM(), a.KeyPEM())
	if err != nil {
		t.Fatal(err)
	}
	key, request, err := NewRequest(id)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Sign(request, id, now)
	if err != nil {
		t.Fatal(err)
	}
	server, client, err := Mutual(cert, key, a.CertPEM(), a.cluster)
	if err != nil {
		t.Fatal(err)
	}
	return side{server, client}
}

// handshake returns who the listening side takes the other one for.
func handshake(t *testing.T, server, client *tls.Config) (peer string, known bool, err error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		secure := conn.(*tls.Conn)
		if err = secure.Handshake(); err == nil {
			peer, known = Peer(secure.ConnectionState())
			_, err = secure.Write([]byte("x"))
		}
		served <- err
	}()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", l.Addr().String(), client)
	if err == nil {
		// A listener's refusal comes after the dialer's own handshake.
		_, err = io.ReadAll(conn)
		conn.Close()
	}
	if other := <-served; err == nil {
		err = other
	}
	return peer, known, err
}

func TestHandshakes(t *testing.T) {
	ours, theirs := newAuthority(t, "c1"), newAuthority(t, "c1")
	other := newAuthority(t, "c2")
	now := time.Now()
	member := newSide(t, ours, "lb1", now)
	print, err := Fingerprint(ours.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	expired := newSide(t, ours, "lb2", now.AddDate(-memberYears-1, 0, 0))
	for name, c := range map[string]struct {
		server, client *tls.Config
		peer           string // empty is unknown
		refused        string // part of the error
	}{
		"members":                            {member.server, newSide(t, ours, "lb2", now).client, "lb2", ""},
		"a member of another CA dials":       {member.server, newSide(t, theirs, "lb2", now).client, "", "certificate"},
		"a member of another CA is dialed":   {newSide(t, theirs, "lb1", now).server, member.client, "", "unknown authority"},
		"another cluster's member is dialed": {newSide(t, other, "lb1", now).server, member.client, "", "certificate"},
		"a member whose time is over":        {member.server, expired.client, "", "certificate"},
		"its time is over, and it is dialed": {expired.server, member.client, "", "expired"},
		"a clock that is an hour behind":     {member.server, newSide(t, ours, "lb2", now.Add(time.Hour)).client, "lb2", ""},
		"a node that joins":                  {member.server, Joining(print, "c1"), "", ""},
		"a node that joins another CA":       {newSide(t, theirs, "lb1", now).server, Joining(print, "c1"), "", "fingerprint"},
		"a node that joins another cluster":  {member.server, Joining(print, "c2"), "", "c2.store.doproxy"},
		"an old version of TLS":              {member.server, old(newSide(t, ours, "lb2", now).client), "", "protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			peer, known, err := handshake(t, c.server, c.client)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("%v, and not %q", err, c.refused)
				}
			} else if err != nil {
				t.Error(err)
			}
			if peer != c.peer || known != (c.peer != "") {
				t.Errorf("the other side is taken for %q, %t", peer, known)
			}
		})
	}
}

func old(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	return c
}

// TestImpostor: one with the right CA's certificate, which is public, but none of
// its own from it.
func TestImpostor(t *testing.T) {
	ours := newAuthority(t, "c1")
	print, err := Fingerprint(ours.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	impostor := newSide(t, newAuthority(t, "c1"), "lb1", time.Now())
	pair := impostor.server.Certificates[0]
	pair.Certificate = [][]byte{pair.Certificate[0], ours.cert.Raw}
	server := &tls.Config{Certificates: []tls.Certificate{pair}}
	if _, _, err := handshake(t, server, Joining(print, "c1")); err == nil {
		t.Error("a node that joins trusts an impostor")
	}
}

func TestSignRefuses(t *testing.T) {
	a := newAuthority(t, "c1")
	_, request, err := NewRequest("lb2")
	if err != nil {
		t.Fatal(err)
	}
	broken := strings.Replace(string(request), "\n", "\nAAAA", 1)
	for name, c := range map[string]struct{ request, id string }{
		"of another id": {string(request), "lb1"},
		"of no id":      {string(request), ""},
		"no PEM":        {"x", "lb2"},
		"damaged":       {broken, "lb2"},
		"no request":    {string(a.CertPEM()), "lb2"},
	} {
		if cert, err := a.Sign([]byte(c.request), c.id, time.Now()); err == nil || cert != nil {
			t.Errorf("%s: %s, %v", name, cert, err)
		}
	}
	if _, err := ParseAuthority(a.CertPEM(), newAuthority(t, "c1").KeyPEM()); err == nil {
		t.Error("a CA with another's key")
	}
}

func TestToken(t *testing.T) {
	want := NewToken("c1", []string{"10.0.0.1:7477", "[fd00::1]:7477"}, "ab12", time.Now().Add(time.Hour))
	word := want.String()
	if strings.ContainsAny(word, " '\"$&|;<>()\\`*?[]#~=%!{}") {
		t.Errorf("a shell takes part of %s for its own", word)
	}
	got, err := ParseToken("\n  " + word + " \n")
	if err != nil || got.String() != word || got.Hash() != want.Hash() {
		t.Errorf("%+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		word string
		want error
	}{
		"nothing":   {"", errNoToken},
		"a word":    {"hello", errNoToken},
		"newer":     {strings.Replace(word, "-1-", "-2-", 1), errNewer},
		"cut":       {word[:len(word)-3], errCut},
		"cut early": {word[:len(tokenPrefix)+4], errCut},
	} {
		if _, err := ParseToken(c.word); err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Any one character that is another.
	for i := len(tokenPrefix); i < len(word); i++ {
		mistyped := []byte(word)
		if mistyped[i]++; mistyped[i] > 'z' {
			mistyped[i] = 'a'
		}
		if got, err := ParseToken(string(mistyped)); err == nil {
			t.Fatalf("%d: %s is taken as %+v", i, mistyped, got)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(NewToken("c1", []string{"10.0.0.1:7477"}, "ab12", time.Unix(1, 0)).String())
	f.Add(tokenPrefix + tokenVersion)
	f.Fuzz(func(t *testing.T, word string) {
		token, err := ParseToken(word)
		if err == nil && (token.Cluster == "" || token.Secret == "" || len(token.Addresses) == 0) {
			t.Errorf("%q is taken as %+v", word, token)
		}
	})
}
