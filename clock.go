package main

import (
	"errors"
	"math"
	"strconv"
	"time"
)

// A clock says when ticks are due: tick n is due n intervals after the start,
// so that delays do not add up. With an interval of 0, every tick is due at
// once.
type clock struct {
	start    time.Time
	interval time.Duration
}

func (c clock) at(n int) time.Time { return c.start.Add(time.Duration(n) * c.interval) }

// after returns the tick that follows tick n at the time now: the first one
// that is not due yet, or has been due for at most late. The ticks before it
// are skipped.
func (c clock) after(n int, now time.Time, late time.Duration) int {
	n++
	if missed := now.Sub(c.at(n)) - late; missed > 0 && c.interval > 0 {
		n += int((missed + c.interval - 1) / c.interval)
	}
	return n
}

// stamp returns the time of tick n by the current wall clock, or now if the tick
// is later than an interval.
func (c clock) stamp(n int, now time.Time) time.Time {
	if off := c.at(n).Sub(now); -off <= c.interval {
		return now.Add(off)
	}
	return now
}

// pauses pass on each pause of the chart or of --ask to the poller, as a
// channel that is closed when the pause ends. There is only one sender, and the
// buffer holds one pause, so sending never blocks.
type pauses chan (<-chan struct{})

// begin begins a pause and returns the function that ends it.
func (p pauses) begin() (resume func()) {
	done := make(chan struct{})
	select {
	case <-p: // a pause that ended before polling noticed it
	default:
	}
	p <- done
	return func() { close(done) }
}

// parseDuration parses a duration as people type it: 2, 0.5, 500ms or 1m. A
// number without a unit is in seconds.
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

// parseInterval parses the time between readings. It must be at least 100 ms,
// because the counters are too coarse for less, or 0, which means no pause.
func parseInterval(text string) (time.Duration, error) {
	d, err := parseDuration(text)
	if err == nil && d > 0 && d < 100*time.Millisecond {
		err = errors.New("must be 0 or at least 0.1")
	}
	return d, err
}

// seconds is the value of an option: a duration greater than 0, in the form of
// parseDuration.
type seconds struct{ time.Duration }

func (s *seconds) Set(text string) error {
	d, err := parseDuration(text)
	if err == nil && d == 0 {
		err = errors.New("must be greater than 0")
	}
	s.Duration = d
	return err
}

// interval is the value of an option: a duration in the form of parseInterval.
type interval struct{ seconds }

func (i *interval) Set(text string) (err error) {
	i.Duration, err = parseInterval(text)
	return err
}
