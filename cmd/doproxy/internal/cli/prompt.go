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
	word, err := s.readLine()
	if err != nil {
		fmt.Fprintln(s.err)
		return s.fail(op, err)
	}
	if word = strings.ToLower(word); word == "y" || word == "yes" {
		return nil
	}
	return &Failure{Op: op, Err: errors.New("not agreed to; nothing was changed")}
}

// readLine is the next line of the input, without space around it; empty if
// there is none. Its error is why the session has ended.
func (s *session) readLine() (string, error) {
	read := make(chan string, 1)
	// A read of a terminal cannot be ended: after an interrupt it goes with the
	// process.
	go func() {
		line, err := bufio.NewReader(s.in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		read <- strings.TrimSpace(line)
	}()
	select {
	case <-s.ctx.Done():
		return "", s.ended()
	case line := <-read:
		return line, nil
	}
}
