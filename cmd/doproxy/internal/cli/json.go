package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The JSON of -o json is not protojson, whose int64 are strings and whose
// spacing is random on purpose: names are those of the proto files, every field
// is present, ids are numbers, enum values are their last word in lower case
// ("serving"), times are RFC 3339 and durations are seconds ("2s"). An unset
// message, time or duration is null. Field order is that of the proto files.

// messageJSON writes one message without spaces.
func messageJSON(m protoreflect.Message) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if i > 0 {
			b.WriteByte(',')
		}
		fd := fields.Get(i)
		b.WriteString(`"` + string(fd.Name()) + `":`)
		b.Write(fieldJSON(fd, m))
	}
	b.WriteByte('}')
	return b.Bytes()
}

func fieldJSON(fd protoreflect.FieldDescriptor, m protoreflect.Message) []byte {
	switch v := m.Get(fd); {
	case fd.IsMap():
		object := map[string]json.RawMessage{}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			object[k.String()] = valueJSON(fd.MapValue(), v)
			return true
		})
		return encodeJSON(object)
	case fd.IsList():
		items := make([]json.RawMessage, v.List().Len())
		for i := range items {
			items[i] = valueJSON(fd, v.List().Get(i))
		}
		return encodeJSON(items)
	case fd.HasPresence() && !m.Has(fd):
		return []byte("null")
	default:
		return valueJSON(fd, v)
	}
}

func valueJSON(fd protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		switch m := v.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			return encodeJSON(m.AsTime().Format(time.RFC3339Nano))
		case *durationpb.Duration:
			return encodeJSON(seconds(m))
		default:
			return messageJSON(v.Message())
		}
	case protoreflect.EnumKind:
		return encodeJSON(enumWord(fd.Enum(), v.Enum()))
	default:
		return encodeJSON(v.Interface())
	}
}

// seconds is protojson's form of a duration: "1.5s".
func seconds(d *durationpb.Duration) string {
	text := json.Number(jsonFloat(d.AsDuration().Seconds()))
	return text.String() + "s"
}

func jsonFloat(f float64) string { return string(encodeJSON(f)) }

// enumWord drops the type's name from a value's: PHASE_SERVING is "serving".
func enumWord(ed protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	vd := ed.Values().ByNumber(n)
	if vd == nil {
		return "unknown"
	}
	name := strings.ToLower(string(vd.Name()))
	return strings.TrimPrefix(name, strings.ToLower(string(ed.Name()))+"_")
}

func encodeJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return []byte("null") // NaN or infinity
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// protoJSON makes a message a value that encoding/json writes in this form.
func protoJSON(m proto.Message) json.RawMessage {
	return messageJSON(m.ProtoReflect())
}

// protoList does so for many; none are [].
func protoList[M proto.Message](ms []M) []json.RawMessage {
	list := make([]json.RawMessage, len(ms))
	for i, m := range ms {
		list[i] = protoJSON(m)
	}
	return list
}

// writeJSON writes v, indented by two spaces, and a newline.
func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	if err := json.Indent(&b, encodeJSON(v), "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// writeJSONLine writes v on one line.
func writeJSONLine(w io.Writer, v any) error {
	_, err := w.Write(append(encodeJSON(v), '\n'))
	return err
}
