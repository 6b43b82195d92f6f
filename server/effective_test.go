package server

import (
	"testing"

	"github.com/doproxy/doproxy/inventory"
	pb "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func TestChangesShowTheDefaultThatHolds(t *testing.T) {
	got := changes(&pb.Pool{Desired: 2, Backend: &pb.Backend{Port: 8080}}, &pb.Pool{Backend: &pb.Backend{Balance: "leastconn"}})
	want := []string{"desired: 2 → 0", "backend.port: 8080 → 80 (default)", "backend.balance: roundrobin (default) → leastconn"}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i, c := range got {
		if s := c.Field + ": " + c.Before + " → " + c.After; s != want[i] {
			t.Errorf("got %q, want %q", s, want[i])
		}
	}
}

func TestAServingDropletIsUpOnceItIsApplied(t *testing.T) {
	d := &inventory.Droplet{Name: "web-1", Phase: inventory.Serving, Mod: 10}
	n := &inventory.Node{HAProxy: "running", Applied: 10, Seen: 9}
	if h := n.Health(d).Health; h != inventory.Up {
		t.Errorf("applied: %s", h)
	}
	n.Applied = 9
	if h := n.Health(d).Health; h != inventory.Unchecked {
		t.Errorf("not applied: %s", h)
	}
}
