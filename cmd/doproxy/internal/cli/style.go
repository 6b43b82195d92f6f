package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// style is what an output can show.
type style struct {
	terminal bool
	width    int // columns, 0 when not a terminal
	height   int
	color    bool
	ascii    bool // nothing beyond ASCII
	// live: lines may be drawn over.
	live bool
}

func (c *client) styleOf(w io.Writer) style {
	width, height, ok := c.opts.Terminal(w)
	if !ok {
		return style{}
	}
	dumb := c.opts.Getenv("TERM") == "dumb"
	return style{
		terminal: true, width: width, height: height,
		color: !dumb && c.opts.Getenv("NO_COLOR") == "",
		ascii: dumb || !utf8Locale(c.opts.Getenv),
		live:  !dumb && !c.flags.noProgress,
	}
}

// utf8Locale is true also when no locale is set: the terminal is the user's
// own, far from the node whose environment is bare.
func utf8Locale(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}

func (st style) paint(sgr, s string) string {
	if !st.color || s == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

func (st style) bold(s string) string   { return st.paint("1", s) }
func (st style) dim(s string) string    { return st.paint("2", s) }
func (st style) red(s string) string    { return st.paint("31", s) }
func (st style) green(s string) string  { return st.paint("32", s) }
func (st style) yellow(s string) string { return st.paint("33", s) }
func (st style) cyan(s string) string   { return st.paint("36", s) }

// sign picks the ASCII form where the output has no other.
func (st style) sign(full, ascii string) string {
	if st.ascii {
		return ascii
	}
	return full
}

func (st style) arrow() string { return st.sign("→", "->") }
func (st style) dot() string   { return st.sign("·", "-") }

// clip cuts a line to the style's width, colours kept whole.
func (st style) clip(line string) string { return st.clipTo(line, st.width) }

func (st style) clipTo(line string, width int) string {
	if width <= 0 || text.StringWidthWithoutEscSequences(line) <= width {
		return line
	}
	mark := st.sign("…", "~")
	return text.Trim(line, width-1) + mark
}

// padTo fills a line with spaces up to width columns, colours not counted.
func (st style) padTo(line string, width int) string {
	return line + strings.Repeat(" ", max(0, width-text.StringWidthWithoutEscSequences(line)))
}

// bar is done of total as a line of width columns.
func (st style) bar(done, total, width int) string {
	full := width
	if total > 0 {
		full = min(width, max(0, done*width/total))
	}
	if total <= 0 && done <= 0 {
		full = 0
	}
	paint := st.cyan
	if total > 0 && done >= total {
		paint = st.green
	}
	return paint(strings.Repeat(st.sign("━", "="), full)) + st.dim(strings.Repeat(st.sign("─", "."), width-full))
}

// wrap breaks words at width columns, each further line with the indent.
func wrap(words string, width int, indent string) string {
	if width <= len(indent)+20 {
		return words
	}
	lines := strings.Split(text.WrapSoft(words, width-len(indent)), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n"+indent)
}

// grid lays rows out in columns with two spaces in between and no frame.
type grid struct {
	st   style
	head []string
	rows [][]string
	// right names the columns, from 0, that are aligned to the right.
	right []int
	// indent goes before each line.
	indent string
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

func (g *grid) String() string {
	t := table.NewWriter()
	t.SetStyle(table.Style{
		Box:     table.BoxStyle{PaddingRight: "  "},
		Options: table.Options{},
		Format:  table.FormatOptions{Header: text.FormatDefault, Row: text.FormatDefault},
	})
	t.SuppressTrailingSpaces()
	configs := make([]table.ColumnConfig, 0, len(g.right))
	for _, i := range g.right {
		configs = append(configs, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(configs)
	row := func(cells []string, paint func(string) string) table.Row {
		r := make(table.Row, len(cells))
		for i, cell := range cells {
			r[i] = paint(cell)
		}
		return r
	}
	if g.head != nil {
		t.AppendRow(row(g.head, g.st.dim))
	}
	for _, cells := range g.rows {
		t.AppendRow(row(cells, func(s string) string { return s }))
	}
	var b strings.Builder
	for line := range strings.SplitSeq(t.Render(), "\n") {
		b.WriteString(strings.TrimRight(g.indent+line, " ") + "\n")
	}
	return b.String()
}

// withMessages puts a message at the end of each row of a grid if all fit, else
// on lines of its own below the row.
func (st style) withMessages(g *grid, head string, message func(i int) string) string {
	lines := strings.Split(strings.TrimRight(g.String(), "\n"), "\n")
	width, room := g.width(), 0
	for i := range g.rows {
		room = max(room, len([]rune(message(i))))
	}
	beside := st.width == 0 || width+2+room <= st.width
	var b strings.Builder
	for i, line := range lines {
		row := i - (len(lines) - len(g.rows))
		switch {
		case row < 0 && beside:
			b.WriteString(st.padTo(line, width) + "  " + st.dim(head) + "\n")
		case row < 0:
			b.WriteString(st.clip(line) + "\n")
		case beside:
			b.WriteString(strings.TrimRight(st.padTo(line, width)+"  "+message(row), " ") + "\n")
		case message(row) == "":
			b.WriteString(st.clip(line) + "\n")
		default:
			b.WriteString(st.clip(line) + "\n  " + wrap(message(row), st.width, "  ") + "\n")
		}
	}
	return b.String()
}

// width is that of the widest line, without the newline.
func (g *grid) width() int {
	widest := 0
	for line := range strings.SplitSeq(g.String(), "\n") {
		widest = max(widest, text.StringWidthWithoutEscSequences(line))
	}
	return widest
}

// ago is how long t is past, in the largest unit that says enough: 12s, 4m, 3h, 5d.
func ago(now time.Time, t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return short(now.Sub(t.AsTime()))
}

func short(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}

// clean takes out what could steer a terminal: much of what is shown was
// written elsewhere.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r), r == '\u2028', r == '\u2029', unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, s)
}

// cleaned is a copy of m with all its strings clean.
func cleaned[M proto.Message](m M) M {
	c := proto.Clone(m).(M)
	cleanMessage(c.ProtoReflect())
	return c
}

func cleanMessage(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
		case fd.IsList() && fd.Kind() == protoreflect.StringKind:
			for i := range v.List().Len() {
				v.List().Set(i, protoreflect.ValueOfString(clean(v.List().Get(i).String())))
			}
		case fd.IsList() && fd.Kind() == protoreflect.MessageKind:
			for i := range v.List().Len() {
				cleanMessage(v.List().Get(i).Message())
			}
		case fd.Kind() == protoreflect.StringKind:
			m.Set(fd, protoreflect.ValueOfString(clean(v.String())))
		case fd.Kind() == protoreflect.MessageKind:
			cleanMessage(v.Message())
		}
		return true
	})
}
