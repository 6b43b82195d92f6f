package agent

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		logger := slog.New(newRepeats(slog.NewTextHandler(&out, nil))).With("node", "lb-1")
		count := func() int {
			defer out.Reset()
			return strings.Count(out.String(), "\n")
		}
		for range 3 {
			logger.Warn("away", "error", errors.New("refused"))
			logger.Warn("away", "error", errors.New("timeout"))
			logger.Info("event")
		}
		if got := count(); got != 2+3 {
			t.Errorf("%d lines, want each warning once and each event", got)
		}
		logger.With("peer", "lb-2").Warn("away", "error", errors.New("refused"))
		time.Sleep(repeatAfter)
		logger.Warn("away", "error", errors.New("refused"))
		if got := count(); got != 2 {
			t.Errorf("%d lines, want what is of another, and what is a minute old", got)
		}
	})
}
