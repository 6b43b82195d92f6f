package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
)

func (r *resolver) pools() []Pool {
	out := make([]Pool, 0, len(r.file.Pools))
	seen := make(map[string]int)
	prefixes := make(map[string]string)
	for i := range r.file.Pools {
		at := index("pools", i)
		p := r.pool(at, &r.file.Pools[i])
		out = append(out, p)
		if p.Name == "" {
			continue
		}
		if first, twice := seen[p.Name]; twice {
			r.addf(join(at, "name"), "%s is the name of two pools, the first in line %d: rename one", show(p.Name), first)
			continue
		}
		seen[p.Name] = r.line(join(at, "name"))
		if other, twice := prefixes[p.HostnamePrefix]; twice {
			r.addf(join(at, "hostname_prefix"), "%s is that of pool %s too: use another, or droplets of two pools would have one name", show(p.HostnamePrefix), other)
		}
		prefixes[p.HostnamePrefix] = p.Name
	}
	if old, ok := r.oldPool(); ok {
		out = append(out, old)
	}
	return out
}

func (r *resolver) pool(path string, f *PoolFile) Pool {
	at := func(key string) string { return join(path, key) }
	p := Pool{PoolSpec: inventory.PoolSpec{
		Name:           f.Name,
		HostnamePrefix: or(f.HostnamePrefix, f.Name),
		Min:            r.integer(at("min"), f.Min, 0, maxPool, 0),
		Max:            DefaultMax,
	}}
	if f.Name == "" {
		r.addf(at("name"), "is not set: write one such as web")
	} else {
		r.valid(at("name"), f.Name, inventory.ValidName)
	}
	if f.HostnamePrefix != "" {
		r.valid(at("hostname_prefix"), f.HostnamePrefix, inventory.ValidHostname)
	}
	before := len(r.errors)
	if f.Max != nil {
		p.Max = r.integer(at("max"), *f.Max, 0, maxPool, DefaultMax)
	}
	p.Desired = p.Min
	if f.Desired != nil {
		p.Desired, p.DesiredSet = r.integer(at("desired"), *f.Desired, 0, maxPool, p.Min), true
	}
	if len(r.errors) == before {
		limit := fmt.Sprintf("max, %d", p.Max)
		if f.Max == nil {
			limit += " by default"
		}
		switch {
		case p.Min > p.Max:
			if f.Desired != nil {
				limit += fmt.Sprintf(", and desired, %d, must lie between them", p.Desired)
			}
			r.addf(at("min"), "%d is above %s: lower it or raise max", p.Min, limit)
		case p.Desired > p.Max:
			r.addf(at("desired"), "%d is above %s: lower it or raise max", p.Desired, limit)
		case p.Desired < p.Min:
			r.addf(at("desired"), "%d is below min, %d: raise it or lower min", p.Desired, p.Min)
		}
	}
	p.Template = r.dropletTemplate(at("template"), &f.Template)
	p.Backend = r.backend(at("backend"), &f.Backend)
	p.Policy.BootDeadline = inventory.Duration(r.duration(at("policy.boot_deadline"), f.Policy.BootDeadline, time.Second, 24*time.Hour, 0))
	p.Policy.DrainDeadline = inventory.Duration(r.duration(at("policy.drain_deadline"), f.Policy.DrainDeadline, 100*time.Millisecond, 7*24*time.Hour, 0))
	return p
}

const (
	maxPool     = 1000      // droplets in a pool
	maxUserData = 64 * 1024 // DigitalOcean's limit, in bytes
)

func (r *resolver) dropletTemplate(path string, f *TemplateFile) inventory.Template {
	at := func(key string) string { return join(path, key) }
	t := inventory.Template{
		Region:     f.Region,
		Size:       f.Size,
		Image:      f.Image,
		SSHKeys:    f.SSHKeys,
		UserData:   f.UserData,
		VPC:        f.VPC,
		IPv6:       f.IPv6,
		Monitoring: f.Monitoring,
		Tags:       f.Tags,
	}
	r.slug(at("region"), f.Region, "nyc3")
	r.slug(at("size"), f.Size, "s-1vcpu-1gb")
	r.slug(at("image"), f.Image, "debian-12-x64, or the id of an image of yours")
	r.sshKeys(at("ssh_keys"), f.SSHKeys)
	if f.UserData != "" && f.UserDataFile != "" {
		r.addf(at("user_data_file"), "%s is set beside user_data: keep one of them", show(f.UserDataFile))
	} else if f.UserDataFile != "" {
		t.UserData = r.userData(at("user_data_file"), f.UserDataFile)
	} else if len(t.UserData) > maxUserData {
		r.addf(at("user_data"), "is %d bytes long: DigitalOcean takes at most %d", len(t.UserData), maxUserData)
	}
	if f.VPC != "" && !uuidPattern.MatchString(f.VPC) {
		r.addf(at("vpc"), "%s is not a VPC's UUID: write one such as 5a4981aa-9653-4bd1-bef5-d6bff52042e4", show(f.VPC))
	}
	for i, tag := range f.Tags {
		if !tagPattern.MatchString(tag) {
			r.addf(index(at("tags"), i), "%s is not a tag: use up to 255 letters, digits and :_-", show(tag))
		}
	}
	return t
}

func (r *resolver) slug(key, value, example string) {
	switch {
	case value == "":
		r.addf(key, "is not set: write one such as %s", example)
	case !slugPattern.MatchString(value):
		r.addf(key, "%s is not a slug of DigitalOcean's: write one such as %s", show(value), example)
	}
}

func (r *resolver) sshKeys(key string, keys []string) {
	for i, k := range keys {
		if !fingerprintPattern.MatchString(k) {
			r.addf(index(key, i), "%s is neither the id nor the fingerprint of an SSH key: write one such as 163420 or 3b:16:bf:e4:8b:00:8b:b8:59:8c:a9:d3:f0:19:45:fa", show(k))
		}
	}
}

func (r *resolver) userData(key, name string) string {
	data, ok := r.contents(key, name)
	if ok && len(data) > maxUserData {
		r.addf(key, "%s is %d bytes long: DigitalOcean takes at most %d", show(r.path(name)), len(data), maxUserData)
	}
	return string(data)
}

func (r *resolver) backend(path string, f *BackendFile) inventory.Backend {
	at := func(key string) string { return join(path, key) }
	ok := func(b haproxy.Backend) bool {
		b.Name = "x"
		return inHAProxy(haproxy.Config{Backends: []haproxy.Backend{b}})
	}
	b := inventory.Backend{
		Port:          uint16(r.integer(at("port"), f.Port, 1, 65535, 0)),
		Balance:       f.Balance,
		HealthPath:    f.HealthPath,
		CheckInterval: inventory.Duration(r.duration(at("check_interval"), f.CheckInterval, 10*time.Millisecond, time.Hour, 0)),
		Fall:          r.integer(at("fall"), f.Fall, 1, 1000, 0),
		Rise:          r.integer(at("rise"), f.Rise, 1, 1000, 0),
		MaxConn:       r.integer(at("maxconn"), f.MaxConn, 0, 10_000_000, 0),
		Hosts:         f.Hosts,
		Paths:         f.Paths,
	}
	if !ok(haproxy.Backend{Balance: f.Balance}) {
		r.addf(at("balance"), "%s is unknown: use one of %s", show(f.Balance), strings.Join(haproxy.Balances, ", "))
	}
	if !ok(haproxy.Backend{HealthCheckPath: f.HealthPath}) {
		r.addf(at("health_path"), "%s is not a path to ask for: begin with / and use no blank, quote, backslash, %% or #", show(f.HealthPath))
	}
	for i, h := range f.Hosts {
		if !ok(haproxy.Backend{Hosts: []string{h}}) {
			r.addf(index(at("hosts"), i), "%s is not a host name: write one without a port, such as shop.example.com or *.example.com", show(h))
		}
	}
	for i, p := range f.Paths {
		if !ok(haproxy.Backend{Paths: []string{p}}) {
			r.addf(index(at("paths"), i), "%s is not a path: write one such as /api", show(p))
		}
	}
	return b
}
