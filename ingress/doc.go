// Package ingress decides which node holds which reserved IP, and which A and
// AAAA records a name has. Plan is a pure function from what is wanted and what
// is seen to what is to be done; Loop, which one leader runs for the length of
// its term, does it: it commits the writes, makes the calls to the cloud, and
// feeds back what they brought.
//
// What keeps an address where clients reach it:
//
//   - The intended holder is on record before the call that assigns the address.
//     A call whose outcome is unknown is followed by a look at the address, and
//     no move counts before the cloud confirms it.
//   - An address leaves a node only for one that is fit, and stays where it is
//     if none is. It does not go back by itself.
//   - An address that was never assigned is not taken from a droplet that is none
//     of the nodes', unless an operator asks for it.
//   - A node must have been unfit for a while to lose what it has, and fit for
//     longer to get something again. Further moves of one address are held back,
//     for longer with each.
//   - A DNS record is created once its intent is on record, and one whose create
//     has an unknown outcome is looked for, not asked for again. Records that are
//     not on record are others'.
//   - A DNS record is deleted only while the cloud shows another of the same name
//     and family whose node is fit.
package ingress
