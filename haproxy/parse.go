package haproxy

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseInfo reads "show info". Lines it does not know are skipped.
func parseInfo(answer []byte) Info {
	var info Info
	for line := range bytes.Lines(answer) {
		key, value, ok := bytes.Cut(bytes.TrimRight(line, "\n"), []byte(": "))
		if !ok {
			continue
		}
		switch string(key) {
		case "Version":
			info.Version = string(value)
		case "Pid":
			info.PID = number(value)
		case "Uptime_sec":
			info.Uptime = time.Duration(number(value)) * time.Second
		case "Idle_pct":
			info.Idle = number(value)
		case "Stopping":
			info.Stopping = number(value) != 0
		case "CumReq":
			info.Requests = uint64(number(value))
		case "CurrConns":
			info.CurrConns = number(value)
		}
	}
	return info
}

// number reads decimal digits; anything else ends it.
func number(b []byte) int {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// parseServersState reads "show servers state" and returns each backend's
// servers sorted by name. Columns are found by the names in the header.
func parseServersState(answer []byte) (map[string][]ServerState, error) {
	const (
		backend = iota
		name
		addr
		admin
		weight
		check
		port
		columns
	)
	header := map[string]int{
		"be_name": backend, "srv_name": name, "srv_addr": addr, "srv_admin_state": admin,
		"srv_uweight": weight, "srv_check_state": check, "srv_port": port,
	}
	at := [columns]int{}
	found := 0
	out := map[string][]ServerState{}
	var lastBackend string
	var fields [][]byte
	for line := range bytes.Lines(answer) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if line[0] == '#' {
			for i, f := range bytes.Fields(line[1:]) {
				if c, ok := header[string(f)]; ok {
					at[c] = i
					found++
				}
			}
			continue
		}
		if found < columns {
			if len(line) < 4 { // the version of the format stands alone before the header
				continue
			}
			return nil, fmt.Errorf("unknown form: %.80q", line)
		}
		fields = fields[:0]
		for rest := line; len(rest) > 0; {
			f, more, _ := bytes.Cut(rest, []byte(" "))
			fields, rest = append(fields, f), more
		}
		if len(fields) <= slices.Max(at[:]) {
			return nil, fmt.Errorf("short line: %.80q", line)
		}
		var a netip.Addr
		if text := fields[at[addr]]; len(text) > 0 && text[0] != '-' {
			a, _ = netip.ParseAddr(string(text))
		}
		if string(fields[at[backend]]) != lastBackend {
			lastBackend = string(fields[at[backend]])
		}
		out[lastBackend] = append(out[lastBackend], ServerState{
			Name:    string(fields[at[name]]),
			Address: a,
			Port:    uint16(number(fields[at[port]])),
			Weight:  uint16(number(fields[at[weight]])),
			Admin:   AdminState(number(fields[at[admin]])),
			Checks:  number(fields[at[check]])&checkEnabled != 0,
		})
	}
	if found < columns {
		return nil, errors.New("the answer has no header")
	}
	for _, servers := range out {
		slices.SortFunc(servers, func(a, b ServerState) int { return strings.Compare(a.Name, b.Name) })
	}
	return out, nil
}

// checkEnabled is CHK_ST_ENABLED of srv_check_state.
const checkEnabled = 0x04

// statRow is one row of "show stat". Its slices point into the answer.
type statRow struct {
	backend, name []byte
	status        []byte
	checkStatus   []byte
	sessions      int
	queue         int
	weight        int
	requestRate   int
	requests      uint64
	errors        uint64 // econ + eresp
	frontend      bool
}

// statReader finds the columns by the names in the header.
type statReader struct {
	columns []statColumn // by position
	fields  [statColumns][]byte
}

type statColumn uint8

const (
	statNone statColumn = iota
	statBackend
	statName
	statQueue
	statSessions
	statStatus
	statWeight
	statType
	statCheckStatus
	statRate
	statRequestRate
	statRequestTotal
	statSessionTotal
	statConnErrors
	statRespErrors
	statColumns
)

var statNames = map[string]statColumn{
	"pxname": statBackend, "svname": statName, "qcur": statQueue, "scur": statSessions,
	"status": statStatus, "uweight": statWeight, "type": statType, "check_status": statCheckStatus,
	"rate": statRate, "req_rate": statRequestRate, "req_tot": statRequestTotal, "stot": statSessionTotal,
	"econ": statConnErrors, "eresp": statRespErrors,
}

// read gives each row of the answer to f.
func (r *statReader) read(answer []byte, f func(*statRow)) error {
	header, rest, _ := bytes.Cut(answer, []byte("\n"))
	if !bytes.HasPrefix(header, []byte("# pxname,")) {
		return fmt.Errorf("unknown form: %.80q", header)
	}
	r.columns = r.columns[:0]
	last := 0
	for name := range bytes.SplitSeq(header[2:], []byte(",")) {
		c := statNames[string(name)]
		r.columns = append(r.columns, c)
		if c != statNone {
			last = len(r.columns)
		}
	}
	r.columns = r.columns[:last]
	var row statRow
	for len(rest) > 0 {
		r.fields = [statColumns][]byte{}
		for _, c := range r.columns {
			var field []byte
			var end bool
			field, rest, end = csvField(rest)
			r.fields[c] = field
			if end {
				break
			}
		}
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
		if len(r.fields[statName]) == 0 {
			continue
		}
		row = statRow{
			backend: r.fields[statBackend], name: r.fields[statName], status: r.fields[statStatus],
			checkStatus: r.fields[statCheckStatus], sessions: number(r.fields[statSessions]),
			queue: number(r.fields[statQueue]), weight: number(r.fields[statWeight]),
			errors: uint64(number(r.fields[statConnErrors]) + number(r.fields[statRespErrors])),
		}
		row.frontend = string(r.fields[statType]) == "0"
		if row.frontend {
			row.requestRate = number(r.fields[statRequestRate])
			row.requests = uint64(number(r.fields[statRequestTotal]))
		} else {
			row.requestRate = number(r.fields[statRate])
			row.requests = uint64(number(r.fields[statSessionTotal]))
		}
		f(&row)
	}
	return nil
}

// csvField cuts the first field off a row. end says that the row ended with
// it; the newline stays in rest.
func csvField(b []byte) (field, rest []byte, end bool) {
	if len(b) > 0 && b[0] == '"' {
		for i := 1; i < len(b); i++ {
			if b[i] != '"' {
				continue
			}
			if i+1 < len(b) && b[i+1] == '"' {
				i++
				continue
			}
			field, rest = b[1:i], b[i+1:]
			if len(rest) > 0 && rest[0] == ',' {
				return field, rest[1:], false
			}
			return field, rest, true
		}
	}
	for i, c := range b {
		switch c {
		case ',':
			return b[:i], b[i+1:], false
		case '\n':
			return b[:i], b[i:], true
		}
	}
	return b, nil, true
}

// Proc is the master's "show proc".
type Proc struct {
	MasterPID int
	// WorkerPID is the newest worker's, 0 if there is none.
	WorkerPID int
	// Reloads and Failed count since the master began. Failed counts the
	// reloads that failed since the last that did not.
	Reloads, Failed int
	Version         string
	// OldWorkers still serve the connections they had before a reload.
	OldWorkers []int
}

// parseProc reads "show proc".
func parseProc(answer string) (Proc, error) {
	var p Proc
	old := false
	for line := range strings.Lines(answer) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			old = strings.HasPrefix(line, "# old workers")
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		pid, err := strconv.Atoi(f[0])
		if err != nil {
			return p, fmt.Errorf("show proc: unknown line %q", line)
		}
		switch {
		case f[1] == "master":
			p.MasterPID = pid
			p.Reloads, _ = strconv.Atoi(f[2])
			if _, rest, ok := strings.Cut(line, "[failed: "); ok {
				n, _, _ := strings.Cut(rest, "]")
				p.Failed, _ = strconv.Atoi(n)
			}
			p.Version = f[len(f)-1]
		case f[1] == "worker" && old:
			p.OldWorkers = append(p.OldWorkers, pid)
		case f[1] == "worker":
			p.WorkerPID = pid
		}
	}
	if p.MasterPID == 0 {
		return p, fmt.Errorf("show proc: no master in %.120q", answer)
	}
	return p, nil
}
