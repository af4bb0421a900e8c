package main

import "slices"

// A panel is the part of a chart that shows one reading: title, plot, legend.
type panel struct {
	look
	title  string
	plot   plot
	y      int // its row in the frame
	legend [][]entry
}

// A plot is the form in which a panel shows its traces.
type plot interface {
	lay(w, rows int) (legend [][]entry) // divides rows of w cells between itself and its legend
	height() int
	labels() []label // of the y axis
	draw(f *frame, s stretch, ticks []label, x, y int)
}

const minPlot = 3 // rows of a plot

// newPlot returns the form for traces of w. cpus is the number of CPUs, or 0.
func newPlot(l look, w word, all []trace, cpus int) plot {
	c := curves{look: l, traces: all, high: 100, cpus: cpus, swatch: "━━"}
	switch {
	case w == coresWord && len(all) >= fewestOfHeat:
		return &heatMap{look: l, traces: all}
	case w == modesWord && len(all) == len(modeNames):
		l.givePens(all[:modeIdle])
		all[modeIdle].mark = ' '
		c.swatch = "██"
		return &stack{c}
	case w == noWord || table[w].limit == 0:
		c.low, c.high = bounds(all)
	}
	if w == loadWord {
		c.high = max(c.high, 0.5)
		if n := float64(cpus); n <= 2*c.high {
			c.high = max(c.high, n)
		}
	}
	l.givePens(all)
	return &c
}

// draw draws the panel without its legend, and returns the row under it. The plot
// begins at the column left, next to the axis.
func (p *panel) draw(f *frame, s stretch, left int, ticks []label) (under int) {
	f.put(max(0, (f.w-cells(p.title))/2), p.y, bold, clip(p.title, f.w))
	for row := range p.plot.height() {
		f.put(left-1, p.y+1+row, p.grid, "│")
	}
	for _, l := range p.plot.labels() {
		f.put(left-2-cells(l.text), p.y+1+l.at, plain, l.text)
		f.put(left-1, p.y+1+l.at, p.grid, "┤")
	}
	p.plot.draw(f, s, ticks, left, p.y+1)
	return p.y + 1 + p.plot.height()
}

// drawLegend draws the legend from row y on.
func (p *panel) drawLegend(f *frame, y int) {
	for i, entries := range p.legend {
		x := 1
		for _, e := range entries {
			f.put(x, y+i, e.style, e.mark)
			f.put(x+cells(e.mark), y+i, plain, e.text)
			x += e.width() + e.space
		}
	}
}

// A group is the columns of a history that belong into one panel: those of a
// reading and, if they add up to 100, of a host.
type group struct {
	reading word
	host    string
	columns []int
}

// divide divides columns into groups. Groups of the same reading are adjacent.
func divide(names []string) (groups []group) {
	for i, name := range names {
		host, w, _ := columnOf(name)
		if w != modesWord {
			host = ""
		}
		at := slices.IndexFunc(groups, func(g group) bool { return g.reading == w && g.host == host })
		if at < 0 {
			at = len(groups)
			for n, g := range groups {
				if g.reading == w {
					at = n + 1
				}
			}
			groups = slices.Insert(groups, at, group{reading: w, host: host})
		}
		groups[at].columns = append(groups[at].columns, i)
	}
	return groups
}
