package main

import (
	"errors"
	"math"
	"strconv"
	"time"
)

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

// parseDuration reads a time as people type it: 2, 0.5, 500ms or 1m; a number
// alone is seconds.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if f, ferr := strconv.ParseFloat(text, 64); ferr == nil && !math.IsNaN(f) {
		if math.Abs(f) >= math.MaxInt64/float64(time.Second) {
			return 0, errors.New("value out of range")
		}
		d, err = time.Duration(f*float64(time.Second)), nil
	}
	switch {
	case err != nil:
		return 0, errors.New("not a duration (examples: 2, 0.5, 500ms, 1m)")
	case d < 0:
		return 0, errors.New("must not be negative")
	}
	return d, nil
}

// parseInterval reads the time between readings. The counters are too coarse for
// less than 100 ms; 0 is as fast as possible.
func parseInterval(text string) (time.Duration, error) {
	d, err := parseDuration(text)
	if err == nil && d > 0 && d < 100*time.Millisecond {
		err = errors.New("must be 0 or at least 0.1")
	}
	return d, err
}
