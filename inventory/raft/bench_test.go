package raft

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/doproxy/doproxy/inventory"
	"github.com/doproxy/doproxy/inventory/etcd"
	"github.com/doproxy/doproxy/inventory/inventorytest"
)

// BenchmarkStores measures both stores side by side, three members each, with
// fsync on the same disk, by what an agent asks of them. The asking process is
// etcd's client and, as an agent is, a member of the other store, whose other
// members are processes of their own like etcd's.
func BenchmarkStores(b *testing.B) {
	c := newContest(b)
	fmt.Printf("%-46s %22s %22s %22s\n", "milliseconds: median / p99", "etcd", "raft, at the leader", "raft, at a follower")
	c.latencies("a write, one after the other", 300, func(ctx context.Context, s inventory.Store, i int) error {
		return put(ctx, s, i%50)
	})
	c.latencies("a write, 16 at a time", 100, func(ctx context.Context, s inventory.Store, i int) error {
		var all sync.WaitGroup
		errs := make([]error, 16)
		for k := range errs {
			all.Go(func() { errs[k] = put(ctx, s, 100+16*(i%10)+k) })
		}
		all.Wait()
		return firstOf(errs)
	})
	c.latencies("a linearizable read", 300, func(ctx context.Context, s inventory.Store, i int) error {
		_, err := inventory.Get(ctx, s, benchKey(i%50))
		return err
	})
	c.watches(300)
	c.followerDies()
	c.leaderDies(15)
	c.records(10_000)
}

// BenchmarkLeaderKilled is the row of the leader's death without etcd and its load
// beside it.
func BenchmarkLeaderKilled(b *testing.B) {
	c := &contest{b: b}
	c.members()
	var took []time.Duration
	for range 50 {
		took = append(took, c.killLeader())
	}
	fmt.Printf("the leader's kill -9 to the next write accepted, raft alone, %d times: %s; the longest %s ms\n", len(took), both(took), most(took))
}

const roundsEach = 3 // in turn, so that what else the machine does meets all alike

type contest struct {
	b      *testing.B
	node   *Node     // this process's member
	others processes // the other two
	etcd   *inventorytest.Etcd
	store  *etcd.Store
	direct *clientv3.Client
}

func newContest(b *testing.B) *contest {
	c := &contest{b: b}
	c.etcd = inventorytest.StartEtcd(b, 3, "--unsafe-no-fsync=false")
	var err error
	if c.store, err = etcd.Dial(etcd.Config{Endpoints: c.etcd.Endpoints}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.store.Close() })
	if c.direct, err = clientv3.New(clientv3.Config{Endpoints: c.etcd.Endpoints, Logger: zap.NewNop()}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.direct.Close() })
	c.members()
	return c
}

// members begins the store of this process's member and two others.
func (c *contest) members() {
	b := c.b
	var err error
	if c.node, err = Open(Options{
		Dir: filepath.Join(b.TempDir(), "lb1"), Name: "lb1", Address: freeAddress(b), Plain: true, Version: "test",
		Logger: slog.New(slog.DiscardHandler), stabilize: 100 * time.Millisecond,
	}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.node.Close() })
	if _, err := c.node.Init(b.Context()); err != nil {
		b.Fatal(err)
	}
	for i := range 2 {
		var token string
		eventually(b, "a token", func() (err error) {
			token, _, err = c.node.Token(b.Context(), time.Hour)
			return err
		})
		p := newProcess(b, i+1)
		if err := p.call("Form", token, &None{}); err != nil {
			b.Fatal(err)
		}
		c.others = append(c.others, p)
		c.healthy(i + 2)
	}
}

func (c *contest) healthy(want int) {
	c.b.Helper()
	eventually(c.b, fmt.Sprint(want, " healthy voters"), func() error {
		got := 0
		if err := (&Remote{c.node}).Healthy(None{}, &got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}

// lead waits until this process's member leads, or another one does.
func (c *contest) lead(here bool) {
	c.b.Helper()
	c.healthy(3)
	eventually(c.b, "the leadership where it is wanted", func() error {
		var leads bool
		_ = (&Remote{c.node}).Leads(None{}, &leads)
		if leads == here && (leads || c.others.leader() >= 0) {
			return nil
		}
		if err := c.node.StepDown(c.b.Context()); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
		return fmt.Errorf("it is not")
	})
}

func benchKey(i int) string { return fmt.Sprintf("/bench/%05d", i) }

var kilobyte = []byte(strings.Repeat("0123456789abcdef", 64))

func put(ctx context.Context, s inventory.Store, i int) error {
	_, err := s.Commit(ctx, inventory.Txn{Ops: []inventory.Op{{Key: benchKey(i), Value: kilobyte}}})
	return err
}

func firstOf(errs []error) error {
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// latencies prints a row of how long do takes on each store.
func (c *contest) latencies(name string, times int, do func(context.Context, inventory.Store, int) error) {
	var took [3][]time.Duration
	for range roundsEach {
		for column, s := range []inventory.Store{c.store, c.node, c.node} {
			if column > 0 {
				c.lead(column == 1)
			}
			for i := range times + 10 {
				at := time.Now()
				if err := do(c.b.Context(), s, i); err != nil {
					c.b.Fatal(name, ": ", err)
				}
				if i >= 10 { // what comes first is slower
					took[column] = append(took[column], time.Since(at))
				}
			}
		}
	}
	row(name, both(took[0]), both(took[1]), both(took[2]))
}

func row(name string, cells ...string) {
	fmt.Printf("%-46s", name)
	for _, cell := range cells {
		fmt.Printf(" %22s", cell)
	}
	fmt.Println()
}

func both(took []time.Duration) string {
	slices.Sort(took)
	return fmt.Sprintf("%.2f / %.2f", ms(took[len(took)/2]), ms(took[(len(took)*99+99)/100-1]))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Stamped does a write and says when it was sent.
func (r *Remote) Stamped(key int, sent *time.Time) error {
	*sent = time.Now()
	return put(context.Background(), r.n, key)
}

// watches prints the time from when a write is sent by one process, to when
// another one's watch has it: with raft, from the leader's to a follower's.
func (c *contest) watches(times int) {
	watching, err := etcd.Dial(etcd.Config{Endpoints: c.etcd.Endpoints[1:2]})
	if err != nil {
		c.b.Fatal(err)
	}
	defer watching.Close()
	c.lead(false)
	leader := c.others[c.others.leader()]
	var took [2][]time.Duration
	for range roundsEach {
		for column, s := range []struct {
			watch inventory.Store
			write func(int) (time.Time, error)
		}{
			{watching, func(i int) (time.Time, error) {
				sent := time.Now()
				return sent, put(c.b.Context(), c.store, i)
			}},
			{c.node, func(i int) (sent time.Time, err error) {
				err = leader.call("Stamped", i, &sent)
				return sent, err
			}},
		} {
			ctx, cancel := context.WithCancel(c.b.Context())
			first, err := s.watch.List(ctx, "/bench/")
			if err != nil {
				c.b.Fatal(err)
			}
			seen := make(chan time.Time, times)
			ready := make(chan struct{})
			var watch sync.WaitGroup
			watch.Go(func() {
				began := false
				_ = s.watch.Watch(ctx, "/bench/", first.Revision, func(batch inventory.Batch) error {
					if !began {
						began = true
						close(ready)
					}
					for range batch.Changes {
						seen <- time.Now()
					}
					return nil
				})
			})
			<-ready
			for i := range times {
				sent, err := s.write(i % 50)
				if err != nil {
					c.b.Fatal(err)
				}
				took[column] = append(took[column], (<-seen).Sub(sent))
			}
			cancel()
			watch.Wait()
		}
	}
	row("from a write to another node's watch", both(took[0]), "", both(took[1]))
}

// leads is the member of etcd that leads.
func (c *contest) leads() int {
	leader := -1
	eventually(c.b, "a leader of etcd", func() error {
		for i, endpoint := range c.etcd.Endpoints {
			ctx, cancel := context.WithTimeout(c.b.Context(), time.Second)
			status, err := c.direct.Status(ctx, endpoint)
			cancel()
			if err == nil && status.Header.MemberId == status.Leader {
				leader = i
				return nil
			}
		}
		return errNoLeader
	})
	return leader
}

// followerDies prints the writes' times, one after the other, from a follower's
// death on.
func (c *contest) followerDies() {
	var took [3][]time.Duration
	during := func(column int, s inventory.Store, kill func()) {
		for range 20 {
			if err := put(c.b.Context(), s, 1); err != nil {
				c.b.Fatal(err)
			}
		}
		kill()
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			at := time.Now()
			if err := put(c.b.Context(), s, 1); err != nil {
				c.b.Error("a write after a follower's death: ", err)
			}
			took[column] = append(took[column], time.Since(at))
		}
	}
	for range 2 * roundsEach {
		dead := c.etcd.Members[(c.leads()+1)%3]
		during(0, c.store, dead.Kill)
		dead.Start(c.b)
		dead.WaitHealthy(c.b)
		for column := 1; column <= 2; column++ {
			c.lead(column == 1)
			i := 0
			if column == 2 {
				i = 1 - c.others.leader()
			}
			during(column, c.node, c.others[i].kill)
			c.others[i].start()
			c.healthy(3)
		}
	}
	row("a write after a follower's kill -9", both(took[0]), both(took[1]), both(took[2]))
	row("  the longest", most(took[0]), most(took[1]), most(took[2]))
}

func most(took []time.Duration) string { return fmt.Sprintf("%.2f", ms(slices.Max(took))) }

// leaderDies prints the time from a leader's death to the first write that is
// accepted.
func (c *contest) leaderDies(times int) {
	var took [2][]time.Duration
	for range times {
		dead := c.etcd.Members[c.leads()]
		took[0] = append(took[0], c.untilAccepted(c.store, dead.Kill))
		dead.Start(c.b)
		dead.WaitHealthy(c.b)

		took[1] = append(took[1], c.killLeader())
	}
	row("the leader's kill -9 to the next write accepted", both(took[0]), "", both(took[1]))
	row("  the longest", most(took[0]), "", most(took[1]))
}

// killLeader has another process's member lead and kills that, for a while.
func (c *contest) killLeader() time.Duration {
	c.lead(false)
	p := c.others[c.others.leader()]
	took := c.untilAccepted(c.node, p.kill)
	p.start()
	c.healthy(3)
	return took
}

// untilAccepted sends a write every 5 ms, each on its own, until one is accepted.
func (c *contest) untilAccepted(s inventory.Store, kill func()) time.Duration {
	ctx, cancel := context.WithTimeout(c.b.Context(), patience)
	defer cancel()
	kill()
	killed := time.Now()
	accepted := make(chan time.Time, 1)
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		all.Go(func() {
			if put(ctx, s, 1) == nil {
				select {
				case accepted <- time.Now():
				default:
				}
			}
		})
		select {
		case at := <-accepted:
			cancel()
			return at.Sub(killed)
		case <-ctx.Done():
			c.b.Fatal("no write is accepted after the leader's death")
		case <-tick.C:
		}
	}
}

// records prints what it costs to keep so many droplets' records.
func (c *contest) records(count int) {
	fmt.Printf("\n%-46s %22s %22s\n", fmt.Sprintf("%d records of %d bytes", count, len(kilobyte)), "etcd", "raft")
	var load [2]time.Duration
	for column, s := range []inventory.Store{c.store, c.node} {
		at := time.Now()
		for i := 0; i < count; i += inventory.MaxOps {
			var txn inventory.Txn
			for k := i; k < min(count, i+inventory.MaxOps); k++ {
				txn.Ops = append(txn.Ops, inventory.Op{Key: benchKey(k), Value: kilobyte})
			}
			if _, err := s.Commit(c.b.Context(), txn); err != nil {
				c.b.Fatal(err)
			}
		}
		load[column] = time.Since(at)
	}
	c.lead(false)
	other := c.etcd.Members[(c.leads()+1)%3]
	p := c.others[1-c.others.leader()]
	row("writing them, 128 at a time (ms)", fmt.Sprintf("%.0f", ms(load[0])), fmt.Sprintf("%.0f", ms(load[1])))
	row("a follower's memory (MB)", rssMB(c.b, other.PID()), rssMB(c.b, p.cmd.Process.Pid))
	row("a follower's disk (MB)", diskMB(c.b, other.DataDir), diskMB(c.b, p.Dir))

	list := [2][]time.Duration{}
	for range 10 {
		for column, s := range []inventory.Store{c.store, c.node} {
			at := time.Now()
			if l, err := s.List(c.b.Context(), "/bench/"); err != nil || len(l.KVs) < count {
				c.b.Fatal(len(l.KVs), err)
			}
			list[column] = append(list[column], time.Since(at))
		}
	}
	row("listing them, linearizably (ms)", median(list[0]), median(list[1]))

	starts := func() (took [2][]time.Duration) {
		for range 5 {
			other.Kill()
			at := time.Now()
			other.Start(c.b)
			other.WaitHealthy(c.b)
			took[0] = append(took[0], time.Since(at))

			p.kill()
			at = time.Now()
			p.start()
			eventually(c.b, "it reads", func() error {
				out, err := c.others.ask(slices.Index(c.others, p), Request{Read: true})
				if err == nil && out.Unknown {
					err = inventory.ErrUnavailable
				}
				return err
			})
			took[1] = append(took[1], time.Since(at))
		}
		return took
	}
	soon := starts()
	time.Sleep(25 * time.Second) // within which a member takes a snapshot if one is due
	later := starts()
	row("kill -9 of a follower, start, linearizable read", "", "")
	row("  right after all of the above (ms)", median(soon[0]), median(soon[1]))
	row("  after half a minute (ms)", median(later[0]), median(later[1]))

	var snap [2][]time.Duration
	for range 5 {
		snap[0] = append(snap[0], c.saveEtcd())
		if err := put(c.b.Context(), c.node, 1); err != nil { // else there is nothing new
			c.b.Fatal(err)
		}
		at := time.Now()
		if err := c.node.member.Load().raft.Snapshot().Error(); err != nil {
			c.b.Fatal(err)
		}
		snap[1] = append(snap[1], time.Since(at))
	}
	row("a snapshot of them in a file, synced (ms)", median(snap[0]), median(snap[1]))
}

func median(took []time.Duration) string {
	slices.Sort(took)
	return fmt.Sprintf("%.0f", ms(took[len(took)/2]))
}

// saveEtcd does what `etcdctl snapshot save` does.
func (c *contest) saveEtcd() time.Duration {
	at := time.Now()
	from, err := c.direct.Snapshot(c.b.Context())
	if err != nil {
		c.b.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(c.b.TempDir(), "snapshot"))
	if err != nil {
		c.b.Fatal(err)
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		c.b.Fatal(err)
	}
	if err := to.Sync(); err != nil {
		c.b.Fatal(err)
	}
	return time.Since(at)
}

func rssMB(b *testing.B, pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	var kb float64
	fmt.Sscan(rest, &kb)
	return fmt.Sprintf("%.0f", kb/1024)
}

// diskMB is what a directory's files occupy.
func diskMB(b *testing.B, dir string) string {
	var blocks int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			blocks += info.Sys().(*syscall.Stat_t).Blocks
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("%.0f", float64(blocks)*512/1e6)
}
