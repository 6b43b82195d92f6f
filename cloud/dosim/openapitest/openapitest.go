// Package openapitest checks HTTP calls against DigitalOcean's OpenAPI
// document: wrap a handler, or a simulator, and every request that reaches it
// and every answer that leaves it is validated.
//
// The document is not part of the repository: the environment variable in
// [Env] names the file.
package openapitest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
)

// Env is the environment variable that names the document's file.
const Env = "DOPROXY_OPENAPI"

// Require skips the test when there is no document.
func Require(tb testing.TB) {
	tb.Helper()
	if os.Getenv(Env) == "" {
		tb.Skipf("%s does not name DigitalOcean's OpenAPI document: nothing to validate against", Env)
	}
}

// Option changes what Handler reports.
type Option func(*validator)

// AllowRefused lets invalid requests pass that are answered with a 4xx status:
// for tests that send them on purpose.
func AllowRefused() Option { return func(v *validator) { v.allowRefused = true } }

// Handler wraps h so that requests and answers under /v2/ that do not follow
// the document fail the test. Answers that never come, because the connection
// was cut, are not checked. Without a document the test is told so, and h is
// returned as it is.
func Handler(tb testing.TB, h http.Handler, options ...Option) http.Handler {
	tb.Helper()
	file := os.Getenv(Env)
	if file == "" {
		tb.Logf("%s is not set: calls are not validated against the OpenAPI document", Env)
		return h
	}
	doc, err := load(file)
	if err != nil {
		tb.Fatalf("%s: %v", Env, err)
	}
	v := &validator{tb: tb, doc: doc, next: h}
	for _, o := range options {
		o(v)
	}
	tb.Cleanup(v.end)
	return v
}

// load reads a document, once for each file.
var load = func() func(string) (*openapi3.T, error) {
	var mu sync.Mutex
	docs := map[string]*openapi3.T{}
	return func(file string) (*openapi3.T, error) {
		mu.Lock()
		defer mu.Unlock()
		if doc, ok := docs[file]; ok {
			return doc, nil
		}
		doc, err := openapi3.NewLoader().LoadFromFile(file)
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", file, err)
		}
		if err := doc.WalkSchemas(untypedAllowsNull); err != nil {
			return nil, fmt.Errorf("load %s: %w", file, err)
		}
		docs[file] = doc
		return doc, nil
	}
}()

// untypedAllowsNull reads the document as OpenAPI 3.0.3 means it: a schema that
// names no type allows null. DigitalOcean's relies on it, with "allOf" of a
// nullable object and a bare description.
func untypedAllowsNull(_ string, s *openapi3.SchemaRef) error {
	if s.Value.Type == nil {
		s.Value.Nullable = true
	}
	return nil
}

type validator struct {
	doc          *openapi3.T
	next         http.Handler
	allowRefused bool

	mu sync.Mutex
	tb testing.TB // nil once the test has ended
}

func (v *validator) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tb = nil
}

func (v *validator) errorf(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.tb != nil {
		v.tb.Errorf(format, args...)
	}
}

func (v *validator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v2/") {
		v.next.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client left
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	rec := &recorder{ResponseWriter: w}
	v.next.ServeHTTP(rec, r)

	route, params := find(v.doc, r.Method, r.URL.Path)
	if route == nil {
		v.errorf("%s %s is not in the OpenAPI document", r.Method, r.URL.Path)
		return
	}
	asked := r.Clone(context.Background()) // the client may have left by now
	asked.Body = io.NopCloser(bytes.NewReader(body))
	in := &openapi3filter.RequestValidationInput{
		Request: asked, PathParams: params, Route: route,
		Options: &openapi3filter.Options{
			AuthenticationFunc:    openapi3filter.NoopAuthenticationFunc,
			IncludeResponseStatus: true,
		},
	}
	refused := rec.status >= 400 && rec.status < 500
	if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil && !(refused && v.allowRefused) {
		v.errorf("request %s %s does not follow the OpenAPI document: %v\n%s", r.Method, r.URL, err, clip(body))
	}
	if rec.hijacked || rec.status == 0 {
		return
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: rec.status, Header: rec.Header(),
		Body: io.NopCloser(bytes.NewReader(rec.body.Bytes())), Options: in.Options,
	}
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		v.errorf("answer %d of %s %s does not follow the OpenAPI document: %v\n%s", rec.status, r.Method, r.URL, err, clip(rec.body.Bytes()))
	}
}

func clip(b []byte) []byte {
	const most = 2000
	if len(b) > most {
		return append(b[:most:most], "…"...)
	}
	return b
}
