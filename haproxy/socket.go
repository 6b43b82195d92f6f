package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// ErrClosed is returned when HAProxy closed the connection: it died, or the
// worker was replaced.
var ErrClosed = errors.New("haproxy closed its runtime socket")

// promptEnd ends each answer in HAProxy's interactive mode (management guide,
// 9.3 "Unix Socket commands").
var promptEnd = []byte("\n> ")

// maxBatch bounds the bytes of commands that are sent before their answers are
// read. HAProxy resets a connection whose one command is beyond 16 kB, and
// stops reading while nobody reads its answers.
const maxBatch = 8 << 10

// session is one connection to the admin socket in interactive mode. A
// goroutine reads it all the time, so that its end is noticed at once. It is
// used by one caller at a time.
type session struct {
	conn    net.Conn
	answers chan []byte   // one answer, valid until next is written
	next    chan struct{} // the reader may use its buffer again
	dead    chan struct{} // closed by the reader when the connection ended
	out     []byte
}

// dialSession connects. The context bounds the dialling only.
func dialSession(ctx context.Context, path string) (*session, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("haproxy runtime socket: %w", err)
	}
	s := &session{
		conn:    conn,
		answers: make(chan []byte),
		next:    make(chan struct{}),
		dead:    make(chan struct{}),
	}
	go s.read()
	if err := s.exchange(ctx, []string{"prompt"}, nil); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close ends the connection and waits for the reader.
func (s *session) close() {
	_ = s.conn.Close()
	for {
		select {
		case <-s.answers:
		case s.next <- struct{}{}:
		case <-s.dead:
			return
		}
	}
}

func (s *session) read() {
	defer close(s.dead)
	buf := make([]byte, 0, 16<<10)
	scanned := 0
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := s.conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		for {
			i := bytes.Index(buf[scanned:], promptEnd)
			if i < 0 {
				scanned = max(0, len(buf)-len(promptEnd)+1)
				break
			}
			end := scanned + i
			s.answers <- buf[:end]
			<-s.next
			rest := copy(buf, buf[end+len(promptEnd):])
			buf, scanned = buf[:rest], 0
		}
		if err != nil {
			return
		}
	}
}

// exchange sends the commands, pipelined, and gives each answer to got in the
// order of the commands. The slice is valid during the call only. After an
// error the session is of no use any more.
func (s *session) exchange(ctx context.Context, commands []string, got func(i int, answer []byte)) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = s.conn.SetWriteDeadline(deadline)
	} else {
		_ = s.conn.SetWriteDeadline(time.Time{})
	}
	for from := 0; from < len(commands); {
		s.out = s.out[:0]
		to := from
		for to < len(commands) && (to == from || len(s.out)+len(commands[to]) < maxBatch) {
			s.out = append(s.out, commands[to]...)
			s.out = append(s.out, '\n')
			to++
		}
		if _, err := s.conn.Write(s.out); err != nil {
			return fmt.Errorf("%s: %w", commands[from], closedError(err))
		}
		for ; from < to; from++ {
			select {
			case answer := <-s.answers:
				if got != nil {
					got(from, bytes.Trim(answer, "\n"))
				}
				s.next <- struct{}{}
			case <-s.dead:
				return fmt.Errorf("%s: %w", commands[from], ErrClosed)
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", commands[from], context.Cause(ctx))
			}
		}
	}
	return nil
}

// closedError makes ErrClosed of what a write says when the peer has gone.
func closedError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrClosed, err)
}

// ask opens a connection, sends one command and reads until HAProxy closes it.
// It is how the master socket is spoken to, whose connections a reload ends.
func ask(ctx context.Context, path, command string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return "", fmt.Errorf("haproxy socket: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", fmt.Errorf("haproxy: %s: %w", command, err)
	}
	// The master closes after its answer only when we have closed our half.
	if c, ok := conn.(*net.UnixConn); ok {
		_ = c.CloseWrite()
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return string(answer), fmt.Errorf("haproxy: %s: %w", command, err)
	}
	return string(answer), nil
}
