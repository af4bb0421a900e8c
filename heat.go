package main

import (
	"slices"
	"strings"
)

// A heatMap shows many CPUs as strips of color over time. With colors, a row of
// cells has two lines.
type heatMap struct {
	look
	names  []string // of the columns, one for each CPU
	strips [][2]int // the columns from one to another, of one host if possible
	cpus   int      // in a strip, at most
	lines  int      // of each strip
	perRow int      // lines in a row of cells
}

// newHeatMap divides rows of cells into strips.
func newHeatMap(l look, names []string, rows int) heatMap {
	h := heatMap{look: l, names: names, perRow: 2}
	if h.mono || h.ascii {
		h.perRow = 1
	}
	room := rows * h.perRow
	fewest := (len(names) + room - 1) / room
	for h.cpus = fewest; h.cpus <= len(names); h.cpus++ {
		if h.strips = stripsOf(names, h.cpus); len(h.strips) <= room {
			break
		}
	}
	if len(h.strips) > room { // more hosts than lines
		h.cpus, h.strips = fewest, stripsOf(make([]string, len(names)), fewest)
	}
	h.lines = room / len(h.strips)
	return h
}

// stripsOf divides columns into strips of at most that many CPUs.
func stripsOf(names []string, cpus int) (strips [][2]int) {
	previous := ""
	for i, name := range names {
		host, _ := splitName(name)
		if last := len(strips) - 1; last < 0 || host != previous || i-strips[last][0] >= cpus {
			strips = append(strips, [2]int{i, i})
		}
		strips[len(strips)-1][1] = i + 1
		previous = host
	}
	return strips
}

// rows returns the number of rows that have strips.
func (h heatMap) rows() int { return (len(h.strips)*h.lines + h.perRow - 1) / h.perRow }

const (
	unknown    = -1 // level of heat of a gap
	heatLevels = 8  // above idle
	idleBelow  = 5  // percent
)

// shades are the levels of heat without colors.
var shades, asciiShades = []rune("·░░▒▒▓▓██"), []rune(".:-=+*#%@")

// level returns the level of heat of a percentage. Level 0 is idle.
func level(percent float64) int {
	if percent < idleBelow {
		return 0
	}
	return 1 + min(int((percent-idleBelow)*heatLevels/(100-idleBelow)), heatLevels-1)
}

// draw draws the heat map. Each cell shows the hottest number of its CPUs and of
// its time.
func (h heatMap) draw(f *frame, s stretch, columns []int, x, y int) {
	var levels [][]int // of heat in each strip
	for _, strip := range h.strips {
		levels = append(levels, hottest(s, columns[strip[0]:strip[1]]))
	}
	levels = append(levels, hottest(s, nil)) // the lower half of the last row may be in no strip
	for row := range h.rows() {
		first, last := row*h.perRow, (row+1)*h.perRow-1 // lines
		upper, lower := levels[first/h.lines], levels[last/h.lines]
		for col := range upper {
			r, st := h.heatCell(upper[col], lower[col])
			f.put(x+col, y+row, st, string(r))
		}
	}
}

// hottest returns the highest level of heat of the columns in each cell.
func hottest(s stretch, columns []int) []int {
	levels := slices.Repeat([]int{unknown}, len(s.edges)/2)
	for _, column := range columns {
		for i, b := range s.covered(column) {
			if b.n > 0 {
				levels[i/2] = max(levels[i/2], level(b.max))
			}
		}
	}
	return levels
}

// heatCell returns the look of a cell with one level of heat above another.
func (l look) heatCell(upper, lower int) (rune, style) {
	switch {
	case upper == unknown && lower == unknown:
		return ' ', plain
	case l.ascii:
		return asciiShades[max(upper, 0)], style{fg: heatInk(max(upper, 0)), quiet: upper == 0}
	case l.mono:
		return shades[max(upper, 0)], style{quiet: upper == 0}
	case upper <= 0 && lower <= 0:
		return '·', quiet
	case upper == lower:
		return '█', style{fg: heatInk(upper)}
	case upper <= 0:
		return '▄', style{fg: heatInk(lower)}
	case lower <= 0:
		return '▀', style{fg: heatInk(upper)}
	}
	return '▀', style{fg: heatInk(upper), bg: heatInk(lower)}
}

// labels returns the labels of the y axis: the numbers of CPUs, or the names of
// their hosts where these begin. If a strip shows several CPUs, labels are
// ranges.
func (h heatMap) labels() (labels []label) {
	every := 1 // strips from label to label
	for every*h.lines < 2*h.perRow {
		every *= 2
	}
	previous := ""
	for i, strip := range h.strips {
		first, last := strip[0], strip[1]-1
		host, text := splitName(h.names[first])
		text = strings.TrimPrefix(text, "cpu")
		if last > first {
			_, end := splitName(h.names[last])
			text += "-" + strings.TrimPrefix(end, "cpu")
		}
		if host != previous {
			text = excerptName(host)
		}
		row := i * h.lines / h.perRow
		if n := len(labels); n > 0 && labels[n-1].at == row && host != previous {
			labels = labels[:n-1]
		}
		if host != previous || i%every == 0 {
			labels = append(labels, label{row, text})
		}
		previous = host
	}
	return labels
}

const maxHostLabel = 16 // cells

// excerptName shortens the name of a host so that it fits at the axis.
func excerptName(name string) string {
	if letters := []rune(name); len(letters) > maxHostLabel {
		return string(letters[:maxHostLabel-1]) + "…"
	}
	return name
}
