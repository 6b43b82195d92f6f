// Package cli is the client side of the doproxy command line: the commands that
// ask a node something and show its answer.
//
// Calling (session.go, servers.go, follow.go) is apart from showing (the files
// named render_*): a renderer is a pure function from the API's messages, a
// style and a moment to text.
package cli
