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
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take the droplets of an old DOProxy inventory into a pool",
		Long: `Take the droplets of an old DOProxy inventory, an id a line, into a pool. They
are tagged, checked by HAProxy and put to use like any other. Droplets that are
in the inventory already are left alone, so it may be run again.`,
		GroupID: cli.GroupDroplets,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			ids, err := config.ParseInventory(args[0], data)
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				return fmt.Errorf("%s lists no droplets", args[0])
			}
			return cli.Import(cmd, opts, pool, ids, dryRun)
		},
	}
	cmd.Flags().StringVar(&pool, "pool", "", "pool to take them into; may be left out while there is one only")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be imported and change nothing")
	return cmd
}
