package server

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doproxy/doproxy/haproxy"
	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// MaxDroplets is the most that one pool may want.
const MaxDroplets = 1000

const (
	maxUserData = 64 << 10 // DigitalOcean API v2, POST /v2/droplets, "user_data": 64 KiB
	maxItems    = 100      // in any list
	maxConn     = 10_000_000
	maxChecks   = 1000
)

var (
	slugPattern        = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$`)
	decimalPattern     = regexp.MustCompile(`^[1-9][0-9]{0,18}$`)
	fingerprintPattern = regexp.MustCompile(`^([0-9a-fA-F]{2}:){15}[0-9a-fA-F]{2}$`)
	uuidPattern        = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	tagPattern         = regexp.MustCompile(`^[a-zA-Z0-9:_-]{1,255}$`) // DigitalOcean API v2, tags
	hostPattern        = regexp.MustCompile(`^(\*\.)?[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`)
	// What HAProxy's parser takes as one plain word in which nothing is expanded.
	pathPattern      = regexp.MustCompile(`^/[a-zA-Z0-9/._~!&()*+,;=:@-]{0,511}$`)
	pathQueryPattern = regexp.MustCompile(`^/[a-zA-Z0-9/._~!&()*+,;=:@?-]{0,511}$`)
)

// ValidatePool says all that is wrong with a pool as an operator wrote it, as
// far as this can be told without knowing the other pools. The error has one
// google.rpc.BadRequest violation a field. Names of fields are paths in Pool.
func ValidatePool(m *pb.Pool) error {
	var v violations
	v.pool(m, "")
	if err := v.err(); err != nil {
		return err
	}
	return nil
}

// pool checks all fields; at stands before their names: "pool.".
func (v *violations) pool(m *pb.Pool, at string) {
	if m == nil {
		v.check(false, strings.TrimSuffix(at, "."), "", "is missing: give a pool")
		return
	}
	name, isName := strings.CutPrefix(m.Name, "pools/")
	v.check(isName && inventory.ValidName(name) == nil, at+"name", m.Name,
		`must be "pools/" and a name of 1 to 40 of a-z, 0-9 and inner hyphens`)
	v.check(m.HostnamePrefix == "" || inventory.ValidHostname(m.HostnamePrefix) == nil, at+"hostname_prefix", m.HostnamePrefix,
		"must be up to 200 letters, digits, inner hyphens and dots; left out, it is the pool's name")
	v.check(m.Max >= 1 && m.Max <= MaxDroplets, at+"max", m.Max, fmt.Sprintf("must be 1 to %d: it bounds what the pool may cost", MaxDroplets))
	v.check(m.Min >= 0 && m.Min <= MaxDroplets, at+"min", m.Min, fmt.Sprintf("must be 0 to %d", MaxDroplets))
	v.check(m.Desired >= 0, at+"desired", m.Desired, "must not be negative")
	if m.Min >= 0 && m.Max >= 1 {
		v.check(m.Min <= m.Max, at+"min", m.Min, fmt.Sprintf("must not be above max, which is %d: lower min or raise max", m.Max))
		v.check(m.Desired <= 0 || m.Min > m.Max || m.Desired >= m.Min && m.Desired <= m.Max, at+"desired", m.Desired,
			fmt.Sprintf("must be within min and max, %d to %d", m.Min, m.Max))
	}
	v.template(m.Template, at+"template")
	v.backend(m.Backend, at+"backend")
	p := m.Policy
	v.duration(at+"policy.boot_deadline", p.GetBootDeadline(), time.Second, 24*time.Hour)
	v.duration(at+"policy.drain_deadline", p.GetDrainDeadline(), 100*time.Millisecond, 24*time.Hour)
}

func (v *violations) template(t *pb.Template, at string) {
	slug := func(field, value, like string) {
		v.check(slugPattern.MatchString(value), at+"."+field, value, "must be one of DigitalOcean's slugs, such as "+like)
	}
	slug("region", t.GetRegion(), "nyc3")
	slug("size", t.GetSize(), "s-1vcpu-1gb")
	slug("image", t.GetImage(), "ubuntu-24-04-x64, or the decimal id of a private image")
	v.each(at+".ssh_keys", t.GetSshKeys(), func(s string) bool { return decimalPattern.MatchString(s) || fingerprintPattern.MatchString(s) },
		"must be the decimal id of an SSH key at DigitalOcean, or its fingerprint such as 3b:16:bf:…")
	v.check(len(t.GetUserData()) <= maxUserData, at+".user_data", fmt.Sprintf("%d bytes", len(t.GetUserData())), "is too long: at most 64 KiB")
	v.check(utf8.ValidString(t.GetUserData()) && !strings.ContainsRune(t.GetUserData(), 0), at+".user_data", "", "must be text")
	v.check(t.GetVpc() == "" || uuidPattern.MatchString(t.GetVpc()), at+".vpc", t.GetVpc(), "must be the UUID of a VPC, or left out for the region's default")
	v.each(at+".tags", t.GetTags(), func(s string) bool {
		return tagPattern.MatchString(s) && !strings.HasPrefix(strings.ToLower(s), "doproxy")
	}, `must be 1 to 255 letters, digits and :_-, and not begin with "doproxy", which doproxy's own tags do`)
}

func (v *violations) backend(b *pb.Backend, at string) {
	v.check(b.GetPort() <= 65535, at+".port", b.GetPort(), "must be 1 to 65535, or left out for 80")
	v.check(b.GetBalance() == "" || slices.Contains(haproxy.Balances, b.GetBalance()), at+".balance", b.GetBalance(),
		"must be one of "+strings.Join(haproxy.Balances, ", "))
	v.check(b.GetHealthPath() == "" || pathQueryPattern.MatchString(b.GetHealthPath()), at+".health_path", b.GetHealthPath(),
		"must be a path such as /healthz: it starts with / and has no blank, quote, backslash, %, # or control character")
	v.duration(at+".check_interval", b.GetCheckInterval(), 100*time.Millisecond, time.Hour)
	v.check(b.GetFall() >= 0 && b.GetFall() <= maxChecks, at+".fall", b.GetFall(), "must be 1 to 1000, or left out for 3")
	v.check(b.GetRise() >= 0 && b.GetRise() <= maxChecks, at+".rise", b.GetRise(), "must be 1 to 1000, or left out for 2")
	v.check(b.GetMaxConnections() >= 0 && b.GetMaxConnections() <= maxConn, at+".max_connections", b.GetMaxConnections(),
		"must be 1 to 10000000, or left out for no limit")
	v.each(at+".hosts", lowered(b.GetHosts()), func(s string) bool { return len(s) <= 253 && hostPattern.MatchString(s) },
		"must be a host name without a port; it may begin with *.")
	v.each(at+".paths", b.GetPaths(), func(s string) bool { return pathPattern.MatchString(s) && !strings.Contains(s, "//") },
		"must be a path such as /api: it starts with / and has no //, blank, quote, backslash, %, #, ? or control character")
}

// each checks every value of a list, and that none is there twice.
func (v *violations) each(field string, values []string, ok func(string) bool, mend string) {
	v.check(len(values) <= maxItems, field, fmt.Sprintf("%d entries", len(values)), fmt.Sprintf("are too many: at most %d", maxItems))
	seen := map[string]bool{}
	for i, s := range values {
		at := fmt.Sprintf("%s[%d]", field, i)
		v.check(ok(s), at, s, mend)
		v.check(!seen[s], at, s, "is there twice: take one away")
		seen[s] = true
	}
}

// duration checks one that may be left out.
func (v *violations) duration(field string, m *durationpb.Duration, least, most time.Duration) {
	if m == nil || m.Seconds == 0 && m.Nanos == 0 {
		return
	}
	d := m.AsDuration() // saturates where the message is out of its range
	v.check(m.IsValid() && d >= least && d <= most && d%time.Millisecond == 0, field, d, fmt.Sprintf("must be whole milliseconds, %s to %s", least, most))
}

// checkAmong says what keeps a valid pool from living beside the others.
func checkAmong(spec inventory.PoolSpec, pools map[string]*inventory.Pool, at string) error {
	var v violations
	wants := requestsOf(spec.Backend)
	for _, name := range sortedKeys(pools) {
		other := pools[name]
		if name == spec.Name {
			continue
		}
		v.check(!strings.EqualFold(other.HostnamePrefix, spec.HostnamePrefix), at+"hostname_prefix", spec.HostnamePrefix,
			fmt.Sprintf("is that of pool %s: choose another", name))
		for _, request := range requestsOf(other.Backend) {
			if !slices.Contains(wants, request) {
				continue
			}
			if request == everything {
				v.check(false, at+"backend", "no hosts and no paths",
					fmt.Sprintf("means every request, and pool %s takes those already: give one of the two hosts or paths", name))
			} else {
				v.check(false, at+"backend", request.String(), fmt.Sprintf("goes to pool %s already: take it away from one of the two", name))
			}
			break
		}
	}
	return v.err()
}

// requests is one way into a backend. An empty field is any.
type requests struct{ host, path string }

var everything = requests{}

func (r requests) String() string { return r.host + or(r.path, "/") }

func requestsOf(b inventory.Backend) []requests {
	hosts, paths := b.Hosts, b.Paths
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	if len(paths) == 0 {
		paths = []string{""}
	}
	var out []requests
	for _, h := range hosts {
		for _, p := range paths {
			out = append(out, requests{strings.ToLower(h), strings.TrimRight(p, "/")})
		}
	}
	return out
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
