package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// eventPlain is one event in one line: time, type, what it is about, message.
func eventPlain(e *doproxyv1.Event) string {
	e = cleaned(e)
	return strings.TrimSuffix(fmt.Sprintf("%s %s %s: %s", stamp(e.GetTime()), e.GetType(), subject(e), e.GetMessage()), ": ")
}

// subject is what an event is about: a droplet, else a pool, else a node.
func subject(e *doproxyv1.Event) string {
	for _, s := range []string{e.GetDroplet(), e.GetPool(), e.GetNode()} {
		if s != "" {
			return s[strings.LastIndexByte(s, '/')+1:]
		}
	}
	return "cluster"
}

// eventLine is one event for a terminal, of which it takes one line.
func eventLine(st style, e *doproxyv1.Event) string {
	e = cleaned(e)
	line := st.dim(clock(e.GetTime())) + "  " + st.eventType(pad(e.GetType(), 25)) + "  " + st.bold(pad(subject(e), 12))
	if e.GetMessage() != "" {
		line += "  " + e.GetMessage()
	}
	return st.clip(line)
}

func pad(s string, width int) string {
	if n := width - len([]rune(s)); n > 0 {
		return s + strings.Repeat(" ", n)
	}
	return s
}

func clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return "--:--:--"
	}
	return t.AsTime().Local().Format(time.TimeOnly)
}

func (st style) eventType(t string) string {
	word := strings.TrimSpace(t[strings.LastIndexByte(t, '.')+1:])
	switch {
	case slices.ContainsFunc([]string{"fail", "error", "refused", "lost", "dead", "unreachable", "silent", "stopped"}, func(bad string) bool { return strings.Contains(word, bad) }):
		return st.red(t)
	case strings.Contains(word, "serving"), strings.Contains(word, "elected"):
		return st.green(t)
	case slices.ContainsFunc([]string{"drain", "delet", "held", "kept", "paused", "rewound"}, func(w string) bool { return strings.Contains(word, w) }):
		return st.yellow(t)
	}
	return st.cyan(t)
}
