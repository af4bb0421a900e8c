package main

import (
	"math"
	"slices"
)

// eighths are the characters in which the lower eighths are filled.
var eighths = [...]string{"", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}

// drawStack draws shares of 100 percent on top of each other. In each cell, it
// tells two of them apart at an eighth of its height. Without colors, it fills
// them with marks.
func drawStack(f *frame, s stretch, columns []int, l look, mark func(i int) string, x, y, rows int) {
	means := make([][]bin, len(columns))
	for i, column := range columns {
		means[i] = s.covered(column)
	}
	const half = 4 // the lines of 0 and 100 are in the middle of a cell
	for col := range len(s.edges) / 2 {
		tops, sum, known := make([]int, len(columns)), 0.0, false
		for i := range tops {
			a, b := means[i][2*col].extent, means[i][2*col+1].extent
			if n := a.n + b.n; n > 0 {
				sum += (a.sum + b.sum) / float64(n)
				known = true
			}
			tops[i] = half + int(math.Round(sum/100*float64(8*(rows-1))))
		}
		if !known {
			continue
		}
		for row := range rows {
			var layers [8]int // which column fills each eighth, from the lowest up
			for e := range layers {
				at := 8*(rows-1-row) + e
				layers[e] = slices.IndexFunc(tops, func(top int) bool { return at >= half && at < top })
			}
			text, st := stackCell(layers)
			if l.mono || l.ascii {
				text, st = "", style{fg: curveInk(layers[half])}
				if layers[half] >= 0 {
					text = mark(layers[half])
				}
			}
			f.put(x+col, y+row, st, text)
		}
	}
}

// stackCell returns the look of a cell whose eighths are filled by these layers,
// where -1 is none. It is empty if that is what all of them are.
func stackCell(layers [8]int) (text string, s style) {
	lower, upper := layers[0], layers[7]
	filled := 0 // eighths of the lower layer
	for filled < 8 && layers[filled] == lower {
		filled++
	}
	switch {
	case lower < 0 && upper < 0:
		return "", plain
	case lower < 0: // below zero
		return "▀", style{fg: curveInk(layers[6])}
	case upper < 0: // the uppermost layer ends here
		top := slices.Index(layers[:], -1)
		return eighths[top], style{fg: curveInk(layers[(top-1)/2])}
	}
	return eighths[filled], style{fg: curveInk(lower), bg: curveInk(upper)}
}
