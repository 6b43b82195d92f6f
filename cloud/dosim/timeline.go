package dosim

import (
	"container/heap"
	"sync"
	"time"
)

// timeline calls functions when their time has come, one at a time. One
// goroutine serves them all; nothing polls.
type timeline struct {
	mu   sync.Mutex
	due  dueHeap
	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

func newTimeline() *timeline {
	t := &timeline{wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go t.run()
	return t
}

// at asks for a call of fn at the given time, or at once when it has passed.
func (t *timeline) at(when time.Time, fn func()) {
	t.mu.Lock()
	heap.Push(&t.due, due{when: when, fn: fn})
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// close ends the timeline, waits for a call under way and drops the rest. No
// function that the timeline calls may call it.
func (t *timeline) close() {
	close(t.stop)
	<-t.done
}

func (t *timeline) run() {
	defer close(t.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		fn, wait := t.next(time.Now())
		if fn != nil {
			fn()
			select {
			case <-t.stop:
				return
			default:
				continue
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-t.wake:
		case <-t.stop:
			return
		}
	}
}

// next takes the first function that is due, or says how long there is to wait.
func (t *timeline) next(now time.Time) (fn func(), wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.due) == 0 {
		return nil, time.Hour
	}
	if wait := t.due[0].when.Sub(now); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&t.due).(due).fn, 0
}

type due struct {
	when time.Time
	fn   func()
}

type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].when.Before(h[j].when) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(due)) }
func (h *dueHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
