package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error is one thing that is wrong with a file. Its text names the file, the
// line, the key, the value and the mend; never a token.
type Error struct {
	File    string
	Line    int    // 0: not of one line
	Key     string // such as pools[0].max; empty: of the whole file
	Message string
}

func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += ":" + strconv.Itoa(e.Line)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	return s + ": " + e.Message
}

// problems collects what is wrong with one file, so that all of it is told at
// once, and knows in which line each key stands.
type problems struct {
	file   string
	lines  map[string]int
	errors []*Error
	// begin is the number of errors before those of this document.
	begin int
}

func newProblems(file string) *problems {
	return &problems{file: file, lines: make(map[string]int)}
}

// has says that the key is in the file, whatever its value.
func (p *problems) has(key string) bool {
	_, ok := p.lines[key]
	return ok
}

// line is that of the key, or of the nearest key around it.
func (p *problems) line(key string) int {
	for key != "" {
		if n, ok := p.lines[key]; ok {
			return n
		}
		cut := strings.LastIndexAny(key, ".[")
		if cut < 0 {
			break
		}
		key = key[:cut]
	}
	return p.lines[""]
}

// addf reports what is wrong with a value, unless it or what it is in was of
// the wrong type.
func (p *problems) addf(key, format string, args ...any) {
	for _, e := range p.errors[p.begin:] {
		rest, inside := strings.CutPrefix(key, e.Key)
		if e.Key != "" && inside && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return
		}
	}
	p.addAt(p.line(key), key, fmt.Sprintf(format, args...))
}

func (p *problems) addAt(line int, key, message string) {
	p.errors = append(p.errors, &Error{File: p.file, Line: line, Key: key, Message: message})
}

// err joins all errors in the order of lines; nil if there is none.
func (p *problems) err() error {
	slices.SortStableFunc(p.errors, func(a, b *Error) int { return a.Line - b.Line })
	errs := make([]error, len(p.errors))
	for i, e := range p.errors {
		errs[i] = e
	}
	return errors.Join(errs...)
}

// tokenLike finds DigitalOcean's tokens, wherever one was written by mistake.
var tokenLike = regexp.MustCompile(`(?i)do[a-z]_v1_|[0-9a-f]{24}`)

const (
	hidden   = "(hidden)"
	maxShown = 60 // bytes of a value that an error repeats
)

// show quotes a value for an error.
func show(value string) string {
	if tokenLike.MatchString(value) {
		return hidden
	}
	if len(value) > maxShown {
		cut := maxShown
		for cut > 0 && !utf8.RuneStart(value[cut]) {
			cut--
		}
		return strconv.Quote(value[:cut]) + "..."
	}
	return strconv.Quote(value)
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,60}$`)

// showKey is a key as it stands in the file, quoted only if it has to be.
func showKey(key string) string {
	if plainKey.MatchString(key) && !tokenLike.MatchString(key) {
		return key
	}
	return show(key)
}

// join appends a key to the path of the mapping that it is in.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// nearest is the known key that unknown was probably meant to be, or empty.
func nearest(unknown string, known []string) string {
	best, bestDistance := "", max(2, len(unknown)/3)+1
	for _, k := range known {
		if len(k) >= 3 && strings.HasPrefix(unknown, k) || len(unknown) >= 3 && strings.HasPrefix(k, unknown) {
			return k
		}
		if d := distance(strings.ToLower(unknown), k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if bestDistance >= len(unknown) {
		return ""
	}
	return best
}

// distance is that of Damerau and Levenshtein: how many letters to insert,
// drop, replace or swap with the next one.
func distance(a, b string) int {
	if len(a) > 2*maxShown {
		return len(a)
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
