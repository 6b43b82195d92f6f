package digitalocean

import (
	"context"
	"strings"

	"github.com/digitalocean/godo"
)

// Others is how many droplets the account has of other clusters, by their uid.
func (c *Client) Others(ctx context.Context) (map[string]int, error) {
	all, err := whole(ctx, "tags", false, c.api.Tags.List, func(t *godo.Tag) string { return t.Name })
	if err != nil {
		return nil, err
	}
	others := map[string]int{}
	for _, t := range all {
		if !hasPrefixFold(t.Name, clusterPrefix) || strings.EqualFold(t.Name, c.cluster) || t.Resources == nil || t.Resources.Droplets == nil {
			continue
		}
		if n := t.Resources.Droplets.Count; n > 0 {
			others[t.Name[len(clusterPrefix):]] = n
		}
	}
	return others, nil
}
