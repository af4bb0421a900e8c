package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A chart is what -g draws: the lines of a time window, as curves. Later changes
// do not affect a copy of it.
type chart struct {
	title    string
	pace     string  // the interval, for the caption
	least    float64 // the top of the y axis, unless a value exceeds it; then a round number
	window   time.Duration
	location *time.Location
	// Without colors, the curves have marks. In ASCII, they consist of marks
	// only.
	mono, ascii bool

	first   time.Time // when the first reading comes, if not at once
	names   []string
	newest  []string
	points  []point // oldest first
	stopped bool
	help    bool   // whether the keys are shown over the chart
	message string // the newest message, which standard error gets later
}

// A point is a line as numbers, where NaN is a gap.
type point struct {
	at     time.Time
	values []float64
}

const (
	minWidth, minHeight = 30, 8
	maxCurves           = 1 << 10
	maxNumbers          = 1 << 18 // values in all points of a chart
	shortestWindow      = time.Second
	longestWindow       = 7 * 24 * time.Hour
)

// add adds a line from the poller.
func (c *chart) add(l line) {
	n := min(len(l.names), maxCurves)
	if most := maxNumbers / max(n, 1); len(c.points) >= most {
		c.points = c.points[len(c.points)-most*7/8:]
	}
	if !slices.Equal(c.names, l.names[:n]) {
		c.rename(l.names[:n])
	}
	c.newest = l.columns[:n]
	values := make([]float64, n)
	for i := range values {
		values[i] = l.value(i)
	}
	c.points = append(c.points, point{l.at, values})
}

// rename moves the values of every point to the new places of their columns.
func (c *chart) rename(names []string) {
	was := map[string]int{}
	for i, name := range slices.Backward(c.names) { // backward, so that the first of two equal names counts
		was[name] = i
	}
	points := make([]point, len(c.points))
	for i, p := range c.points {
		values := make([]float64, len(names))
		for j, name := range names {
			values[j] = math.NaN()
			if old, ok := was[name]; ok {
				values[j] = p.values[old]
			}
		}
		points[i] = point{p.at, values}
	}
	c.points, c.names = points, names
}

// gap ends the curves, so that the next point is not connected to them.
func (c *chart) gap() {
	if len(c.points) == 0 {
		return
	}
	values := make([]float64, len(c.names))
	for i := range values {
		values[i] = math.NaN()
	}
	c.points = append(c.points, point{c.points[len(c.points)-1].at, values})
}

// zoom multiplies the window by factor, within its limits.
func (c *chart) zoom(factor float64) {
	c.window = min(max(time.Duration(float64(c.window)*factor), shortestWindow), longestWindow)
}

// A style is the look of a cell: one of these constants, or the number of a
// curve.
type style int

const (
	plain style = -1 - iota
	dim
	bold
)

// A frame is a picture of w × h character cells.
type frame struct {
	w, h   int
	runes  []rune
	styles []style
}

func newFrame(w, h int) *frame {
	f := &frame{w, h, make([]rune, w*h), make([]style, w*h)}
	for i := range f.runes {
		f.runes[i], f.styles[i] = ' ', plain
	}
	return f
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

func (f *frame) String() string {
	var text strings.Builder
	for y := range f.h {
		text.WriteString(strings.TrimRight(string(f.runes[y*f.w:(y+1)*f.w]), " "))
		text.WriteByte('\n')
	}
	return text.String()
}

// draw draws the chart. From top to bottom, it consists of the title, the
// curves, the time, the caption, the legend and, in the last row, the button.
func (c *chart) draw(w, h int) *frame {
	f := newFrame(w, h)
	if w < minWidth || h < minHeight {
		f.put(0, 0, plain, fmt.Sprintf("need %d×%d", minWidth, minHeight))
		return f
	}
	shown := c.shown()
	legend := c.legend(shown, w-1, max(1, h/5))
	rows := h - 4 - len(legend)
	f.put(max(0, (w-utf8.RuneCountInString(c.title))/2), 0, bold, c.title)
	c.plot(f, shown, 1, rows)
	y := 1 + rows + 1
	f.put(1, y, plain, c.caption(shown, w-1))
	for i, entries := range legend {
		x := 1
		for _, e := range entries {
			f.put(x, y+1+i, e.style, e.mark)
			f.put(x+utf8.RuneCountInString(e.mark), y+1+i, plain, e.text)
			x += e.width() + 3
		}
	}
	button := c.button(w)
	f.put(0, h-1, bold, button)
	beside := c.message
	if keys := "  ? help  q quit  +/- zoom"; beside == "" && utf8.RuneCountInString(button+keys) < w {
		beside = keys
	}
	f.put(utf8.RuneCountInString(button)+1, h-1, plain, beside)
	if c.help {
		f.putBox(keyHelp)
	}
	return f
}

// keyHelp is the text that ? and h show.
var keyHelp = []string{
	"space, click  pause, resume",
	"+  -          zoom in, out ",
	"Ctrl-L        redraw       ",
	"Ctrl-Z        suspend      ",
	"q  Esc        quit         ",
	"?  h          hide this    ",
}

// putBox writes lines of equal width in the middle of the frame, with a margin
// around them.
func (f *frame) putBox(lines []string) {
	w := utf8.RuneCountInString(lines[0]) + 2
	x, y := max(0, (f.w-w)/2), max(0, (f.h-len(lines)-2)/2)
	for i := range len(lines) + 2 {
		f.put(x, y+i, bold, strings.Repeat(" ", w))
		if i > 0 && i <= len(lines) {
			f.put(x+1, y+i, bold, lines[i-1])
		}
	}
}

// shown returns the points in the window and the one before them.
func (c *chart) shown() []point {
	if len(c.points) == 0 {
		return nil
	}
	left := c.points[len(c.points)-1].at.Add(-c.window)
	first, _ := slices.BinarySearchFunc(c.points, left, func(p point, t time.Time) int { return p.at.Compare(t) })
	return c.points[max(0, first-1):]
}

// button returns the label of the button, which is short if the message needs
// the space.
func (c *chart) button(w int) string {
	text := "[ running: click or press space to pause ]"
	short := "[ running: space ]"
	if c.stopped {
		text = "[ paused: click or press space to resume ]"
		short = "[ paused: space ]"
	}
	if c.message != "" {
		w -= 1 + utf8.RuneCountInString(c.message)
	}
	if utf8.RuneCountInString(text) > w {
		return short
	}
	return text
}

// caption returns the interval, the window and, if there is space, the extent
// of the values in it.
func (c *chart) caption(shown []point, w int) string {
	text := fmt.Sprintf("interval %s  window %s", c.pace, brief(c.window))
	if len(c.points) == 0 && !c.first.IsZero() {
		return text + "  first reading at " + c.first.In(c.location).Format(time.TimeOnly)
	}
	var all extent
	for _, p := range shown {
		for _, x := range p.values {
			all.add(x)
		}
	}
	places := 1
	for _, name := range c.names {
		if places = decimals(name); places != decimals(c.names[0]) {
			return text // percent and load averages have no common extent
		}
	}
	if more := text + "  " + all.text(places); utf8.RuneCountInString(more) <= w {
		return more
	}
	return text
}

// brief formats a duration without the zeros of Duration.String: 1m, not 1m0s.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if d >= time.Second && d <= 120*time.Second && d%time.Second == 0 {
		text = fmt.Sprintf("%ds", d/time.Second)
	}
	return text
}

// An entry is the description of a curve in the legend.
type entry struct {
	style      style
	mark, text string
}

func (e entry) width() int { return utf8.RuneCountInString(e.mark + e.text) }

// legend returns rows of entries. They have the extent of each curve if that
// fits. Otherwise, they have the newest value only, and the last one counts
// those that do not fit.
func (c *chart) legend(shown []point, w, rows int) [][]entry {
	full, short := make([]entry, len(c.names)), make([]entry, len(c.names))
	for i, name := range c.names {
		var within extent
		for _, p := range shown {
			within.add(p.values[i])
		}
		short[i] = entry{style(i), c.mark(i), fmt.Sprintf(" %s %s", name, c.newest[i])}
		full[i] = short[i]
		full[i].text += " (" + within.text(decimals(name)) + ")"
	}
	if laid, ok := layOut(full, w, rows); ok && len(full) > 1 {
		return laid
	}
	laid, ok := layOut(short, w, rows)
	for n := min(len(short)-1, rows*w/4); !ok && n > 0; n-- { // an entry and its space take at least 4 cells
		laid, ok = layOut(append(short[:n:n], entry{plain, "", fmt.Sprintf("and %d more", len(short)-n)}), w, rows)
	}
	return laid
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
		x += e.width() + 3
	}
	return laid[:min(len(laid), rows)], len(laid) <= rows
}

// mark returns the mark of curve i, which is the same for all curves if they
// differ by color.
func (c *chart) mark(i int) string {
	switch {
	case c.ascii:
		return string(asciiMarks[i%len(asciiMarks)])
	case c.mono:
		return string(monoMarks[i%len(monoMarks)])
	}
	return "━━"
}

const letters = "abcdefghijklmnpqrstuvwyzABCDEFGHIJKLMNPQRSTUVWYZ0123456789" // o and x are taken

var asciiMarks, monoMarks = []rune("*ox#@%&=" + letters), []rune("●▲■◆○△□◇" + letters)

// plot draws the axes, the grid and the curves into the given number of rows
// from row y on, and the times into the row below.
func (c *chart) plot(f *frame, shown []point, y, rows int) {
	top := max(c.least, roundOver(shown))
	labels := yLabels(top, rows)
	left := 0
	for _, l := range labels {
		left = max(left, utf8.RuneCountInString(l.text))
	}
	left += 2 // a column of space, and the axis
	width := f.w - left
	bar, cross, dot, axis := "┊", "┼", "┈", "│"
	if c.ascii {
		bar, cross, dot, axis = ":", "+", ".", "|"
	}
	for row := range rows {
		f.put(left-1, y+row, dim, axis)
	}
	for _, l := range labels {
		f.put(left-2-utf8.RuneCountInString(l.text), y+l.row, plain, l.text)
		f.put(left, y+l.row, dim, strings.Repeat(dot, width))
	}
	if len(shown) == 0 {
		return
	}
	right := shown[len(shown)-1].at
	begin := right.Add(-c.window)
	ticks := xTicks(begin, right, width, c.location)
	layout := "15:04:05"
	if len(ticks) > 1 && ticks[1].Sub(ticks[0]) >= 24*time.Hour {
		layout = "Jan 02"
	}
	for _, at := range ticks {
		col := int(float64(at.Sub(begin)) / float64(c.window) * float64(width-1))
		for row := range rows {
			mark := bar
			if f.runes[(y+row)*f.w+left+col] != ' ' {
				mark = cross
			}
			f.put(left+col, y+row, dim, mark)
		}
		text := at.In(c.location).Format(layout)
		f.put(min(max(left+col-len(text)/2, 0), f.w-len(text)), y+rows, plain, text)
	}
	b := &braille{w: width, h: rows, dots: make([]uint8, width*rows), owners: make([]style, width*rows)}
	for i := range c.names {
		b.curve(shown, i, begin, c.window, top)
	}
	for at, dots := range b.dots {
		if dots != 0 && !c.ascii {
			f.put(left+at%width, y+at/width, b.owners[at], string(rune(0x2800+int(dots))))
		}
	}
	if c.mono || c.ascii {
		c.putMarks(f, b, shown, left, y, begin, top)
	}
}

// putMarks draws the marks of the curves. In ASCII, every point has one.
// Otherwise, the newest value has one, and so has every eighth column, which is
// a different one for each curve, so that marks do not cover each other.
func (c *chart) putMarks(f *frame, b *braille, shown []point, left, y int, begin time.Time, top float64) {
	for i := range c.names {
		for n, p := range shown {
			x, dy, ok := b.place(p, i, begin, c.window, top)
			if col := x / 2; ok && x >= 0 && (c.ascii || (col+3*i)%8 == 0 || n == len(shown)-1) {
				f.put(left+col, y+dy/4, style(i), c.mark(i))
			}
		}
	}
}

// A braille is a plot with two by four dots in each character cell.
type braille struct {
	w, h   int // in cells
	dots   []uint8
	owners []style // the curve that was drawn last in each cell
}

// place returns the dot of value i of p. It reports false for a gap.
func (b *braille) place(p point, i int, begin time.Time, window time.Duration, top float64) (x, y int, ok bool) {
	v := p.values[i]
	if math.IsNaN(v) {
		return 0, 0, false
	}
	x = int(math.Round(float64(p.at.Sub(begin)) / float64(window) * float64(2*b.w-1)))
	y = int(math.Round((1 - min(max(v/top, 0), 1)) * float64(4*b.h-1)))
	return x, y, true
}

// curve draws a line through value i of each point, with gaps.
func (b *braille) curve(points []point, i int, begin time.Time, window time.Duration, top float64) {
	joined := false
	var x0, y0 int
	for _, p := range points {
		x, y, ok := b.place(p, i, begin, window, top)
		switch {
		case ok && joined:
			b.stroke(x0, y0, x, y, style(i))
		case ok:
			b.set(x, y, style(i))
		}
		x0, y0, joined = x, y, ok
	}
}

// stroke draws a straight line. It skips the part to the left of the plot.
func (b *braille) stroke(x0, y0, x1, y1 int, s style) {
	steps := max(x1-x0, y1-y0, y0-y1, 1)
	first := 0
	if x0 < 0 && x1 > x0 {
		first = -x0 * steps / (x1 - x0)
	}
	for n := first; n <= steps; n++ {
		b.set(x0+(x1-x0)*n/steps, y0+(y1-y0)*n/steps, s)
	}
}

func (b *braille) set(x, y int, s style) {
	if x < 0 || x >= 2*b.w || y < 0 || y >= 4*b.h {
		return
	}
	at := y/4*b.w + x/2
	b.dots[at] |= [4][2]uint8{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}[y%4][x%2]
	b.owners[at] = s
}

// roundOver returns 1, 2 or 5 times a power of ten that no value exceeds.
func roundOver(points []point) float64 {
	most := 0.5
	for _, p := range points {
		for _, x := range p.values {
			if x > most {
				most = x
			}
		}
	}
	power := math.Pow(10, math.Floor(math.Log10(most)))
	for _, n := range []float64{1, 2, 5, 10} {
		if n*power >= most {
			return n * power
		}
	}
	return 10 * power
}

type yLabel struct {
	row  int
	text string
}

// yLabels returns as many round values as fit with an empty row between them.
func yLabels(top float64, rows int) (labels []yLabel) {
	parts := 1
	for _, n := range []int{10, 5, 4, 2} {
		if rows-1 >= 2*n {
			parts = n
			break
		}
	}
	for i := range parts + 1 {
		v := top * float64(parts-i) / float64(parts)
		row := int(math.Round(float64(i) / float64(parts) * float64(rows-1)))
		labels = append(labels, yLabel{row, strconv.FormatFloat(v, 'g', 4, 64)})
	}
	return labels
}

// xTicks returns round times that are far enough apart for their labels.
func xTicks(begin, end time.Time, width int, location *time.Location) (ticks []time.Time) {
	window := end.Sub(begin)
	room := max(1, width/12)
	step := 24 * time.Hour
	for _, s := range []time.Duration{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200} {
		if d := s * time.Second; window <= d*time.Duration(room) {
			step = d
			break
		}
	}
	_, offset := begin.In(location).Zone()
	local := time.Duration(offset) * time.Second
	for at := begin.Add(local).Truncate(step).Add(-local); !at.After(end); at = at.Add(step) {
		if !at.Before(begin) {
			ticks = append(ticks, at)
		}
	}
	return ticks
}
