package main

import (
	"cmp"
	"math"
)

// A stack shows shares of 100 percent on top of each other. The last trace is
// what the others leave, and stays blank.
type stack struct{ curves }

// draw tells two shares in a cell apart at an eighth of its height. Shares that
// have marks are filled with them.
func (st *stack) draw(f *frame, s stretch, ticks []label, x, y int) {
	st.axis.drawGrid(f, st.grid, ticks, x, y)
	var shares [][]extent
	for _, one := range st.traces[:len(st.traces)-1] {
		shares = append(shares, s.covered(one.column))
	}
	for col := range len(s.edges) / 2 {
		layers := st.layers(shares, col)
		for row := range st.height() {
			var inks [2 * half]ink
			cell := layers[len(layers)-len(inks)*(row+1):]
			for i := range inks {
				inks[i] = cell[i].ink
			}
			r, look := block(inks)
			if st.traces[0].mark != 0 {
				r, look = cmp.Or(cell[half].mark, ' '), style{fg: cell[half].ink}
			}
			if r != ' ' {
				f.put(x+col, y+row, look, string(r))
			}
		}
	}
}

// layers returns what is drawn in each eighth of a column of cells, from the
// bottom up. The lines of 0 and 100 are in the middle of a cell.
func (st *stack) layers(shares [][]extent, col int) []pen {
	layers := make([]pen, 2*half*st.height())
	top, sum := half, 0.0
	for i, share := range shares {
		if e := share[col]; e.n > 0 {
			sum += e.sum / float64(e.n)
		}
		bottom := top
		top = half + int(math.Round(sum/100*float64(len(layers)-2*half)))
		for n := max(bottom, half); n < min(top, len(layers)); n++ {
			layers[n] = st.traces[i].pen
		}
	}
	return layers
}
