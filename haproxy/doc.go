// Package haproxy brings one HAProxy to a wanted state and keeps it there.
//
// Deciding is pure: Render turns a Config into a configuration file, Diff turns
// what HAProxy has and what it should have into changes. Executing is Sync: it
// makes changes of servers through the runtime API without a reload, keeps the
// file on disk in step, and makes every other change by one checked, confirmed
// reload that is rolled back when it fails.
//
// One mechanism keeps new sessions from a server, in the file and at run time
// alike: weight 0. A booting droplet has it and so has a draining one; HAProxy
// goes on checking the server's health, and a reload forgets nothing.
package haproxy
