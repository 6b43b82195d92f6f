// Package dev runs a whole cluster on this machine: the DigitalOcean simulator,
// load balancer nodes, each an agent with its own HAProxy, and etcd if they do not
// keep the inventory themselves, all as separate processes on loopback addresses
// of their own.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/doproxy/doproxy/cmd/doproxy/internal/config"
	"github.com/doproxy/doproxy/haproxy"
)

// Options of a development cluster.
type Options struct {
	StateDir string // all files of the cluster are below it
	Nodes    int    // load balancers
	Store    string // raft: the nodes keep the inventory themselves; or etcd
	Members  int    // of etcd
	Desired  int    // droplets of pool web to begin with
	// ReservedIPs in front of the nodes.
	ReservedIPs int
	HAProxy     string // program; empty is found

	// Of the simulated DigitalOcean.
	BootDelay, AppDelay, DeleteDelay, ListLag time.Duration
	SimArgs                                   []string // further flags for dosim

	Out     io.Writer // progress, for a person
	Version string
}

// Validate names the option that cannot be, its value and the mend.
func (o *Options) Validate() error {
	switch {
	case o.StateDir == "":
		return errors.New("--state-dir is empty: name a folder")
	case o.Nodes < 1 || o.Nodes > 20:
		return fmt.Errorf("--nodes %d: use 1 to 20", o.Nodes)
	case o.Store != config.StoreRaft && o.Store != config.StoreEtcd:
		return fmt.Errorf("--store %q: use raft or etcd", o.Store)
	case o.Members != 1 && o.Members != 3 && o.Members != 5:
		return fmt.Errorf("--etcd-members %d: use 1, 3 or 5", o.Members)
	case o.ReservedIPs < 0 || o.ReservedIPs > 20:
		return fmt.Errorf("--reserved-ips %d: use 0 to 20", o.ReservedIPs)
	case o.Desired < 0 || o.Desired > maxDroplets:
		return fmt.Errorf("--desired %d: use 0 to %d", o.Desired, maxDroplets)
	}
	dir, err := filepath.Abs(o.StateDir)
	if err != nil {
		return err
	}
	if err := haproxy.CheckSocketPath(filepath.Join(dir, "lb-10", "master.sock")); err != nil {
		return fmt.Errorf("--state-dir %s: %s %w", o.StateDir, filepath.Join(dir, "lb-10", "master.sock"), err)
	}
	return nil
}

const maxDroplets = 1000

// Run brings the cluster up, calls ready, and keeps it until ctx ends; then it
// takes everything down. One cluster at a time lives in a state directory.
func Run(ctx context.Context, o Options, ready func(*Cluster) error) (err error) {
	if err := o.Validate(); err != nil {
		return err
	}
	if o.StateDir, err = filepath.Abs(o.StateDir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return err
	}
	unlock, err := lock(o.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	// Whatever a killed supervisor left would fight with what starts now.
	if left, err := stopLeftovers(o.StateDir); err != nil {
		return err
	} else if left > 0 {
		fmt.Fprintf(o.Out, "stopped %d processes that a killed supervisor had left\n", left)
	}
	programs, err := findPrograms(o.Store, o.HAProxy)
	if err != nil {
		return err
	}
	// The processes must not end with ctx but in order.
	s := &supervisor{dir: o.StateDir}
	defer func() {
		fmt.Fprintln(o.Out, "stopping")
		err = errors.Join(err, s.stop(), os.RemoveAll(readyPath(o.StateDir)), os.RemoveAll(manifestPath(o.StateDir)))
	}()

	cluster, err := start(ctx, o, programs, s)
	if err != nil {
		return err
	}
	if err := cluster.write(); err != nil {
		return err
	}
	if err := ready(cluster); err != nil {
		return err
	}
	return cluster.follow(ctx)
}

// start starts the parts in the order of their need.
func start(ctx context.Context, o Options, programs programs, s *supervisor) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()

	fmt.Fprintln(o.Out, "starting a simulated DigitalOcean")
	sim, err := startSimulator(ctx, o, programs, s)
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: o.StateDir, Etcd: []string{}, Nodes: []Node{}}
	c.DigitalOcean.URL, c.DigitalOcean.Token = sim.URL, sim.Token
	acc, err := prepareAccount(ctx, o, sim)
	if err != nil {
		return nil, fmt.Errorf("preparing the simulated account: %w", err)
	}
	for _, a := range acc.reserved {
		c.Entry = append(c.Entry, "http://"+net.JoinHostPort(a.String(), strconv.Itoa(sim.Port)))
	}
	c.Name = entryName + "." + domain

	c.Store = o.Store
	if o.Store == config.StoreEtcd {
		fmt.Fprintf(o.Out, "starting etcd, %d members\n", o.Members)
		if c.Etcd, err = startEtcd(ctx, o, programs, s, sim.Prefix); err != nil {
			return nil, err
		}
	}
	for i := range o.Nodes {
		name := nodeName(i)
		fmt.Fprintf(o.Out, "starting node %s: an agent and its HAProxy\n", name)
		node, err := startNode(o, programs, s, sim, acc, c.Etcd, i)
		if err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, node)
	}
	if o.Store == config.StoreRaft {
		fmt.Fprintln(o.Out, "the nodes form the store")
		if err := formStore(ctx, c.Nodes, s); err != nil {
			return nil, fmt.Errorf("forming the store: %w", err)
		}
	}
	for i := range c.Nodes {
		if err := c.Nodes[i].wait(ctx, s); err != nil {
			return nil, err
		}
	}
	return c, nil
}
