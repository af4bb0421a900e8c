package main

import "time"

// A clock says when ticks are due: tick n is n intervals after the start, so
// that lateness never adds up. An interval of 0 makes every tick due at once.
type clock struct {
	start    time.Time
	interval time.Duration
}

func (c clock) at(n int) time.Time { return c.start.Add(time.Duration(n) * c.interval) }

// after gives the tick that follows n at the time now: the first that is due, or
// has been for no longer than late. Those in between are skipped.
func (c clock) after(n int, now time.Time, late time.Duration) int {
	n++
	if missed := now.Sub(c.at(n)) - late; missed > 0 && c.interval > 0 {
		n += int((missed + c.interval - 1) / c.interval)
	}
	return n
}

// pauses tell the polling to rest, until the channel that it finds in here is
// closed. The chart's button and --ask have one sender each; it never waits.
type pauses chan (<-chan struct{})

// begin begins a pause, and gives what ends it.
func (p pauses) begin() (resume func()) {
	over := make(chan struct{})
	select {
	case <-p: // one that was over before anybody noticed
	default:
	}
	p <- over
	return func() { close(over) }
}
