package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A heatMap shows many CPUs as strips of color over time.
type heatMap struct {
	look
	traces []trace   // one for each CPU
	strips [][]trace // CPUs that are shown as one, of the same host if possible
	halves int       // height of a strip in half rows
}

const fewestOfHeat = 9 // CPUs that are shown as a heat map

// lay makes strips of as few CPUs as the room allows.
func (h *heatMap) lay(w, rows int) [][]entry {
	rows-- // for the legend
	h.halves = 1
	if h.shaded() {
		h.halves = 2
	}
	room := 2 * rows / h.halves
	fewest := (len(h.traces) + room - 1) / room
	h.strips = stripsOf(h.traces, fewest)
	for most := fewest; len(h.strips) > room && most < len(h.traces); most++ {
		h.strips = stripsOf(h.traces, most+1)
	}
	if len(h.strips) > room { // more hosts than strips
		h.strips = slices.Collect(slices.Chunk(h.traces, fewest))
	}
	h.halves *= room / len(h.strips)
	return h.legend(w)
}

// stripsOf divides CPUs into strips of at most that many, each of one host, so
// that the gap of a host that does not reply can be seen.
func stripsOf(cpus []trace, most int) (strips [][]trace) {
	previous := ""
	for i, cpu := range cpus {
		host, _ := splitName(cpu.name)
		if last := len(strips) - 1; last >= 0 && host == previous && len(strips[last]) < most {
			strips[last] = cpus[i-len(strips[last]) : i+1]
		} else {
			strips = append(strips, cpus[i:i+1])
		}
		previous = host
	}
	return strips
}

// shaded reports whether there are shades instead of colors.
func (h *heatMap) shaded() bool { return h.ascii || h.heat[0] == 0 }

func (h *heatMap) height() int { return (len(h.strips)*h.halves + 1) / 2 }

const (
	unknown   = -1 // level of heat of a gap
	idleBelow = 5  // percent
)

// level returns the level of heat of a percentage. Level 0 is idle.
func level(percent float64) int {
	if percent < idleBelow {
		return 0
	}
	return 1 + min(int((percent-idleBelow)*heatLevels/(100-idleBelow)), heatLevels-1)
}

// shades show the levels of heat without colors.
var shades = []rune("·░░▒▒▓▓██")

// draw draws the heat map. Each cell shows the hottest number of its CPUs and of
// its time.
func (h *heatMap) draw(f *frame, s stretch, _ []label, x, y int) {
	var levels [][]int // of heat in each strip
	for _, strip := range h.strips {
		levels = append(levels, hottest(s, strip))
	}
	levels = append(levels, hottest(s, nil)) // the lower half of the last row may be in no strip
	for row := range h.height() {
		upper, lower := levels[2*row/h.halves], levels[(2*row+1)/h.halves]
		for col := range upper {
			r, st := h.cell(upper[col], lower[col])
			f.put(x+col, y+row, st, string(r))
		}
	}
}

// hottest returns the highest level of heat of CPUs in each cell.
func hottest(s stretch, cpus []trace) []int {
	levels := slices.Repeat([]int{unknown}, len(s.edges)/2)
	for _, cpu := range cpus {
		for i, e := range s.covered(cpu.column) {
			if e.n > 0 {
				levels[i] = max(levels[i], level(e.max))
			}
		}
	}
	return levels
}

// cell returns the look of a cell with one level of heat above another.
func (h *heatMap) cell(upper, lower int) (rune, style) {
	up, low := h.ink(upper), h.ink(lower)
	switch {
	case upper == unknown && lower == unknown:
		return ' ', plain
	case upper <= 0 && lower <= 0:
		return shades[0], h.grid
	case h.shaded():
		return shades[upper], style{fg: up}
	}
	return block([2 * half]ink{low, low, low, low, up, up, up, up})
}

// ink returns the color of a level of heat. Idle has none.
func (h *heatMap) ink(level int) ink {
	if level <= 0 {
		return 0
	}
	return h.heat[level-1]
}

// labels returns the numbers of CPUs, as ranges if a strip shows several, or the
// name of the host that begins in a strip.
func (h *heatMap) labels() (labels []label) {
	previous := ""
	for i, strip := range h.strips {
		row := i * h.halves / 2
		_, first := splitName(strip[0].name)
		host, last := splitName(strip[len(strip)-1].name)
		text := strings.TrimPrefix(first, "cpu")
		if len(strip) > 1 {
			text += "-" + strings.TrimPrefix(last, "cpu")
		}
		if host != previous {
			text = clip(host, maxHostLabel)
			labels = slices.DeleteFunc(labels, func(l label) bool { return l.at == row })
		}
		if n := len(labels); n == 0 || host != previous || row >= labels[n-1].at+2 {
			labels = append(labels, label{row, text})
		}
		previous = host
	}
	return labels
}

const maxHostLabel = 16 // cells

// legend explains the levels of heat and names the hottest CPU, as far as that
// fits into w cells.
func (h *heatMap) legend(w int) [][]entry {
	legend := []entry{{text: "0 "}}
	for level := range heatLevels + 1 {
		r, st := h.cell(level, level)
		legend = append(legend, entry{style: st, mark: string(r)})
	}
	legend = append(legend, entry{text: " 100", space: legendSpace})
	if most := len(slices.MaxFunc(h.strips, func(a, b []trace) int { return len(a) - len(b) })); most > 1 {
		legend = append(legend, entry{text: fmt.Sprintf("each line the hottest of %d", most), space: legendSpace})
	}
	var all extent
	for _, cpu := range h.traces {
		all = all.with(cpu.extent)
	}
	// cmp.Compare takes NaN for less than any number.
	hottest := slices.MaxFunc(h.traces, func(a, b trace) int { return cmp.Compare(a.newest, b.newest) })
	legend = append(legend,
		entry{text: "hottest now " + hottest.name + " " + hottest.text(hottest.newest), space: legendSpace},
		entry{text: trace{reading: coresWord, extent: all}.extentText()})
	fits, _ := layOut(legend, w, 1)
	return fits
}
