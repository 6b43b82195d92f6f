package config

import (
	"bytes"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/doproxy/doproxy/inventory"
)

// What follows makes DOProxy's own doproxy.yml work: its keys define the first
// pool and HAProxy's files.

// OldPool is the name of the pool that DOProxy's keys define.
const OldPool = "web"

// oldPool is the pool of droplet_options, ssh_key_ids and userdata_file.
func (r *resolver) oldPool() (Pool, bool) {
	f := r.file
	keys := []string{"droplet_options", "ssh_key_ids", "userdata_file"}
	if !slices.ContainsFunc(keys, r.has) {
		return Pool{}, false
	}
	if r.has("pools") {
		for _, k := range keys {
			if r.has(k) {
				r.addf(k, "defines a pool, but pools is there too: move it to pools[0] and remove it here")
			}
		}
		return Pool{}, false
	}
	if !r.has("droplet_options") {
		r.addf(firstOf(keys, r.has), "is of a pool that droplet_options does not define: set droplet_options, or use pools instead")
		return Pool{}, false
	}
	o := f.DropletOptions
	p := Pool{PoolSpec: inventory.PoolSpec{
		Name:           OldPool,
		HostnamePrefix: o.HostnamePrefix,
		Max:            DefaultMax,
		Template: inventory.Template{
			Region:  o.Region,
			Size:    o.Size,
			Image:   o.Image,
			SSHKeys: f.SSHKeyIDs,
		},
	}}
	if o.HostnamePrefix == "" {
		r.addf("droplet_options.hostname_prefix", "is not set: write one such as auto-nginx")
	} else {
		r.valid("droplet_options.hostname_prefix", o.HostnamePrefix, inventory.ValidHostname)
	}
	r.slug("droplet_options.region", o.Region, "nyc3")
	r.slug("droplet_options.size", o.Size, "s-1vcpu-1gb")
	r.slug("droplet_options.image", o.Image, "debian-12-x64, or the id of an image of yours")
	r.sshKeys("ssh_key_ids", f.SSHKeyIDs)
	if f.UserdataFile != "" {
		p.Template.UserData = r.userData("userdata_file", f.UserdataFile)
	}
	return p, true
}

func firstOf(keys []string, has func(string) bool) string {
	i := slices.IndexFunc(keys, has)
	return keys[max(i, 0)]
}

// oldConfigFile is where DOProxy copied HAProxy's configuration to: the file
// haproxy_cfg_file in the folder haproxy_cfg_path.
func (r *resolver) oldConfigFile() string {
	f := r.file
	if f.HAProxyCfgPath == "" && f.HAProxyCfgFile == "" {
		return ""
	}
	if f.HAProxy.ConfigFile != "" {
		key := firstOf([]string{"haproxy_cfg_file", "haproxy_cfg_path"}, r.has)
		r.addf(key, "names the file that haproxy.config_file names too: remove it")
		return ""
	}
	if filepath.IsAbs(f.HAProxyCfgFile) && f.HAProxyCfgPath == "" {
		return f.HAProxyCfgFile
	}
	return filepath.Join(or(f.HAProxyCfgPath, "/etc/haproxy"), or(f.HAProxyCfgFile, "haproxy.cfg"))
}

// template is the name of the operator's own template, or empty. One in ERB
// cannot be run: in the old key it is passed over with a warning, so that an
// old file goes on working, in the new key it is an error.
func (r *resolver) template() string {
	f := r.file
	key, name := "haproxy.template", f.HAProxy.Template
	old := name == ""
	if old {
		key, name = "haproxy_template_file", f.HAProxyTemplateFile
	} else if f.HAProxyTemplateFile != "" {
		r.addf("haproxy_template_file", "%s is set beside haproxy.template: remove it", show(f.HAProxyTemplateFile))
		return ""
	}
	if name == "" {
		return ""
	}
	const mend = "carry your changes over to a Go template (docs/configuration.md, \"HAProxy's template\")"
	if old && filepath.Ext(name) == ".erb" {
		r.warnf(key, "%s is an ERB template of DOProxy's, which doproxy does not run; the built-in template is used: %s, name it in haproxy.template and remove this key", show(name), mend)
		return ""
	}
	text, ok := r.contents(key, name)
	if !ok {
		return ""
	}
	if bytes.Contains(text, []byte("<%")) {
		if old {
			r.warnf(key, "%s is an ERB template of DOProxy's, which doproxy does not run; the built-in template is used: %s, name it in haproxy.template and remove this key", show(name), mend)
			return ""
		}
		r.addf(key, "%s is an ERB template of DOProxy's, which doproxy does not run: %s", show(name), mend)
		return ""
	}
	return r.path(name)
}

// oldInventory is the name of DOProxy's inventory file. One that lists
// droplets is worth a warning: until they are imported nothing balances over
// them.
func (r *resolver) oldInventory() string {
	name := r.file.InventoryFile
	if name == "" {
		return ""
	}
	path := r.path(name)
	if data, err := r.readFile(path); err == nil {
		if ids, err := ParseInventory(path, data); err != nil || len(ids) > 0 {
			r.warnf("inventory_file", "%s lists droplets: take them over once with `doproxy import %s`, then remove this key", show(name), path)
		}
	}
	return path
}

// ParseInventory reads DOProxy's inventory file: the id of a droplet a line.
// Blank lines and lines that begin with # are passed over. The error joins an
// *Error for each line that is wrong.
func ParseInventory(file string, data []byte) ([]int64, error) {
	p := newProblems(file)
	var ids []int64
	lines := make(map[int64]int)
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		id, err := strconv.ParseInt(line, 10, 64)
		if err != nil || id <= 0 {
			p.addAt(n, "", show(line)+" is not the id of a droplet: write one number a line, such as 4202645")
			continue
		}
		if first, twice := lines[id]; twice {
			p.addAt(n, "", strconv.FormatInt(id, 10)+" is there twice, first in line "+strconv.Itoa(first)+": remove one")
			continue
		}
		lines[id] = n
		ids = append(ids, id)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return ids, nil
}
