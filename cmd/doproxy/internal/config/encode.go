package config

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// encode writes a struct as a YAML mapping that decode reads back to the same
// values. Its field tags are those of package yaml; the option omitzero is
// heeded, others are not.
func encode(v any) ([]byte, error) {
	e := &encoder{}
	e.mapping(reflect.ValueOf(v), "", 0)
	return e.out.Bytes(), e.err
}

type encoder struct {
	out bytes.Buffer
	err error // the first
}

const indentation = "  "

// mapping writes the keys of a struct, the first one where the line stands.
func (e *encoder) mapping(v reflect.Value, path string, depth int) {
	first := true
	for f, value := range v.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if options == "omitzero" && value.IsZero() {
			continue
		}
		if !first {
			e.out.WriteString(strings.Repeat(indentation, depth))
		}
		first = false
		e.out.WriteString(key + ":")
		e.value(value, join(path, key), depth)
	}
	if first {
		e.out.WriteString("{}\n")
	}
}

// value writes what stands behind a key or a dash, with the end of the line.
func (e *encoder) value(v reflect.Value, path string, depth int) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.Struct && !allOmitted(v):
		e.out.WriteString("\n" + strings.Repeat(indentation, depth+1))
		e.mapping(v, path, depth+1)
	case v.Kind() == reflect.Slice && v.Len() > 0:
		e.out.WriteByte('\n')
		for i := range v.Len() {
			e.out.WriteString(strings.Repeat(indentation, depth+1) + "-")
			item, at := v.Index(i), index(path, i)
			if item.Kind() == reflect.Struct {
				e.out.WriteByte(' ')
				e.mapping(item, at, depth+2)
			} else {
				e.value(item, at, depth+1)
			}
		}
	default:
		e.out.WriteString(" " + e.scalar(v, path, depth) + "\n")
	}
}

func allOmitted(v reflect.Value) bool {
	for f, value := range v.Fields() {
		if !strings.HasSuffix(f.Tag.Get("yaml"), ",omitzero") || !value.IsZero() {
			return false
		}
	}
	return true
}

func (e *encoder) scalar(v reflect.Value, path string, depth int) string {
	switch {
	case v.Type() == durationType:
		return short(time.Duration(v.Int()))
	case v.Kind() == reflect.Struct:
		return "{}"
	case v.Kind() == reflect.Slice:
		return "[]"
	case v.Kind() == reflect.String:
		if !utf8.ValidString(v.String()) && e.err == nil {
			e.err = fmt.Errorf("%s is not UTF-8 text: YAML cannot hold it", path)
		}
		return text(v.String(), strings.Repeat(indentation, depth+1))
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10)
	case v.Kind() == reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64)
	}
	panic("config: no encoder for " + v.Type().String())
}

var (
	plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./-]*$`)
	reserved  = []string{"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
)

// text writes a string: as it is where YAML takes it for no other type, as a
// block if it has lines that need no escape, and else in quotes.
func text(s, indent string) string {
	switch {
	case plainText.MatchString(s) && !slices.Contains(reserved, strings.ToLower(s)):
		return s
	case isBlock(s):
		head := "|"
		if !strings.HasSuffix(s, "\n") {
			head = "|-"
		}
		var b strings.Builder
		b.WriteString(head)
		for line := range strings.SplitSeq(strings.TrimSuffix(s, "\n"), "\n") {
			b.WriteByte('\n')
			if line != "" {
				b.WriteString(indent + line)
			}
		}
		return b.String()
	}
	return quoted(s)
}

// isBlock is cautious: what it refuses is quoted.
func isBlock(s string) bool {
	body := strings.TrimSuffix(s, "\n")
	if !strings.Contains(s, "\n") || body == "" {
		return false
	}
	for i, line := range strings.Split(body, "\n") {
		blank := strings.TrimSpace(line) == ""
		if blank && line != "" || i == 0 && (blank || line[0] == ' ' || line[0] == '\t') || line != strings.TrimRight(line, " \t") {
			return false
		}
	}
	return !strings.HasSuffix(body, "\n") && !strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && !seen(r) })
}

// seen says that a character stands for itself in YAML, for people too.
func seen(r rune) bool { return r >= ' ' && strconv.IsPrint(r) }

// quoted writes a string in double quotes (YAML 1.2, 5.7).
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case seen(r):
			b.WriteRune(r)
		case r <= 0xff:
			fmt.Fprintf(&b, `\x%02X`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			fmt.Fprintf(&b, `\U%08X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
