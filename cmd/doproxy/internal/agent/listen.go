package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"

	"github.com/doproxy/doproxy/server"
)

// listen opens the API's listeners: the Unix socket, and the addresses.
func (a *agent) listen(ctx context.Context) (_ []net.Listener, err error) {
	var listeners []net.Listener
	defer func() {
		if err != nil {
			for _, l := range listeners {
				err = errors.Join(err, l.Close())
			}
		}
	}()
	api := a.cfg.API
	if api.Socket != "" {
		if err := os.MkdirAll(filepath.Dir(api.Socket), 0o755); err != nil {
			return nil, err
		}
		l, err := server.Listen(ctx, "unix:"+api.Socket, nil)
		if err != nil {
			return listeners, err
		}
		listeners = append(listeners, l)
	}
	var security *tls.Config
	if api.TLS != nil {
		security, err = server.LoadTLS(server.TLSFiles{
			Cert: api.TLS.CertFile, Key: api.TLS.KeyFile, ClientCA: api.TLS.ClientCAFile, AnyClient: api.TLS.ClientCAFile == "",
		}, a.logger)
		if err != nil {
			return listeners, err
		}
	}
	for _, address := range api.Listen {
		l, err := server.Listen(ctx, address, security)
		if err != nil {
			return listeners, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}
