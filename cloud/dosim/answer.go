package dosim

import "net/http"

// answer is what an API call gets: a status and a body, nil for none. Handlers
// return it rather than write it, so that a fault can lose it on its way.
type answer struct {
	status int
	body   any
}

func ok(body any) answer       { return answer{http.StatusOK, body} }
func created(body any) answer  { return answer{http.StatusCreated, body} }
func accepted(body any) answer { return answer{http.StatusAccepted, body} }

var noContent = answer{status: http.StatusNoContent}

// refuse answers with DigitalOcean's error body; the request id is added when
// it is written.
func refuse(status int, id, message string) answer {
	return answer{status, errorBody{ID: id, Message: message}}
}

// unprocessable is the answer to a request that DigitalOcean understands and
// does not want.
func unprocessable(message string) answer {
	return refuse(http.StatusUnprocessableEntity, "unprocessable_entity", message)
}

func badRequest(message string) answer {
	return refuse(http.StatusBadRequest, "bad_request", message)
}

// The refusals that many calls share.
var (
	unauthorized    = refuse(http.StatusUnauthorized, "Unauthorized", "Unable to authenticate you")
	tooManyRequests = refuse(http.StatusTooManyRequests, "too_many_requests", "API rate limit exceeded.")
	notFound        = refuse(http.StatusNotFound, "not_found", "The resource you requested could not be found.")
	pendingEvent    = unprocessable("Droplet already has a pending event.")
	outOfCapacity   = unprocessable("Size is not available in this region.")
)
