package dosim

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// maxPoints bounds a series; a longer span has points further apart.
const maxPoints = 1000

// metricStep is the time between two points of a series.
const metricStep = 15 * time.Second

// series is one line of a metric: its labels and its value at a time.
type series struct {
	labels map[string]string
	value  func(t time.Time) float64
}

// metrics are DigitalOcean's droplet metrics by the last part of their path.
var metrics = map[string]func(d *droplet, r *request) []series{
	"cpu": cpuSeries,
	"load_1": func(d *droplet, _ *request) []series {
		return one(nil, d.gauge(d.Load.Load1, 0.2*float64(findSize(d.Size).VCPUs), 1))
	},
	"load_5": func(d *droplet, _ *request) []series {
		return one(nil, d.gauge(d.Load.Load5, 0.2*float64(findSize(d.Size).VCPUs), 5))
	},
	"load_15": func(d *droplet, _ *request) []series {
		return one(nil, d.gauge(d.Load.Load15, 0.2*float64(findSize(d.Size).VCPUs), 15))
	},
	"memory_total": func(d *droplet, _ *request) []series { return one(nil, func(time.Time) float64 { return d.memory() }) },
	"memory_cached": func(d *droplet, _ *request) []series {
		return one(nil, func(time.Time) float64 { return 0.1 * d.memory() })
	},
	"memory_free": func(d *droplet, _ *request) []series {
		return one(nil, func(t time.Time) float64 { return max(0, 0.9*d.memory()-d.memoryUsed(t)) })
	},
	"memory_available": func(d *droplet, _ *request) []series {
		return one(nil, func(t time.Time) float64 { return d.memory() - d.memoryUsed(t) })
	},
	"filesystem_size": func(d *droplet, _ *request) []series {
		return one(rootDisk, func(time.Time) float64 { return d.disk() })
	},
	"filesystem_free": func(d *droplet, _ *request) []series {
		used := d.gauge(d.Load.Disk, 20, 60)
		return one(rootDisk, func(t time.Time) float64 { return d.disk() * (1 - used(t)/100) })
	},
	"bandwidth": bandwidthSeries,
}

var rootDisk = map[string]string{"device": "/dev/vda1", "fstype": "ext4", "mountpoint": "/"}

func one(labels map[string]string, value func(time.Time) float64) []series {
	return []series{{labels, value}}
}

func (d *droplet) memory() float64 { return float64(findSize(d.Size).Memory) * (1 << 20) }
func (d *droplet) disk() float64   { return float64(findSize(d.Size).Disk) * (1 << 30) }
func (d *droplet) memoryUsed(t time.Time) float64 {
	return d.memory() * d.gauge(d.Load.Memory, 35, 30)(t) / 100
}

// gauge is what was set, or a curve around usual that is the droplet's own and
// the smoother the more minutes it covers.
func (d *droplet) gauge(set *float64, usual, minutes float64) func(time.Time) float64 {
	if set != nil {
		return func(time.Time) float64 { return *set }
	}
	phase := float64(d.ID % 97)
	return func(t time.Time) float64 {
		x := float64(t.Unix())/(60*(4+minutes)) + phase
		return usual * (1 + 0.3*math.Sin(x) + 0.1*math.Sin(3*x))
	}
}

// cpuSeries are the seconds that the processors spent in each mode since the
// droplet was made, as counters.
func cpuSeries(d *droplet, _ *request) []series {
	used := 12 + 6*math.Sin(float64(d.ID%97))
	if d.Load.CPU != nil {
		used = *d.Load.CPU
	}
	vcpus := float64(findSize(d.Size).VCPUs)
	var out []series
	for _, m := range []struct {
		mode string
		part float64
	}{
		{"idle", 100 - used}, {"user", used * 0.7}, {"system", used * 0.25}, {"iowait", used * 0.05},
		{"irq", 0}, {"nice", 0}, {"softirq", 0}, {"steal", 0},
	} {
		out = append(out, series{map[string]string{"mode": m.mode}, func(t time.Time) float64 {
			return t.Sub(d.Created).Seconds() * vcpus * m.part / 100
		}})
	}
	return out
}

func bandwidthSeries(d *droplet, r *request) []series {
	direction := r.query().Get("direction")
	set, usual := d.Load.BandwidthIn, 0.8
	if direction == "outbound" {
		set, usual = d.Load.BandwidthOut, 2.4
	}
	labels := map[string]string{"direction": direction, "interface": r.query().Get("interface")}
	return one(labels, d.gauge(set, usual, 5))
}

// metric answers one of the metrics as a Prometheus matrix.
func (s *Sim) metric(of func(*droplet, *request) []series) handle {
	return func(r *request) answer {
		q := r.query()
		start, err1 := strconv.ParseInt(q.Get("start"), 10, 64)
		end, err2 := strconv.ParseInt(q.Get("end"), 10, 64)
		if err1 != nil || err2 != nil || end < start {
			return badRequest("start and end must be Unix times in seconds, start first")
		}
		id, _ := strconv.Atoi(q.Get("host_id")) // what is not a number is no droplet
		d := s.state.droplet(id)
		if d == nil {
			return notFound
		}
		result := []map[string]any{}
		if !d.Load.Missing {
			for _, line := range of(d, r) {
				metric := map[string]string{"host_id": strconv.Itoa(d.ID)}
				for k, v := range line.labels {
					metric[k] = v
				}
				result = append(result, map[string]any{
					"metric": metric,
					"values": points(line, max(start, d.Created.Unix()), min(end, r.now.Unix())),
				})
			}
		}
		return ok(map[string]any{
			"status": "success",
			"data":   map[string]any{"resultType": "matrix", "result": result},
		})
	}
}

// points are the values of a line between two Unix times, each a time and the
// value as text.
func points(line series, start, end int64) [][2]any {
	step := max(int64(metricStep/time.Second), (end-start)/maxPoints+1)
	out := [][2]any{}
	for t := start; t <= end; t += step {
		v := line.value(time.Unix(t, 0))
		out = append(out, [2]any{t, fmt.Sprintf("%g", math.Round(max(v, 0)*1000)/1000)})
	}
	return out
}
