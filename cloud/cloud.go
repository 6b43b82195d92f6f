// Package cloud says what the controller asks of a cloud, in the controller's
// own words. Adapters, such as cloud/digitalocean, implement it.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doproxy/doproxy/inventory"
)

// MaxCreate is how many droplets one create call may ask for.
// Source: DigitalOcean API v2, POST /v2/droplets, "names": at most 10.
const MaxCreate = 10

// Errors that adapters translate their own into. Compare with errors.Is.
var (
	// ErrNotFound: the cloud says that the thing does not exist.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous: no telling whether the call took effect: it timed out, its
	// connection broke, or the cloud answered with a fault of its own.
	ErrAmbiguous = errors.New("outcome unknown")
	// ErrThrottled: refused because of the account's request limit; nothing was
	// done. The error is a *Throttled.
	ErrThrottled = errors.New("request limit reached")
)

// Refused is a definite no: nothing was done. Message is in the cloud's words.
type Refused struct {
	Status  int    // HTTP status
	ID      string // the cloud's short name for the error, such as unprocessable_entity
	Message string
}

func (e *Refused) Error() string {
	return fmt.Sprintf("refused by the cloud: %s (%s, status %d)", e.Message, e.ID, e.Status)
}

// NotOurs is the ID of a Refused from Get or Adopt: the droplet exists, and does
// not bear the cluster's tag, or bears another cluster's.
const NotOurs = "not_ours"

// Throttled is ErrThrottled with the moment from which calls may be tried again.
type Throttled struct{ Until time.Time }

func (e *Throttled) Error() string {
	return fmt.Sprintf("%v until %s", ErrThrottled, e.Until.UTC().Format(time.RFC3339))
}

func (e *Throttled) Is(target error) bool { return target == ErrThrottled }

// Droplet is a droplet as the cloud tells it.
type Droplet struct {
	inventory.Droplet // Name, Pool (from the tag; empty without), ID, Status, addresses, Region, Size, Image, PriceHourly, Created
	Tags              []string
}

// CreateRequest asks for one droplet a name.
type CreateRequest struct {
	Names    []string // 1 to MaxCreate
	Pool     string
	Template inventory.Template
}

// Droplets are those of one cluster: the adapter tags what it creates with the
// cluster's uid and the pool, and neither lists nor deletes any other.
// Every call obeys its context and sends one request, never resending by itself.
type Droplets interface {
	// Create makes droplets. Errors: *Refused, ErrThrottled, ErrAmbiguous.
	Create(ctx context.Context, req CreateRequest) ([]Droplet, error)
	// List returns all, or an error: never a part. It may lag behind Create and Delete.
	List(ctx context.Context) ([]Droplet, error)
	// Get asks for one by id, which does not lag. Errors: ErrNotFound. A droplet
	// that lacks the cluster's tag is a *Refused.
	Get(ctx context.Context, id int64) (Droplet, error)
	// Adopt tags a droplet made elsewhere as one of this cluster and pool.
	// Errors: ErrNotFound, *Refused (also when it bears another cluster's tag).
	Adopt(ctx context.Context, id int64, pool string) error
	// Delete asks for its destruction. ErrNotFound: it is gone already.
	Delete(ctx context.Context, id int64) error
}
