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
	broken  bool // whether the next numbers are not connected to these
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

// add adds a number to each column. The columns are those of names, in which
// earlier numbers keep their names.
func (h *history) add(at time.Time, names []string, numbers []float64) {
	if h.start.IsZero() {
		h.start = at
	}
	if most := maxNumbers / max(len(names), 1); len(h.times) >= most-1 {
		h.drop(len(h.times) - most*7/8)
	}
	if !slices.Equal(h.names, names) {
		h.rename(slices.Clone(names))
	}
	t := max(at.Sub(h.start), h.newest())
	if h.broken {
		h.broken = false
		h.push(t, slices.Repeat([]float64{math.NaN()}, len(numbers)))
	}
	h.push(t, numbers)
}

// gap ends the curves, so that the next numbers are not connected to them.
func (h *history) gap() { h.broken = true }

func (h *history) push(t time.Duration, numbers []float64) {
	h.times = append(h.times, t)
	for i, x := range numbers {
		h.columns[i].add(x)
	}
}

// drop drops the oldest n numbers of each column.
func (h *history) drop(n int) {
	n -= n % blockSize
	h.times = slices.Delete(h.times, 0, n)
	for i := range h.columns {
		c := &h.columns[i]
		c.numbers, c.blocks = slices.Delete(c.numbers, 0, n), slices.Delete(c.blocks, 0, n/blockSize)
	}
}

// rename moves the numbers to the new places of their columns.
func (h *history) rename(names []string) {
	columns := make([]column, len(names))
	for i, name := range names {
		was := slices.Index(h.names, name)
		for n := range h.times {
			x := math.NaN()
			if was >= 0 {
				x = h.columns[was].numbers[n]
			}
			columns[i].add(x)
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
// steps begin at multiples of their length, so that a number stays in its pair as
// time goes on.
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

// covered returns the extent of a column in each pair of steps. A number counts
// for the whole time since the one before it, as readings do.
func (s stretch) covered(column int) []extent {
	c := &s.columns[column]
	covered := make([]extent, len(s.edges)/2)
	next := math.NaN()
	for i := range slices.Backward(covered) {
		from, to := s.edges[2*i], s.edges[2*i+2]
		switch {
		case from < to:
			covered[i], next = c.extent(from, to), c.numbers[from]
		case from > 0 && !math.IsNaN(c.numbers[from-1]):
			covered[i].add(next)
		}
	}
	return covered
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
