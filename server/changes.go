package server

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// changes lists the fields in which two pools differ, in the order in which the
// message declares them.
func changes(before, after *pb.Pool) []*pb.FieldChange {
	var out []*pb.FieldChange
	diff(before.ProtoReflect(), after.ProtoReflect(), "", func(field, a, b string) {
		out = append(out, &pb.FieldChange{Field: field, Before: effective(field, a), After: effective(field, b)})
	})
	return out
}

// settingChanges lists the fields in which two settings differ, likewise.
func settingChanges(before, after *pb.Settings) []*pb.FieldChange {
	var out []*pb.FieldChange
	diff(before.ProtoReflect(), after.ProtoReflect(), "", func(field, a, b string) {
		if field != "etag" {
			out = append(out, &pb.FieldChange{Field: field, Before: effective(field, a), After: effective(field, b)})
		}
	})
	return out
}

// defaults are what a field that is not set comes to, as inventory.Backend,
// inventory.Policy, inventory.Limits and inventory.Ingress have it.
var defaults = map[string]string{
	"backend.port":            "80",
	"backend.balance":         "roundrobin",
	"backend.health_path":     "/",
	"backend.check_interval":  "2s",
	"backend.fall":            "3",
	"backend.rise":            "2",
	"backend.max_connections": "no limit",
	"backend.hosts":           "any",
	"backend.paths":           "any",
	"policy.boot_deadline":    "10m0s",
	"policy.drain_deadline":   "5m0s",

	"limits.droplets":       "no limit",
	"limits.cost_hourly":    "no limit",
	"limits.creates_hourly": "no limit",
	"limits.leave_percent":  "no limit",
	"ingress.reserved_ips":  "none",
	"ingress.dns":           "none",
	"ingress.fail_after":    "300ms",
	"ingress.settle_after":  "30s",
	"ingress.stale_after":   "15s",
	"ingress.hold_down":     "5s",
}

// effective is a value, or the default that holds in its place.
func effective(field, value string) string {
	if value != "" && value != "0" {
		return value
	}
	if otherwise, ok := defaults[field]; ok {
		return otherwise + " (default)"
	}
	return value
}

func diff(before, after protoreflect.Message, at string, report func(field, a, b string)) {
	fields := before.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		path := at + string(f.Name())
		if f.Message() != nil && !f.IsList() && f.Message().FullName() != "google.protobuf.Duration" {
			diff(before.Get(f).Message(), after.Get(f).Message(), path+".", report)
			continue
		}
		if a, b := show(f, before.Get(f)), show(f, after.Get(f)); a != b {
			report(path, a, b)
		}
	}
}

// show writes a value for people. User data may hold secrets and is long: what
// is shown is enough to see that it changed.
func show(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch {
	case f.IsList():
		var items []string
		for i := range v.List().Len() {
			if f.Message() != nil {
				items = append(items, showItem(v.List().Get(i).Message()))
				continue
			}
			items = append(items, v.List().Get(i).String())
		}
		return strings.Join(items, ", ")
	case f.Message() != nil:
		d, _ := v.Message().Interface().(*durationpb.Duration)
		if !v.Message().IsValid() {
			return ""
		}
		return d.AsDuration().String()
	case f.Name() == "user_data" && v.String() != "":
		return fmt.Sprintf("%d bytes, sha256 %x", len(v.String()), sha256.Sum256([]byte(v.String())))
	case !f.HasPresence() && v.Equal(f.Default()) && f.Kind() == protoreflect.StringKind:
		return ""
	}
	return v.String()
}

// showItem writes a message that stands in a list.
func showItem(m protoreflect.Message) string {
	n, ok := m.Interface().(*pb.DnsName)
	if !ok {
		return fmt.Sprint(m.Interface())
	}
	name := inventory.DNSName{Domain: n.GetDomain(), Name: n.GetName()}.FQDN()
	if n.GetTtl() == 0 {
		return name
	}
	return fmt.Sprintf("%s (ttl %d)", name, n.GetTtl())
}
