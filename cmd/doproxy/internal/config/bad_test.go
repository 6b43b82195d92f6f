package config

import (
	"strings"
	"testing"
)

// problem is a file and the one thing that is wrong with it, below its name.
type problem struct{ text, want string }

// pool is a whole pool, into which a line can be put.
func pool(line string) string {
	return "pools:\n  - name: web\n    template: {region: nyc3, size: s-1vcpu-1gb, image: debian-12-x64}\n    " + line + "\n"
}

func template(line string) string {
	return "pools:\n- name: web\n  template:\n    " + line + "\n" + strings.Join(without([]string{"    region: nyc3", "    size: s-1vcpu-1gb", "    image: debian-12-x64"}, line), "\n")
}

func without(lines []string, like string) (out []string) {
	key, _, _ := strings.Cut(like, ":")
	for _, l := range lines {
		if !strings.HasPrefix(strings.TrimSpace(l), key+":") {
			out = append(out, l)
		}
	}
	return out
}

var bad = []problem{
	// The file.
	{"token: \"abc\n", ":1: is not YAML: could not find end character of double-quoted text"},
	{"cluster: a\n- b\n", ":2: is not YAML: non-map value is specified"},
	{"hello\n", `:1: "hello" is not a mapping: write keys below it, such as cluster:`},
	{"- a\n", ":1: a list is not a mapping: write keys below it, such as cluster:"},
	{"cluster: a\n---\ncluster: b\n", ":3: begins a second YAML document: a configuration is one"},
	{"? [a]\n: b\n", ":2: is not YAML: found an invalid key for this map"},

	// Keys.
	{"tokne: abc\n", ":1: tokne: unknown key: did you mean token?"},
	{"Cluster: a\n", ":1: Cluster: unknown key: did you mean cluster?"},
	{"haproxy:\n  bnid: '*:80'\n", ":2: haproxy.bnid: unknown key: did you mean bind?"},
	{"etcd: {color: red}\n", ":1: etcd.color: unknown key: use one of endpoints, username, password_file, ca_file, cert_file, key_file"},
	{pool("maximum: 3"), ":4: pools[0].maximum: unknown key: did you mean max?"},
	{"12: a\n", ":1: 12: unknown key: use one of cluster, node, token, token_file, never_lead, digitalocean, store, etcd, raft, api, state_dir, lease_ttl, node_ttl, haproxy, fleet, advertise, limits, ingress, pools, ssh_key_ids, userdata_file, haproxy_cfg_path, haproxy_cfg_file, haproxy_template_file, inventory_file, droplet_options"},
	{"node: a\ncluster: b\nnode: c\n", ":3: node: is there twice, first in line 1: remove one"},
	{"fleet:\n  settle: 1s\n  settle: 2s\n", ":3: fleet.settle: is there twice, first in line 2: remove one"},

	// Types.
	{"cluster: 5\n", ":1: cluster: 5 is not text: put it in quotes"},
	{"cluster: true\n", ":1: cluster: true is not text: put it in quotes"},
	{"cluster: [a]\n", ":1: cluster: a list is not text: write one value"},
	{"etcd: {endpoints: [http://127.0.0.1:2379]}\n", ":1: etcd.endpoints[0]: a mapping is not text: put an address with :// in quotes"},
	{pool("min: 30\n    max: 10\n    desired: 20"), ":4: pools[0].min: 30 is above max, 10, and desired, 20, must lie between them: lower it or raise max"},
	{"cluster: {a: b}\n", ":1: cluster: a mapping is not text: write one value"},
	{"etcd: foo\n", `:1: etcd: "foo" is not a mapping: write keys below it, such as endpoints:`},
	{"lease_ttl: 3\n", ":1: lease_ttl: 3 is not a duration: write it with a unit, such as 3s"},
	{"lease_ttl: soon\n", `:1: lease_ttl: "soon" is not a duration: write one such as 500ms, 30s or 5m`},
	{"lease_ttl: 1.5\n", ":1: lease_ttl: 1.5 is not a duration: write one such as 500ms, 30s or 5m"},
	{"pools: {web: 3}\n", `:1: pools: a mapping is not a list: begin each entry with "- "`},
	{"pools: web\n", `:1: pools: "web" is not a list: begin each entry with "- "`},
	{"pools: [web]\n", `:1: pools[0]: "web" is not a mapping: write keys below it, such as name:`},
	{"etcd:\n  endpoints:\n    -\n", ":3: etcd.endpoints[0]: is empty: write a value or remove the entry"},
	{pool("max: many"), `:4: pools[0].max: "many" is not a whole number: write one such as 20`},
	{pool("max: 1.5"), ":4: pools[0].max: 1.5 is not a whole number: write one such as 20"},
	{pool("max: 99999999999"), ":4: pools[0].max: 99999999999 is not a whole number: write one such as 20"},
	{template("ipv6: 1"), ":4: pools[0].template.ipv6: 1 is not true or false: write one of them"},
	{"node: *b\n", ":1: node: *b refers to nothing: define it with &b"},
	{"node: !!binary b\n", `:1: node: the tag "!!binary" means nothing here: remove it`},

	// The top.
	{"cluster: Prod_1\n", `:1: cluster: "Prod_1" is not a name: use 1 to 40 of a-z, 0-9 and inner hyphens`},
	{"node: lb.1\n", `:1: node: "lb.1" is not a name: use 1 to 40 of a-z, 0-9 and inner hyphens`},
	{"token: <YOUR_DO_API_TOKEN>\n", ":1: token: the value is not a DigitalOcean token: paste one from https://cloud.digitalocean.com/account/api/tokens"},
	{"token: abcdefgh\ntoken_file: token\n", `:2: token_file: "token" is set beside token: keep one of them`},
	{"digitalocean: {url: api.digitalocean.com}\n", `:1: digitalocean.url: "api.digitalocean.com" is not a URL that can be used here: write one such as https://api.digitalocean.com/`},
	{"digitalocean:\n  url: https://me:pass@example.com\n", ":2: digitalocean.url: the value holds a user name or password: leave them out"},
	{"etcd: {endpoints: '127.0.0.1:2379'}\n", `:1: etcd.endpoints[0]: "127.0.0.1:2379" is not a URL that can be used here: write one such as http://127.0.0.1:2379`},
	{"store: redis\n", `:1: store: "redis" is unknown: use raft (kept by the agents themselves) or etcd`},
	{"store: raft\n", ":1: store: the integrated store must know where the other members reach this node: set raft.address, such as 10.132.0.2:7477, or advertise.private_ipv4"},
	{"raft: {address: 10.0.0.1}\n", `:1: raft.address: "10.0.0.1" is not host:port: write where the other members reach this node, such as 10.132.0.2:7477`},
	{"raft: {address: '0.0.0.0:7477'}\n", `:1: raft.address: "0.0.0.0:7477" is no address that others can reach: write this node's own, such as 10.132.0.2:7477, and set raft.listen to 0.0.0.0:7477`},
	{"raft: {address: '10.0.0.1:7477', plain: true}\n", `:1: raft.plain: "10.0.0.1:7477" can be reached from other machines, and what members say to each other holds secrets: leave raft.plain out`},
	{"raft: {address: '127.0.0.1:7477', listen: '0.0.0.0:7477', plain: true}\n", `:1: raft.plain: "0.0.0.0:7477" can be reached from other machines, and what members say to each other holds secrets: leave raft.plain out`},
	{"raft: {address: '10.9.9.9:7477', listen: 10.9.9.9}\n", `:1: raft.listen: "10.9.9.9" is not an address: write host:port, such as 10.132.0.2:7477`},
	{"raft: {address: '10.9.9.9:7478', listen: 'lb:7478'}\n", `:1: raft.listen: "lb:7478" does not begin with an IP address: write one, such as 10.132.0.2:7478`},
	{"raft: {address: '127.0.0.1:7477', dead_after: 10ms}\n", ":1: raft.dead_after: 10ms is out of range: use 1s to 720h"},
	{"etcd: {username: root}\n", `:1: etcd.username: "root" has no password: set etcd.password_file`},
	{"etcd: {password_file: p}\n", `:1: etcd.password_file: "p" is of no user: set etcd.username`},
	{"etcd: {username: root, password_file: p}\n", `:1: etcd.password_file: cannot read "/etc/doproxy/p": file does not exist`},
	{"etcd: {username: root, password_file: open-secret}\n", `:1: etcd.password_file: "/etc/doproxy/open-secret" can be read by every user of this machine: run chmod o= /etc/doproxy/open-secret`},
	{"etcd: {username: root, password_file: two-lines}\n", `:1: etcd.password_file: "/etc/doproxy/two-lines" does not hold one line with the secret: write that and nothing else`},
	{"etcd: {cert_file: c}\n", `:1: etcd.cert_file: "c" has no key: set etcd.key_file`},
	{"etcd: {key_file: k}\n", `:1: etcd.key_file: "k" has no certificate: set etcd.cert_file`},
	{"lease_ttl: 1s\n", ":1: lease_ttl: 1s is out of range: use 2s to 1m"},
	{"lease_ttl: 2500ms\n", ":1: lease_ttl: 2.5s is not whole seconds: use 2s to 1m"},
	{"node_ttl: 2m\n", ":1: node_ttl: 2m is out of range: use 2s to 1m"},
	{"advertise: {public_ipv4: '2001:db8::1'}\n", `:1: advertise.public_ipv4: "2001:db8::1" is not an IPv4 address: write one of this machine's`},
	{"advertise: {public_ipv6: 10.0.0.1}\n", `:1: advertise.public_ipv6: "10.0.0.1" is not an IPv6 address: write one of this machine's`},
	{"advertise: {droplet_id: -1}\n", ":1: advertise.droplet_id: -1 is not the id of a droplet: write this load balancer's, as in `doctl compute droplet list`"},
	{"advertise: {droplet_id: lb-1}\n", `:1: advertise.droplet_id: "lb-1" is not a whole number: write one such as 4202645`},

	// The limits.
	{"limits: 5\n", ":1: limits: 5 is not a mapping: write keys below it, such as droplets:"},
	{"limits: {droplets: -1}\n", ":1: limits.droplets: -1 is out of range: use 0 to 1000000"},
	{"limits: {cost_hourly: -0.5}\n", ":1: limits.cost_hourly: -0.5 is out of range: use 0 to 1000000 US dollars an hour"},
	{"limits: {cost_hourly: 1.50 USD}\n", `:1: limits.cost_hourly: "1.50 USD" is not a number: write one such as 1.50`},
	{"limits: {cost_hourly: .inf}\n", ":1: limits.cost_hourly: .inf is not a number: write one such as 1.50"},
	{"limits: {cost_hourly: .nan}\n", ":1: limits.cost_hourly: .nan is not a number: write one such as 1.50"},
	{"limits: {creates_hourly: 1.5}\n", ":1: limits.creates_hourly: 1.5 is not a whole number: write one such as 20"},
	{"limits: {leave_percent: 0}\n", ":1: limits.leave_percent: 0 is out of range: use 1 to 100"},
	{"limits: {leave_percent: 101}\n", ":1: limits.leave_percent: 101 is out of range: use 1 to 100"},
	{"limits: {leave_percent: 25%}\n", `:1: limits.leave_percent: "25%" is not a whole number: write one such as 20`},
	{"limits: {dropletss: 1}\n", ":1: limits.dropletss: unknown key: did you mean droplets?"},

	// The entry point.
	{"ingress: {reserved_ips: [203.0.113.300]}\n", `:1: ingress.reserved_ips[0]: "203.0.113.300" is not an IP address: write one such as 203.0.113.10`},
	{"ingress: {reserved_ips: ['fe80::1%eth0']}\n", `:1: ingress.reserved_ips[0]: "fe80::1%eth0" is not an IP address: write one such as 203.0.113.10`},
	{"ingress: {reserved_ips: [203.0.113.10/32]}\n", `:1: ingress.reserved_ips[0]: "203.0.113.10/32" is not an IP address: write one such as 203.0.113.10`},
	{"ingress: {reserved_ips: ['::ffff:203.0.113.10']}\n", `:1: ingress.reserved_ips[0]: "::ffff:203.0.113.10" is an IPv4 address written as IPv6: write 203.0.113.10`},
	{"ingress:\n  reserved_ips:\n  - 2001:db8::10\n  - 2001:DB8:0::10\n", `:4: ingress.reserved_ips[1]: "2001:DB8:0::10" is there twice, first as ingress.reserved_ips[0]: remove one`},
	{"ingress: {dns: [{name: www}]}\n", ":1: ingress.dns[0].domain: is not set: write one of the account's domains, such as example.com"},
	{"ingress: {dns: [{domain: example.com., name: www}]}\n", `:1: ingress.dns[0].domain: "example.com." is not a domain: write one of the account's, such as example.com, without a final dot`},
	{"ingress: {dns: [{domain: example.com, name: a_b}]}\n", `:1: ingress.dns[0].name: "a_b" is not a name within the domain: write one such as www, or "@" for the domain itself`},
	{"ingress:\n  dns:\n  - {domain: example.com, name: a.b}\n  - {domain: B.example.com, name: a}\n", `:4: ingress.dns[1].name: "a.b.example.com" is there twice, first as ingress.dns[0]: remove one`},
	{"ingress: {dns: [{domain: example, name: www}]}\n", `:1: ingress.dns[0].domain: "example" is not a domain: write one of the account's, such as example.com, without a final dot`},
	{"ingress: {dns: [{domain: example.com}]}\n", ":1: ingress.dns[0].name: is not set: write one within the domain, such as www, or \"@\" for the domain itself"},
	{"ingress: {dns: [{domain: a.example.com, name: '@'}, {domain: example.com, name: A}]}\n", `:1: ingress.dns[1].name: "a.example.com" is there twice, first as ingress.dns[0]: remove one`},
	{"ingress: {dns: [{domain: " + strings.Repeat("xyz.", 40) + "com, name: " + strings.Repeat("xyz.", 40) + "www}]}\n", `:1: ingress.dns[0].name: "` + strings.Repeat("xyz.", 15) + `"... is 327 bytes long, but a name has at most 253: choose a shorter one`},
	{"ingress: {dns: [{domain: example.com, name: www, ttl: 10}]}\n", ":1: ingress.dns[0].ttl: 10 is out of range: use 30 seconds or more"},
	{"ingress: {reserved_ips: 224.0.0.1}\n", `:1: ingress.reserved_ips[0]: "224.0.0.1" is no address for clients to call: write a reserved IP of the account`},
	{"ingress: {dns: example.com}\n", `:1: ingress.dns: "example.com" is not a list: begin each entry with "- "`},
	{"ingress: {fail_after: -1s}\n", ":1: ingress.fail_after: -1s is out of range: use 0s to 24h"},
	{"ingress: {hold_down: 5}\n", ":1: ingress.hold_down: 5 is not a duration: write it with a unit, such as 5s"},

	// The API.
	{"api: {socket: /" + strings.Repeat("x", 107) + "}\n", ":1: api.socket: \"/" + strings.Repeat("x", 59) + "\"... is 108 bytes long, but the path of a Unix socket may have only 95 here: choose a shorter directory"},
	{"api: {listen: 7475x}\n", `:1: api.listen[0]: "7475x" is not an address: write host:port, such as 127.0.0.1:7475`},
	{"api: {listen: '127.0.0.1:70000'}\n", `:1: api.listen[0]: "127.0.0.1:70000" has no port that can be: use 1 to 65535`},
	{"api: {listen: 'lb:7475'}\n", `:1: api.listen[0]: "lb:7475" does not begin with an IP address: write one, such as 127.0.0.1:7475`},
	{"api:\n  listen:\n  - 127.0.0.1:7475\n  - 10.0.0.1:7475\n", `:4: api.listen[1]: "10.0.0.1:7475" can be reached from other machines, and who reaches it can create and delete droplets: set api.tls (cert_file, key_file, client_ca_file), or listen on 127.0.0.1`},
	{"api: {listen: ':7475', tls: {cert_file: a, key_file: b}}\n", `:1: api.listen[0]: ":7475" can be reached from other machines, and without client certificates anyone there can create and delete droplets: set api.tls.client_ca_file, or listen on 127.0.0.1`},
	{"api: {listen: ['127.0.0.1:1', '127.0.0.1:1']}\n", `:1: api.listen[1]: "127.0.0.1:1" is taken by api.listen[0]: use another port`},
	{"api: {http: 127.0.0.1}\n", `:1: api.http: "127.0.0.1" is not an address: write host:port, such as 127.0.0.1:7476`},
	{"api: {http: '127.0.0.1:7475'}\n", `:1: api.http: "127.0.0.1:7475" is taken by api.listen[0]: use another port`},
	{"api: {tls: {client_ca_file: a}}\n", `:1: api.tls.client_ca_file: "a" is of no use without a certificate: set api.tls.cert_file and api.tls.key_file`},

	// HAProxy.
	{"haproxy: {mode: docker}\n", `:1: haproxy.mode: "docker" is unknown: use systemd or managed`},
	{"haproxy: {config_file: /etc/my haproxy.cfg}\n", `:1: haproxy.config_file: "/etc/my haproxy.cfg" cannot stand in HAProxy's configuration: use a path of letters, digits and ._-+@/`},
	{"haproxy: {admin_socket: /run/a b}\n", `:1: haproxy.admin_socket: "/run/a b" must be an absolute path of letters, digits and ._-+@/`},
	{"haproxy: {template: my.erb}\n", `:1: haproxy.template: "my.erb" is an ERB template of DOProxy's, which doproxy does not run: carry your changes over to a Go template (docs/configuration.md, "HAProxy's template")`},
	{"haproxy: {template: none}\n", `:1: haproxy.template: cannot read "/etc/doproxy/none": file does not exist`},
	{"haproxy:\n  bind:\n  - '*:80'\n  - www:80\n", `:4: haproxy.bind[1]: "www:80" is not an address to bind to: write an IP address (or *) and a port, such as *:80 or [::]:80`},
	{"haproxy: {bind_tls: '*:443'}\n", ":1: haproxy.bind_tls: needs a certificate: set haproxy.certificate to a PEM file with chain and key"},
	{"haproxy: {stats: '0.0.0.0:8404'}\n", `:1: haproxy.stats: "0.0.0.0:8404" is not a loopback address with a port: write one such as 127.0.0.1:8404, or off`},
	{"haproxy: {maxconn: -1}\n", ":1: haproxy.maxconn: -1 is out of range: use 0 to 10000000"},
	{"haproxy: {log: syslog}\n", `:1: haproxy.log: "syslog" is no place for log lines: use the absolute path of a syslog socket, address:port, stdout, stderr or off`},
	{"haproxy: {log_facility: 'local 0'}\n", `:1: haproxy.log_facility: "local 0" is not a syslog facility: use one such as local0`},
	{"haproxy: {user: 'a b'}\n", `:1: haproxy.user: "a b" is not a user's name: use letters, digits and ._-`},
	{"haproxy: {group: 'a b'}\n", `:1: haproxy.group: "a b" is not a group's name: use letters, digits and ._-`},
	{"haproxy: {timeouts: {client: 0s}}\n", ":1: haproxy.timeouts.client: 0s is out of range: use 1ms to 576h"},
	{"haproxy: {audit_interval: 1500us}\n", ":1: haproxy.audit_interval: 1.5ms is out of range: use 1s to 1h"},
	{"haproxy: {timeouts: {client: 1500us}}\n", ":1: haproxy.timeouts.client: 1.5ms is finer than a millisecond: use whole ones"},

	// The fleet.
	{"fleet: {poll_interval: 1h}\n", ":1: fleet.poll_interval: 1h is out of range: use 10ms to 1m"},
	{"fleet: {poll_interval_idle: 1s}\n", ":1: fleet.poll_interval_idle: 1s is below fleet.poll_interval, 5s: use at least that"},
	{"fleet: {backoff_min: 10m}\n", ":1: fleet.backoff_max: 5m is below fleet.backoff_min, 10m: use at least that"},

	// Pools.
	{"pools:\n- desired: 0\n  template: {region: a, size: b, image: c}\n", ":2: pools[0].name: is not set: write one such as web"},
	{pool("max: 5000"), ":4: pools[0].max: 5000 is out of range: use 0 to 1000"},
	{pool("min: -1"), ":4: pools[0].min: -1 is out of range: use 0 to 1000"},
	{pool("min: 30"), ":4: pools[0].min: 30 is above max, 20 by default: lower it or raise max"},
	{pool("{desired: 6, max: 5}")[:len(pool(""))-1] + "desired: 6\n    max: 5\n", ":4: pools[0].desired: 6 is above max, 5: lower it or raise max"},
	{pool("desired: 1\n    min: 2"), ":4: pools[0].desired: 1 is below min, 2: raise it or lower min"},
	{pool("hostname_prefix: my_web"), `:4: pools[0].hostname_prefix: "my_web" is not a hostname: use up to 200 letters, digits, inner hyphens and dots`},
	{pool("") + "  - name: web\n    template: {region: a, size: b, image: c}\n", `:5: pools[1].name: "web" is the name of two pools, the first in line 2: rename one`},
	{pool("") + "  - name: api\n    hostname_prefix: web\n    template: {region: a, size: b, image: c}\n", `:6: pools[1].hostname_prefix: "web" is that of pool web too: use another, or droplets of two pools would have one name`},
	{template("region: NYC 3"), `:4: pools[0].template.region: "NYC 3" is not a slug of DigitalOcean's: write one such as nyc3`},
	{template("region:"), ":3: pools[0].template.region: is not set: write one such as nyc3"},
	{template("ssh_keys: [me]"), `:4: pools[0].template.ssh_keys[0]: "me" is neither the id nor the fingerprint of an SSH key: write one such as 163420 or 3b:16:bf:e4:8b:00:8b:b8:59:8c:a9:d3:f0:19:45:fa`},
	{template("user_data_file: none"), `:4: pools[0].template.user_data_file: cannot read "/etc/doproxy/none": file does not exist`},
	{template("user_data_file: big"), `:4: pools[0].template.user_data_file: "/etc/doproxy/big" is 65537 bytes long: DigitalOcean takes at most 65536`},
	{template("user_data: a\n    user_data_file: b"), `:5: pools[0].template.user_data_file: "b" is set beside user_data: keep one of them`},
	{template("vpc: default"), `:4: pools[0].template.vpc: "default" is not a VPC's UUID: write one such as 5a4981aa-9653-4bd1-bef5-d6bff52042e4`},
	{template("tags: ['a b']"), `:4: pools[0].template.tags[0]: "a b" is not a tag: use up to 255 letters, digits and :_-`},
	{pool("backend: {port: 0}"), ":4: pools[0].backend.port: 0 is out of range: use 1 to 65535"},
	{pool("backend: {port: 65536}"), ":4: pools[0].backend.port: 65536 is out of range: use 1 to 65535"},
	{pool("backend: {balance: fair}"), `:4: pools[0].backend.balance: "fair" is unknown: use one of roundrobin, leastconn, random, first, source`},
	{pool("backend: {health_path: 'a b'}"), `:4: pools[0].backend.health_path: "a b" is not a path to ask for: begin with / and use no blank, quote, backslash, % or #`},
	{pool("backend: {check_interval: 1ms}"), ":4: pools[0].backend.check_interval: 1ms is out of range: use 10ms to 1h"},
	{pool("backend: {fall: 0}"), ":4: pools[0].backend.fall: 0 is out of range: use 1 to 1000"},
	{pool("backend: {rise: -1}"), ":4: pools[0].backend.rise: -1 is out of range: use 1 to 1000"},
	{pool(`backend: {hosts: ["a\nuse_backend b"]}`), `:4: pools[0].backend.hosts[0]: "a\nuse_backend b" is not a host name: write one without a port, such as shop.example.com or *.example.com`},
	{pool("backend: {paths: [api]}"), `:4: pools[0].backend.paths[0]: "api" is not a path: write one such as /api`},
	{pool("backend: {paths: [//]}"), `:4: pools[0].backend.paths[0]: "//" is not a path: write one such as /api`},
	{pool("policy: {boot_deadline: 0s}"), ":4: pools[0].policy.boot_deadline: 0s is out of range: use 1s to 24h"},
	{pool("policy: {drain_deadline: 200h}"), ":4: pools[0].policy.drain_deadline: 200h is out of range: use 100ms to 168h"},

	// DOProxy's keys.
	{"ssh_key_ids: [1]\n", ":1: ssh_key_ids: is of a pool that droplet_options does not define: set droplet_options, or use pools instead"},
	{"droplet_options: {region: nyc3, size: 1gb, image: a}\n", ":1: droplet_options.hostname_prefix: is not set: write one such as auto-nginx"},
	{"droplet_options: {hostname_prefix: a, region: nyc3, size: 1gb}\n", ":1: droplet_options.image: is not set: write one such as debian-12-x64, or the id of an image of yours"},
	{"droplet_options: {hostname_prefix: a, region: nyc3, size: 1gb, image: a}\nssh_key_ids:\n  - <YOUR_SSH_KEY_FINGERPRINT>\n", `:3: ssh_key_ids[0]: "<YOUR_SSH_KEY_FINGERPRINT>" is neither the id nor the fingerprint of an SSH key: write one such as 163420 or 3b:16:bf:e4:8b:00:8b:b8:59:8c:a9:d3:f0:19:45:fa`},
	{"droplet_options: {hostname_prefix: a, region: nyc3, size: 1gb, image: a}\nuserdata_file: none\n", `:2: userdata_file: cannot read "/etc/doproxy/none": file does not exist`},
	{pool("") + "droplet_options: {hostname_prefix: a}\n", ":5: droplet_options: defines a pool, but pools is there too: move it to pools[0] and remove it here"},
	{"haproxy_cfg_file: a\nhaproxy: {config_file: /b}\n", ":1: haproxy_cfg_file: names the file that haproxy.config_file names too: remove it"},
	{"haproxy_template_file: a\nhaproxy: {template: my.tmpl}\n", `:1: haproxy_template_file: "a" is set beside haproxy.template: remove it`},
}

var badFiles = map[string]string{
	"open-secret": "s", "two-lines": "a\nb\n", "my.erb": "<% @droplets.each %>", "my.tmpl": "global\n", "token": testToken,
	"big": strings.Repeat("x", 65537),
}

func TestBad(t *testing.T) {
	for _, c := range bad {
		_, err := parse(file, []byte(c.text), testWorld(badFiles))
		if err == nil {
			t.Errorf("%q: no error\nwant %s%s", c.text, file, c.want)
		} else if err.Error() != file+c.want {
			t.Errorf("%q:\n got %s\nwant %s%s", c.text, err, file, c.want)
		}
	}
}
