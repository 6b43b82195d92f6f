package digitalocean

import (
	"context"
	"errors"
	"fmt"

	"github.com/digitalocean/godo"
)

// A list of more than a page is read again when its entries came or went
// meanwhile.
const (
	perPage      = 200 // the API's most
	listAttempts = 3
)

var errMoved = errors.New("the list changed while its pages were read")

// pager asks for one page of a list.
type pager[T any] func(ctx context.Context, page *godo.ListOptions) ([]T, *godo.Response, error)

// whole reads all pages of a list, or fails. Entries are told apart by id. With
// byID a 404 says that the thing that the list belongs to is gone. What is
// listed, such as "droplets", goes into errors.
func whole[T any, K comparable](ctx context.Context, what string, byID bool, read pager[T], id func(*T) K) ([]T, error) {
	for attempt := 1; ; attempt++ {
		all, err := once(ctx, what, byID, read, id)
		if err == nil || attempt == listAttempts || !errors.Is(err, errMoved) {
			return all, err
		}
	}
}

func once[T any, K comparable](ctx context.Context, what string, byID bool, read pager[T], id func(*T) K) ([]T, error) {
	var all []T
	seen := map[K]bool{}
	for page, total := 1, -1; total < 0 || len(all) < total; page++ {
		answer, resp, err := read(ctx, &godo.ListOptions{Page: page, PerPage: perPage})
		switch {
		case err != nil:
			return nil, translate(err, byID, "listing %s, page %d", what, page)
		case resp.Meta == nil:
			return nil, fmt.Errorf("listing %s, page %d: the answer lacks meta.total, so there is no telling whether it is whole", what, page)
		case total >= 0 && resp.Meta.Total != total, len(answer) == 0 && resp.Meta.Total > len(all):
			return nil, fmt.Errorf("listing %s, page %d: %w", what, page, errMoved)
		}
		total = resp.Meta.Total
		for i := range answer {
			k := id(&answer[i])
			if seen[k] {
				return nil, fmt.Errorf("listing %s, page %d: %w", what, page, errMoved)
			}
			seen[k] = true
		}
		if all = append(all, answer...); len(all) > total {
			return nil, fmt.Errorf("listing %s, page %d: %w", what, page, errMoved)
		}
	}
	return all, nil
}
