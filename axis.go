package main

import (
	"math"
	"strconv"
)

// A scale is the y axis: lines of the grid at round values, each the same number
// of rows apart.
type scale struct {
	low, high   float64
	parts, rows int // between the lowest and the highest line, and from each line to the next
}

func (s scale) height() int { return s.parts*s.rows + 1 }

// dot returns the row of dots for a value. The values of the lines lie on them.
func (s scale) dot(v float64) int {
	share := (s.high - min(max(v, s.low), s.high)) / (s.high - s.low)
	return 1 + int(math.Round(share*float64(4*s.parts*s.rows)))
}

// newScale divides the axis into as many parts as fit, unless that would waste
// many rows.
func newScale(low, high float64, rows int) scale {
	best := scale{low, high, 1, max(rows-1, 1)}
	most := 0
	for _, n := range []int{12, 10, 9, 7, 6, 5, 4, 3, 2, 1} { // not 8, which divides 20 into steps of 2.5
		step := (high - low) / float64(n)
		each := (rows - 1) / n
		if each < 2 || !isRound(step) || !isWhole(low/step) {
			continue
		}
		if n*each > most {
			best, most = scale{low, high, n, each}, n*each
		}
		if (rows-1-most)*7 < rows {
			break
		}
	}
	return best
}

// isRound reports whether x is 1, 2, 2.5 or 5 times a power of ten.
func isRound(x float64) bool {
	x /= math.Pow(10, math.Floor(math.Log10(x)+1e-9))
	for _, n := range []float64{1, 2, 2.5, 5} {
		if math.Abs(x-n) < 1e-6 {
			return true
		}
	}
	return false
}

func isWhole(x float64) bool { return math.Abs(x-math.Round(x)) < 1e-6 }

// roundAround returns round numbers, one of them at least 0 and one at most 0,
// between which least and most lie.
func roundAround(least, most float64) (low, high float64) {
	if largest := max(most, -least); least < 0 && largest > 0 {
		part := roundOver(largest) / 4
		if !isRound(part) {
			part = roundOver(largest) / 5
		}
		return math.Floor(least/part) * part, math.Ceil(max(most, 0)/part) * part
	}
	return 0, roundOver(most)
}

// roundOver returns the smallest 1, 2 or 5 times a power of ten that is not less
// than x, or 1 if x is not positive.
func roundOver(x float64) float64 {
	if !(x > 0) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, n := range []float64{1, 2, 5} {
		if n*power >= x {
			return n * power
		}
	}
	return 10 * power
}

// labels returns the texts of the axis, and the rows for them.
func (s scale) labels() (labels []label) {
	for i := range s.parts + 1 {
		v := s.high - (s.high-s.low)*float64(i)/float64(s.parts)
		labels = append(labels, label{i * s.rows, strconv.FormatFloat(v, 'g', 6, 64)})
	}
	return labels
}
