package digitalocean

import (
	"context"

	"github.com/digitalocean/godo"
)

// Prices of all sizes, those not available to the account too.
func (c *Client) Prices(ctx context.Context) (map[string]float64, error) {
	sizes, err := whole(ctx, "sizes", false, c.api.Sizes.List, func(s *godo.Size) string { return s.Slug })
	if err != nil {
		return nil, err
	}
	prices := make(map[string]float64, len(sizes))
	for _, s := range sizes {
		prices[s.Slug] = s.PriceHourly
	}
	return prices, nil
}
