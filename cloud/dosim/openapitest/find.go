package openapitest

import (
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
)

// find returns the operation of a call and its path's parameters; nil when the
// document has none. Of several paths that match, that with the most literal
// segments is meant.
func find(doc *openapi3.T, method, path string) (*routers.Route, map[string]string) {
	var best *routers.Route
	var bestParams map[string]string
	for template, item := range doc.Paths.Map() {
		params, matches := match(template, path)
		operation := item.GetOperation(method)
		if !matches || operation == nil || best != nil && len(params) >= len(bestParams) {
			continue
		}
		best = &routers.Route{Spec: doc, Path: template, PathItem: item, Method: method, Operation: operation}
		bestParams = params
	}
	return best, bestParams
}

func match(template, path string) (map[string]string, bool) {
	want, have := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(have) {
		return nil, false
	}
	params := map[string]string{}
	for i, w := range want {
		switch {
		case strings.HasPrefix(w, "{") && strings.HasSuffix(w, "}"):
			params[w[1:len(w)-1]] = have[i]
		case w != have[i]:
			return nil, false
		}
	}
	return params, true
}
