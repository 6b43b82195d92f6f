// Command dosim runs a simulator of the DigitalOcean API v2 for development
// and tests; see docs/simulator.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "dosim:", err)
		os.Exit(1)
	}
}
