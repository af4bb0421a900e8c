package main

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"
)

const (
	stuckTime = 10 * time.Second       // for a client that does not read its replies
	grace     = 400 * time.Millisecond // for reads, writes and commands at shutdown
	brief     = 100 * time.Millisecond // the same for what takes no time unless something hangs
)

// errEnd ends a run without a failure.
var errEnd = errors.New("end of the run")

// A clock says when the next tick is due. Each tick is due a whole number of
// intervals after the one before, so that delays do not add up. With an interval
// of 0, every tick is due at once.
type clock struct {
	due      time.Time
	interval time.Duration
}

// next returns the clock of the next tick, the first one that is not due before
// t. The ticks in between are skipped.
func (c clock) next(t time.Time) clock {
	c.due = c.due.Add(c.interval)
	if missed := t.Sub(c.due); missed > 0 && c.interval > 0 {
		c.due = c.due.Add((missed + c.interval - 1) / c.interval * c.interval)
	}
	return c
}

// stamp returns the time of the tick by the current wall clock, or now if the
// tick is later than an interval.
func (c clock) stamp(now time.Time) time.Time {
	if off := c.due.Sub(now); -off <= c.interval {
		return now.Add(off)
	}
	return now
}

// sleep waits for d. It returns errEnd if ctx is done first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 && ctx.Err() == nil { // a timer would cost a connection for one reading 2 % of its CPU time
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return errEnd
	}
}

// await calls f, which may block forever, and returns its error. Once ctx is done,
// it waits only this much longer, and then returns errEnd.
func await(ctx context.Context, longer time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }() // ends with f, or with the process
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(longer):
		return errEnd
	}
}

// A brake holds up a run, for the button of the chart and for --ask. It has room
// for one token, which is in it during a pause.
type brake chan struct{}

func newBrake() brake { return make(brake, 1) }

func (b brake) pause()  { b <- struct{}{} }
func (b brake) resume() { <-b }

// wait waits until there is no pause. It returns errEnd if ctx is done first.
func (b brake) wait(ctx context.Context) error {
	select {
	case b <- struct{}{}:
		<-b
		return nil
	case <-ctx.Done():
		return errEnd
	}
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

func parsePositive(text string) (time.Duration, error) {
	d, err := parseDuration(text)
	if err == nil && d == 0 {
		err = errors.New("must be greater than 0")
	}
	return d, err
}
