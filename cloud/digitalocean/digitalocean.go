// Package digitalocean is cloud.Droplets, cloud.ReservedIPs, cloud.DNS and
// cloud.Prices on DigitalOcean's API v2, through godo.
//
// godo's own retrying is left off: it sends a create again whose outcome is
// unknown. Every method sends each of its requests once. Only those that list
// may read their pages again, when the list changed under them.
package digitalocean

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/digitalocean/godo"

	"github.com/doproxy/doproxy/cloud"
	"github.com/doproxy/doproxy/inventory"
)

// DefaultBaseURL is that of the public API.
const DefaultBaseURL = "https://api.digitalocean.com/"

// Options are what New needs.
type Options struct {
	// Token returns the API token. It is asked before each request, so that a
	// token may be changed while the program runs.
	Token func() (string, error)
	// BaseURL of the API; default DefaultBaseURL. A path in it is kept.
	BaseURL string
	// Cluster is the uid that tags this cluster's droplets.
	Cluster string
	// UserAgent, such as doproxy/1.2.3. Default doproxy.
	UserAgent string
	// Transport sends the requests; default a clone of http.DefaultTransport.
	Transport http.RoundTripper
	// Budget is told of each request sent and of what each answer says of the
	// request limit; nil keeps none. It never holds a request back: who calls
	// looks at it first.
	Budget *cloud.Budget
}

// Validate names what is missing or cannot be.
func (o Options) Validate() error {
	if o.Token == nil {
		return errors.New("digitalocean: no token")
	}
	if !tagPattern.MatchString(o.Cluster) || len(clusterTag(o.Cluster)) > maxTag {
		return fmt.Errorf("digitalocean: cluster uid %q cannot be part of a tag: use letters, digits, dashes and underscores", o.Cluster)
	}
	u, err := url.Parse(o.BaseURL)
	if err != nil {
		return fmt.Errorf("digitalocean: base URL: %w", err)
	}
	if o.BaseURL != "" && (u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		return fmt.Errorf("digitalocean: base URL %q is not an http or https URL", o.BaseURL)
	}
	return nil
}

// StaticToken always returns token.
func StaticToken(token string) func() (string, error) {
	return func() (string, error) { return token, nil }
}

// Client calls the API for one cluster. It is safe for concurrent use.
type Client struct {
	api     *godo.Client
	cluster string // its tag

	mu     sync.Mutex
	limits Limits
}

var (
	_ cloud.Droplets    = (*Client)(nil)
	_ cloud.ReservedIPs = (*Client)(nil)
	_ cloud.DNS         = (*Client)(nil)
	_ cloud.Prices      = (*Client)(nil)
)

// Limits is the account's request limit as the API last told it; zero before.
type Limits struct {
	Limit     int       // requests an hour
	Remaining int       // of them
	Reset     time.Time // when the oldest request counts no more
	At        time.Time // when this was told
}

// New returns a client. It sends nothing.
func New(o Options) (*Client, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	base := o.BaseURL
	if base == "" {
		base = DefaultBaseURL
	}
	if !strings.HasSuffix(base, "/") {
		base += "/" // else the last part of its path is lost when paths are joined
	}
	agent := o.UserAgent
	if agent == "" {
		agent = "doproxy"
	}
	next := o.Transport
	if next == nil {
		next = http.DefaultTransport.(*http.Transport).Clone()
	}
	c := &Client{cluster: clusterTag(o.Cluster)}
	client := &http.Client{
		Transport: &transport{next: next, token: o.Token, seen: c.seen, budget: o.Budget},
		// The API does not redirect, and the token must not go elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var err error
	c.api, err = godo.New(client, godo.SetBaseURL(base), godo.SetUserAgent(agent))
	if err != nil {
		return nil, fmt.Errorf("digitalocean: %w", err)
	}
	return c, nil
}

// Limits as last told.
func (c *Client) Limits() Limits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limits
}

func (c *Client) seen(l Limits) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits = l
}

// Tags may hold letters, numbers, colons, dashes and underscores, up to 255
// characters. Source: DigitalOcean API v2, "tags".
const maxTag = 255

var tagPattern = regexp.MustCompile(`^[a-zA-Z0-9_:-]+$`)

const (
	clusterPrefix = "doproxy:"
	poolPrefix    = "doproxy-pool:"
)

func clusterTag(uid string) string { return clusterPrefix + uid }
func poolTag(pool string) string   { return poolPrefix + pool }

// reserved says that a tag is one of doproxy's own. The API keeps a tag in the
// capitals in which it was first written, and takes it in any.
func reserved(tag string) bool {
	return hasPrefixFold(tag, clusterPrefix) || hasPrefixFold(tag, poolPrefix)
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// owner is what a droplet's tags say: whether it is this cluster's, whether it
// is another's, and its pool.
func (c *Client) owner(tags []string) (ours, others bool, pool string) {
	for _, tag := range tags {
		switch {
		case strings.EqualFold(tag, c.cluster):
			ours = true
		case hasPrefixFold(tag, clusterPrefix):
			others = true
		case hasPrefixFold(tag, poolPrefix):
			if p := strings.ToLower(tag[len(poolPrefix):]); inventory.ValidName(p) == nil {
				pool = p
			}
		}
	}
	return ours, others, pool
}
