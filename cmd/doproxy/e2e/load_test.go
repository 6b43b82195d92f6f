package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load sends a steady stream of requests through some nodes. They are POSTs,
// since Go's client sends a GET again by itself when a kept connection breaks:
// here every broken answer counts.
type load struct {
	t      testing.TB
	stop   context.CancelFunc
	wg     sync.WaitGroup
	sent   atomic.Int64
	failed atomic.Int64

	mu    sync.Mutex
	first []string // of the failures
}

// startLoad sends rate requests a second through each node until stopped.
func startLoad(t testing.TB, nodes []node, rate int) *load {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Minute)
	l := &load{t: t, stop: stop}
	const workers = 10
	for _, n := range nodes {
		transport := &http.Transport{MaxIdleConnsPerHost: workers, MaxConnsPerHost: workers, DialContext: n.dial}
		t.Cleanup(transport.CloseIdleConnections)
		client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
		for w := range workers {
			l.wg.Go(func() {
				every := time.Second * workers / time.Duration(rate)
				time.Sleep(every * time.Duration(w) / workers)
				for tick := time.Tick(every); ; {
					select {
					case <-ctx.Done():
						return
					case <-tick:
					}
					l.sent.Add(1)
					if err := post(client, n.HTTP); err != nil {
						l.fail(n, err)
					}
				}
			})
		}
	}
	return l
}

func post(client *http.Client, url string) error {
	response, err := client.Post(url, "text/plain", strings.NewReader("hello"))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, body)
	}
	return nil
}

func (l *load) fail(n node, err error) {
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.first) < 5 {
		l.first = append(l.first, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), n.Name, err))
	}
}

// more waits until so many more requests were sent.
func (l *load) more(n int64) {
	l.t.Helper()
	until := l.sent.Load() + n
	eventually(l.t, "the load goes on", func() error {
		if sent := l.sent.Load(); sent < until {
			return fmt.Errorf("%d of %d requests", sent, until)
		}
		return nil
	})
}

// end stops the load and fails the test on any failed request.
func (l *load) end() {
	l.t.Helper()
	l.stop()
	l.wg.Wait()
	l.t.Logf("%d requests, %d failed", l.sent.Load(), l.failed.Load())
	if l.failed.Load() > 0 {
		l.t.Errorf("%d of %d requests failed:\n%s", l.failed.Load(), l.sent.Load(), strings.Join(l.first, "\n"))
	}
}

// answers asks a node so many times and counts the droplets that answered.
func answers(n node, times int) (map[string]int, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	seen := map[string]int{}
	for range times {
		response, err := client.Get(n.HTTP)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s %w", n.HTTP, response.Status, err)
		}
		seen[response.Header.Get("X-Droplet-Name")]++
	}
	return seen, nil
}
