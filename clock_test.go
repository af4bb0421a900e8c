package main

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	const ms = time.Millisecond
	start := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		interval, now, late time.Duration // now is measured from the start
		n, want             int
	}{
		{1000 * ms, 30 * ms, 0, 0, 1},
		{1000 * ms, 999 * ms, 0, 0, 1},
		{1000 * ms, 1000 * ms, 0, 0, 1},
		{1000 * ms, 1001 * ms, 0, 0, 2}, // tick 1 became due before the reply arrived
		{1000 * ms, 5300 * ms, 0, 3, 6},
		{1000 * ms, 1499 * ms, 500 * ms, 0, 1}, // half an interval late is good enough
		{1000 * ms, 1500 * ms, 500 * ms, 0, 1},
		{1000 * ms, 1501 * ms, 500 * ms, 0, 2},
		{1000 * ms, 4250 * ms, 500 * ms, 1, 4},
		{1000 * ms, 4750 * ms, 500 * ms, 1, 5},
		{100 * ms, 199 * ms, 100 * ms, 0, 1},
		{100 * ms, 1e6 * ms, 0, 7, 10000},
		{0, 1e6 * ms, 0, 3, 4}, // as fast as replies come
		{time.Hour, 0, 0, -1, 0},
	} {
		c := clock{start, test.interval}
		if got := c.after(test.n, start.Add(test.now), test.late); got != test.want {
			t.Errorf("every %v, at %v, up to %v late: %d follows %d, want %d", test.interval, test.now, test.late, got, test.n, test.want)
		}
	}
	c := clock{start, 100 * ms}
	if got := c.at(100000); got.Sub(start) != 10000*time.Second {
		t.Errorf("tick 100000 is due after %v", got.Sub(start))
	}
}

// begin does not block if no pause is received, and a pause that has ended does not
// delay the receiver.
func TestPauses(t *testing.T) {
	p := make(pauses, 1)
	for range 3 {
		resume := p.begin()
		resume()
	}
	resume := p.begin()
	over := <-p
	select {
	case <-over:
		t.Error("the pause ended too early")
	case <-p:
		t.Error("more than one pause")
	default:
	}
	resume()
	<-over
}
