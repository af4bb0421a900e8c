package main

import (
	"testing"
	"time"
)

// Ticks keep their phase, and those that are due before a reply are skipped.
func TestClock(t *testing.T) {
	const ms = time.Millisecond
	start := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	for _, test := range []struct{ interval, due, replied, want time.Duration }{ // from the start
		{1000 * ms, 0, -30 * ms, 1000 * ms}, // no reply since the tick
		{1000 * ms, 0, 30 * ms, 1000 * ms},
		{1000 * ms, 0, 999 * ms, 1000 * ms},
		{1000 * ms, 0, 1000 * ms, 1000 * ms},
		{1000 * ms, 0, 1001 * ms, 2000 * ms},
		{1000 * ms, 3000 * ms, 5300 * ms, 6000 * ms},
		{100 * ms, 9999900 * ms, 0, 1e7 * ms},
		{100 * ms, 700 * ms, 1e6*ms + 1, 1000100 * ms},
		{300 * ms, 100 * ms, time.Hour, time.Hour + 100*ms},
		{0, 0, 1e6 * ms, 0}, // at once
	} {
		c := clock{start.Add(test.due), test.interval}.next(start.Add(test.replied))
		if got := c.due.Sub(start); got != test.want || c.interval != test.interval {
			t.Errorf("every %v: after the tick at %v, replied at %v: %v, want %v", test.interval, test.due, test.replied, got, test.want)
		}
	}
}
