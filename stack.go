package main

import (
	"math"
	"slices"
)

// eighths are the characters in which the lower eighths are filled.
var eighths = [...]string{"", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}

// drawStack draws shares of 100 percent on top of each other. In each cell, it
// tells two of them apart at an eighth of its height. If there is a mark for each,
// it fills them with marks.
func drawStack(f *frame, s stretch, columns []int, mark func(i int) string, x, y, rows int) {
	shares := make([][]bin, len(columns))
	for i, column := range columns {
		shares[i] = s.covered(column)
	}
	for col := range len(s.edges) / 2 {
		tops := stackTops(shares, col, rows)
		for row := range rows {
			layers := layersOf(tops, 8*(rows-1-row))
			text, st := stackCell(layers)
			if middle := layers[half]; mark != nil {
				text, st = "", style{fg: curveInk(middle)}
				if middle >= 0 {
					text = mark(middle)
				}
			}
			f.put(x+col, y+row, st, text)
		}
	}
}

const half = 4 // eighths: the lines of 0 and 100 are in the middle of a cell

// stackTops returns at which eighth above the bottom each layer ends in a column
// of cells.
func stackTops(shares [][]bin, col, rows int) []int {
	tops, sum := make([]int, len(shares)), 0.0
	for i, bins := range shares {
		if both := bins[2*col].with(bins[2*col+1].extent); both.n > 0 {
			sum += both.sum / float64(both.n)
		}
		tops[i] = half + int(math.Round(sum/100*float64(8*(rows-1))))
	}
	return tops
}

// layersOf returns which layer fills each eighth of a cell from bottom up, where
// -1 is none.
func layersOf(tops []int, bottom int) (layers [8]int) {
	for e := range layers {
		at := bottom + e
		layers[e] = slices.IndexFunc(tops, func(top int) bool { return at >= half && at < top })
	}
	return layers
}

// stackCell returns the look of a cell whose eighths are filled by these layers.
// The text is empty if that is none.
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
