// Package fleet is the leader's brain. Plan is a pure function from what is
// wanted and what is seen to what is to be done; Loop, which one leader runs for
// the length of its term, does it: it commits the writes, makes the calls to the
// cloud, and feeds back what they brought.
//
// What keeps a crash, a timeout or a lagging list from costing a droplet:
//
//   - A name is on record, with the moment it was asked for, before the call that
//     asks for it is sent. A call whose outcome is unknown is not sent again: its
//     names are looked for in the cloud's list, and only a list sent after the call
//     must have taken effect frees the names that it lacks.
//   - What the list shows and no record has is adopted, what a record has and the
//     list lacks is asked for by id, and only the cloud's "no such droplet" is
//     believed.
//   - A droplet is deleted by id only, and only when its record says Deleting, or
//     when it is a second one of a recorded name.
//   - A record goes only when the cloud says that its droplet is gone.
//
// What the operator's limits, a pause, a stop after failures or the account's
// budget of calls hold up is told as a Note. Limits are counted from the records
// and the cloud's list alone, so that they hold whoever leads.
package fleet
