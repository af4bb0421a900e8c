package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A panel is the part of a chart that shows one reading: title, curves, legend.
type panel struct {
	group
	look
	title   string
	names   []string // of the columns
	newest  []string
	extents []extent // of each column in the window
	cpus    int      // at which load averages have a line; 0 if that is unknown

	// Set by the layout.
	y, rows int // of the frame: the title's, and how many are for curves
	axis    scale
	heat    heatMap
	legend  [][]entry
	last    bool // whether the time is under the curves
}

const (
	minPlot      = 3 // rows of curves in a panel
	fewestOfHeat = 9 // CPUs that are shown as a heat map
)

// hasLimit reports whether the numbers are percentages.
func (p *panel) hasLimit() bool { return p.reading != noWord && table[p.reading].limit > 0 }

func (p *panel) isHeat() bool { return p.reading == coresWord && len(p.columns) >= fewestOfHeat }

// isStack reports whether the columns are stacked. The last one is idle, which is
// what the others leave.
func (p *panel) isStack() bool { return p.reading == modesWord && len(p.columns) == len(modeNames) }

// lay gives the panel rows from y on, for the title, the curves and the legend.
func (p *panel) lay(w, y, height int) {
	p.y = y
	if p.isHeat() {
		p.heat = newHeatMap(p.look, p.names, height-2)
		p.rows = p.heat.rows()
		p.legend = [][]entry{p.heatEntries(w - 1)}
		return
	}
	p.legend = p.entries(w-1, max(1, height/5))
	p.axis = p.scale(height - 1 - len(p.legend))
	p.rows = p.axis.height()
}

// scale returns an axis of at most the given number of rows.
func (p *panel) scale(rows int) scale {
	if p.hasLimit() {
		return newScale(0, 100, rows)
	}
	var all extent
	for _, e := range p.extents {
		all = all.with(e)
	}
	if p.reading == loadWord {
		all.max = max(all.max, 0.5)
		if cpus := float64(p.cpus); cpus <= 2*all.max {
			all.max = max(all.max, cpus)
		}
	}
	low, high := roundAround(all.min, all.max)
	return newScale(low, high, rows)
}

// bottom returns the row under the curves.
func (p *panel) bottom() int { return p.y + 1 + p.rows }

func (p *panel) labels() []label {
	if p.isHeat() {
		return p.heat.labels()
	}
	return p.axis.labels()
}

func (p *panel) labelWidth() (width int) {
	for _, l := range p.labels() {
		width = max(width, cells(l.text))
	}
	return width
}

// draw draws the panel. Its axis is left of the column left.
func (p *panel) draw(f *frame, s stretch, left int, ticks []label) {
	f.put(max(0, (f.w-cells(p.title))/2), p.y, bold, p.title)
	p.drawAxis(f, left)
	switch {
	case p.isHeat():
		p.heat.draw(f, s, p.columns, left, p.y+1)
	case p.isStack():
		p.drawGrid(f, left, ticks)
		mark := p.mark
		if !p.ascii && !p.hasMarks() {
			mark = nil
		}
		drawStack(f, s, p.columns[:len(p.columns)-1], mark, left, p.y+1, p.rows)
	default:
		p.drawGrid(f, left, ticks)
		p.drawCurves(f, s, left, p.y+1)
	}
	p.drawLegend(f)
}

func (p *panel) drawAxis(f *frame, left int) {
	for row := range p.rows {
		f.put(left-1, p.y+1+row, quiet, "│")
	}
	for _, l := range p.labels() {
		f.put(left-2-cells(l.text), p.y+1+l.at, plain, l.text)
		f.put(left-1, p.y+1+l.at, quiet, "┤")
	}
}

// drawGrid draws the lines of the axes, and one at the number of CPUs.
func (p *panel) drawGrid(f *frame, left int, ticks []label) {
	const dot = "·"
	for _, l := range p.axis.labels() {
		line := []rune(strings.Repeat(dot+" ", (f.w-left+1)/2))
		for _, tick := range ticks { // no dots next to those of the vertical lines
			line[max(tick.at-1, 0)], line[min(tick.at+1, len(line)-1)] = ' ', ' '
		}
		f.put(left, p.y+1+l.at, quiet, string(line))
	}
	for _, tick := range ticks {
		for row := range p.rows {
			f.put(left+tick.at, p.y+1+row, quiet, dot)
		}
	}
	if cpus := float64(p.cpus); p.cpus > 0 && cpus < p.axis.high {
		f.put(left, p.y+1+p.axis.dot(cpus)/4, quiet, strings.Repeat("╌", f.w-left))
	}
}

func (p *panel) drawLegend(f *frame) {
	y := p.bottom()
	if p.last {
		y++
	}
	for i, entries := range p.legend {
		x := 1
		for _, e := range entries {
			f.put(x, y+i, e.style, e.mark)
			f.put(x+cells(e.mark), y+i, plain, e.text)
			x += e.width() + e.space
		}
	}
}

// drawCurves draws the columns as curves. One alone is filled.
func (p *panel) drawCurves(f *frame, s stretch, x, y int) {
	w := len(s.edges) / 2
	curves, under := newBraille(w, p.rows), newBraille(w, p.rows)
	var marks []mark
	for i, column := range p.columns {
		bins := s.bins(column)
		curve(curves, s, p.axis, column, bins, curveInk(i))
		if p.hasMarks() {
			marks = append(marks, marksOf(p.axis, bins, i)...)
		}
	}
	if len(p.columns) == 1 {
		fill(under, curves, p.axis.dot(max(0, p.axis.low)))
	}
	for at, dots := range curves.dots {
		c, text := curves.inks[at], string(rune(0x2800+int(dots|under.dots[at])))
		switch {
		case dots|under.dots[at] == 0:
			continue
		case dots == 0:
			c = under.inks[at]
			if p.ascii {
				text = ":"
			}
		case p.ascii:
			text = p.mark(int(c) - 1)
		}
		f.put(x+at%w, y+at/w, style{fg: c}, text)
	}
	for _, m := range marks {
		f.put(x+m.x, y+m.y, style{fg: curveInk(m.curve)}, p.mark(m.curve))
	}
}

// curve draws a line through the numbers of a column.
func curve(b *braille, s stretch, sc scale, column int, bins []bin, c ink) {
	x0, y0, joined := 0, 0, false
	if v := s.last(column, 0); !math.IsNaN(v) { // before the left edge
		x0, y0, joined = s.at(s.times[s.edges[0]-1]), sc.dot(v), true
	}
	for x, bin := range bins {
		if s.edges[x] == s.edges[x+1] {
			continue
		}
		if bin.n > 0 {
			b.stroke(x, sc.dot(bin.max), x, sc.dot(bin.min), c)
		}
		if joined && !math.IsNaN(bin.first) {
			b.stroke(x0, y0, x, sc.dot(bin.first), c)
		}
		if joined = !math.IsNaN(bin.last); joined {
			x0, y0 = x, sc.dot(bin.last)
		}
	}
}

// fill draws a pattern under the only curve, down to a row of dots.
func fill(under, curve *braille, base int) {
	for x := range 2 * curve.w {
		below := false
		for y := range base + 1 {
			below = below || curve.has(x, y)
			if below && y%2 == 0 && x%2 == y/2%2 {
				under.set(x, y, curveInk(0))
			}
		}
	}
}

// A mark tells curves apart that have the same color, or none.
type mark struct{ x, y, curve int }

// marksOf returns marks in every eighth column, which is a different one for
// each curve, so that they do not cover each other, and one at the newest value.
func marksOf(sc scale, bins []bin, curve int) (marks []mark) {
	for x, bin := range slices.Backward(bins) {
		newest := len(marks) == 0
		if bin.n > 0 && ((x/2+3*curve)%8 == 0 || newest) {
			marks = append(marks, mark{x / 2, sc.dot(bin.max) / 4, curve})
		}
	}
	return marks
}

// hasMarks reports whether the curves need marks to be told apart.
func (p *panel) hasMarks() bool {
	curves := len(p.columns)
	if p.isStack() {
		curves-- // idle has none
	}
	return !p.ascii && (p.mono || curves > p.colors)
}

// mark returns the mark of curve i, which is the same for all curves if they
// differ by color.
func (p *panel) mark(i int) string {
	switch {
	case p.isStack() && i == len(p.columns)-1:
		return " "
	case p.ascii:
		return string(asciiMarks[i%len(asciiMarks)])
	case p.hasMarks():
		return string(monoMarks[i%len(monoMarks)])
	case p.isStack():
		return "██"
	}
	return "━━"
}

const letters = "abcdefghijklmnpqrstuvwyzABCDEFGHIJKLMNPQRSTUVWYZ0123456789" // o and x are taken

var asciiMarks, monoMarks = []rune("*ox#@%&=" + letters), []rune("●▲■◆○△□◇" + letters)

// An entry is the description of a curve in the legend.
type entry struct {
	style      style
	mark, text string
	space      int // after it
}

const legendSpace = 3

func (e entry) width() int { return cells(e.mark + e.text) }

// entries returns the rows of the legend. They have the extent of each curve if that
// fits. Otherwise, they have the newest value only, and the last one counts
// those that do not fit.
func (p *panel) entries(w, rows int) [][]entry {
	full, short := make([]entry, len(p.columns)), make([]entry, len(p.columns))
	for i, name := range p.names {
		short[i] = entry{style{fg: curveInk(i)}, p.mark(i), fmt.Sprintf(" %s %s", name, p.newest[i]), legendSpace}
		full[i] = short[i]
		full[i].text += " (" + p.extents[i].text(decimals(name)) + ")"
	}
	if laid, ok := layOut(full, w, rows); ok {
		return laid
	}
	laid, ok := layOut(short, w, rows)
	for n := min(len(short)-1, rows*w/4); !ok && n > 0; n-- { // an entry and its space take at least 4 cells
		laid, ok = layOut(append(short[:n:n], entry{text: fmt.Sprintf("and %d more", len(short)-n)}), w, rows)
	}
	return laid
}

// heatEntries explains the levels of heat and names the hottest CPU, as far as
// that fits into w cells.
func (p *panel) heatEntries(w int) []entry {
	legend := []entry{{text: "0 "}}
	for level := range heatLevels + 1 {
		r, st := p.heatCell(level, level)
		legend = append(legend, entry{style: st, mark: string(r)})
	}
	legend = append(legend, entry{text: " 100", space: legendSpace})
	var all extent
	hottest := 0
	for i, e := range p.extents {
		all = all.with(e)
		if now, most := number(p.newest[i]), number(p.newest[hottest]); now > most || math.IsNaN(most) {
			hottest = i
		}
	}
	legend = append(legend,
		entry{text: fmt.Sprintf("hottest now %s %s", p.names[hottest], p.newest[hottest]), space: legendSpace})
	if p.heat.cpus > 1 {
		legend = append(legend, entry{text: fmt.Sprintf("each line the hottest of %d", p.heat.cpus), space: legendSpace})
	}
	legend = append(legend, entry{text: all.text(1)})
	fits, _ := layOut(legend, w, 1)
	return fits[0]
}

// layOut distributes entries over rows and reports whether they fit.
func layOut(entries []entry, w, rows int) ([][]entry, bool) {
	laid := [][]entry{nil}
	x := 0
	for _, e := range entries {
		if x > 0 && x+e.width() > w {
			laid = append(laid, nil)
			x = 0
		}
		laid[len(laid)-1] = append(laid[len(laid)-1], e)
		x += e.width() + e.space
	}
	return laid[:min(len(laid), rows)], len(laid) <= rows
}

// A group is the columns of a history that belong into one panel: those of a
// reading and, if they add up to 100, of a host.
type group struct {
	reading word
	host    string
	columns []int
}

// divide divides columns into groups.
func divide(names []string) (groups []group) {
	for i, name := range names {
		host, w, _ := columnOf(name)
		if w != modesWord {
			host = ""
		}
		at := slices.IndexFunc(groups, func(g group) bool { return g.reading == w && g.host == host })
		if at < 0 {
			at = len(groups)
			groups = append(groups, group{reading: w, host: host})
		}
		groups[at].columns = append(groups[at].columns, i)
	}
	return groups
}
