package agent

import (
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/cli"
	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
)

// Command is `doproxy agent`.
func Command(version string) *cobra.Command {
	var file, level string
	var check bool
	cmd := &cobra.Command{
		Use:   "agent --config FILE",
		Short: "Run this load balancer's agent",
		Long: `Run this load balancer's agent: it keeps the local HAProxy in step with the
inventory, takes requests, and, when it is elected, manages the droplets.

Ending the agent does not end HAProxy.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log-level %q: use debug, info, warn or error", level)
			}
			cfg, err := config.Load(file, os.LookupEnv)
			if err != nil {
				return &cli.Failure{Err: err, Exit: cli.ExitUsage}
			}
			if check {
				for _, warning := range cfg.Warnings {
					fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
				}
				fmt.Fprintln(cmd.OutOrStdout(), cfg.File, "is good")
				return nil
			}
			if os.Getenv("GOGC") == "" {
				// The agent lives in tens of megabytes: memory is cheaper than the
				// processor time that HAProxy could have.
				debug.SetGCPercent(300)
			}
			logger := slog.New(newRepeats(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})))
			return Run(cmd.Context(), cfg, version, logger)
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/doproxy/doproxy.yml", "configuration file")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration and do nothing else")
	return cmd
}
