package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Exit codes. docs/cli.md lists them for users.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitRefused     = 4
	ExitStale       = 5
	ExitUnavailable = 6
	ExitTimeout     = 7
	ExitDenied      = 8
	ExitDiffers     = 9 // verify alone
	ExitInterrupted = 130
)

// exitOf is the one place where a gRPC code becomes an exit code.
func exitOf(c codes.Code) int {
	switch c {
	case codes.OK:
		return ExitOK
	case codes.InvalidArgument:
		return ExitUsage
	case codes.NotFound:
		return ExitNotFound
	case codes.FailedPrecondition, codes.OutOfRange, codes.ResourceExhausted, codes.AlreadyExists:
		return ExitRefused
	case codes.Aborted:
		return ExitStale
	case codes.Unavailable:
		return ExitUnavailable
	case codes.DeadlineExceeded:
		return ExitTimeout
	case codes.PermissionDenied, codes.Unauthenticated:
		return ExitDenied
	case codes.Canceled:
		return ExitInterrupted
	default:
		return ExitFailed
	}
}

// codeOf names, for -o json, an exit that no gRPC code stands behind.
func codeOf(exit int) codes.Code {
	switch exit {
	case ExitUsage:
		return codes.InvalidArgument
	case ExitNotFound:
		return codes.NotFound
	case ExitRefused:
		return codes.FailedPrecondition
	case ExitStale:
		return codes.Aborted
	case ExitUnavailable:
		return codes.Unavailable
	case ExitTimeout:
		return codes.DeadlineExceeded
	case ExitDenied:
		return codes.PermissionDenied
	case ExitInterrupted:
		return codes.Canceled
	default:
		return codes.Unknown
	}
}

// Failure is an error as the user sees it.
type Failure struct {
	// Op says what failed, such as "delete web-3".
	Op string
	// Err says why. A gRPC status in it gives code and details.
	Err error
	// Exit overrides the exit code that Err's status gives.
	Exit int
	// Mend is what the user can do, a line each, beside what the details say.
	Mend []string
}

func (f *Failure) Error() string {
	if f.Op == "" {
		return f.why()
	}
	return f.Op + ": " + f.why()
}

func (f *Failure) Unwrap() error { return f.Err }

func (f *Failure) why() string {
	if s := f.status(); s != nil {
		// Keep what was wrapped around the status, without gRPC's own prefix.
		return strings.Replace(f.Err.Error(), s.Err().Error(), s.Message(), 1)
	}
	return f.Err.Error()
}

func (f *Failure) status() *status.Status {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(f.Err, &s) {
		return s.GRPCStatus()
	}
	return nil
}

func (f *Failure) code() codes.Code {
	switch s := f.status(); {
	case f.Exit != 0:
		return codeOf(f.Exit)
	case s != nil:
		return s.Code()
	case errors.Is(f.Err, context.Canceled):
		return codes.Canceled
	case errors.Is(f.Err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return codes.Unknown
}

func (f *Failure) exit() int {
	if f.Exit != 0 {
		return f.Exit
	}
	return exitOf(f.code())
}

func usage(format string, args ...any) *Failure {
	return &Failure{Err: fmt.Errorf(format, args...), Exit: ExitUsage}
}

// mends is what the user can do: the command's own advice, then the server's.
func (f *Failure) mends() []string {
	lines := slices.Clone(f.Mend)
	add := func(line string) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	// What the message says already is not said again.
	violation := func(field, description string) {
		if !strings.Contains(f.why(), description) {
			add(joined(field, description))
		}
	}
	for _, detail := range f.details() {
		switch d := detail.(type) {
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				violation(v.GetField(), v.GetDescription())
			}
		case *errdetails.PreconditionFailure:
			for _, v := range d.GetViolations() {
				violation(v.GetSubject(), v.GetDescription())
			}
		case *errdetails.QuotaFailure:
			for _, v := range d.GetViolations() {
				violation(v.GetSubject(), v.GetDescription())
			}
		case *errdetails.ErrorInfo:
			add(d.GetMetadata()["mend"])
		case *errdetails.Help:
			for _, l := range d.GetLinks() {
				add(joined(l.GetDescription(), l.GetUrl()))
			}
		case *errdetails.RetryInfo:
			if wait := d.GetRetryDelay().AsDuration(); wait > 0 {
				add("try again in " + wait.Round(time.Millisecond).String())
			}
		}
	}
	return lines
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ": " + b
}

func (f *Failure) details() []any {
	if s := f.status(); s != nil {
		return s.Details()
	}
	return nil
}

func (f *Failure) reason() string {
	for _, detail := range f.details() {
		if d, ok := detail.(*errdetails.ErrorInfo); ok {
			return d.GetReason()
		}
	}
	return ""
}

// report writes the error for a reader or, as one JSON object, for a program.
func (f *Failure) report(w io.Writer, asJSON bool) {
	if asJSON {
		f.reportJSON(w)
		return
	}
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(f.why()), "\n") { // joined errors have a line each
		fmt.Fprintf(&b, "doproxy: %s\n", clean(joined(f.Op, asFlags(line))))
	}
	for _, line := range f.mends() {
		fmt.Fprintf(&b, "  mend: %s\n", clean(asFlags(line)))
	}
	_, _ = io.WriteString(w, b.String())
}

// fieldFlags are the flags that stand for fields of the API's requests.
var fieldFlags = map[string]string{"parent": "--pool", "request_id": "--request-id", "count": "-n"}

var (
	fieldPattern = regexp.MustCompile(`(^|[:;] )(parent|request_id|count): (?:"" )?`)
	idPattern    = regexp.MustCompile(`\brequest_id\b`)
)

// asFlags names the flags that a user gives where an answer names the fields
// that a program sets.
func asFlags(line string) string {
	line = fieldPattern.ReplaceAllStringFunc(line, func(m string) string {
		part := fieldPattern.FindStringSubmatch(m)
		return part[1] + fieldFlags[part[2]] + " "
	})
	return idPattern.ReplaceAllString(line, "--request-id")
}

func (f *Failure) reportJSON(w io.Writer) {
	details := []json.RawMessage{}
	for _, detail := range f.details() {
		if m, ok := detail.(proto.Message); ok {
			details = append(details, withType(m))
		}
	}
	out := struct {
		Code      string            `json:"code"`
		ExitCode  int               `json:"exit_code"`
		Reason    string            `json:"reason"`
		Operation string            `json:"operation"`
		Message   string            `json:"message"`
		Mend      []string          `json:"mend"`
		Details   []json.RawMessage `json:"details"`
	}{code.Code(f.code()).String(), f.exit(), f.reason(), f.Op, f.why(), append([]string{}, f.mends()...), details}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string]any{"error": out})
	_, _ = w.Write(b.Bytes())
}

// withType is a detail's JSON with its message's full name under "@type".
func withType(m proto.Message) json.RawMessage {
	body := messageJSON(m.ProtoReflect())
	name, _ := json.Marshal(string(m.ProtoReflect().Descriptor().FullName()))
	head := `{"@type":` + string(name)
	if len(body) > 2 {
		head += ","
	}
	return json.RawMessage(head + string(body[1:]))
}

// withMend adds advice to an error, if it is a Failure.
func withMend(err error, mend ...string) error {
	var f *Failure
	if errors.As(err, &f) {
		f.Mend = append(f.Mend, mend...)
	}
	return err
}
