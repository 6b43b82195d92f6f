package main

import (
	"log/slog"
	"os"
	"time"

	"github.com/doproxy/doproxy/cloud/dosim"
	"github.com/spf13/cobra"
)

// settings are what the flags set.
type settings struct {
	sim       dosim.Options
	listen    string
	readyFile string
	verbose   bool
}

func command() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use:   "dosim",
		Short: "Simulate the DigitalOcean API v2 on this machine",
		Long: `Simulate the DigitalOcean API v2 on this machine, for development and tests.

Every droplet is a real HTTP server on a loopback address of its own. Calls
under /_sim/ make the simulator misbehave on purpose and count what it was
asked. Nothing it does costs anything or leaves the machine.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			// Cobra shows defaults: a token from the environment is not one of them.
			if env := os.Getenv("DOSIM_TOKEN"); env != "" && !c.Flags().Changed("token") {
				s.sim.Token = env
			}
			if s.sim.Token == "" {
				s.sim.Token = dosim.DefaultToken
			}
			level := slog.LevelWarn
			if s.verbose {
				level = slog.LevelInfo
			}
			s.sim.Logger = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return run(c.Context(), s, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&s.listen, "listen", "127.0.0.1:0", "`address` of the API; port 0 takes a free one")
	f.StringVar(&s.sim.Token, "token", dosim.DefaultToken, "bearer `token` that calls must carry (also DOSIM_TOKEN)")
	f.DurationVar(&s.sim.BootDelay, "boot-delay", 2*time.Second, "how long a created droplet is \"new\"")
	f.DurationVar(&s.sim.AppDelay, "app-delay", time.Second, "how long after \"active\" a droplet's HTTP server answers")
	f.DurationVar(&s.sim.DeleteDelay, "delete-delay", 500*time.Millisecond, "how long a deleted droplet still exists and answers")
	f.DurationVar(&s.sim.ActionDelay, "action-delay", 500*time.Millisecond, "how long droplet and reserved IP actions take")
	f.DurationVar(&s.sim.ListLag, "list-lag", 200*time.Millisecond, "how long a created droplet is missing from lists")
	f.IntVar(&s.sim.DropletPort, "droplet-port", dosim.DefaultDropletPort, "TCP `port` of the droplets' HTTP servers")
	f.StringVar(&s.sim.DropletPrefix, "droplet-prefix", dosim.AutoPrefix, "`/16` of the droplets' addresses, like 127.100; auto takes a free one")
	f.IntSliceVar(&s.sim.EntryPorts, "entry-port", nil, "TCP `port` at which reserved IPv4 addresses forward to their droplets; repeatable")
	f.DurationVar(&s.sim.MoveDelay, "move-delay", 0, "how long after an assign connections still go to the droplet before")
	f.BoolVar(&s.sim.CutOnMove, "cut-on-move", false, "reset open connections when their reserved IP moves")
	f.IntVar(&s.sim.DropletLimit, "droplet-limit", dosim.DefaultDropletLimit, "how many droplets the account may have")
	f.IntVar(&s.sim.RateLimitHour, "rate-limit-hour", 5000, "API calls an hour; 0 is no limit")
	f.IntVar(&s.sim.RateLimitMinute, "rate-limit-minute", 250, "API calls a minute; 0 is no limit")
	f.StringVar(&s.sim.StateFile, "state-file", "", "`file` that keeps the state over restarts")
	f.StringVar(&s.readyFile, "ready-file", "", "`file` to write the URL and more to, once calls are answered")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "log what happens to droplets")
	return c
}
