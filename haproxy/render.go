package haproxy

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
)

//go:embed default.cfg.tmpl
var defaultTemplate string

// DefaultTemplate is the text of the template that is used if the operator
// has none.
func DefaultTemplate() string { return defaultTemplate }

var builtin = template.Must(ParseTemplate(defaultTemplate))

// ParseTemplate reads a template of a configuration file. A template sees
// .Global, .Binds, .Timeouts, .Closing, .Routes, .DefaultBackend and .Backends; a backend
// there has the fields of Backend, ServerOptions and ServerLines: all its
// server lines, ready made. (A template may range over .Servers instead, but
// servers added at run time get ServerOptions and nothing else.) The function
// ms writes a duration.
func ParseTemplate(text string) (*template.Template, error) {
	t, err := template.New("haproxy.cfg").Option("missingkey=error").Funcs(template.FuncMap{"ms": duration}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template of haproxy.cfg: %w", err)
	}
	return t, nil
}

// TemplateFile returns a function that reads and parses the file at each call,
// for Options.Template.
func TemplateFile(path string) func() (*template.Template, error) {
	return func() (*template.Template, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("template of haproxy.cfg: %w", err)
		}
		t, err := ParseTemplate(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return t, nil
	}
}

// Render writes the configuration file. A nil template is the default one. The
// configuration is validated first.
func Render(tmpl *template.Template, cfg Config) ([]byte, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	out, err := render(tmpl, cfg)
	if err != nil {
		return nil, err
	}
	return out, complete(out, cfg)
}

// complete says what a template has left out: HAProxy would take such a file,
// and clients would meet nobody.
func complete(file []byte, cfg Config) error {
	sections, servers := map[string]bool{}, map[string]bool{}
	for line := range bytes.Lines(file) {
		words := bytes.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch string(words[0]) {
		case "backend", "listen":
			sections[string(words[1])] = true
		case "server":
			servers[string(words[1])] = true
		}
	}
	for i := range cfg.Backends {
		b := &cfg.Backends[i]
		if !sections[b.Name] {
			return fmt.Errorf("the template leaves out the backend of pool %s: it needs {{ range .Backends }}backend {{ .Name }} …", b.Name)
		}
		for j := range b.Servers {
			if !servers[b.Servers[j].Name] {
				return fmt.Errorf("the template leaves out server %s of pool %s: each backend needs {{ .ServerLines }}", b.Servers[j].Name, b.Name)
			}
		}
	}
	return nil
}

// Skeleton is the rendering without servers, with the options that servers
// have. Two configurations with equal skeletons differ in servers only.
func Skeleton(tmpl *template.Template, cfg Config) ([]byte, error) {
	cfg = cfg.withoutServers()
	out, err := Render(tmpl, cfg)
	if err != nil {
		return nil, err
	}
	for _, b := range cfg.Backends {
		out = append(out, "# "+b.Name+" "+b.ServerOptions()+"\n"...)
	}
	return out, nil
}

// render is Render for a configuration that is known to be valid.
func render(tmpl *template.Template, cfg Config) ([]byte, error) {
	if tmpl == nil {
		tmpl = builtin
	}
	v := view{
		Global:      cfg.Global.withDefaults(),
		LogToStream: cfg.Global.Log == "stdout" || cfg.Global.Log == "stderr",
		Timeouts:    cfg.Timeouts.withDefaults(),
		Binds:       cfg.Binds,
		Closing:     cfg.Closing,
		Backends:    make([]backendView, len(cfg.Backends)),
	}
	size := 4096
	for i, b := range cfg.Backends {
		b = b.withDefaults()
		bv := backendView{Backend: b, ServerOptions: b.ServerOptions(), ServerLines: serverLines(b)}
		for _, h := range b.Hosts {
			if suffix, ok := strings.CutPrefix(h, "*"); ok {
				bv.HostSuffixes = append(bv.HostSuffixes, suffix)
			} else {
				bv.ExactHosts = append(bv.ExactHosts, h)
			}
		}
		if v.DefaultBackend == "" && len(b.Hosts) == 0 && len(b.Paths) == 0 {
			v.DefaultBackend = b.Name
		}
		v.Backends[i] = bv
		size += 1024 + len(bv.ServerLines)
	}
	for _, r := range routes(cfg.Backends) {
		rv := routeView{Backend: r.Backend, Path: r.Path, Below: strings.TrimRight(r.Path, "/") + "/"}
		if r.Path != "" {
			rv.Path = or(strings.TrimRight(r.Path, "/"), "/")
		}
		if r.HasHost {
			rv.Host = "host_" + r.Backend
		}
		v.Routes = append(v.Routes, rv)
	}
	out := bytes.NewBuffer(make([]byte, 0, size))
	if err := tmpl.Execute(out, &v); err != nil {
		return nil, fmt.Errorf("render haproxy.cfg: %w", err)
	}
	if out.Len() == 0 {
		return nil, errors.New("render haproxy.cfg: the template gave an empty file")
	}
	if out.Bytes()[out.Len()-1] != '\n' {
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

// view is what a template sees.
type view struct {
	Global         Global
	LogToStream    bool
	Timeouts       Timeouts
	Binds          []Bind
	Closing        bool
	Routes         []routeView
	DefaultBackend string
	Backends       []backendView
}

type backendView struct {
	Backend
	ServerOptions            string
	ServerLines              string
	ExactHosts, HostSuffixes []string
}

type routeView struct {
	Backend string
	Host    string // the name of the acl that holds the backend's hosts, or empty
	Path    string // the path itself, or empty
	Below   string // the path with one slash at its end
}

// ServerOptions are the keywords that every server of the backend has beside
// its name, address and weight, in the file and at run time alike.
func (b Backend) ServerOptions() string {
	b = b.withDefaults()
	var s []byte
	s = append(s, "check inter "...)
	s = append(s, duration(b.CheckInter)...)
	s = append(s, " fall "...)
	s = strconv.AppendInt(s, int64(b.CheckFall), 10)
	s = append(s, " rise "...)
	s = strconv.AppendInt(s, int64(b.CheckRise), 10)
	// Without these a server that was added at run time keeps no idle
	// connection, and each request costs it another (2.6: the defaults are only
	// given to servers of the file). A short delay, as a server cannot be
	// deleted while it has idle connections.
	s = append(s, " pool-max-conn -1 pool-purge-delay 1s"...)
	if b.MaxConn > 0 {
		s = append(s, " maxconn "...)
		s = strconv.AppendInt(s, int64(b.MaxConn), 10)
	}
	if b.SlowStart > 0 {
		s = append(s, " slowstart "...)
		s = append(s, duration(b.SlowStart)...)
	}
	return string(s)
}

// serverLines writes the backend's servers without a newline at the end. With
// a thousand servers this is most of the work of a rendering.
func serverLines(b Backend) string {
	options := " " + b.ServerOptions() + " weight "
	var out strings.Builder
	out.Grow(len(b.Servers) * (len(options) + 84))
	line := make([]byte, 0, 256)
	for i := range b.Servers {
		s := &b.Servers[i]
		line = line[:0]
		if i > 0 {
			line = append(line, '\n')
		}
		line = append(line, "    server "...)
		line = append(line, s.Name...)
		line = append(line, ' ')
		line = appendHostPort(line, s)
		line = append(line, options...)
		line = strconv.AppendUint(line, uint64(s.Weight), 10)
		if s.ID != 0 || s.Hostname != "" {
			line = append(line, " # id:"...)
			line = strconv.AppendInt(line, s.ID, 10)
			line = append(line, ", hostname:"...)
			line = append(line, s.Hostname...)
		}
		out.Write(line)
	}
	return out.String()
}

func appendHostPort(out []byte, s *Server) []byte {
	if s.Address.Is6() {
		out = append(out, '[')
		out = s.Address.AppendTo(out)
		out = append(out, ']')
	} else {
		out = s.Address.AppendTo(out)
	}
	out = append(out, ':')
	return strconv.AppendUint(out, uint64(s.Port), 10)
}

// duration writes a duration as HAProxy reads it: 2s, 1500ms.
func duration(d time.Duration) string {
	if d%time.Second == 0 && d != 0 {
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}

// stripServers removes the lines of servers from a file: what is left decides
// whether HAProxy must reload.
func stripServers(file []byte) []byte {
	out := make([]byte, 0, 8192)
	for line := range bytes.Lines(file) {
		if !bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte("server ")) {
			out = append(out, line...)
		}
	}
	return out
}

// sameSkeleton says that two files differ in the lines of servers only.
func sameSkeleton(a, b []byte) bool { return slices.Equal(stripServers(a), stripServers(b)) }
