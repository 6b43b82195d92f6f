package dosim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// maxBody bounds a request's body; user data alone may be 64 KiB.
const maxBody = 1 << 20

// request is an API call with what handlers need of it.
type request struct {
	http *http.Request
	body []byte
	now  time.Time
}

// base is the URL at which the client reached the simulator.
func (r *request) base() string { return "http://" + r.http.Host }

func (r *request) query() url.Values { return r.http.URL.Query() }

// id is a number in the path; 0 when it is not one, which nothing has as its id.
func (r *request) id(name string) int {
	n, err := strconv.Atoi(r.http.PathValue(name))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// decode reads the JSON body. Unknown fields are let through, as DigitalOcean does.
func (r *request) decode(v any) error {
	if len(r.body) == 0 {
		return errors.New("the request has no body")
	}
	return json.Unmarshal(r.body, v)
}

func readBody(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxBody {
		return nil, fmt.Errorf("the body is larger than %d bytes", maxBody)
	}
	return b, nil
}

// page answers with the part of a list that the request's page and per_page
// ask for, under the given key.
func page[T any](r *request, key string, all []T) answer {
	return pageOf(r, key, all, func(x T) T { return x })
}

// pageOf is page with each entry made into what the API shows of it.
func pageOf[T, B any](r *request, key string, all []T, body func(T) B) answer {
	q := r.query()
	perPage, err := positive(q.Get("per_page"), 20)
	if err != nil {
		return badRequest("per_page: " + err.Error())
	}
	number, err := positive(q.Get("page"), 1)
	if err != nil {
		return badRequest("page: " + err.Error())
	}
	perPage = min(perPage, 200)
	last := max(1, (len(all)+perPage-1)/perPage)
	from, to := min((number-1)*perPage, len(all)), min(number*perPage, len(all))
	link := func(n int) string {
		q.Set("page", strconv.Itoa(n))
		q.Set("per_page", strconv.Itoa(perPage))
		return r.base() + r.http.URL.Path + "?" + q.Encode()
	}
	links := pageLinks{}
	if last > 1 {
		links.Pages = &pages{}
		if number > 1 {
			links.Pages.First, links.Pages.Prev = link(1), link(min(number-1, last))
		}
		if number < last {
			links.Pages.Next, links.Pages.Last = link(number+1), link(last)
		}
	}
	shown := make([]B, 0, to-from)
	for _, x := range all[from:to] {
		shown = append(shown, body(x))
	}
	return ok(map[string]any{
		key:     shown,
		"links": links,
		"meta":  metaBody{Total: len(all)},
	})
}

func positive(s string, missing int) (int, error) {
	if s == "" {
		return missing, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1<<30 {
		return 0, fmt.Errorf("%q is not a number of 1 or more", s)
	}
	return n, nil
}
