// Command doproxy scales DigitalOcean droplets behind HAProxy: the agent that
// each load balancer runs, and the command line that talks to it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/agent"
	"github.com/doproxy/doproxy/cmd/doproxy/internal/cli"
	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	"github.com/doproxy/doproxy/cmd/doproxy/internal/dev"
	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx))
}

func run(ctx context.Context) int {
	root := &cobra.Command{
		Use:     "doproxy",
		Short:   "Scale DigitalOcean droplets behind HAProxy, with no single point of failure",
		Version: version,
	}
	opts := cli.Options{ParsePools: parsePools}
	cli.Add(root, opts)
	root.AddCommand(importCommand(opts), agent.Command(version), dev.Command())
	return cli.Execute(ctx, root)
}

// parsePools reads the pools of a file as `doproxy apply` sends them.
func parsePools(file string, data []byte) ([]*doproxyv1.Pool, error) {
	pools, err := config.ParsePools(file, data)
	if err != nil {
		return nil, err
	}
	var out []*doproxyv1.Pool
	for _, p := range pools {
		desired := p.Desired
		if !p.DesiredSet {
			desired = 0 // an existing pool keeps what is wanted of it
		}
		out = append(out, server.SpecToProto(p.PoolSpec, desired))
	}
	return out, nil
}
