package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// seen is what `print` showed, so that `delete INDEX` means what the user saw.
type seen struct {
	Time time.Time `json:"time"`
	// Etag is the inventory's.
	Etag string `json:"etag"`
	// Names by index: "pools/{pool}/droplets/{hostname}".
	Names []string `json:"names"`
}

// seenFor is how long a print counts as just seen.
const seenFor = time.Hour

// seenKept is how many prints, of different servers and terminals, are kept.
const seenKept = 20

// seenFile is the state file: prints by server and terminal.
type seenFile struct {
	Version int             `json:"version"`
	Prints  map[string]seen `json:"prints"`
}

// seenPath is $XDG_STATE_HOME/doproxy/seen.json.
func (c *client) seenPath() (string, error) {
	dir := c.opts.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) { // the specification says to ignore a relative one
		home := c.opts.Getenv("HOME")
		if home == "" {
			return "", errors.New("neither XDG_STATE_HOME nor HOME is set")
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "doproxy", "seen.json"), nil
}

// seenKey tells apart what one terminal showed from what another did: an index
// means what stands on the user's own screen.
func (s *session) seenKey() string {
	names := make([]string, len(s.servers))
	for i, srv := range s.servers {
		names[i] = srv.String()
	}
	return strings.Join(names, ",") + " " + controllingTerminal()
}

// controllingTerminal numbers the terminal of this process, "0" when it has none.
func controllingTerminal() string {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return "0"
	}
	// Fields are counted after the name in parentheses, which may hold spaces:
	// state, ppid, pgrp, session, tty_nr (proc_pid_stat(5)).
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 5 {
		return "0"
	}
	return fields[4]
}

// remember keeps a print, privately.
func (s *session) remember(shown seen) error {
	path, err := s.seenPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := readSeen(path)
	if err != nil {
		f = seenFile{} // what cannot be read is worth no error: it is written anew
	}
	f.Version = 1
	if f.Prints == nil {
		f.Prints = map[string]seen{}
	}
	f.Prints[s.seenKey()] = shown
	for len(f.Prints) > seenKept {
		oldest := ""
		for key, p := range f.Prints {
			if oldest == "" || p.Time.Before(f.Prints[oldest].Time) {
				oldest = key
			}
		}
		delete(f.Prints, oldest)
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, append(data, '\n'), 0o600, renameio.WithStaticPermissions(0o600))
}

func readSeen(path string) (seenFile, error) {
	var f seenFile
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// recall gives the print that this terminal saw last, or false.
func (s *session) recall() (seen, bool) {
	path, err := s.seenPath()
	if err != nil {
		return seen{}, false
	}
	f, err := readSeen(path)
	if err != nil {
		return seen{}, false
	}
	shown, ok := f.Prints[s.seenKey()]
	return shown, ok
}

// mostIndexes is more than print ever shows, and less than any id of
// DigitalOcean's: it tells an INDEX from an ID.
const mostIndexes = 10_000

// picked is what the arguments of delete name.
type picked struct {
	names []string
	// etag is set when an index is among them.
	etag string
}

// pick resolves delete's arguments, all or none. ok tells whether a print was
// seen.
func pick(args []string, shown seen, ok bool, now time.Time) (picked, *Failure) {
	var p picked
	hosts := map[string]bool{}
	for _, arg := range args {
		name := arg
		index, isIndex := parseIndex(arg, shown)
		switch {
		case arg == "":
			return picked{}, usage("an empty argument names no droplet")
		case isIndex && (!ok || now.Sub(shown.Time) > seenFor || shown.Time.After(now.Add(time.Minute))):
			return picked{}, &Failure{
				Err:  fmt.Errorf("%s is an index, and no print was seen in this terminal within the last hour", arg),
				Exit: ExitStale, Mend: []string{"run `doproxy print` first"},
			}
		case isIndex && index >= len(shown.Names):
			return picked{}, &Failure{
				Err:  fmt.Errorf("the print just seen has no index %s: %s", arg, indexRange(len(shown.Names))),
				Exit: ExitNotFound, Mend: []string{"run `doproxy print` and look again"},
			}
		case isIndex:
			name, p.etag = shown.Names[index], shown.Etag
		}
		host := name[strings.LastIndexByte(name, '/')+1:]
		if hosts[host] {
			return picked{}, usage("%s is named twice", host)
		}
		hosts[host] = true
		p.names = append(p.names, name)
	}
	return p, nil
}

func indexRange(n int) string {
	switch n {
	case 0:
		return "it was empty"
	case 1:
		return "it has 0 only"
	}
	return fmt.Sprintf("it has 0 to %d", n-1)
}

// parseIndex reads an argument of digits that is too small to be an id.
func parseIndex(arg string, shown seen) (int, bool) {
	if arg == "" || len(arg) > 6 || slices.ContainsFunc([]byte(arg), func(c byte) bool { return c < '0' || c > '9' }) {
		return 0, false
	}
	n := 0
	for _, c := range []byte(arg) {
		n = 10*n + int(c-'0')
	}
	return n, n < max(len(shown.Names), mostIndexes)
}
