package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// documentFile is a file of `doproxy apply -f` as it is written.
type documentFile struct {
	Limits  *LimitsFile  `yaml:"limits,omitzero"`
	Ingress *IngressFile `yaml:"ingress,omitzero"`
	Pools   []PoolFile   `yaml:"pools,omitzero"`
}

// FormatDocument writes pools, and settings unless they are nil, as YAML that
// ParseDocument reads back to the same values. header goes before them as a
// comment; it may have several lines or be empty. User data is written whole,
// with whatever secrets it holds.
func FormatDocument(pools []Pool, settings *inventory.Settings, header string) ([]byte, error) {
	var f documentFile
	if settings != nil {
		f.Limits, f.Ingress = limitsFile(settings.Limits), ingressFile(settings.Ingress)
	}
	for i := range pools {
		f.Pools = append(f.Pools, poolFile(&pools[i]))
	}
	data, err := encode(f)
	if err != nil {
		return nil, fmt.Errorf("writing pools and settings as YAML: %w", err)
	}
	return append(comment(header), data...), nil
}

// comment puts # before every line.
func comment(text string) (out []byte) {
	if text == "" {
		return nil
	}
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		out = append(out, strings.TrimRight("# "+strings.Map(printable, line), " ")...)
		out = append(out, '\n')
	}
	return out
}

func printable(r rune) rune {
	if !seen(r) {
		return -1
	}
	return r
}

func limitsFile(l inventory.Limits) *LimitsFile {
	return &LimitsFile{Droplets: l.Droplets, CostHourly: l.CostHourly, CreatesHourly: l.CreatesHourly, LeavePercent: l.LeavePercent}
}

func ingressFile(i inventory.Ingress) *IngressFile {
	f := &IngressFile{
		FailAfter:   time.Duration(i.FailAfter),
		SettleAfter: time.Duration(i.SettleAfter),
		StaleAfter:  time.Duration(i.StaleAfter),
		HoldDown:    time.Duration(i.HoldDown),
	}
	for _, a := range i.ReservedIPs {
		f.ReservedIPs = append(f.ReservedIPs, a.String())
	}
	for _, n := range i.DNS {
		f.DNS = append(f.DNS, DNSNameFile(n))
	}
	return f
}

// some is the list, or nil if it is empty: such a key is left out.
func some(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

func poolFile(p *Pool) PoolFile {
	t, b := p.Template, p.Backend
	f := PoolFile{
		Name: p.Name,
		Min:  p.Min,
		Max:  new(p.Max),
		Template: TemplateFile{
			Region:     t.Region,
			Size:       t.Size,
			Image:      t.Image,
			SSHKeys:    some(t.SSHKeys),
			UserData:   t.UserData,
			VPC:        t.VPC,
			IPv6:       t.IPv6,
			Monitoring: t.Monitoring,
			Tags:       some(t.Tags),
		},
		Backend: BackendFile{
			Port:          int(b.Port),
			Balance:       b.Balance,
			HealthPath:    b.HealthPath,
			CheckInterval: time.Duration(b.CheckInterval),
			Fall:          b.Fall,
			Rise:          b.Rise,
			MaxConn:       b.MaxConn,
			Hosts:         some(b.Hosts),
			Paths:         some(b.Paths),
		},
		Policy: PolicyFile{
			BootDeadline:  time.Duration(p.Policy.BootDeadline),
			DrainDeadline: time.Duration(p.Policy.DrainDeadline),
		},
	}
	if p.HostnamePrefix != p.Name {
		f.HostnamePrefix = p.HostnamePrefix
	}
	if p.DesiredSet {
		f.Desired = new(p.Desired)
	}
	return f
}
