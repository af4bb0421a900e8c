package main

import "github.com/gdamore/tcell/v3"

// Colors of the terminal's palette that can be seen on dark and on light
// backgrounds. Those of curves can be told apart, also by people who do not see
// all colors.
var (
	curves256 = []int{33, 166, 35, 162, 99, 37, 136, 160}
	curves8   = []int{2, 5, 6, 1, 3, 4}
	heat256   = []int{60, 67, 72, 143, 179, 208, 202, 196}
	heat8     = []int{4, 4, 6, 6, 2, 3, 3, 1}
)

func curveColors(colors int) []int {
	if colors < 256 {
		return curves8
	}
	return curves256
}

func cellStyle(s style, colors int) tcell.Style {
	base := tcell.StyleDefault.Bold(s.bold)
	switch {
	case s.quiet && colors < 256:
		return base.Dim(true)
	case s.quiet:
		return base.Foreground(tcell.PaletteColor(244))
	case colors < 8:
		return base
	}
	return base.Foreground(cellColor(s.fg, colors)).Background(cellColor(s.bg, colors))
}

func cellColor(c ink, colors int) tcell.Color {
	palette, i := curveColors(colors), int(c)-1
	switch {
	case c == 0:
		return tcell.ColorDefault
	case c < 0 && colors < 256:
		palette, i = heat8, int(-c)-1
	case c < 0:
		palette, i = heat256, int(-c)-1
	}
	return tcell.PaletteColor(palette[i%len(palette)])
}
