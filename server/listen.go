package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

const unixScheme = "unix:"

// CheckListen says whether the API may be served on an address: "unix:/path", or
// host:port. Whoever reaches the API may do anything that it can, so beyond
// loopback it needs TLS.
func CheckListen(addr string, tls bool) error {
	if path, ok := strings.CutPrefix(addr, unixScheme); ok {
		if !strings.HasPrefix(path, "/") {
			return fmt.Errorf("%q is not an absolute path: write unix:/run/doproxy/doproxy.sock", addr)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port == "" {
		return fmt.Errorf("%q is not an address: write host:port such as 127.0.0.1:7421, or unix:/path", addr)
	}
	if tls || isLoopback(host) {
		return nil
	}
	return fmt.Errorf("%q is reachable from other machines, and without TLS anyone who reaches it could create and delete droplets: "+
		"listen on a loopback address such as %s, or set a certificate, its key and the CA of the clients", addr, net.JoinHostPort("127.0.0.1", port))
}

// isLoopback takes no other name than localhost: what a name means can change.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Listen opens an address that CheckListen accepts; with a TLS configuration the
// listener speaks TLS, unless it is a Unix socket. Only this user may use a Unix
// socket (mode 0600). One left over by a process that ended is replaced; one
// that somebody answers on is not.
func Listen(ctx context.Context, addr string, config *tls.Config) (net.Listener, error) {
	if err := CheckListen(addr, config != nil); err != nil {
		return nil, err
	}
	if path, ok := strings.CutPrefix(addr, unixScheme); ok {
		return listenUnix(ctx, path)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	if config != nil {
		return tls.NewListener(l, config), nil
	}
	return l, nil
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	// The mode of the socket's inode is that of the descriptor at the time of
	// bind: there is no moment at which others could connect.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		if err := c.Control(func(fd uintptr) { chmod = syscall.Fchmod(int(fd), 0o600) }); err != nil {
			return err
		}
		return chmod
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(ctx, path); err != nil {
			return nil, err
		}
		l, err = lc.Listen(ctx, "unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s%s: %w", unixScheme, path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("guarding %s%s: %w", unixScheme, path, err), l.Close())
	}
	return l, nil
}

// removeStale removes a socket that nobody answers on.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way and no socket: remove it, or choose another path", path)
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("another process answers on %s: is a doproxy agent running already?", path), conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("no telling whether another process has %s: %w", path, err)
}
