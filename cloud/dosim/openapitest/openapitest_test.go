package openapitest_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/doproxy/doproxy/cloud/dosim/openapitest"
)

// spy is a test that notes its errors and goes on.
type spy struct {
	testing.TB
	errors []string
}

func (s *spy) Errorf(format string, args ...any) {
	s.errors = append(s.errors, fmt.Sprintf(format, args...))
}

func TestHandlerReports(t *testing.T) {
	openapitest.Require(t)
	const refusal = `{"id":"unprocessable_entity","message":"no"}`
	for name, c := range map[string]struct {
		method, path, request string
		status                int
		answer                string
		options               []openapitest.Option
		want                  string // "" is nothing
	}{
		"a good call":         {method: "POST", path: "/v2/tags", request: `{"name":"web"}`, status: 201, answer: `{"tag":{"name":"web"}}`},
		"a bad answer":        {method: "GET", path: "/v2/regions", status: 200, answer: `{"regions":[{}]}`, want: "answer 200"},
		"not JSON":            {method: "GET", path: "/v2/account", status: 200, answer: `?`, want: "answer 200"},
		"an unknown status":   {method: "GET", path: "/v2/account", status: 302, answer: `{}`, want: "answer 302"},
		"a bad request":       {method: "POST", path: "/v2/account/keys", request: `{"name":"k"}`, status: 422, answer: refusal, want: "request POST"},
		"a bad request meant": {method: "POST", path: "/v2/account/keys", request: `{"name":"k"}`, status: 422, answer: refusal, options: []openapitest.Option{openapitest.AllowRefused()}},
		"a bad request taken": {method: "POST", path: "/v2/account/keys", request: `{"name":"k"}`, status: 201, answer: `{}`, options: []openapitest.Option{openapitest.AllowRefused()}, want: "request POST"},
		"an unknown path":     {method: "GET", path: "/v2/teapots", status: 404, answer: refusal, want: "not in the OpenAPI document"},
		"another API":         {method: "GET", path: "/_sim/calls", status: 200, answer: `?`},
	} {
		t.Run(name, func(t *testing.T) {
			s := &spy{TB: t}
			h := openapitest.Handler(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got, _ := io.ReadAll(r.Body); string(got) != c.request {
					t.Errorf("the handler read %q", got)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				io.WriteString(w, c.answer)
			}), c.options...)
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.request))
			r.Header.Set("Content-Type", "application/json")
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Body.String() != c.answer || rec.Code != c.status {
				t.Errorf("the client got %d %q", rec.Code, rec.Body)
			}
			all := strings.Join(s.errors, "\n")
			if c.want == "" && all != "" || !strings.Contains(all, c.want) {
				t.Errorf("reported %q, want %q", all, c.want)
			}
		})
	}
}

func TestHandlerWithoutADocument(t *testing.T) {
	t.Setenv(openapitest.Env, "")
	h := openapitest.Handler(t, http.NotFoundHandler())
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/v2/teapots", nil))
	if rec.Code != http.StatusNotFound {
		t.Error(rec.Code)
	}
}
