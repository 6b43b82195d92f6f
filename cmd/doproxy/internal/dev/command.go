package dev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
)

// Command is `doproxy dev`.
func Command() *cobra.Command {
	o := Options{}
	var detach, detached, stop bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine against a simulated DigitalOcean",
		Long: `Run a whole cluster on this machine: a simulated DigitalOcean whose droplets are
real HTTP servers, and load balancer nodes, each an agent with its own HAProxy, on
loopback addresses. The nodes keep the inventory themselves, or etcd does. Ctrl-C
ends it all. Nothing needs root, and nothing is written outside the state directory.

DIR/dev.json tells programs where everything is. Each part's log is DIR/PART/log.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			switch {
			case stop && detach:
				return errors.New("--stop and --detach exclude each other")
			case stop:
				return Stop(o.StateDir, o.Out)
			case detach:
				if err := o.Validate(); err != nil {
					return err
				}
				return runDetached(cmd.Context(), o.StateDir, o.Out)
			}
			// A terminal that is closed, or a pager that ends before the cluster,
			// must not leave processes behind.
			signal.Ignore(syscall.SIGPIPE)
			ctx, cancel := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			defer cancel()
			return Run(ctx, o, func(c *Cluster) error {
				if err := c.scale(ctx, o); err != nil {
					return err
				}
				c.printGuide(o.Out, detached)
				return c.announce()
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.StateDir, "state-dir", ".doproxy-dev", "folder for all files of the cluster; keep its path short, for the Unix sockets in it")
	flags.IntVar(&o.Nodes, "nodes", 3, "load balancers")
	flags.StringVar(&o.Store, "store", config.StoreRaft, "who keeps the inventory: raft (the nodes themselves) or etcd")
	flags.IntVar(&o.Members, "etcd-members", 3, "members of etcd, with --store etcd: 1, 3 or 5")
	flags.IntVar(&o.Desired, "desired", 3, "droplets to begin with")
	flags.IntVar(&o.ReservedIPs, "reserved-ips", 1, "reserved IPs in front of the load balancers; each of these can hold one")
	flags.StringVar(&o.HAProxy, "haproxy", "", "HAProxy's program (default: the one in the PATH or in /usr/sbin)")
	flags.DurationVar(&o.BootDelay, "boot-delay", 2*time.Second, "until a simulated droplet is active")
	flags.DurationVar(&o.AppDelay, "app-delay", time.Second, "from active until its app answers")
	flags.DurationVar(&o.DeleteDelay, "delete-delay", time.Second, "until a deleted droplet is gone")
	flags.DurationVar(&o.ListLag, "list-lag", 500*time.Millisecond, "until a created droplet shows in lists")
	flags.StringArrayVar(&o.SimArgs, "sim-arg", nil, "a further argument for dosim, such as --sim-arg=--droplet-limit=5")
	flags.BoolVar(&detach, "detach", false, "return once the cluster is up; end it with --stop")
	flags.BoolVar(&detached, "detached", false, "what --detach starts")
	_ = flags.MarkHidden("detached")
	flags.BoolVar(&stop, "stop", false, "end the cluster in the state directory")
	return cmd
}

// ready is in the state directory while a cluster is up and scaled.
func readyPath(dir string) string { return filepath.Join(dir, "ready") }

func (c *Cluster) announce() error { return os.WriteFile(readyPath(c.dir), nil, 0o600) }

// scale brings the pool to its first size by the command line, as a person would.
func (c *Cluster) scale(ctx context.Context, o Options) error {
	if o.Desired == 0 {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "doproxy scale web=%d\n", o.Desired)
	cmd := exec.CommandContext(ctx, self, "--server", "unix://"+c.Nodes[0].Socket, "scale", fmt.Sprintf("web=%d", o.Desired), "--wait")
	cmd.Stdout, cmd.Stderr = o.Out, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("scaling to %d: %w", o.Desired, err)
	}
	return nil
}

// printGuide tells how to try the cluster.
func (c *Cluster) printGuide(out io.Writer, detached bool) {
	end := "Ctrl-C ends it."
	if detached {
		end = "`doproxy dev --stop --state-dir " + c.dir + "` ends it."
	}
	n, last := c.Nodes[0], c.Nodes[len(c.Nodes)-1]
	var urls []string
	for _, n := range c.Nodes {
		urls = append(urls, n.HTTP)
	}
	self, err := os.Executable()
	if err != nil {
		self = "doproxy"
	}
	if rel, err := relative(self); err == nil {
		self = rel
	}
	line := func(command, what string) string { return fmt.Sprintf("  %-40s %s\n", command, what) }
	fmt.Fprint(out, "\nThe cluster is up. Each of these is a load balancer; ask one some times:\n",
		"  curl ", strings.Join(urls, "\n  curl "), "\n")
	if len(c.Entry) > 0 {
		fmt.Fprint(out, "Reserved IPs, each held by one of them:\n  curl ", strings.Join(c.Entry, "\n  curl "), "\n")
	}
	fmt.Fprint(out,
		"In another terminal, in this folder:\n",
		"  export DOPROXY_SERVER=", n.GRPC, "\n",
		line(self+" create -n 2", "two droplets more"),
		line(self+" print", "the inventory"),
		line(self+" delete 0", "the first one of the print away"),
		line(self+" scale web=10", ""),
		line(self+" node drain "+last.Name, "its address moves, its sessions end; undrain puts it back"),
		line(self+" verify", "compare store, DigitalOcean and every HAProxy"),
		line(self+" status", "leader, nodes, pools, last events"),
		c.storeLine(line, self),
		line(self+" watch", "what happens, as it happens"),
		"The same over gRPC, with reflection (`make bin/grpcurl` builds it):\n",
		"  bin/grpcurl -plaintext -d '{\"name\":\"pools/web\",\"delta\":1}' ", n.GRPC, " doproxy.v1.PoolService/ScalePool\n",
		"A bad day:\n",
		line(fmt.Sprint("kill -9 ", n.PID), "the agent of "+n.Name+"; its HAProxy serves on"),
		line(fmt.Sprint("kill -9 ", last.HAProxyPID), "the HAProxy of "+last.Name+"; its agent brings it back"),
		line("curl "+c.DigitalOcean.URL+"/_sim/calls", "what the simulated DigitalOcean was asked"),
		"Everything is in ", c.dir, ". ", end, "\n")
}

// storeLine is how to look at the store that the nodes form.
func (c *Cluster) storeLine(line func(command, what string) string, self string) string {
	if c.Store != config.StoreRaft {
		return ""
	}
	return line(self+" cluster members", "the store that the nodes form")
}

// relative is how a shell in this folder would call the program.
func relative(program string) (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(wd, program)
	if err != nil || strings.HasPrefix(rel, "..") {
		return program, err
	}
	return rel, nil
}

// runDetached starts this command again without --detach in a session of its
// own, shows its progress, and returns when the cluster is up.
func runDetached(ctx context.Context, dir string, out io.Writer) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if locked(dir) {
		return fmt.Errorf("a cluster runs in %s already: end it with `doproxy dev --stop --state-dir %[1]s`", dir)
	}
	if err := os.RemoveAll(readyPath(dir)); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := slices.Clone(os.Args[1:])
	for i, arg := range args {
		if arg == "--detach" || arg == "--detach=true" {
			args[i] = "--detached"
		}
	}
	cmd := exec.Command(self, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	progress, err := os.Open(log.Name())
	if err != nil {
		return err
	}
	defer progress.Close()
	lines := bufio.NewReader(progress)
	show := func() {
		for {
			line, err := lines.ReadString('\n')
			_, _ = io.WriteString(out, line)
			if err != nil {
				return
			}
		}
	}
	for tick := time.Tick(50 * time.Millisecond); ; {
		select {
		case err := <-ended:
			show()
			return fmt.Errorf("the cluster did not come up (%v): see %s", err, log.Name())
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM)
			<-ended
			return ctx.Err()
		case <-tick:
		}
		show()
		if _, err := os.Stat(readyPath(dir)); err == nil {
			show()
			return nil
		}
	}
}
