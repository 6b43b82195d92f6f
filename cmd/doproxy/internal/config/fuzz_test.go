package config

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/doproxy/doproxy/haproxy"
)

func FuzzParse(f *testing.F) {
	for _, c := range bad {
		f.Add([]byte(c.text))
	}
	f.Add([]byte(oldFile))
	f.Fuzz(func(t *testing.T, data []byte) {
		hang := time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("hangs on %q", data)) })
		defer hang.Stop()
		w := testWorld(badFiles)
		c, err := parse(file, data, w)
		if (c == nil) == (err == nil) {
			t.Errorf("configuration %v, error %v", c, err)
		}
		if err == nil {
			err := haproxy.Config{Global: c.HAProxy.Global, Binds: c.HAProxy.Binds, Timeouts: c.HAProxy.Timeouts}.Validate()
			if err != nil {
				t.Errorf("HAProxy cannot have it: %v", err)
			}
		}
		if d, err := parseDocument(file, data, w); err == nil {
			text, err := FormatDocument(d.Pools, d.Settings, "")
			if err != nil {
				t.Fatal(err)
			}
			if again, err := parseDocument(file, text, w); err != nil || !reflect.DeepEqual(again.Pools, d.Pools) {
				t.Errorf("%v, read from\n%s\n got %+v\nwant %+v", err, text, again, d)
			}
		}
		_, _ = ParseInventory(file, data)
	})
}
