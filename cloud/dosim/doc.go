// Package dosim simulates the part of the DigitalOcean API v2 that a program
// managing droplets calls, for development and tests.
//
// A [Sim] answers the API over HTTP through [Sim.Handler]. Every droplet it
// creates is a real HTTP server on a loopback address of its own, so load
// balancers and health checks can be pointed at it. Time passes as it does at
// DigitalOcean: a droplet is "new" for a while before it is "active", its
// application comes up later still, and a delete takes a moment.
//
// Under /_sim/ the simulator has calls of its own that make it misbehave on
// purpose and that count what was asked of it; [Admin] is their client.
//
// The package imports nothing of doproxy's and can be used alone; see
// docs/simulator.md.
package dosim
