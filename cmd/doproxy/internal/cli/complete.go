package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// completeTime is how long a Tab may take.
const completeTime = time.Second

// forCompletion runs f on a session that is silent and soon over.
func (c *client) forCompletion(cmd *cobra.Command, f func(*session) []string) ([]string, cobra.ShellCompDirective) {
	s, err := c.open(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer s.close()
	if s.ctx == nil {
		s.ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(s.ctx, completeTime)
	defer cancel()
	s.ctx, s.out, s.err = ctx, io.Discard, io.Discard
	return f(s), cobra.ShellCompDirectiveNoFileComp
}

func (s *session) poolWords(suffix, prefix string) (words []string) {
	pools, err := s.listPools()
	if err != nil {
		return nil
	}
	for _, p := range pools {
		if name := poolID(clean(p.GetName())); strings.HasPrefix(name, prefix) {
			words = append(words, fmt.Sprintf("%s%s\twants %d, serving %d", name, suffix, p.GetDesired(), p.GetServing()))
		}
	}
	return words
}

func (c *client) completePools(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.forCompletion(cmd, func(s *session) []string { return s.poolWords("", prefix) })
}

// completePool is for commands that take one pool.
func (c *client) completePool(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completePools(cmd, args, prefix)
}

func (c *client) completeScale(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if strings.Contains(prefix, "=") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	words, directive := c.forCompletion(cmd, func(s *session) []string { return s.poolWords("=", prefix) })
	return words, directive | cobra.ShellCompDirectiveNoSpace
}

// completeDroplets offers hostnames: an index means nothing before a print.
func (c *client) completeDroplets(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.forCompletion(cmd, func(s *session) (words []string) {
		list, err := s.listDroplets("")
		if err != nil {
			return nil
		}
		for _, d := range list.GetDroplets() {
			name := clean(d.GetHostname())
			if strings.HasPrefix(name, prefix) && !contains(args, name) {
				words = append(words, name+"\t"+describe(d))
			}
		}
		return words
	})
}

func describe(d *doproxyv1.Droplet) string {
	return fmt.Sprintf("%s in %s, id %s", phaseWord(d.GetPhase()), poolID(clean(d.GetPool())), idOf(d.GetId()))
}
