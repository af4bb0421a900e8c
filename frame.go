package main

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// An ink is a color: 0 for the terminal's own, a positive number for a curve, or
// a negative one for a level of heat.
type ink int

func curveInk(i int) ink { return ink(1 + i) }

func heatInk(level int) ink { return ink(-level) }

// A style is the look of a cell.
type style struct {
	fg, bg ink
	bold   bool
	quiet  bool // the grid, which must not outshine the curves
}

var (
	plain = style{}
	quiet = style{quiet: true}
	bold  = style{bold: true}
)

// A look is what the terminal can show.
type look struct {
	// Without colors, the curves have marks. In ASCII, they consist of marks
	// only.
	mono, ascii bool
	colors      int // of curves that can be told apart
}

// A label is a text at a place of an axis.
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

// toASCII replaces the lines of axes, and all other characters that names contain.
func (f *frame) toASCII() {
	lines := map[rune]rune{'│': '|', '┤': '+', '·': '.', '╌': '-'}
	for i, r := range f.runes {
		if r >= utf8.RuneSelf {
			f.runes[i] = cmp.Or(lines[r], '?')
		}
	}
}

// cells returns the number of cells that text takes.
func cells(text string) int { return utf8.RuneCountInString(text) }

// A braille is a drawing with two by four dots in each character cell.
type braille struct {
	w, h int // in cells
	dots []uint8
	inks []ink // of the curve that was drawn last in each cell
}

func newBraille(w, h int) *braille {
	return &braille{w, h, make([]uint8, w*h), make([]ink, w*h)}
}

// dotBits are the bits of the dots of a cell in Unicode.
var dotBits = [4][2]uint8{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}

func (b *braille) has(x, y int) bool {
	return b.dots[y/4*b.w+x/2]&dotBits[y%4][x%2] != 0
}

func (b *braille) set(x, y int, c ink) {
	if x < 0 || x >= 2*b.w || y < 0 || y >= 4*b.h {
		return
	}
	at := y/4*b.w + x/2
	b.dots[at] |= dotBits[y%4][x%2]
	b.inks[at] = c
}

// stroke draws a straight line. It skips the part to the left of the drawing.
func (b *braille) stroke(x0, y0, x1, y1 int, c ink) {
	steps := max(x1-x0, y1-y0, y0-y1, 1)
	first := 0
	if x0 < 0 && x1 > x0 {
		first = -x0 * steps / (x1 - x0)
	}
	for n := first; n <= steps; n++ {
		b.set(x0+(x1-x0)*n/steps, y0+(y1-y0)*n/steps, c)
	}
}
