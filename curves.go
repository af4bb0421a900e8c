package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Curves are lines through the numbers of each trace. One alone is filled.
type curves struct {
	look
	traces    []trace
	low, high float64 // range of the numbers
	cpus      int     // for the line in a chart of load averages; 0 if unknown
	swatch    string  // in the legend, for a trace without a mark
	axis      scale
}

func (c *curves) lay(w, rows int) [][]entry {
	legend := c.legend(w, max(1, (rows+1)/5))
	c.axis = newScale(c.low, c.high, rows-len(legend))
	return legend
}

func (c *curves) height() int     { return c.axis.height() }
func (c *curves) labels() []label { return c.axis.labels() }

func (c *curves) draw(f *frame, s stretch, ticks []label, x, y int) {
	c.axis.drawGrid(f, c.grid, ticks, x, y)
	if cpus := float64(c.cpus); c.cpus > 0 && cpus < c.axis.high {
		f.put(x, y+c.axis.dot(cpus)/4, c.grid, strings.Repeat("╌", f.w-x))
	}
	w := len(s.edges) / 2
	b := newBraille(w, c.height())
	marks := map[int]int{} // the trace that has a mark in a cell
	for i := range c.traces {
		c.stroke(b, s, i, marks)
	}
	if c.ascii {
		for at, dots := range b.dots {
			if dots != 0 {
				marks[at] = b.curves[at]
			}
		}
	}
	if len(c.traces) == 1 {
		b.fill(c.axis.dot(max(0, c.axis.low)))
	}
	for at, dots := range b.dots {
		if dots != 0 {
			f.put(x+at%w, y+at/w, style{fg: c.traces[b.curves[at]].ink}, string(rune(0x2800+int(dots))))
		}
	}
	for at, i := range marks {
		f.put(x+at%w, y+at/w, style{fg: c.traces[i].ink}, string(c.traces[i].mark))
	}
}

// stroke draws a line through the numbers of trace i. A mark is drawn at the
// newest number and in every eighth column. These columns differ from trace to
// trace, so that marks do not cover each other.
func (c *curves) stroke(b *braille, s stretch, i int, marks map[int]int) {
	column, marked := &s.columns[c.traces[i].column], c.traces[i].mark != 0
	x0, last := 0, math.NaN()
	if left := s.edges[0]; left > 0 {
		x0, last = s.at(s.times[left-1]), column.numbers[left-1]
	}
	newest := -1
	for x := range len(s.edges) - 1 {
		from, to := s.edges[x], s.edges[x+1]
		if from == to {
			continue
		}
		if first := column.numbers[from]; !math.IsNaN(last) && !math.IsNaN(first) {
			b.stroke(x0, c.axis.dot(last), x, c.axis.dot(first), i)
		}
		x0, last = x, column.numbers[to-1]
		if e := column.extent(from, to); e.n > 0 {
			b.stroke(x, c.axis.dot(e.max), x, c.axis.dot(e.min), i)
			newest = c.axis.dot(e.max)/4*b.w + x/2
			if marked && (x/2+3*i)%8 == 0 {
				marks[newest] = i
			}
		}
	}
	if marked && newest >= 0 {
		marks[newest] = i
	}
}

// legend returns an entry for each trace, with its newest number and its extent.
// If these do not fit into the rows of w cells, it leaves out the extents, then
// the numbers. If the names do not fit either, it has as many traces as fit.
func (c *curves) legend(w, rows int) [][]entry {
	var forms [3][]entry // from the longest one to the shortest one
	for _, one := range c.traces {
		e := entry{style: style{fg: one.ink}, mark: c.swatch, space: legendSpace}
		if one.mark != 0 {
			e.mark = string(one.mark)
		}
		number := one.name + " " + one.text(one.newest)
		for i, text := range []string{number + " (" + one.extentText() + ")", number, one.name} {
			e.text = " " + text
			forms[i] = append(forms[i], e)
		}
	}
	for _, entries := range forms {
		wide := slices.ContainsFunc(entries, func(e entry) bool { return e.width() > w })
		if laid, ok := layOut(entries, w, rows); ok && !wide {
			return laid
		}
	}
	short := forms[1]
	laid, ok := layOut(short, w, rows)
	for n := min(len(short)-1, rows*w/4); !ok && n > 0; n-- { // an entry and its space take at least 4 cells
		laid, ok = layOut(append(short[:n:n], entry{text: fmt.Sprintf("and %d more", len(short)-n)}), w, rows)
	}
	return laid
}
