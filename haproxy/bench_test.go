package haproxy_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/doproxy/doproxy/haproxy"
)

// many gives n servers: names in order, addresses in 127.0.0.0/8 where nothing
// listens on the port but what the test puts there.
func many(n int, port uint16) []haproxy.Server {
	out := make([]haproxy.Server, n)
	for i := range out {
		out[i] = haproxy.Server{
			Name: fmt.Sprintf("www-%07d", 4_200_000+i), Address: netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}),
			Port: port, Weight: 100, ID: int64(4_200_000 + i), Hostname: fmt.Sprintf("auto-nginx-%d", i),
		}
	}
	return out
}

// BenchmarkApplyOne measures from Apply to the change being in effect at run
// time (µs/apply), and the CPU of this process per change, the writing of the
// file included (cpu-µs/op).
func BenchmarkApplyOne(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("servers=%d", n), func(b *testing.B) {
			r := newRig(b)
			r.options.AuditInterval = time.Hour
			r.cfg.Backends[0].CheckInter = 10 * time.Minute
			servers := many(n, 9)
			r.cfg.Backends[0].Servers = servers
			r.start()
			r.push()
			r.wait("applied", func(s haproxy.Status) bool { return s.Applied == r.rev })
			var times []time.Duration
			before := cpuTime()
			for i := 0; b.Loop(); i++ {
				next := slices.Clone(servers)
				next[i%n].Weight = uint16(1 + i%200)
				servers = next
				r.cfg.Backends[0].Servers = next
				cfg := r.cfg
				cfg.Backends = slices.Clone(cfg.Backends)
				r.rev++
				from := time.Now()
				r.sync.Apply(cfg, r.rev)
				if _, err := r.sync.Wait(context.Background(), func(s haproxy.Status) bool { return s.Applied == r.rev }); err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(from))
				// Changes come one by one: let the file follow each.
				b.StopTimer()
				time.Sleep(105 * time.Millisecond)
				b.StartTimer()
			}
			cpu := cpuTime() - before
			slices.Sort(times)
			us := func(d time.Duration) float64 { return float64(d.Microseconds()) }
			b.ReportMetric(us(times[len(times)/2]), "p50-µs")
			b.ReportMetric(us(times[len(times)*99/100]), "p99-µs")
			b.ReportMetric(us(cpu)/float64(len(times)), "cpu-µs/change")
			if s := r.sync.Status(); s.Reloads != 0 {
				b.Fatalf("%+v", s)
			}
		})
	}
}

// BenchmarkRest reports the CPU of the agent's part with 1,000 servers when
// nothing changes, in percent of a core, and the peak of its memory.
func BenchmarkRest(b *testing.B) {
	r := newRig(b)
	r.options.AuditInterval = 0 // the default
	r.cfg.Backends[0].CheckInter = 10 * time.Minute
	r.cfg.Backends[0].Servers = many(1000, 9)
	r.start()
	r.push()
	r.wait("applied", func(s haproxy.Status) bool { return s.Applied == r.rev })
	time.Sleep(time.Second)
	before, from := cpuTime(), time.Now()
	for b.Loop() {
		time.Sleep(20 * time.Second)
	}
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	b.ReportMetric(float64(u.Maxrss)/1024, "MB-peak")
	b.ReportMetric(100*float64(cpuTime()-before)/float64(time.Since(from)), "%core")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkRender1000(b *testing.B) {
	cfg := haproxy.Config{
		Global:   haproxy.Global{AdminSocket: "/run/doproxy/admin.sock"},
		Binds:    []haproxy.Bind{{Address: "*:80"}},
		Backends: []haproxy.Backend{{Name: "web", HealthCheckPath: "/", Servers: many(1000, 80)}},
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := haproxy.Render(nil, cfg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiff1000(b *testing.B) {
	var have []haproxy.ServerState
	for _, s := range many(1000, 80) {
		have = append(have, haproxy.ServerState{Name: s.Name, Address: s.Address, Port: s.Port, Weight: s.Weight, Checks: true})
	}
	want := slices.Clone(have)
	want[500].Weight = 0
	b.ReportAllocs()
	for b.Loop() {
		if len(haproxy.Diff(have, want)) != 1 {
			b.Fatal("not one change")
		}
	}
}
