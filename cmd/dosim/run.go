package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/doproxy/doproxy/cloud/dosim"
	"github.com/google/renameio/v2"
)

// stopWait bounds how long calls under way may take to end.
const stopWait = time.Second

// ready is the ready file.
type ready struct {
	URL           string `json:"url"`
	Token         string `json:"token"`
	PID           int    `json:"pid"`
	DropletPrefix string `json:"droplet_prefix"`
	DropletPort   int    `json:"droplet_port"`
}

// run serves until ctx ends.
func run(ctx context.Context, s settings, out io.Writer) (err error) {
	sim, err := dosim.New(s.sim)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sim.Close()) }()
	l, err := net.Listen("tcp", s.listen)
	if err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	server := &http.Server{
		Handler:           sim.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.sim.Logger.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()

	url := "http://" + l.Addr().String()
	fmt.Fprintf(out, "DigitalOcean simulator at %s, droplets in %s.0.0/16 port %d\n", url, sim.DropletPrefix(), sim.DropletPort())
	if s.readyFile != "" {
		if err := writeReady(s.readyFile, ready{url, s.sim.Token, os.Getpid(), sim.DropletPrefix(), sim.DropletPort()}); err != nil {
			return errors.Join(err, server.Close(), ignoreClosed(<-served))
		}
		defer func() {
			// What the file says is no longer so. Gone already is as well.
			if e := os.Remove(s.readyFile); e != nil && !errors.Is(e, os.ErrNotExist) {
				err = errors.Join(err, fmt.Errorf("remove the ready file: %w", e))
			}
		}()
	}
	select {
	case err = <-served:
		return fmt.Errorf("serve the API: %w", err)
	case <-ctx.Done():
	}
	err = sim.Close() // lets calls that hang go, so that Shutdown need not wait for them
	bound, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	if server.Shutdown(bound) != nil {
		err = errors.Join(err, server.Close())
	}
	return errors.Join(err, ignoreClosed(<-served))
}

func writeReady(name string, r ready) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the ready file: %w", err)
	}
	if err := renameio.WriteFile(name, append(b, '\n'), 0o600); err != nil { // it holds the token
		return fmt.Errorf("write the ready file: %w", err)
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
