package main

import (
	"fmt"
	"math"
	"strconv"
)

// A trace is what a panel shows of a column.
type trace struct {
	pen
	reading word
	name    string
	column  int
	extent  extent // in the window
	newest  float64
}

// A pen is what a trace is drawn with.
type pen struct {
	ink  ink
	mark rune // distinguishes traces of the same ink; 0 if there are none
}

const letters = "abcdefghijklmnpqrstuvwyzABCDEFGHIJKLMNPQRSTUVWYZ0123456789" // o and x are taken

var asciiMarks, monoMarks = []rune("*ox#@%&=" + letters), []rune("●▲■◆○△□◇" + letters)

// givePens gives each trace a color, and a mark if colors do not tell them apart.
func (l look) givePens(all []trace) {
	for i := range all {
		if len(l.curves) > 0 {
			all[i].ink = l.curves[i%len(l.curves)]
		}
		switch {
		case l.ascii:
			all[i].mark = asciiMarks[i%len(asciiMarks)]
		case len(all) > len(l.curves):
			all[i].mark = monoMarks[i%len(monoMarks)]
		}
	}
}

// bounds returns the range of all numbers and 0.
func bounds(all []trace) (low, high float64) {
	for _, one := range all {
		low, high = min(low, one.extent.min), max(high, one.extent.max)
	}
	if low == high {
		high = 1
	}
	return low, high
}

// text formats a number with the decimals of its reading. In a log, other numbers
// have four significant digits or, if they are large, no decimals.
func (t trace) text(x float64) string {
	switch {
	case math.IsNaN(x):
		return "nan"
	case t.reading != noWord:
		return strconv.FormatFloat(x, 'f', table[t.reading].decimals, 64)
	case math.Abs(x) < 1000:
		return strconv.FormatFloat(x, 'g', 4, 64)
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

func (t trace) extentText() string {
	if t.extent.n == 0 {
		return "no readings"
	}
	average := t.extent.sum / float64(t.extent.n)
	return fmt.Sprintf("min %s avg %s max %s", t.text(t.extent.min), t.text(average), t.text(t.extent.max))
}

const legendSpace = 2

// An entry of a legend describes a trace.
type entry struct {
	style      style // of the mark
	mark, text string
	space      int // after it
}

func (e entry) width() int { return cells(e.mark + e.text) }

// layOut distributes entries over rows of w cells and reports whether they fit.
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
