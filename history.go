package main

import (
	"math"
	"slices"
	"time"
)

// A history holds the numbers that a chart has received, by column.
type history struct {
	start   time.Time
	times   []time.Duration // since start, ascending
	names   []string
	columns []column
}

// A column has a number for each time, where NaN is a gap. Because a picture may
// show hundreds of thousands, it also has the extent of each whole block of them.
type column struct {
	numbers []float64
	blocks  []extent
}

const (
	maxCurves  = 1 << 10
	maxNumbers = 1 << 21 // in all columns
	blockSize  = 64
)

func (c *column) add(x float64) {
	c.numbers = append(c.numbers, x)
	if n := len(c.numbers); n%blockSize == 0 {
		c.blocks = append(c.blocks, extentOf(c.numbers[n-blockSize:]))
	}
}

// extent returns the extent of a part of the column.
func (c *column) extent(from, to int) extent {
	first, end := (from+blockSize-1)/blockSize, to/blockSize
	if first >= end {
		return extentOf(c.numbers[from:to])
	}
	e := extentOf(c.numbers[from : first*blockSize])
	for _, block := range c.blocks[first:end] {
		e = e.with(block)
	}
	return e.with(extentOf(c.numbers[end*blockSize : to]))
}

// from returns a copy of the numbers from the beginning of a block on.
func (c column) from(n int) column {
	return column{slices.Clone(c.numbers[n:]), slices.Clone(c.blocks[n/blockSize:])}
}

// add adds a number to each column. The columns are those of names, in which
// earlier numbers keep their names.
func (h *history) add(at time.Time, names []string, numbers []float64) {
	if h.start.IsZero() {
		h.start = at
	}
	if most := maxNumbers / max(len(names), 1); len(h.times) >= most {
		h.drop(len(h.times) - most*7/8)
	}
	if !slices.Equal(h.names, names) {
		h.rename(slices.Clone(names))
	}
	h.times = append(h.times, max(at.Sub(h.start), h.newest()))
	for i, x := range numbers {
		h.columns[i].add(x)
	}
}

// gap ends the curves, so that the next numbers are not connected to them.
func (h *history) gap() {
	if len(h.times) == 0 {
		return
	}
	h.times = append(h.times, h.newest())
	for i := range h.columns {
		h.columns[i].add(math.NaN())
	}
}

// drop forgets about the oldest n numbers of each column.
func (h *history) drop(n int) {
	n -= n % blockSize
	h.times = slices.Clone(h.times[n:])
	for i, c := range h.columns {
		h.columns[i] = c.from(n)
	}
}

// rename moves the numbers to the new places of their columns.
func (h *history) rename(names []string) {
	columns := make([]column, len(names))
	for i, name := range names {
		if was := slices.Index(h.names, name); was >= 0 { // of two columns, which may have the same name
			columns[i] = h.columns[was].from(0)
			continue
		}
		for range h.times {
			columns[i].add(math.NaN())
		}
	}
	h.names, h.columns = names, columns
}

func (h *history) newest() time.Duration {
	if len(h.times) == 0 {
		return 0
	}
	return h.times[len(h.times)-1]
}

// A stretch is a part of a history, divided into steps of equal length. Pairs of
// them begin at multiples of it, so that a number stays in its pair as time goes
// on.
type stretch struct {
	*history
	begin, step time.Duration
	edges       []int // numbers edges[i] to edges[i+1] are those of step i
}

// stretch returns an even number n of steps, in pairs, that cover the given
// window. The last pair contains right.
func (h *history) stretch(right, window time.Duration, n int) stretch {
	s := stretch{history: h, step: max(window/time.Duration(n-2), 1), edges: make([]int, n+1)}
	last := int(right/s.step) | 1
	s.begin = time.Duration(last-n+1) * s.step
	for i := range s.edges {
		s.edges[i], _ = slices.BinarySearch(h.times, s.begin+time.Duration(i)*s.step)
	}
	return s
}

// at returns the step that contains t, which may be outside of the stretch.
func (s stretch) at(t time.Duration) int {
	return int(math.Floor(float64(t-s.begin) / float64(s.step)))
}

// last returns the number of a column before step i, or NaN.
func (s stretch) last(column, i int) float64 {
	if s.edges[i] == 0 {
		return math.NaN()
	}
	return s.columns[column].numbers[s.edges[i]-1]
}

// A bin is what the numbers of a column come to in one step.
type bin struct {
	extent
	first, last float64 // NaN at a gap, and if there are none
}

// bins returns a bin for each step of a column.
func (s stretch) bins(column int) []bin {
	bins := make([]bin, len(s.edges)-1)
	for i := range bins {
		bins[i] = bin{first: math.NaN(), last: math.NaN()}
		if from, to := s.edges[i], s.edges[i+1]; from < to {
			c := &s.columns[column]
			bins[i] = bin{c.extent(from, to), c.numbers[from], c.numbers[to-1]}
		}
	}
	return bins
}

// covered returns bins in which a number counts for the whole time since the one
// before it, as readings do.
func (s stretch) covered(column int) []bin {
	bins := s.bins(column)
	for i := len(bins) - 2; i >= 0; i-- {
		if s.edges[i] == s.edges[i+1] && !math.IsNaN(s.last(column, i)) && !math.IsNaN(bins[i+1].first) {
			bins[i] = bin{extentOf([]float64{bins[i+1].first}), bins[i+1].first, bins[i+1].first}
		}
	}
	return bins
}

func (e extent) with(other extent) extent {
	switch {
	case other.n == 0:
		return e
	case e.n == 0:
		return other
	}
	return extent{e.n + other.n, min(e.min, other.min), max(e.max, other.max), e.sum + other.sum}
}

func extentOf(numbers []float64) extent {
	var e extent
	for _, x := range numbers {
		e.add(x)
	}
	return e
}
