package inventory

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
)

// unknown holds the members of a record, at any depth of objects, that this
// program does not know: a JSON object, or nothing. Two versions of doproxy run
// side by side during an upgrade, and the older one must not strip what the
// newer one wrote. It is a string so that records stay comparable.
type unknown string

// decodeKeeping decodes value into the struct that into points at, and what
// that struct has no field for into keep.
func decodeKeeping(value []byte, into any, keep *unknown) error {
	strict := json.NewDecoder(bytes.NewReader(value))
	strict.DisallowUnknownFields()
	if err := strict.Decode(into); err == nil && len(bytes.TrimSpace(value[strict.InputOffset():])) == 0 {
		return nil // the usual case costs one pass
	}
	t := reflect.TypeOf(into).Elem()
	reflect.ValueOf(into).Elem().SetZero()
	if err := decodeLoose(value, into); err != nil {
		return err
	}
	rest, err := unknownMembers(value, t)
	if err != nil || len(rest) == 0 {
		return err
	}
	kept, err := marshal(rest)
	*keep = unknown(kept)
	return err
}

// unknownMembers is what the object has and the struct type t lacks.
func unknownMembers(object []byte, t reflect.Type) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil {
		return nil, err
	}
	fields := jsonFields(t)
	unknown := map[string]json.RawMessage{}
	for name, value := range members {
		field, ok := fields[strings.ToLower(name)]
		if !ok {
			unknown[name] = value
			continue
		}
		if !isObject(field) || !bytes.HasPrefix(bytes.TrimSpace(value), []byte("{")) {
			continue
		}
		rest, err := unknownMembers(value, field)
		if err != nil {
			return nil, err
		}
		if len(rest) > 0 {
			if unknown[name], err = marshal(rest); err != nil {
				return nil, err
			}
		}
	}
	return unknown, nil
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// isObject says that t is a struct of ours, not one that is written as text
// like a time or an address.
func isObject(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(textUnmarshaler)
}

// jsonFields are the types of t's fields by name in lower case, since
// encoding/json matches names without regard to case.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[strings.ToLower(name)] = f.Type
	}
	return fields
}

// mergeInto adds the members kept to an encoded record. What the record has
// itself wins.
func (u unknown) mergeInto(object []byte) ([]byte, error) {
	if u == "" {
		return object, nil
	}
	return mergeObjects(object, []byte(u))
}

func mergeObjects(object, extra []byte) ([]byte, error) {
	var have, add map[string]json.RawMessage
	if err := json.Unmarshal(object, &have); err != nil {
		return object, nil // no longer an object: the new value stands
	}
	if err := json.Unmarshal(extra, &add); err != nil {
		return nil, err
	}
	for name, value := range add {
		old, ok := have[name]
		switch {
		case !ok:
			have[name] = value
		case bytes.HasPrefix(old, []byte("{")) && bytes.HasPrefix(value, []byte("{")):
			merged, err := mergeObjects(old, value)
			if err != nil {
				return nil, err
			}
			have[name] = merged
		}
	}
	return marshal(have)
}
