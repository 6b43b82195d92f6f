package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/cli"
	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	"github.com/doproxy/doproxy/inventory/raft"
)

// RecoverCommand is `doproxy cluster recover`.
func RecoverCommand() *cobra.Command {
	var file string
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover --config FILE",
		Short: "Go on with this node alone when most members of the store are lost for good",
		Long: `Go on with this node alone when most members of the integrated store are lost for
good. It works on this machine's files: stop the agent first.

Without --yes it shows what this node has and changes nothing. Look on every node
that is left, and recover the one with the highest term, and of these the one with
the highest index. What only the lost members had is lost. A node without a log
cannot be recovered.

Afterwards start the agent. The others must not go on with their data: they are
refused, and join anew with a token.`,
		Example: "  systemctl stop doproxy\n  doproxy cluster recover --config /etc/doproxy/doproxy.yml\n  doproxy cluster recover --config /etc/doproxy/doproxy.yml --yes\n  systemctl start doproxy",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.CheckOutput(cmd); err != nil {
				return err
			}
			cfg, err := config.Load(file, os.LookupEnv)
			if err != nil {
				return &cli.Failure{Err: err, Exit: cli.ExitUsage}
			}
			if cfg.Raft == nil {
				return fmt.Errorf("%s has no raft block: this node has no part of an integrated store", cfg.File)
			}
			if err := stopped(cmd.Context(), cfg); err != nil {
				return err
			}
			logger := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
			has, err := raft.Inspect(RaftDir(cfg), logger)
			if err != nil {
				return err
			}
			r := cli.Recovery{Dir: RaftDir(cfg), Cluster: has.Cluster, ID: has.ID, Term: has.Term, Index: has.Index, Others: has.Others}
			switch {
			case yes && r.Index == 0:
				return &cli.Failure{Op: "cluster recover", Err: fmt.Errorf("%s has no log to recover from; nothing was changed", r.Dir),
					Exit: cli.ExitRefused, Mend: []string{"recover a node that has one", r.JoinAnew()}}
			case yes && len(r.Others) > 0:
				if _, err := raft.Recover(RaftDir(cfg), cfg.Raft.Address, logger); err != nil {
					return err
				}
				r.Changed = true
			}
			return cli.ShowRecovery(cmd, r)
		},
	}
	cmd.Flags().StringVar(&file, "config", "/etc/doproxy/doproxy.yml", "the agent's configuration file")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

// stopped fails if this node's agent runs.
func stopped(ctx context.Context, cfg *config.Config) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", cfg.API.Socket)
	if err != nil {
		return nil
	}
	return errors.Join(conn.Close(), fmt.Errorf("this node's agent runs (%s): stop it first", cfg.API.Socket))
}
