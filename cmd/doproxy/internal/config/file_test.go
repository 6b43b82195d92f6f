package config

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestRoundTrip(t *testing.T) {
	full := &File{}
	fill(reflect.ValueOf(full).Elem(), new(0))
	for name, f := range map[string]*File{
		"full": full,
		"none": {},
		"empty lists": {
			API: APIFile{Listen: []string{}}, HAProxy: HAProxyFile{Bind: []string{}},
			Pools: []PoolFile{{Name: "web", Max: new(0), Desired: new(0), Template: TemplateFile{Image: "123"}}},
		},
		"odd text": {Cluster: "123", Node: "true", StateDir: "null", Token: "1e5", Pools: []PoolFile{{
			Name: "~", HostnamePrefix: "off", Template: TemplateFile{Region: "- a", Size: "a: b", Image: "# c", UserData: "#!/bin/sh\n\techo \"a\" > 'b' # c\n\n  x: {{ y }}\n", Tags: []string{"a:b", "1", "*x", "&y"}},
		}}},
		"no newline": {Pools: []PoolFile{{Name: "a", Template: TemplateFile{UserData: "#cloud-config\npackages: [nginx]"}}}},
		"newlines":   {Pools: []PoolFile{{Name: "a", Template: TemplateFile{UserData: "a\n\n\n"}}}},
		"indented":   {Pools: []PoolFile{{Name: "a", Template: TemplateFile{UserData: "  a\nb\n"}}}},
	} {
		data, err := f.YAML()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode("f.yml", data)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, data)
		} else if !reflect.DeepEqual(got, f) {
			t.Errorf("%s: got\n%+v\nwant\n%+v\n%s", name, got, f, data)
		}
	}
}

// fill gives every field a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	switch {
	case v.Type() == durationType:
		v.SetInt(int64(time.Duration(*n) * 1500 * time.Millisecond))
	case v.Kind() == reflect.Struct:
		for _, f := range v.Fields() {
			fill(f, n)
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprintf("text %d", *n))
	case v.Kind() == reflect.Int, v.Kind() == reflect.Int64:
		v.SetInt(int64(*n))
	case v.Kind() == reflect.Float64:
		v.SetFloat(float64(*n) / 8)
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	}
}
