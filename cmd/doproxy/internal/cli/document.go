package cli

import (
	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// Document is what a configuration file defines of the cluster.
type Document struct {
	// Pools to create or change. A desired of zero leaves what is wanted as it is.
	Pools []*doproxyv1.Pool
	// Settings are nil if the file has none. If it has one part of them, the
	// other is nil and stays as it is.
	Settings *doproxyv1.Settings
}

// outputOnly are the fields of a pool and of the settings that apply ignores.
var outputOnly = map[protoreflect.FullName]bool{
	"doproxy.v1.Pool.serving": true, "doproxy.v1.Pool.starting": true, "doproxy.v1.Pool.leaving": true,
	"doproxy.v1.Pool.reason": true, "doproxy.v1.Pool.retry_time": true, "doproxy.v1.Pool.cost_hourly": true,
	"doproxy.v1.Pool.etag": true, "doproxy.v1.Pool.create_time": true, "doproxy.v1.Pool.failures": true,
	"doproxy.v1.Pool.stop_time": true, "doproxy.v1.Pool.rewound_time": true, "doproxy.v1.Settings.etag": true,
}

// explicit are fields that are written although they are zero: their default is
// another value.
var explicit = map[protoreflect.FullName]bool{
	"doproxy.v1.Pool.desired": true, "doproxy.v1.Pool.min": true, "doproxy.v1.Pool.max": true,
}

// yamlKeys are the keys of the configuration file that differ from the field's
// name.
var yamlKeys = map[protoreflect.Name]string{"max_connections": "maxconn"}

// formatYAML writes the settable fields of a document: those of the settings
// under "limits:" and "ingress:", also when they are empty, then those of pools
// under "pools:".
func formatYAML(doc Document) ([]byte, error) {
	var out yaml.MapSlice
	if doc.Settings != nil {
		out = append(out,
			yaml.MapItem{Key: "limits", Value: settable(doc.Settings.GetLimits().ProtoReflect())},
			yaml.MapItem{Key: "ingress", Value: settable(doc.Settings.GetIngress().ProtoReflect())})
	}
	if len(doc.Pools) > 0 {
		list := make([]yaml.MapSlice, len(doc.Pools))
		for i, p := range doc.Pools {
			list[i] = settable(p.ProtoReflect())
			list[i][0].Value = poolID(p.GetName())
		}
		out = append(out, yaml.MapItem{Key: "pools", Value: list})
	}
	return yaml.MarshalWithOptions(out, yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
}

func settable(m protoreflect.Message) yaml.MapSlice {
	out := yaml.MapSlice{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) && !explicit[fd.FullName()] || outputOnly[fd.FullName()] {
			continue
		}
		v := yamlValue(fd, m.Get(fd))
		if inner, ok := v.(yaml.MapSlice); ok && len(inner) == 0 {
			continue
		}
		key := string(fd.Name())
		if other, ok := yamlKeys[fd.Name()]; ok {
			key = other
		}
		out = append(out, yaml.MapItem{Key: key, Value: v})
	}
	return out
}

func yamlValue(fd protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch {
	case fd.IsList():
		items := make([]any, v.List().Len())
		for i := range items {
			items[i] = v.List().Get(i).Interface()
			if fd.Kind() == protoreflect.MessageKind {
				items[i] = settable(v.List().Get(i).Message())
			}
		}
		return items
	case fd.Kind() == protoreflect.MessageKind:
		if d, ok := v.Message().Interface().(*durationpb.Duration); ok {
			return d.AsDuration().String()
		}
		return settable(v.Message())
	default:
		return v.Interface()
	}
}
