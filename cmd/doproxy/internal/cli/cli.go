package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// DefaultServer is asked when neither --server nor DOPROXY_SERVER names one.
const DefaultServer = "unix:///run/doproxy/doproxy.sock"

// Options is what the commands need from outside.
type Options struct {
	// Parse reads what a configuration file defines of the cluster. Its errors
	// are for users: they name file, line, key and the mend. Required.
	Parse func(path string, data []byte) (*Document, error)
	// Format writes a document in the form that Parse reads, for `backup` and
	// `pools get -o yaml`. Required.
	Format func(Document) ([]byte, error)
	// Now is the clock, time.Now by default.
	Now func() time.Time
	// Getenv is os.Getenv by default.
	Getenv func(string) string
	// Terminal tells the size of the terminal behind w, and whether there is
	// one. By default it asks the file that w is.
	Terminal func(w io.Writer) (width, height int, ok bool)
	// Interactive tells whether a person can answer a question at in. By default
	// it asks whether the file that in is is a terminal.
	Interactive func(in io.Reader) bool

	rebuildQuiet time.Duration // rebuildQuiet by default
}

func (o *Options) setDefaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Terminal == nil {
		o.Terminal = terminalSize
	}
	if o.rebuildQuiet == 0 {
		o.rebuildQuiet = rebuildQuiet
	}
	if o.Interactive == nil {
		o.Interactive = isTerminal
	}
}

func isTerminal(in io.Reader) bool {
	f, isFile := in.(*os.File)
	return isFile && term.IsTerminal(int(f.Fd()))
}

func terminalSize(w io.Writer) (width, height int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, 0, false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return 80, 24, true
	}
	return width, height, true
}

// flags are those that every client command takes.
type flags struct {
	server, output            string
	tls                       bool
	caFile, certFile, keyFile string
	timeout                   time.Duration
	noProgress                bool
}

// client is what the commands share.
type client struct {
	opts  Options
	flags flags
}

const (
	// GroupDroplets is the id of the help group of commands on droplets.
	GroupDroplets = "droplets"
	groupPools    = "pools"
	groupCluster  = "cluster"
)

// Add puts the client commands and their persistent flags on root. Run root
// with Execute, which shows errors and gives the exit code.
func Add(root *cobra.Command, opts Options) {
	opts.setDefaults()
	c := &client{opts: opts}
	f := root.PersistentFlags()
	f.StringVar(&c.flags.server, "server", "", "node to ask: host:port, unix:///path, or several with commas in between (default $DOPROXY_SERVER, else "+DefaultServer+")")
	f.StringVarP(&c.flags.output, "output", "o", "", "table, plain or json (default table in a terminal, else plain)")
	f.BoolVar(&c.flags.tls, "tls", false, "speak TLS with the node")
	f.StringVar(&c.flags.caFile, "ca-file", "", "PEM file of the authorities to trust instead of the system's (implies --tls)")
	f.StringVar(&c.flags.certFile, "cert-file", "", "PEM file of the certificate to show to the node (implies --tls)")
	f.StringVar(&c.flags.keyFile, "key-file", "", "PEM file of that certificate's key")
	f.DurationVar(&c.flags.timeout, "timeout", 0, "give up after this long, such as 30s or 5m (default: as each command needs)")
	f.BoolVar(&c.flags.noProgress, "no-progress", false, "do not show how work comes along, only its end")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "plain", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("server", cobra.NoFileCompletions)

	root.AddGroup(
		&cobra.Group{ID: GroupDroplets, Title: "Droplets:"},
		&cobra.Group{ID: groupPools, Title: "Pools:"},
		&cobra.Group{ID: groupCluster, Title: "Nodes and cluster:"},
	)
	root.AddCommand(
		c.printCommand(), c.createCommand(), c.deleteCommand(),
		c.scaleCommand(), c.applyCommand(), c.poolsCommand(), c.backupCommand(), c.restoreCommand(),
		c.statusCommand(), c.watchCommand(), c.reloadCommand(), c.generateCommand(),
		c.nodeCommand(), c.failoverCommand(), c.pauseCommand(), c.resumeCommand(),
		c.confirmCommand(), c.verifyCommand(), c.rebuildCommand(),
		c.clusterCommand(), c.storeCommand(),
	)
}

// Execute runs root, shows its error on root's stderr and returns the exit
// code. The context ends when the user interrupts.
func Execute(ctx context.Context, root *cobra.Command) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	started := false
	markStart(root, &started)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	var f *Failure
	if !errors.As(err, &f) {
		f = &Failure{Err: err}
		if !started {
			// cobra's own: an unknown command, a bad flag, a missing argument.
			f.Exit, f.Mend = ExitUsage, []string{"see `" + cmd.CommandPath() + " --help`"}
		}
	}
	asJSON := false
	if out := cmd.Flag("output"); out != nil {
		asJSON = out.Value.String() == "json"
	}
	f.report(cmd.ErrOrStderr(), asJSON)
	return f.exit()
}

// markStart notes when a command's own code begins: an error before is about
// how it was called.
func markStart(c *cobra.Command, started *bool) {
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return run(cmd, args)
		}
	}
	if run := c.Run; run != nil {
		c.Run = func(cmd *cobra.Command, args []string) {
			*started = true
			run(cmd, args)
		}
	}
	for _, sub := range c.Commands() {
		markStart(sub, started)
	}
}
