package config

import (
	"github.com/doproxy/doproxy/inventory"
	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

// ParseProto is ParseDocument in the form that the API takes. The desired of a
// pool is zero if the file does not say it, and settings are nil if the file
// has neither limits nor ingress; of the two, one that it does not have is nil.
func ParseProto(file string, data []byte) (pools []*doproxyv1.Pool, settings *doproxyv1.Settings, err error) {
	d, err := ParseDocument(file, data)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range d.Pools {
		desired := p.Desired
		if !p.DesiredSet {
			desired = 0 // an existing pool keeps what is wanted of it
		}
		pools = append(pools, server.SpecToProto(p.PoolSpec, desired))
	}
	if d.Settings != nil {
		settings = server.SettingsToProto(d.Settings)
		settings.Etag = ""
		if !d.HasLimits {
			settings.Limits = nil
		}
		if !d.HasIngress {
			settings.Ingress = nil
		}
	}
	return pools, settings, nil
}

// FormatProto is FormatDocument for what the API gives, with how many droplets
// are wanted of each pool. settings may be nil.
func FormatProto(pools []*doproxyv1.Pool, settings *doproxyv1.Settings, header string) ([]byte, error) {
	list := make([]Pool, len(pools))
	for i, m := range pools {
		list[i].PoolSpec, list[i].Desired = server.PoolFromProto(m)
		list[i].DesiredSet = true
	}
	var s *inventory.Settings
	if settings != nil {
		s = new(server.SettingsFromProto(settings))
	}
	return FormatDocument(list, s, header)
}
