package cloud

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Unix(1_800_000_000, 0)

func after(d time.Duration) time.Time { return start.Add(d) }

func TestAllowances(t *testing.T) {
	// spend sends n calls at a time after the start.
	spend := func(b *Budget, n int, at time.Duration) {
		for range n {
			b.Spend(after(at))
		}
	}
	const hour = time.Hour
	for _, test := range []struct {
		name string
		do   func(b *Budget)
		at   time.Duration
		want [classes]int
		// until is the wait of those who may do nothing.
		until [classes]time.Duration
	}{
		{"nothing told, nothing sent", func(*Budget) {}, 0, [classes]int{250, 240, 225, 200}, [classes]time.Duration{}},
		{"some sent", func(b *Budget) { spend(b, 30, 0) }, time.Second, [classes]int{220, 210, 195, 170}, [classes]time.Duration{}},
		{"polls are over", func(b *Budget) { spend(b, 200, 0) }, time.Second, [classes]int{50, 40, 25, 0}, [classes]time.Duration{Poll: time.Minute}},
		{"the minute is over for all", func(b *Budget) { spend(b, 100, 0); spend(b, 150, 10*time.Second) }, 20 * time.Second, [classes]int{},
			// One of failover's 250 ends with the first; delete waits for 11, create for 26, poll for 51: all among the first 100.
			[classes]time.Duration{time.Minute, time.Minute, time.Minute, time.Minute}},
		{"each waits for its own", func(b *Budget) {
			for i := range 250 {
				spend(b, 1, time.Duration(i)*100*time.Millisecond)
			}
		}, 30 * time.Second, [classes]int{},
			[classes]time.Duration{time.Minute, time.Minute + time.Second, time.Minute + 2500*time.Millisecond, time.Minute + 5*time.Second}},
		{"the minute has passed", func(b *Budget) { spend(b, 250, 0) }, time.Minute, [classes]int{250, 240, 225, 200}, [classes]time.Duration{}},
		{"plenty in the hour", func(b *Budget) { b.Told(5000, 4000, after(hour)) }, 0, [classes]int{250, 240, 225, 200}, [classes]time.Duration{}},
		{"the hour's rest is divided", func(b *Budget) { b.Told(5000, 1010, after(hour)) }, 0, [classes]int{250, 240, 225, 10}, [classes]time.Duration{}},
		{"what is sent since counts", func(b *Budget) { b.Told(5000, 1010, after(hour)); spend(b, 5, 0) }, 0, [classes]int{245, 235, 220, 5}, [classes]time.Duration{}},
		{"polls touch no reserve", func(b *Budget) { b.Told(5000, 1000, after(hour)) }, 0, [classes]int{250, 240, 225, 0}, [classes]time.Duration{Poll: hour}},
		{"creates touch no reserve", func(b *Budget) { b.Told(5000, 500, after(hour)) }, 0, [classes]int{250, 240, 0, 0}, [classes]time.Duration{Create: hour, Poll: hour}},
		{"deletes touch no reserve", func(b *Budget) { b.Told(5000, 200, after(hour)) }, 0, [classes]int{200, 0, 0, 0}, [classes]time.Duration{Delete: hour, Create: hour, Poll: hour}},
		{"nothing is left", func(b *Budget) { b.Told(5000, 0, after(hour)) }, 0, [classes]int{}, [classes]time.Duration{hour, hour, hour, hour}},
		{"one look after the reset", func(b *Budget) { b.Told(5000, 0, after(10*time.Second)) }, 10 * time.Second, [classes]int{250, 1, 1, 1}, [classes]time.Duration{}},
		{"a look is under way", func(b *Budget) { b.Told(5000, 0, after(10*time.Second)); spend(b, 1, 11*time.Second) }, 12 * time.Second,
			[classes]int{Failover: 249}, [classes]time.Duration{0, 11*time.Second + lookWait, 11*time.Second + lookWait, 11*time.Second + lookWait}},
		{"a look was not answered", func(b *Budget) { b.Told(5000, 0, after(10*time.Second)); spend(b, 1, 11*time.Second) }, 11*time.Second + lookWait,
			[classes]int{249, 1, 1, 1}, [classes]time.Duration{}},
		{"a look was answered", func(b *Budget) {
			b.Told(5000, 0, after(10*time.Second))
			spend(b, 1, 11*time.Second)
			b.Told(5000, 3, after(20*time.Second))
		}, 12 * time.Second, [classes]int{3, 0, 0, 0}, [classes]time.Duration{0, 20 * time.Second, 20 * time.Second, 20 * time.Second}},
		{"plenty after the reset", func(b *Budget) { b.Told(5000, 4000, after(time.Second)) }, 2 * time.Second, [classes]int{250, 240, 225, 200}, [classes]time.Duration{}},
		{"told nonsense", func(b *Budget) { b.Told(0, 0, after(hour)) }, 0, [classes]int{250, 240, 225, 200}, [classes]time.Duration{}},
		{"a hold stops all", func(b *Budget) { b.Hold(after(7 * time.Second)) }, 0, [classes]int{},
			[classes]time.Duration{7 * time.Second, 7 * time.Second, 7 * time.Second, 7 * time.Second}},
		{"a hold is over", func(b *Budget) { b.Hold(after(7 * time.Second)) }, 7 * time.Second, [classes]int{250, 240, 225, 200}, [classes]time.Duration{}},
		{"a hold is never shortened", func(b *Budget) { b.Hold(after(7 * time.Second)); b.Hold(after(time.Second)) }, 2 * time.Second, [classes]int{},
			[classes]time.Duration{7 * time.Second, 7 * time.Second, 7 * time.Second, 7 * time.Second}},
		{"the later of hold and reset", func(b *Budget) { b.Told(5000, 300, after(hour)); b.Hold(after(7 * time.Second)) }, 0, [classes]int{},
			[classes]time.Duration{7 * time.Second, 7 * time.Second, hour, hour}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b Budget
			test.do(&b)
			got := b.Allowances(after(test.at))
			for c := range classes {
				var until time.Time
				if test.want[c] == 0 {
					until = after(test.until[c])
				}
				if got[c].N != test.want[c] || !got[c].Until.Equal(until) {
					t.Errorf("%s: %d until %v, want %d until %v", c, got[c].N, got[c].Until.Sub(start), test.want[c], until.Sub(start))
				}
			}
		})
	}
}

// TestAllowanceIsSafe: whatever happened, a class that goes before another may
// do no less and waits no longer; who may do nothing is told a time to come; and
// the account's minute is never overdrawn.
func TestAllowanceIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b Budget
		now := start
		var sent []time.Time
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond)
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				limit := rapid.IntRange(0, 5000).Draw(t, "limit")
				b.Told(limit, rapid.IntRange(0, limit).Draw(t, "remaining"), now.Add(time.Duration(rapid.IntRange(-10, 3600).Draw(t, "reset"))*time.Second))
			case 1:
				b.Hold(now.Add(time.Duration(rapid.IntRange(-10, 120).Draw(t, "hold")) * time.Second))
			default:
				class := Class(rapid.IntRange(0, int(classes)-1).Draw(t, "class"))
				for range b.Allowances(now)[class].N {
					b.Spend(now)
					sent = append(sent, now)
				}
			}
			all := b.Allowances(now)
			for c := range classes {
				if a := all[c]; (a.N > 0) != a.Until.IsZero() || a.N == 0 && !a.Until.After(now) {
					t.Fatalf("%s: %+v at %v", c, a, now)
				}
				if c > 0 && (all[c-1].N < all[c].N || all[c-1].Until.After(all[c].Until)) {
					t.Fatalf("%s %+v, %s %+v", c-1, all[c-1], c, all[c])
				}
			}
			minute := 0
			for _, s := range sent {
				if now.Sub(s) < time.Minute {
					minute++
				}
			}
			if _, _, _, n := b.Usage(now); n != minute || n > minuteLimit {
				t.Fatalf("%d calls in the last minute, told %d", minute, n)
			}
		}
	})
}

func TestUsage(t *testing.T) {
	var b Budget
	if limit, remaining, reset, minute := b.Usage(start); limit != 0 || remaining != 0 || !reset.IsZero() || minute != 0 {
		t.Error(limit, remaining, reset, minute)
	}
	b.Spend(start)
	b.Told(5000, 4999, after(time.Hour))
	b.Spend(after(time.Second))
	if limit, remaining, reset, minute := b.Usage(after(2 * time.Second)); limit != 5000 || remaining != 4998 || !reset.Equal(after(time.Hour)) || minute != 2 {
		t.Error(limit, remaining, reset, minute)
	}
	if _, remaining, _, minute := b.Usage(after(time.Minute)); remaining != 4998 || minute != 1 {
		t.Error(remaining, minute)
	}
}
