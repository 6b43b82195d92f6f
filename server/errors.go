package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doproxy/doproxy/inventory"
)

// ErrorDomain is the domain of every google.rpc.ErrorInfo of this API.
const ErrorDomain = "doproxy"

// Reasons of google.rpc.ErrorInfo. They are part of the API: a reason keeps its
// meaning. Beside each stands its gRPC code.
const (
	ReasonInvalid           = "INVALID"             // INVALID_ARGUMENT: a field cannot be so; BadRequest names field and mend
	ReasonRequestIDReused   = "REQUEST_ID_REUSED"   // INVALID_ARGUMENT: the id was used within the hour for another wish
	ReasonPoolNotFound      = "POOL_NOT_FOUND"      // NOT_FOUND
	ReasonDropletNotFound   = "DROPLET_NOT_FOUND"   // NOT_FOUND: nothing was done to the others named either
	ReasonOutOfBounds       = "OUT_OF_BOUNDS"       // OUT_OF_RANGE: the outcome is not within the pool's min and max
	ReasonPoolNotEmpty      = "POOL_NOT_EMPTY"      // FAILED_PRECONDITION: it has or wants droplets
	ReasonPoolChanged       = "POOL_CHANGED"        // ABORTED: the pool's etag is no longer the one given
	ReasonInventoryChanged  = "INVENTORY_CHANGED"   // ABORTED: the inventory's etag is no longer the one given
	ReasonContended         = "CONTENDED"           // ABORTED: others changed the same thing again and again; nothing was done
	ReasonOverridden        = "OVERRIDDEN"          // ABORTED: while a request was followed, others asked for something else
	ReasonStoreUnavailable  = "STORE_UNAVAILABLE"   // UNAVAILABLE: the store does not answer; nothing was done
	ReasonOutcomeUnknown    = "OUTCOME_UNKNOWN"     // UNAVAILABLE: the store did not answer; the change may have been made
	ReasonNodeBehind        = "NODE_BEHIND"         // UNAVAILABLE: this node's copy lags behind the store; nothing was done
	ReasonShuttingDown      = "SHUTTING_DOWN"       // UNAVAILABLE: this node ends; what was asked goes on; ask another node
	ReasonInventoryNotReady = "INVENTORY_NOT_READY" // UNAVAILABLE: this node has no copy of the inventory yet
	ReasonSettingsChanged   = "SETTINGS_CHANGED"    // ABORTED: the settings' etag is no longer the one given
	ReasonRecordUnreadable  = "RECORD_UNREADABLE"   // FAILED_PRECONDITION: a record that the change needs cannot be read, and was set aside
	ReasonNodeNotFound      = "NODE_NOT_FOUND"      // NOT_FOUND: the cluster knows no such node
	ReasonLastNode          = "LAST_NODE"           // FAILED_PRECONDITION: no other node serves
	ReasonNodeAlive         = "NODE_ALIVE"          // FAILED_PRECONDITION: only a node that is silent can be forgotten
	ReasonNodeUnfit         = "NODE_UNFIT"          // FAILED_PRECONDITION: the node cannot hold the address, or none can
	ReasonReservedIPUnknown = "RESERVED_IP_UNKNOWN" // NOT_FOUND: the settings have no such address
	ReasonPaused            = "PAUSED"              // FAILED_PRECONDITION: every change at the cloud is stopped
	ReasonNothingHeld       = "NOTHING_HELD"        // FAILED_PRECONDITION: the wipe guard holds nothing
	ReasonNotHeld           = "NOT_HELD"            // FAILED_PRECONDITION: it does not hold one of those named
	// The store lost the cluster, or a newer doproxy wrote it.
	ReasonUntrusted    = "INVENTORY_UNTRUSTED"
	ReasonNotEmpty     = "NOT_EMPTY"     // FAILED_PRECONDITION: the store holds an inventory
	ReasonRenderFailed = "RENDER_FAILED" // FAILED_PRECONDITION: there is no valid configuration to show
	ReasonInternal     = "INTERNAL"      // INTERNAL: a bug; the node's log has more
)

// problem is an error that the caller can act on. Its message is for people,
// the rest for programs.
type problem struct {
	code     codes.Code
	reason   string
	message  string
	metadata map[string]string
	fields   []*errdetails.BadRequest_FieldViolation
	subject  string        // of a FAILED_PRECONDITION: a resource name
	retry    time.Duration // when to try again; zero says nothing of it
	cause    error
}

func (p *problem) Error() string { return p.message }
func (p *problem) Unwrap() error { return p.cause }

// isProblem says whether an error is one of this reason.
func isProblem(err error, reason string) bool {
	var p *problem
	return errors.As(err, &p) && p.reason == reason
}

// GRPCStatus is what package status makes of the error.
func (p *problem) GRPCStatus() *status.Status {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: p.reason, Domain: ErrorDomain, Metadata: p.metadata}}
	if len(p.fields) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: p.fields})
	}
	if p.code == codes.FailedPrecondition {
		details = append(details, &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
			{Type: p.reason, Subject: p.subject, Description: p.message},
		}})
	}
	if p.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(p.retry)})
	}
	st := status.New(p.code, p.message)
	if with, err := st.WithDetails(details...); err == nil {
		return with
	}
	return st
}

// violations gathers what is wrong with a request, so that all of it is told at once.
type violations []*errdetails.BadRequest_FieldViolation

// check adds a violation unless ok. The mend goes on from the value: "must be …".
func (v *violations) check(ok bool, field string, value any, mend string) {
	if !ok {
		*v = append(*v, &errdetails.BadRequest_FieldViolation{Field: field, Description: describe(value) + " " + mend, Reason: ReasonInvalid})
	}
}

// describe quotes a value, cut where it gets long.
func describe(value any) string {
	s := fmt.Sprint(value)
	if r := []rune(s); len(r) > 80 {
		s = string(r[:77]) + "..."
	}
	if _, text := value.(string); text {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// err is nil if nothing is wrong.
func (v violations) err() error {
	if len(v) == 0 {
		return nil
	}
	var parts []string
	for _, f := range v {
		parts = append(parts, f.Field+": "+f.Description)
	}
	return &problem{code: codes.InvalidArgument, reason: ReasonInvalid, message: strings.Join(parts, "; "), fields: v}
}

func invalid(field string, value any, mend string) error {
	var v violations
	v.check(false, field, value, mend)
	return v.err()
}

func poolNotFound(pool string) error {
	return &problem{code: codes.NotFound, reason: ReasonPoolNotFound,
		message:  fmt.Sprintf("there is no pool %q: doproxy pools lists those that there are", pool),
		metadata: map[string]string{"pool": pool}}
}

func dropletNotFound(names []string) error {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = describe(n)
	}
	return &problem{code: codes.NotFound, reason: ReasonDropletNotFound,
		message:  fmt.Sprintf("there is no droplet %s: doproxy print lists those that there are; nothing was changed", strings.Join(quoted, ", ")),
		metadata: map[string]string{"droplets": strings.Join(names, " ")}}
}

// outOfBounds says that a pool cannot want n droplets.
func outOfBounds(p *inventory.Pool, n int64) error {
	bound, mend := fmt.Sprintf("above its max of %d", p.Max), "raise max (doproxy apply)"
	if n < int64(p.Min) {
		bound, mend = fmt.Sprintf("below its min of %d", p.Min), "lower min (doproxy apply)"
	}
	return &problem{code: codes.OutOfRange, reason: ReasonOutOfBounds,
		message: fmt.Sprintf("pool %s would want %d droplets, %s: ask for %d to %d, or %s; it wants %d now", p.Name, n, bound, p.Min, p.Max, mend, p.Desired),
		metadata: map[string]string{"pool": p.Name, "desired": fmt.Sprint(p.Desired), "asked": fmt.Sprint(n),
			"min": fmt.Sprint(p.Min), "max": fmt.Sprint(p.Max)}}
}

func poolNotEmpty(p *inventory.Pool, droplets int) error {
	message := fmt.Sprintf("pool %s still has %d droplets and wants %d: scale it to 0 (its min is %d) and wait until they are gone", p.Name, droplets, p.Desired, p.Min)
	return &problem{code: codes.FailedPrecondition, reason: ReasonPoolNotEmpty, message: message, subject: PoolName(p.Name),
		metadata: map[string]string{"pool": p.Name, "droplets": fmt.Sprint(droplets), "desired": fmt.Sprint(p.Desired)}}
}

func poolChanged(pool, want, have string) error {
	return &problem{code: codes.Aborted, reason: ReasonPoolChanged,
		message:  fmt.Sprintf("pool %s changed since etag %s was read: get it again and decide anew; nothing was changed", pool, describe(want)),
		metadata: map[string]string{"pool": pool, "etag": have}}
}

func inventoryChanged(have string) error {
	return &problem{code: codes.Aborted, reason: ReasonInventoryChanged,
		message:  "the inventory changed since the print: run doproxy print again; nothing was changed",
		metadata: map[string]string{"etag": have}}
}

func requestIDReused(id, first string) error {
	return &problem{code: codes.InvalidArgument, reason: ReasonRequestIDReused,
		message:  fmt.Sprintf("request_id: %s was used within the last hour for another wish (%s): use a new one", describe(id), first),
		metadata: map[string]string{"request_id": id, "first": first},
		fields: violations{{Field: "request_id", Reason: ReasonRequestIDReused,
			Description: describe(id) + " was used within the last hour for another wish (" + first + "): use a new one"}}}
}

func overridden(pool string, desired int) error {
	return &problem{code: codes.Aborted, reason: ReasonOverridden,
		message:  fmt.Sprintf("what is wanted of pool %s was lowered to %d meanwhile: not all that this call asked for will come to be", pool, desired),
		metadata: map[string]string{"pool": pool, "desired": fmt.Sprint(desired)}}
}

func settingsChanged(want, have string) error {
	return &problem{code: codes.Aborted, reason: ReasonSettingsChanged,
		message:  fmt.Sprintf("the settings changed since etag %s was read: get them again and decide anew; nothing was changed", describe(want)),
		metadata: map[string]string{"etag": have}}
}

// unreadable is for a change to a record that was set aside.
func unreadable(key, why string) error {
	return &problem{code: codes.FailedPrecondition, reason: ReasonRecordUnreadable, subject: key,
		message: fmt.Sprintf("the record %s cannot be read, and what it says is not known: %s; nothing was changed: look at it (doproxy store get %[1]s), delete it (doproxy store delete %[1]s), "+
			"or install the newer doproxy that wrote it", key, strings.TrimPrefix(why, key+": ")),
		metadata: map[string]string{"key": key, "error": why}}
}

func nodeNotFound(node string, known []string) error {
	return &problem{code: codes.NotFound, reason: ReasonNodeNotFound,
		message:  fmt.Sprintf("there is no node %q: the cluster knows %s", node, or(strings.Join(known, ", "), "none")),
		metadata: map[string]string{"node": node}}
}

func lastNode(node string) error {
	return &problem{code: codes.FailedPrecondition, reason: ReasonLastNode, subject: NodeName(node),
		message:  fmt.Sprintf("no node but %s serves: without it no client is served; put another one back first (doproxy node undrain)", node),
		metadata: map[string]string{"node": node}}
}

func nodeAlive(node string) error {
	return &problem{code: codes.FailedPrecondition, reason: ReasonNodeAlive, subject: NodeName(node),
		message:  fmt.Sprintf("node %s is alive: stop its agent first, or drain it (doproxy node drain %s)", node, node),
		metadata: map[string]string{"node": node}}
}

// nodeUnfit says why an address cannot go to a node; node may be empty for any.
func nodeUnfit(node, why string) error {
	subject := "nodes"
	if node != "" {
		subject = NodeName(node)
	}
	return &problem{code: codes.FailedPrecondition, reason: ReasonNodeUnfit, subject: subject, message: why + "; nothing was changed",
		metadata: map[string]string{"node": node}}
}

func reservedIPUnknown(address string, known []string) error {
	return &problem{code: codes.NotFound, reason: ReasonReservedIPUnknown,
		message: fmt.Sprintf("%s is not among ingress.reserved_ips, which has %s: add it there (doproxy apply) for doproxy to move it",
			address, or(strings.Join(known, ", "), "none")),
		metadata: map[string]string{"address": address}}
}

func paused(p *inventory.Pause) error {
	return &problem{code: codes.FailedPrecondition, reason: ReasonPaused, subject: "pause",
		message: pausedText(p) + ": end the pause first (doproxy resume); nothing was changed"}
}

func nothingHeld(pool string) error {
	subject, of := "pools", ""
	if pool != "" {
		subject, of = PoolName(pool), " of pool "+pool
	}
	return &problem{code: codes.FailedPrecondition, reason: ReasonNothingHeld, subject: subject,
		message: "the wipe guard holds nothing" + of + ": there is nothing to confirm (doproxy status shows what it holds)"}
}

func notHeld(names, held []string) error {
	return &problem{code: codes.FailedPrecondition, reason: ReasonNotHeld, subject: strings.Join(names, " "),
		message: fmt.Sprintf("the wipe guard does not hold %s: it holds %s; nothing was changed",
			strings.Join(names, ", "), enumerate(held)),
		metadata: map[string]string{"droplets": strings.Join(names, " ")}}
}

func notEmpty(what string) error {
	return &problem{code: codes.FailedPrecondition, reason: ReasonNotEmpty, subject: "meta",
		message: "the store is not empty: it holds " + what + "; only a store that lost its inventory is rebuilt; nothing was changed"}
}

func undrained(node string) error {
	return &problem{code: codes.Aborted, reason: ReasonOverridden,
		message:  fmt.Sprintf("node %s was put back into service meanwhile: its drain is over", node),
		metadata: map[string]string{"node": node}}
}

// notMoved is for a failover that was given up, or replaced by another.
func notMoved(address, to string, a *inventory.Assignment) error {
	message := fmt.Sprintf("reserved IP %s did not go to %s: it is with %s", address, to, or(a.Node, "no node"))
	switch {
	case a.Want != "":
		message += ", and somebody else asked for " + nodeOrAny(a.Want)
	case a.Error != "":
		message += ": " + a.Error
	}
	return &problem{code: codes.Aborted, reason: ReasonOverridden, message: message, metadata: map[string]string{"address": address, "node": a.Node}}
}

var (
	errShuttingDown = &problem{code: codes.Unavailable, reason: ReasonShuttingDown, retry: time.Second,
		message: "this node is shutting down: what was asked goes on; follow it at another node"}
	errNotReady = &problem{code: codes.Unavailable, reason: ReasonInventoryNotReady, retry: time.Second,
		message: "this node has no copy of the inventory yet: the store has not answered since it started"}
)

// behind is for a node whose copy does not come as far as the store has.
func behind(cause error) error {
	return &problem{code: codes.Unavailable, reason: ReasonNodeBehind, retry: 2 * time.Second, cause: cause,
		message: "this node's copy of the inventory lags behind the store; nothing was changed: try again, or at another node"}
}

// untrusted is for a store that answers, and whose records are not to be acted on.
func untrusted(cause error) error {
	mend := "see docs/operations.md: `doproxy rebuild` begins the inventory anew if the store was lost"
	switch {
	case errors.Is(cause, inventory.ErrSchema):
		mend = "ask a node that runs the newer one"
	case errors.Is(cause, inventory.ErrMoved):
		mend = "see docs/storage.md, moving between the stores"
	}
	return &problem{code: codes.FailedPrecondition, reason: ReasonUntrusted, cause: cause,
		message: cause.Error() + "; traffic is not affected and nothing was changed: " + mend}
}

// uncommitted is for an error of Store.Commit other than ErrConflict.
func uncommitted(err error, requestID string) error {
	if !errors.Is(err, inventory.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, inventory.ErrNotMember) {
		return err
	}
	mend := "look (doproxy status) before asking again; with a request_id asking again is always safe"
	if requestID != "" {
		mend = "ask again with the same request_id, which is safe: it counts once"
	}
	return &problem{code: codes.Unavailable, reason: ReasonOutcomeUnknown, retry: 2 * time.Second, cause: err,
		message:  "the store did not answer in time, and the change may or may not have been made; traffic is not affected: " + mend,
		metadata: map[string]string{"request_id": requestID}}
}

// noPart is an inventory.ErrNotMember without what was tried.
func noPart(err error) string {
	_, text, _ := strings.Cut(err.Error(), inventory.ErrUnavailable.Error()+": ")
	return text
}

// toStatus is the one place that turns errors into what goes over the wire.
func toStatus(err error) error {
	var p *problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &p):
		return p.GRPCStatus().Err()
	case errors.Is(err, inventory.ErrNotMember): // another node may be one
		p = &problem{code: codes.Unavailable, reason: ReasonStoreUnavailable, message: noPart(err) + "; traffic is not affected and nothing was changed"}
	case errors.Is(err, inventory.ErrUnavailable):
		p = &problem{code: codes.Unavailable, reason: ReasonStoreUnavailable, retry: 2 * time.Second,
			message: "the store does not answer; traffic is not affected and nothing was changed: try again when it does (doproxy status tells)"}
	case errors.Is(err, inventory.ErrConflict):
		p = &problem{code: codes.Aborted, reason: ReasonContended, retry: time.Second,
			message: "others changed the same thing again and again; nothing was changed: try again"}
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the caller went away")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the call's deadline passed")
	default:
		if _, ok := status.FromError(err); ok {
			return err
		}
		p = &problem{code: codes.Internal, reason: ReasonInternal, message: "something went wrong inside doproxy: " + err.Error()}
	}
	return p.GRPCStatus().Err()
}
