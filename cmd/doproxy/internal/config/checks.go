package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/doproxy/doproxy/haproxy"
)

// resolver turns a File into a Config: defaults, checks, files.
type resolver struct {
	*problems
	world
	file     *File
	dir      string // of the file; names in it are relative to this
	warnings []string
}

func (r *resolver) warnf(key, format string, args ...any) {
	e := Error{File: r.problems.file, Line: r.line(key), Key: key, Message: fmt.Sprintf(format, args...)}
	r.warnings = append(r.warnings, e.Error())
}

func (r *resolver) path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.dir, name)
}

// maxRead is more than any file that a configuration names may hold.
const maxRead = 4 << 20

// readFile reads a file that is one: not a pipe or a device, which may never end.
func (w world) readFile(path string) ([]byte, error) {
	info, err := w.stat(path)
	switch {
	case err != nil:
		return nil, reason(err)
	case info.IsDir():
		return nil, errors.New("it is a folder")
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Size() > maxRead:
		return nil, fmt.Errorf("it is %d bytes long, the limit is %d", info.Size(), maxRead)
	}
	data, err := w.read(path)
	return data, reason(err)
}

// reason takes the file's name off an error, for it is told beside it.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// contents of the file that a key names; ok is false after an error or if the
// key is not set.
func (r *resolver) contents(key, name string) (data []byte, ok bool) {
	if name == "" {
		return nil, false
	}
	data, err := r.readFile(r.path(name))
	if err != nil {
		r.addf(key, "cannot read %s: %v", show(r.path(name)), err)
		return nil, false
	}
	return data, true
}

// secretFile is the first line of a file that only its owner should read.
func (r *resolver) secretFile(key, name string) (Secret, bool) {
	data, ok := r.contents(key, name)
	if !ok {
		return "", false
	}
	if info, err := r.stat(r.path(name)); err == nil && info.Mode().Perm()&0o004 != 0 {
		r.addf(key, "%s can be read by every user of this machine: run chmod o= %s", show(r.path(name)), r.path(name))
		return "", false
	}
	text := strings.TrimSpace(string(data))
	if text == "" || strings.ContainsAny(text, "\r\n") {
		r.addf(key, "%s does not hold one line with the secret: write that and nothing else", show(r.path(name)))
		return "", false
	}
	return Secret(text), true
}

// valid reports the error of a check that quotes the value.
func (r *resolver) valid(key, value string, check func(string) error) bool {
	err := check(value)
	if err != nil {
		r.addf(key, "%s", strings.Replace(err.Error(), strconv.Quote(value), show(value), 1))
	}
	return err == nil
}

func (r *resolver) integer(key string, value, low, high, otherwise int) int {
	if !r.has(key) {
		return otherwise
	}
	if value < low || value > high {
		r.addf(key, "%d is out of range: use %d to %d", value, low, high)
		return otherwise
	}
	return value
}

func (r *resolver) duration(key string, value, low, high, otherwise time.Duration) time.Duration {
	if !r.has(key) {
		return otherwise
	}
	if value < low || value > high {
		r.addf(key, "%s is out of range: use %s to %s", short(value), short(low), short(high))
		return otherwise
	}
	if value%time.Millisecond != 0 {
		r.addf(key, "%s is finer than a millisecond: use whole ones", short(value))
		return otherwise
	}
	return value
}

func (r *resolver) seconds(key string, value, low, high, otherwise time.Duration) time.Duration {
	value = r.duration(key, value, low, high, otherwise)
	if value%time.Second != 0 {
		r.addf(key, "%s is not whole seconds: use %s to %s", short(value), short(low), short(high))
		return otherwise
	}
	return value
}

// short is 1h instead of 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// off is what a key says to do without something that has a default.
const off = "off"

// inHAProxy says whether HAProxy's configuration can hold the values of c.
func inHAProxy(c haproxy.Config) bool {
	if c.Global.AdminSocket == "" {
		c.Global.AdminSocket = "/x"
	}
	return c.Validate() == nil
}

// haproxyPath is a file name that goes into HAProxy's configuration.
func (r *resolver) haproxyPath(key, name string) string {
	path := r.path(name)
	if path != "" && !inHAProxy(haproxy.Config{Global: haproxy.Global{Log: filepath.Clean(path)}}) {
		r.addf(key, "%s cannot stand in HAProxy's configuration: use a path of letters, digits and ._-+@/", show(path))
		return ""
	}
	return path
}

func (r *resolver) socketPath(key, name string) string {
	path := filepath.Clean(r.path(name))
	if err := haproxy.CheckSocketPath(path); err != nil {
		r.addf(key, "%s %v", show(path), err)
	}
	return path
}

// address checks an address to listen on and says whether it is loopback. What is
// wrong with it is told with an example, host:port.
func (r *resolver) address(key, value, example string) (loopback, ok bool) {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		r.addf(key, "%s is not an address: write host:port, such as %s", show(value), example)
		return false, false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || port != strconv.FormatUint(n, 10) {
		r.addf(key, "%s has no port that can be: use 1 to 65535", show(value))
		return false, false
	}
	if host == "localhost" {
		return true, true
	}
	if host == "" {
		return false, true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		like, _, _ := net.SplitHostPort(example)
		r.addf(key, "%s does not begin with an IP address: write one, such as %s", show(value), net.JoinHostPort(like, port))
		return false, false
	}
	return a.Unmap().IsLoopback(), true
}

func (r *resolver) addr(key, value, family string, is func(netip.Addr) bool) netip.Addr {
	if value == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(value)
	if err != nil || !is(a) || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		r.addf(key, "%s is not an %s address: write one of this machine's", show(value), family)
		return netip.Addr{}
	}
	return a
}

var (
	slugPattern        = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)
	fingerprintPattern = regexp.MustCompile(`^([0-9]{1,18}|[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){15})$`)
	uuidPattern        = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	tagPattern         = regexp.MustCompile(`^[A-Za-z0-9:_-]{1,255}$`)
	tokenPattern       = regexp.MustCompile(`^[A-Za-z0-9._~+/=-]{8,512}$`) // RFC 6750, b64token
)
