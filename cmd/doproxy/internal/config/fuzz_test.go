package config

import (
	"fmt"
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
		_, _ = parsePools(file, data, w)
		_, _ = ParseInventory(file, data)
	})
}
