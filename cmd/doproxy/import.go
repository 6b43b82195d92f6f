package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/cli"
	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
)

// importCommand takes over what the DOProxy script of 2015 kept in a file.
func importCommand(opts cli.Options) *cobra.Command {
	var pool string
	var dryRun, noWait bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take the droplets of an old DOProxy inventory into a pool",
		Long: `Take the droplets of an old DOProxy inventory, an id a line, into a pool. They
are tagged, checked by HAProxy and put to use like any other, and followed until
they serve; Ctrl-C stops following, not the work. Droplets that are in the
inventory already are left alone, so it may be run again.`,
		GroupID: cli.GroupDroplets,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := inventoryFile(args[0])
			if err != nil {
				return &cli.Failure{Op: "import", Err: err, Exit: cli.ExitUsage}
			}
			return cli.Import(cmd, opts, cli.ImportOptions{Pool: pool, IDs: ids, DryRun: dryRun, NoWait: noWait})
		},
	}
	cmd.Flags().StringVar(&pool, "pool", "", "pool to take them into; may be left out while there is one only")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be imported and change nothing")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "return when the wish is on record")
	return cmd
}

// inventoryFile reads the ids of an old inventory, at least one.
func inventoryFile(name string) ([]int64, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	ids, err := config.ParseInventory(name, data)
	if err == nil && len(ids) == 0 {
		err = fmt.Errorf("%s lists no droplets: put an id on each line", name)
	}
	return ids, err
}
