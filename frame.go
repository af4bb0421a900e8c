package main

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// An ink is a color of the terminal's palette. 0, which would be black, is the
// terminal's own.
type ink int

// A style is the look of a cell.
type style struct {
	fg, bg    ink
	bold, dim bool
}

var (
	plain = style{}
	bold  = style{bold: true}
)

// A label is a text at a position on an axis.
type label struct {
	at   int
	text string
}

// A frame is a picture of w × h character cells.
type frame struct {
	w, h   int
	runes  []rune
	styles []style
}

func newFrame(w, h int) *frame {
	return &frame{w, h, slices.Repeat([]rune{' '}, w*h), make([]style, w*h)}
}

// put writes text at x, y. It leaves out what is outside of the frame.
func (f *frame) put(x, y int, s style, text string) {
	for _, r := range text {
		if x >= 0 && x < f.w && y >= 0 && y < f.h {
			f.runes[y*f.w+x], f.styles[y*f.w+x] = r, s
		}
		x++
	}
}

// putBox writes lines of equal width in the middle of the frame.
func (f *frame) putBox(lines []string) {
	x, y := max(0, (f.w-cells(lines[0]))/2), max(0, (f.h-len(lines))/2)
	for i, line := range lines {
		f.put(x, y+i, bold, line)
	}
}

// toASCII replaces all characters that are not ASCII. Those that the chart does not
// draw, but that names may contain, become question marks.
func (f *frame) toASCII() {
	ascii := map[rune]rune{
		'│': '|', '┤': '+', '·': '.', '╌': '-', '…': '~', // axes and texts
		'⠁': ':', '⠠': ':', '⠡': ':', '░': '-', '▒': '+', '▓': '*', '█': '#', // areas
	}
	for i, r := range f.runes {
		if r >= utf8.RuneSelf {
			f.runes[i] = cmp.Or(ascii[r], '?')
		}
	}
}

// cells returns the number of cells that text takes.
func cells(text string) int { return utf8.RuneCountInString(text) }

// clip shortens text to w cells.
func clip(text string, w int) string {
	if letters := []rune(text); len(letters) > w {
		return string(letters[:max(w-1, 0)]) + "…"
	}
	return text
}

const half = 4 // eighths of a cell

// block returns the character that shows the colors of the eighths of a cell, from
// the lowest one up. If there are more than two colors, it leaves out those
// between.
func block(eighths [2 * half]ink) (rune, style) {
	lowest, highest := eighths[0], eighths[2*half-1]
	switch {
	case lowest == 0 && highest == 0:
		return ' ', plain
	case lowest == 0: // only the half can be filled from above
		return '▀', style{fg: eighths[half+half/2]}
	case highest == 0:
		top := slices.Index(eighths[:], 0)
		return '▁' + rune(top-1), style{fg: eighths[(top-1)/2]}
	}
	same := 1
	for same < len(eighths) && eighths[same] == lowest {
		same++
	}
	return '▁' + rune(same-1), style{fg: lowest, bg: highest}
}

// A braille is a drawing with two by four dots in each character cell.
type braille struct {
	w, h   int // in cells
	dots   []uint8
	curves []int // the curve that was drawn last in each cell
}

func newBraille(w, h int) *braille {
	return &braille{w, h, make([]uint8, w*h), make([]int, w*h)}
}

// dotBits are the bits of the dots of a cell in Unicode.
var dotBits = [4][2]uint8{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}

func (b *braille) set(x, y, curve int) {
	if x < 0 || x >= 2*b.w || y < 0 || y >= 4*b.h {
		return
	}
	at := y/4*b.w + x/2
	b.dots[at] |= dotBits[y%4][x%2]
	b.curves[at] = curve
}

// stroke draws a straight line. It skips the part to the left of the drawing.
func (b *braille) stroke(x0, y0, x1, y1, curve int) {
	steps := max(x1-x0, y1-y0, y0-y1, 1)
	first := 0
	if x0 < 0 && x1 > x0 {
		first = -x0 * steps / (x1 - x0)
	}
	for n := first; n <= steps; n++ {
		b.set(x0+(x1-x0)*n/steps, y0+(y1-y0)*n/steps, curve)
	}
}

// fill draws a pattern under the drawing, down to a row of dots.
func (b *braille) fill(bottom int) {
	for x := range 2 * b.w {
		under := false
		for y := range bottom + 1 {
			dot, at := dotBits[y%4][x%2], y/4*b.w+x/2
			under = under || b.dots[at]&dot != 0
			if under && y%2 == 0 && x%2 == y/2%2 {
				b.dots[at] |= dot
			}
		}
	}
}
