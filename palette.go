package main

import "github.com/gdamore/tcell/v3"

// A look is what the terminal can show.
type look struct {
	ascii  bool
	curves []ink           // those that can be told apart; none without colors
	heat   [heatLevels]ink // from cold to hot; 0 without colors
	grid   style
}

const heatLevels = 8 // above idle

// Inks that can be seen on dark and on light backgrounds. Those of curves can be
// told apart, also by people who do not see all colors.
var (
	curves256 = []ink{33, 166, 35, 162, 99, 37, 136, 160}
	curves8   = []ink{2, 5, 6, 1, 3, 4}
	heat256   = [heatLevels]ink{60, 67, 72, 143, 179, 208, 202, 196}
	heat8     = [heatLevels]ink{4, 4, 6, 6, 2, 3, 3, 1}
)

// newLook returns the look of a terminal with that many colors.
func newLook(colors int, ascii bool) look {
	switch {
	case colors < 8:
		return look{ascii: ascii, grid: style{dim: true}}
	case colors < 256:
		return look{ascii, curves8, heat8, style{dim: true}}
	}
	return look{ascii, curves256, heat256, style{fg: 244}}
}

func cellStyle(s style) tcell.Style {
	return tcell.StyleDefault.Bold(s.bold).Dim(s.dim).Foreground(color(s.fg)).Background(color(s.bg))
}

func color(i ink) tcell.Color {
	if i == 0 {
		return tcell.ColorDefault
	}
	return tcell.PaletteColor(int(i))
}
