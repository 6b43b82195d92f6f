package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// agree asks a question on the terminal and is nil when the answer is yes.
// Without a terminal, and with -o json, only --yes answers: mend says how to
// call the command then.
func (s *session) agree(op, question, mend string) error {
	if s.format == "json" || !s.opts.Interactive(s.in) {
		return &Failure{
			Op: op, Exit: ExitUsage,
			Err: errors.New("it asks before it goes on, and there is no terminal to ask at; nothing was changed"), Mend: []string{mend},
		}
	}
	fmt.Fprintf(s.err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	// A read of a terminal cannot be ended: after an interrupt it goes with the
	// process.
	go func() {
		line, err := bufio.NewReader(s.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-s.ctx.Done():
		fmt.Fprintln(s.err)
		return s.fail(op, s.ended())
	case word := <-answer:
		if word == "y" || word == "yes" {
			return nil
		}
		return &Failure{Op: op, Err: errors.New("not agreed to; nothing was changed")}
	}
}
