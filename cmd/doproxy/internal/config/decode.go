package config

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds on what one file may ask of the decoder, which an alias of aliases
// could otherwise multiply without end.
const (
	maxFile  = 4 << 20 // bytes
	maxDepth = 40
	maxNodes = 200_000
)

// documents splits a file into its YAML documents. It adds what is wrong with
// the syntax to p.
func documents(p *problems, data []byte) (docs []ast.Node) {
	if len(data) > maxFile {
		p.addAt(0, "", fmt.Sprintf("is %d bytes long: a configuration has at most %d", len(data), maxFile))
		return nil
	}
	defer func() {
		if recover() != nil { // the parser is not ours, and the file is not the parser's
			docs = nil
			p.addAt(0, "", "is not YAML: check quotes, brackets and indentation")
		}
	}()
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		// The error's own text repeats lines of the file, the token's perhaps.
		message, line := "check quotes, brackets and indentation", 0
		if e, ok := errors.AsType[yaml.Error](err); ok {
			message = e.GetMessage()
			if t := e.GetToken(); t != nil && t.Position != nil {
				line = t.Position.Line
			}
		}
		if tokenLike.MatchString(message) {
			message = "check quotes, brackets and indentation"
		}
		p.addAt(line, "", "is not YAML: "+message)
		return nil
	}
	for _, d := range file.Docs {
		if d == nil {
			continue
		}
		switch body := bare(d.Body).(type) {
		case nil, *ast.NullNode, *ast.CommentGroupNode:
		default:
			docs = append(docs, body)
		}
	}
	return docs
}

// bare takes anchors and tags off a document, where they mean nothing.
func bare(n ast.Node) ast.Node {
	for {
		switch t := n.(type) {
		case *ast.AnchorNode:
			n = t.Value
		case *ast.TagNode:
			n = t.Value
		default:
			return n
		}
	}
}

// decoder fills a struct from a YAML document. It goes on after an error, so
// that all errors of a file are found, and notes the line of every key.
type decoder struct {
	*problems
	anchors map[string]ast.Node
	nodes   int
}

// decode fills the struct that v points to with a document.
func decode(p *problems, body ast.Node, path string, v any) {
	defer func() {
		if recover() != nil { // see documents
			p.addAt(0, "", "is not YAML: check quotes, brackets and indentation")
		}
	}()
	d := &decoder{problems: p, anchors: make(map[string]ast.Node)}
	ast.Walk(anchorVisitor(d.anchors), body)
	d.value(path, body, reflect.ValueOf(v).Elem(), "", 0)
}

type anchorVisitor map[string]ast.Node

func (a anchorVisitor) Visit(n ast.Node) ast.Visitor {
	if anchor, ok := n.(*ast.AnchorNode); ok && anchor.Name != nil {
		a[anchor.Name.GetToken().Value] = anchor.Value
	}
	return a
}

// plain takes anchors, aliases and tags off a node. text says that a tag asks
// for a string. It returns nil after it has reported an error.
func (d *decoder) plain(path string, n ast.Node) (node ast.Node, text bool) {
	for range maxDepth {
		switch t := n.(type) {
		case *ast.AnchorNode:
			n = t.Value
		case *ast.AliasNode:
			name := t.Value.GetToken().Value
			target, ok := d.anchors[name]
			if !ok {
				d.addAt(lineOf(n), path, fmt.Sprintf("*%s refers to nothing: define it with &%s", showKey(name), showKey(name)))
				return nil, false
			}
			n = target
		case *ast.TagNode:
			switch t.Start.Value {
			case "!!str":
				text = true
			case "!!int", "!!bool", "!!map", "!!seq", "!!null":
			default:
				d.addAt(lineOf(n), path, fmt.Sprintf("the tag %s means nothing here: remove it", show(t.Start.Value)))
				return nil, false
			}
			n = t.Value
		default:
			return n, text
		}
	}
	d.addAt(lineOf(n), path, "refers to itself: write the value out")
	return nil, false
}

func lineOf(n ast.Node) int {
	if n == nil {
		return 0
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	secretType   = reflect.TypeFor[Secret]()
)

// value decodes one node into v. A null leaves v as it is.
func (d *decoder) value(path string, n ast.Node, v reflect.Value, tag reflect.StructTag, depth int) {
	if d.nodes++; d.nodes > maxNodes || depth > maxDepth {
		if d.nodes <= maxNodes+1 || depth > maxDepth {
			d.addAt(lineOf(n), path, "holds too much: write it shorter")
		}
		return
	}
	n, text := d.plain(path, n)
	if n == nil {
		return
	}
	if _, ok := n.(*ast.NullNode); ok {
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		before := len(d.errors)
		d.value(path, n, fresh.Elem(), tag, depth+1)
		if len(d.errors) == before {
			v.Set(fresh)
		}
	case v.Kind() == reflect.Struct:
		d.mapping(path, n, v, depth)
	case v.Kind() == reflect.Slice:
		d.list(path, n, v, tag, depth)
	default:
		d.scalar(path, n, v, tag, text)
	}
}

type field struct {
	index int
	tag   reflect.StructTag
}

// fieldsOf returns the keys of a struct, in order, and where each one goes.
func fieldsOf(t reflect.Type) (keys []string, fields map[string]field) {
	fields = make(map[string]field, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		keys = append(keys, key)
		fields[key] = field{i, f.Tag}
	}
	return keys, fields
}

func (d *decoder) mapping(path string, n ast.Node, v reflect.Value, depth int) {
	m, ok := n.(ast.MapNode)
	if !ok {
		d.addAt(lineOf(n), path, d.got(n, false)+" is not a mapping: write keys below it, such as "+exampleKey(v.Type()))
		return
	}
	seen := make(map[string]int)
	keys, fields := fieldsOf(v.Type())
	// What is merged comes first: the mapping's own keys prevail.
	for it := m.MapRange(); it.Next(); {
		if it.Key().IsMergeKey() {
			merged, _ := d.plain(path, it.Value())
			if merged == nil {
				continue
			}
			if _, ok := merged.(ast.MapNode); !ok {
				d.addAt(lineOf(it.Value()), join(path, "<<"), "merges what is not a mapping: give it the alias of one")
				continue
			}
			d.value(path, merged, v, "", depth+1)
		}
	}
	for it := m.MapRange(); it.Next(); {
		if it.Key().IsMergeKey() {
			continue
		}
		line := lineOf(it.Key())
		var key string
		switch k := it.Key().(type) {
		case *ast.StringNode:
			key = k.Value
		case *ast.MappingKeyNode, *ast.LiteralNode:
			d.addAt(line, path, "has a key of several lines: write keys as plain words")
			continue
		default:
			key = k.GetToken().Value
		}
		at := join(path, showKey(key))
		f, ok := fields[key]
		if !ok {
			d.addAt(line, at, unknownKey(key, keys))
			continue
		}
		if first, twice := seen[key]; twice {
			d.addAt(line, at, fmt.Sprintf("is there twice, first in line %d: remove one", first))
			continue
		}
		seen[key] = line
		if inner, _ := it.Value().(*ast.NullNode); inner == nil {
			d.lines[at] = line
		}
		v.Field(f.index).SetZero() // a key replaces the merged one whole
		d.value(at, it.Value(), v.Field(f.index), f.tag, depth+1)
	}
}

func unknownKey(key string, known []string) string {
	if k := nearest(key, known); k != "" {
		return "unknown key: did you mean " + k + "?"
	}
	return "unknown key: use one of " + strings.Join(known, ", ")
}

func exampleKey(t reflect.Type) string {
	keys, _ := fieldsOf(t)
	return keys[0] + ":"
}

// list decodes a sequence; a lone scalar stands for a list of one.
func (d *decoder) list(path string, n ast.Node, v reflect.Value, tag reflect.StructTag, depth int) {
	var items []ast.Node
	switch s := n.(type) {
	case *ast.SequenceNode:
		items = s.Values
	case ast.MapNode:
		d.addAt(lineOf(n), path, "a mapping is not a list: begin each entry with \"- \"")
		return
	default:
		if v.Type().Elem().Kind() == reflect.Struct {
			d.addAt(lineOf(n), path, d.got(n, false)+" is not a list: begin each entry with \"- \"")
			return
		}
		items = []ast.Node{n}
	}
	out := reflect.MakeSlice(v.Type(), 0, len(items))
	for i, item := range items {
		at := index(path, i)
		d.lines[at] = lineOf(item)
		if m, ok := item.(ast.MapNode); ok {
			if it := m.MapRange(); it.Next() {
				d.lines[at] = lineOf(it.Key()) // a block mapping's own token is its first colon
			}
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if inner, _ := d.plain(at, item); inner != nil {
			if _, null := inner.(*ast.NullNode); null {
				d.addf(at, "is empty: write a value or remove the entry")
				continue
			}
		}
		d.value(at, item, e, tag, depth+1)
		out = reflect.Append(out, e)
	}
	v.Set(out)
}

// got describes a node for an error.
func (d *decoder) got(n ast.Node, secret bool) string {
	switch t := n.(type) {
	case ast.MapNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode:
		if secret {
			return hidden
		}
		return show(t.Value)
	case *ast.LiteralNode:
		if secret {
			return hidden
		}
		return show(t.Value.Value)
	}
	if secret || tokenLike.MatchString(n.GetToken().Value) {
		return hidden
	}
	return n.GetToken().Value
}

func (d *decoder) scalar(path string, n ast.Node, v reflect.Value, tag reflect.StructTag, text bool) {
	wrong := func(mend string) {
		d.addAt(lineOf(n), path, d.got(n, v.Type() == secretType)+" is not "+mend)
	}
	switch {
	case v.Type() == durationType:
		s, ok := n.(*ast.StringNode)
		if !ok {
			if _, number := n.(*ast.IntegerNode); number {
				wrong("a duration: write it with a unit, such as " + n.GetToken().Value + "s")
				return
			}
			wrong("a duration: write one such as 500ms, 30s or 5m")
			return
		}
		t, err := time.ParseDuration(s.Value)
		if err != nil {
			wrong("a duration: write one such as 500ms, 30s or 5m")
			return
		}
		v.SetInt(int64(t))
	case v.Kind() == reflect.String:
		switch s := n.(type) {
		case *ast.StringNode:
			v.SetString(s.Value)
		case *ast.LiteralNode:
			v.SetString(s.Value.Value)
		case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode, *ast.BoolNode:
			// A token or an id of digits only is text all the same.
			if _, number := n.(*ast.IntegerNode); number && tag.Get("number") != "" || text || v.Type() == secretType {
				v.SetString(n.GetToken().Value)
				return
			}
			wrong("text: put it in quotes")
		default:
			// In a list within a mapping of one line, the parser takes http://host
			// for a mapping.
			if _, ok := n.(ast.MapNode); ok && strings.Contains(n.String(), "//") {
				wrong("text: put an address with :// in quotes")
				return
			}
			wrong("text: write one value")
		}
	case v.Kind() == reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			wrong("true or false: write one of them")
			return
		}
		v.SetBool(b.Value)
	case v.Kind() == reflect.Int, v.Kind() == reflect.Int64:
		bits, example := 32, "20"
		if v.Kind() == reflect.Int64 {
			bits, example = 64, "4202645"
		}
		_, ok := n.(*ast.IntegerNode)
		i, err := strconv.ParseInt(n.GetToken().Value, 10, bits)
		if !ok || err != nil {
			wrong("a whole number: write one such as " + example)
			return
		}
		v.SetInt(i)
	case v.Kind() == reflect.Float64:
		_, whole := n.(*ast.IntegerNode)
		_, fraction := n.(*ast.FloatNode)
		f, err := strconv.ParseFloat(n.GetToken().Value, 64)
		if !whole && !fraction || err != nil {
			wrong("a number: write one such as 1.50")
			return
		}
		v.SetFloat(f)
	default:
		panic("config: no decoder for " + v.Type().String())
	}
}
