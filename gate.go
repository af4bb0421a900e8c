package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A gate ends the run once the readings have been below a limit, above one, or
// between two, for long enough without a break.
//
// Below a limit, and between two, all of them must be: the first column of each
// reading, each CPU of cores that is online, and each number of standard input.
// Above a limit, one of them is enough. An unknown number never is.
type gate struct {
	below, above float64       // NaN: no such limit
	hold         time.Duration // how long; 0: for one line
	interval     time.Duration // between lines; 0: that of the lines themselves
	all          bool          // whether every column counts, as those of standard input do

	last   time.Time // of the line before; zero at the beginning of a run
	gaps   []time.Duration
	held   time.Duration // since the last break
	most   time.Duration // that it ever held
	met    bool
	report func(progress string) // called with each line
}

// show takes a line. It returns errEnd if the condition is met with it.
func (g *gate) show(l line) error {
	if l.begins {
		g.last, g.held, g.gaps = time.Time{}, 0, nil
	}
	since := g.since(l.at)
	if g.holds(l) {
		g.held += since
		g.most = max(g.most, g.held)
		g.met = g.held >= g.hold
	} else {
		g.held = 0
	}
	g.report(g.text(g.held))
	if g.met {
		return errEnd
	}
	return nil
}

// since returns the time that a line counts for: the time since the line before
// it, but at most two intervals. A longer one is a break, so held starts again.
func (g *gate) since(at time.Time) time.Duration {
	last := g.last
	g.last = at
	if last.IsZero() {
		return g.interval
	}
	d := at.Sub(last)
	limit := 2 * g.usual(d)
	if d < 0 || d > limit {
		g.held = 0
	}
	return min(max(d, 0), limit)
}

const (
	maxGaps = 9                     // their median is the usual one, so that a single hole does not count
	minGap  = 50 * time.Millisecond // below that, lines have only arrived together
)

// usual returns the interval, or that of the lines before. d is the time since
// the last one.
func (g *gate) usual(d time.Duration) time.Duration {
	if g.interval > 0 {
		return g.interval
	}
	usual := d
	if n := len(g.gaps); n > 0 {
		usual = slices.Sorted(slices.Values(g.gaps))[n/2]
	}
	if d >= minGap {
		g.gaps = append(g.gaps[max(0, len(g.gaps)+1-maxGaps):], d)
	}
	return usual
}

// counted returns the numbers of a line that count. Those of a host's cores are
// one extent, because a CPU may be offline.
func (g *gate) counted(l line) (all []*extent) {
	cores := map[string]*extent{}
	for i, name := range l.names {
		host, w, column := columnOf(name)
		e := new(extent)
		switch {
		case g.all:
		case w == coresWord:
			e = cmp.Or(cores[host], e)
			cores[host] = e
		case column > 0:
			continue
		}
		e.add(l.value(i))
		all = append(all, e)
	}
	return all
}

func (g *gate) holds(l line) bool {
	counted := g.counted(l)
	if math.IsNaN(g.below) {
		return slices.ContainsFunc(counted, func(e *extent) bool { return e.n > 0 && e.max > g.above })
	}
	outside := func(e *extent) bool { return e.n == 0 || e.max >= g.below || e.min <= g.above }
	return len(counted) > 0 && !slices.ContainsFunc(counted, outside)
}

// text returns the condition, and how long it has held: below 10 for 3 of 5 s.
func (g *gate) text(held time.Duration) string {
	var limits []string
	if !math.IsNaN(g.above) {
		limits = append(limits, fmt.Sprintf("above %v", g.above))
	}
	if !math.IsNaN(g.below) {
		limits = append(limits, fmt.Sprintf("below %v", g.below))
	}
	text := strings.Join(limits, " and ")
	if g.hold > 0 {
		text += fmt.Sprintf(" for %v of %v s", held.Round(100*time.Millisecond).Seconds(), g.hold.Seconds())
	}
	return text
}

// missed returns the condition, and for how long it has held at most.
func (g *gate) missed() string {
	if g.hold == 0 {
		return g.text(0)
	}
	return g.text(g.most) + " at most"
}
