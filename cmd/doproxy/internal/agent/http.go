package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
)

// serveHTTP answers /healthz (the agent runs), /readyz (it is in step with the
// store and its HAProxy runs what the inventory says) and /metrics.
func (a *agent) serveHTTP(ctx context.Context) error {
	if a.cfg.API.HTTP == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{}))

	listener, err := net.Listen("tcp", a.cfg.API.HTTP)
	if err != nil {
		return fmt.Errorf("api.http: %w", err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *agent) ready() error {
	state, status := a.mirror.State(), a.balancer.sync.Status()
	switch {
	case state.Err != nil:
		return fmt.Errorf("store: %w", state.Err)
	case state.Meta == nil || !a.bootstrapped.Load():
		return errNoCluster
	case status.State != haproxy.Running:
		return fmt.Errorf("haproxy is %s %s", status.State, status.Error)
	case status.Applied < int64(state.Inventory):
		return fmt.Errorf("haproxy runs revision %d, the inventory is at %d", status.Applied, state.Inventory)
	}
	return nil
}

// metrics are the agent's own, in a registry of their own.
type metrics struct {
	registry *prometheus.Registry
	leader   prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.leader = prometheus.NewGauge(prometheus.GaugeOpts{Name: "doproxy_leader", Help: "1 while this node leads."})
	m.registry.MustRegister(m.leader, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) leading(yes bool) {
	if yes {
		m.leader.Set(1)
	} else {
		m.leader.Set(0)
	}
}

// watch adds what is read off the agent's parts when it is asked for.
func (m *metrics) watch(a *agent) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
	}
	status := func() haproxy.Status { return a.balancer.sync.Status() }
	gauge("doproxy_store_in_step", "1 while the inventory's mirror is in step with the store.", func() float64 {
		if a.mirror.State().Err != nil {
			return 0
		}
		return 1
	})
	gauge("doproxy_haproxy_running", "1 while HAProxy runs and has taken everything.", func() float64 {
		if status().State != haproxy.Running {
			return 0
		}
		return 1
	})
	gauge("doproxy_applied_revision", "The inventory revision that HAProxy runs.", func() float64 { return float64(status().Applied) })
	counter("doproxy_haproxy_reloads_total", "Reloads that this agent made.", func() float64 { return float64(status().Reloads) })
	counter("doproxy_haproxy_repairs_total", "Differences repaired that this agent had not made.", func() float64 { return float64(status().Repairs) })
	m.registry.MustRegister(&fleetCollector{a})
}

// fleetCollector tells pools and droplets as this node knows them.
type fleetCollector struct{ agent *agent }

var (
	dropletsDesc = prometheus.NewDesc("doproxy_droplets", "Droplets by pool and phase.", []string{"pool", "phase"}, nil)
	desiredDesc  = prometheus.NewDesc("doproxy_pool_desired", "Droplets wanted.", []string{"pool"}, nil)
)

func (c *fleetCollector) Describe(out chan<- *prometheus.Desc) {
	out <- dropletsDesc
	out <- desiredDesc
}

func (c *fleetCollector) Collect(out chan<- prometheus.Metric) {
	state := c.agent.mirror.State()
	type cell struct {
		pool  string
		phase inventory.Phase
	}
	counts := map[cell]int{}
	for _, p := range state.Pools {
		out <- prometheus.MustNewConstMetric(desiredDesc, prometheus.GaugeValue, float64(p.Desired), p.Name)
		for _, phase := range []inventory.Phase{inventory.Requested, inventory.Booting, inventory.Serving, inventory.Draining, inventory.Deleting} {
			counts[cell{p.Name, phase}] = 0
		}
	}
	for _, d := range state.Droplets {
		counts[cell{d.Pool, d.Phase}]++
	}
	for c, n := range counts {
		out <- prometheus.MustNewConstMetric(dropletsDesc, prometheus.GaugeValue, float64(n), c.pool, string(c.phase))
	}
}
