package main

import (
	"math"
	"strconv"
	"strings"
)

// A scale is the y axis: lines of the grid at round values, each the same number
// of rows apart.
type scale struct {
	low, high   float64
	parts, rows int // between the lowest and the highest line, and from each line to the next
}

const maxParts = 12

// newScale returns an axis for values from low to high, in at most this number of
// rows. Its lines are as close as they can be without wasting many rows.
func newScale(low, high float64, rows int) scale {
	power := math.Pow(10, math.Ceil(math.Log10(high-low)))
	best := scale{math.Floor(low/power) * power, math.Ceil(high/power) * power, 1, max(rows-1, 1)} // if only two lines fit
	wasted := rows
	for _, divisor := range []float64{100, 50, 40, 20, 10, 5, 4, 2, 1} {
		step := power / divisor
		first, last := math.Floor(low/step), math.Ceil(high/step)
		parts := int(last - first)
		each := (rows - 1) / parts
		if unused := rows - 1 - parts*each; parts <= maxParts && each >= 2 && unused < wasted {
			best, wasted = scale{first * step, last * step, parts, each}, unused
		}
		if wasted*7 < rows {
			break
		}
	}
	return best
}

func (s scale) height() int { return s.parts*s.rows + 1 }

// dot returns the row of dots for a value. A labeled value lies on its grid line.
func (s scale) dot(v float64) int {
	share := (s.high - min(max(v, s.low), s.high)) / (s.high - s.low)
	return 1 + int(math.Round(share*float64(4*s.parts*s.rows)))
}

// labels returns the texts of the axis, and the rows for them.
func (s scale) labels() (labels []label) {
	for i := range s.parts + 1 {
		v := s.high - (s.high-s.low)*float64(i)/float64(s.parts)
		labels = append(labels, label{i * s.rows, strconv.FormatFloat(v, 'g', 6, 64)})
	}
	return labels
}

// drawGrid draws the lines of the axes, with the upper left corner at x, y.
func (s scale) drawGrid(f *frame, st style, ticks []label, x, y int) {
	const dot = "·"
	for _, l := range s.labels() {
		line := []rune(strings.Repeat(dot+" ", (f.w-x+1)/2))
		for _, tick := range ticks { // no dots next to those of the vertical lines
			line[max(tick.at-1, 0)], line[min(tick.at+1, len(line)-1)] = ' ', ' '
		}
		f.put(x, y+l.at, st, string(line))
	}
	for _, tick := range ticks {
		for row := range s.height() {
			f.put(x+tick.at, y+row, st, dot)
		}
	}
}
