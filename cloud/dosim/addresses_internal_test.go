package dosim

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// Addresses are the simulator's own, are given once, and leave the parts of
// the /16 alone that others use.
func TestAddressesAreNeverShared(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := byte(rapid.IntRange(1, 255).Draw(t, "x"))
		privateCursor, reservedCursor := rapid.IntRange(0, 1<<20).Draw(t, "private"), rapid.IntRange(0, 1<<20).Draw(t, "reserved")
		used := map[netip.Addr]bool{}
		taken := func(a netip.Addr) bool { return used[a] }
		for range rapid.IntRange(1, 600).Draw(t, "n") {
			private, err := takePrivate(x, &privateCursor, taken)
			if err != nil {
				t.Fatal(err)
			}
			given := []netip.Addr{private, publicOf(private)}
			if reserved, err := takeReserved(x, &reservedCursor, taken); err == nil {
				given = append(given, reserved)
			}
			for _, a := range given {
				b := a.As4()
				if used[a] || b[0] != 127 || b[1] != x || b[2] == 0 || b[2] >= 254 || b[3] == 0 || b[3] == 255 {
					t.Fatalf("%s was given, used %v", a, used[a])
				}
				used[a] = true
			}
		}
	})
}

func TestAddressesRunOut(t *testing.T) {
	cursor, used := 0, map[netip.Addr]bool{}
	for range (lastReserved - firstReserved + 1) * 254 {
		a, err := takeReserved(64, &cursor, func(a netip.Addr) bool { return used[a] })
		if err != nil {
			t.Fatal(err)
		}
		used[a] = true
	}
	if a, err := takeReserved(64, &cursor, func(a netip.Addr) bool { return used[a] }); err == nil {
		t.Errorf("%s was given after all", a)
	}
}
