package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// failovers of each kind.
const failovers = 11

// BenchmarkFailover measures, with default settings and a simulated DigitalOcean
// that acts at once, how long a reserved IP stays with a node that has failed:
// from the kill to the assignment elsewhere, by the simulator's clock.
//
//	node     the leading node's agent and HAProxy, both killed with signal 9
//	haproxy  the HAProxy alone, killed and kept from starting again
//	resign   nothing dies: the leading agent is asked to end, until another leads
func BenchmarkFailover(b *testing.B) {
	for _, name := range []string{"node-etcd", "node-raft", "haproxy-raft", "resign-etcd", "resign-raft"} {
		kind, store, _ := strings.Cut(name, "-")
		b.Run(name, func(b *testing.B) {
			wrapper := breakable(b)
			c := start(b, "--store", store, "--sim-arg=--action-delay=0s", "--haproxy", wrapper.path)
			c.follows(3)
			var took []time.Duration
			for range failovers {
				took = append(took, c.fail(kind, wrapper))
			}
			slices.Sort(took)
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			b.ReportMetric(ms(took[len(took)/2]), "median-ms")
			b.ReportMetric(ms(took[len(took)-1]), "max-ms")
			b.ReportMetric(ms(took[0]), "min-ms")
			b.ReportMetric(0, "ns/op")
			b.Logf("%s: %d times, median %v, from %v to %v", name, len(took), took[len(took)/2].Round(time.Millisecond), took[0].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
		})
	}
}

// fail lets a part of the node fail that leads, and holds the address, and
// returns how long that is felt. Everything is well again when it returns.
func (c *cluster) fail(kind string, wrapper *breakableHAProxy) time.Duration {
	c.t.Helper()
	address := c.entry(0)
	eventually(c.t, "all nodes are ready", func() error {
		for _, n := range c.Nodes {
			if err := ready(n); err != nil {
				return err
			}
		}
		return nil
	})
	leader := c.leader(0)
	ask := (leader + 1) % len(c.Nodes)
	if kind != "resign" {
		// A move by hand also ends the hold-down, in which the next would wait.
		to := []int{leader}
		if c.settled(ask, address) == leader {
			to = []int{ask, leader}
		}
		for _, i := range to {
			eventually(c.t, c.Nodes[i].Name+" holds the address", func() error {
				if r := c.run(ask, "failover", address, "--to", c.Nodes[i].Name); r.code != 0 {
					return fmt.Errorf("%+v", r)
				}
				if at := c.settled(ask, address); at != i {
					return fmt.Errorf("%s does", c.Nodes[at].Name)
				}
				return nil
			})
		}
	}
	n := c.Nodes[leader]
	n.HAProxyPID = c.haproxy(leader)
	if err := c.admin().ResetAssigns(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	begin := time.Now()
	switch kind {
	case "node":
		kill(c.t, n.PID, syscall.SIGKILL)
		kill(c.t, n.HAProxyPID, syscall.SIGKILL)
	case "haproxy":
		wrapper.breakIt()
		begin = time.Now()
		kill(c.t, n.HAProxyPID, syscall.SIGKILL)
	case "resign":
		kill(c.t, n.PID, syscall.SIGTERM)
	}
	var took time.Duration
	if kind == "resign" {
		took = c.nextLeader(begin, ask, n.Name)
	} else {
		eventually(c.t, "the address is assigned elsewhere", func() error {
			assigns, err := c.admin().Assigns(c.t.Context())
			if err == nil && len(assigns) == 0 {
				err = fmt.Errorf("it was not")
			}
			if err == nil {
				took = assigns[0].At.Sub(begin)
			}
			return err
		})
	}
	if kind == "haproxy" {
		wrapper.mend()
	} else {
		c.gone(n.PID)
		c.restart(leader)
	}
	return took
}

// nextLeader waits until another node says that another leads, and returns how
// long after the one before was asked to end that was.
func (c *cluster) nextLeader(begin time.Time, ask int, before string) (took time.Duration) {
	c.t.Helper()
	conn, err := grpc.NewClient(c.Nodes[ask].GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	client := pb.NewClusterServiceClient(conn)
	for deadline := begin.Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		r, err := client.GetStatus(c.t.Context(), &pb.GetStatusRequest{Events: 1})
		if err == nil && r.Leader != "" && r.Leader != before {
			return time.Since(begin)
		}
	}
	c.t.Fatal("nobody else leads")
	return 0
}
