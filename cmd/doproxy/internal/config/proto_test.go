package config

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
	"github.com/doproxy/doproxy/server"
)

// A backup is what the API gives, written and read again.
func TestFormatProto(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPool(t, anyName.Draw(t, "name"))
		pools, settings := []*doproxyv1.Pool{server.SpecToProto(p.PoolSpec, p.Desired)}, server.SettingsToProto(drawSettings(t))
		data, err := FormatProto(pools, settings, "A backup.")
		if err != nil {
			t.Fatal(err)
		}
		gotPools, gotSettings, err := ParseProto("backup.yml", data)
		if err != nil {
			if strings.Contains(err.Error(), "is there twice") {
				t.Skip(err)
			}
			t.Fatalf("%v\n%s", err, data)
		}
		settings.Etag = ""
		if len(gotPools) != 1 || !proto.Equal(gotPools[0], pools[0]) || !proto.Equal(gotSettings, settings) {
			t.Fatalf("\n got %v %v\nwant %v %v\n%s", gotPools, gotSettings, pools, settings, data)
		}
	})
}

func TestParseProto(t *testing.T) {
	pools, settings, err := ParseProto("p.yml", []byte("limits: {droplets: 60}\npools:\n- name: web\n  min: 2\n  "+template1))
	if err != nil || len(pools) != 1 || pools[0].Name != "pools/web" || pools[0].Desired != 0 || pools[0].Min != 2 {
		t.Errorf("%v, %v", pools, err)
	}
	if settings.GetLimits().GetDroplets() != 60 || settings.Ingress != nil || settings.Etag != "" {
		t.Errorf("settings are %v", settings)
	}
	if _, settings, err := ParseProto("p.yml", []byte("name: web\n"+template1)); err != nil || settings != nil {
		t.Errorf("%v, %v", settings, err)
	}
}
