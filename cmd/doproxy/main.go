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
	opts := cli.Options{Parse: parse, Format: format}
	cli.Add(root, opts)
	root.AddCommand(importCommand(opts), agent.Command(version), dev.Command())
	if cluster, _, err := root.Find([]string{"cluster"}); err == nil {
		cluster.AddCommand(agent.RecoverCommand()) // it works on files, not on a server
	}
	return cli.Execute(ctx, root)
}

// parse reads a file as `doproxy apply` sends it.
func parse(file string, data []byte) (*cli.Document, error) {
	pools, settings, err := config.ParseProto(file, data)
	if err != nil {
		return nil, err
	}
	return &cli.Document{Pools: pools, Settings: settings}, nil
}

// format writes what parse reads.
func format(d cli.Document) ([]byte, error) { return config.FormatProto(d.Pools, d.Settings, "") }
