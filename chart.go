package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A chart is what -g draws: a panel for each reading, one above the other.
type chart struct {
	history
	look
	subject      string // what is measured, for the title
	asked        []word // shown before the first line comes
	intervalText string
	condition    string        // of the gate, and for how long it has held
	window       time.Duration // 0: all that was received
	cpus         int           // number of CPUs; 0 if it is unknown
	first        time.Time     // when the first line is expected, if that takes long

	stopped bool
	help    bool      // whether the keys are shown over the chart
	until   time.Time // the end of the window; zero: the newest line

	message   string // the newest message, which standard error gets later
	messageAt time.Time
}

const (
	minWidth, minHeight = 30, 8
	shortestWindow      = time.Second
	longestWindow       = 7 * 24 * time.Hour
	messageTime         = 10 * time.Second // for which a message is shown
	mostNumber          = 1e15             // beyond which rounding would overflow
)

func (c *chart) add(l line) {
	if l.begins {
		c.gap()
	}
	n := min(len(l.names), maxCurves)
	numbers := make([]float64, n)
	for i := range numbers {
		numbers[i] = min(max(l.value(i), -mostNumber), mostNumber)
	}
	c.history.add(l.at, l.names[:n], numbers)
}

// shown returns the length of the window.
func (c *chart) shown() time.Duration {
	if c.window > 0 {
		return c.window
	}
	if len(c.times) == 0 {
		return shortestWindow
	}
	whole := c.newest() - c.times[0]
	return max((whole + time.Second - 1).Truncate(time.Second), shortestWindow)
}

// zoom multiplies the window by factor, within its limits.
func (c *chart) zoom(factor float64) {
	c.window = min(max(time.Duration(float64(c.shown())*factor), shortestWindow), longestWindow)
	if c.window > time.Minute {
		c.window = c.window.Round(time.Second)
	}
}

// move moves the window by a part of it, no further than there are lines. At
// the newest line, the window follows it again.
func (c *chart) move(part float64) {
	if len(c.times) == 0 {
		return
	}
	until := max(c.right()+time.Duration(part*float64(c.shown())), c.times[0])
	c.until = time.Time{}
	if until < c.newest() {
		c.until = c.start.Add(until)
	}
}

func (c *chart) right() time.Duration {
	if c.until.IsZero() {
		return c.newest()
	}
	return max(c.until.Sub(c.start), c.times[0])
}

// draw draws the chart. From top to bottom, it consists of the panels, the
// caption and, in the last row, the button.
func (c *chart) draw(now time.Time, w, h int) *frame {
	f := newFrame(w, h)
	if w < minWidth || h < minHeight {
		f.put(0, 0, plain, fmt.Sprintf("need %dx%d", minWidth, minHeight))
		return f
	}
	hidden := c.drawPanels(f, h-2)
	f.put(1, h-2, plain, clip(c.caption(hidden), w-1))
	button, beside := runningButton, c.shownMessage(now)
	if c.stopped {
		button = pausedButton
	}
	if beside == "" {
		beside = " ? help  q quit  space pause, resume  +/- zoom"
	}
	f.put(0, h-1, bold, button)
	f.put(cells(button)+1, h-1, plain, clip(beside, w-cells(button)-1))
	if c.help {
		f.putBox(keyHelp)
	}
	if c.ascii {
		f.toASCII()
	}
	return f
}

// The labels of the button. Both can be clicked as far as the wider one reaches.
const runningButton, pausedButton = "[ running ]", "[ paused ]"

// keyHelp is the text that ? and h show.
var keyHelp = []string{
	"                               ",
	" space, click  pause, resume   ",
	" +  -          zoom in, out    ",
	" left, right   back, forward   ",
	" End           newest reading  ",
	" Ctrl-L        redraw          ",
	" Ctrl-Z        suspend         ",
	" q  Esc        quit            ",
	" ?  h          hide this       ",
	"                               ",
}

// drawPanels draws as many panels as fit into the upper h rows, and returns the
// number of the others.
func (c *chart) drawPanels(f *frame, h int) (hidden int) {
	panels := c.panels()
	if room := max(1, (h-1)/(minPlot+2)); len(panels) > room {
		hidden = len(panels) - room
		panels = panels[:room]
	}
	left := 0
	for i, p := range panels {
		height := (h - 1) / len(panels) // without the row of the time
		p.y = i * height
		p.legend = p.plot.lay(f.w-1, height-1)
		for _, l := range p.plot.labels() {
			left = max(left, cells(l.text)+2) // a column of space, and the axis
		}
	}
	s := c.stretch(c.right(), c.shown(), 2*(f.w-left))
	ticks := c.ticks(s)
	for i, p := range panels {
		y := p.draw(f, s, left, ticks)
		if i == len(panels)-1 {
			for _, tick := range ticks {
				x := left + tick.at - len(tick.text)/2
				f.put(min(max(x, 0), f.w-len(tick.text)), y, plain, tick.text)
			}
			y++
		}
		p.drawLegend(f, y)
	}
	if text := c.waiting(); text != "" {
		f.put(max(left, (f.w-cells(text))/2), panels[0].y+1+panels[0].plot.height()/2, plain, text)
	}
	return hidden
}

func (c *chart) panels() (panels []*panel) {
	groups := divide(c.names)
	if len(groups) == 0 {
		for _, w := range c.asked {
			groups = append(groups, group{reading: w})
		}
	}
	for _, g := range groups {
		panels = append(panels, c.newPanel(g))
	}
	if groups[0].host == "" {
		panels[0].title += "  " + c.subject
	}
	return panels
}

func (c *chart) newPanel(g group) *panel {
	right := c.right()
	begin, _ := slices.BinarySearch(c.times, right-c.shown())
	end, _ := slices.BinarySearch(c.times, right+1)
	var all []trace
	for _, i := range g.columns {
		one := trace{reading: g.reading, name: c.names[i], column: i}
		if g.host != "" { // which is in the title
			_, one.name = splitName(one.name)
		}
		one.extent, one.newest = c.columns[i].extent(begin, end), c.columns[i].numbers[end-1]
		all = append(all, one)
	}
	title, cpus := "Readings", 0 // of a log, may be anything
	if g.reading != noWord {
		title = table[g.reading].title
	}
	if g.host != "" {
		title += "  " + g.host
	}
	if g.reading == loadWord {
		cpus = c.countCPUs()
	}
	switch cpus {
	case 0:
	case 1:
		title += " (1 CPU)"
	default:
		title += fmt.Sprintf(" (%d CPUs)", cpus)
	}
	return &panel{look: c.look, title: title, plot: newPlot(c.look, g.reading, all, cpus)}
}

// countCPUs returns the number of CPUs of the only host, or 0 if that is unknown.
func (c *chart) countCPUs() (cpus int) {
	if c.cpus > 0 {
		return c.cpus
	}
	for _, name := range c.names {
		if host, w, _ := columnOf(name); host == "" && w == coresWord {
			cpus++
		}
	}
	return cpus
}

// ticks returns round times that are far enough apart for their labels, and the
// columns of cells at which they are.
func (c *chart) ticks(s stretch) (ticks []label) {
	if len(c.times) == 0 {
		return nil
	}
	steps := len(s.edges) - 1
	begin, end := c.start.Add(s.begin), c.start.Add(s.begin+s.step*time.Duration(steps))
	step := 24 * time.Hour
	for _, n := range []time.Duration{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200} {
		if d := n * time.Second; c.shown() <= d*time.Duration(max(1, steps/24)) {
			step = d
			break
		}
	}
	layout := "15:04:05"
	if step >= 24*time.Hour {
		layout = "Jan 02"
	}
	_, offset := begin.Local().Zone()
	local := time.Duration(offset) * time.Second
	for at := begin.Add(local).Truncate(step).Add(-local); at.Before(end); at = at.Add(step) {
		if !at.Before(begin) {
			ticks = append(ticks, label{s.at(at.Sub(c.start)) / 2, at.Local().Format(layout)})
		}
	}
	return ticks
}

// waiting returns what a chart without a line says.
func (c *chart) waiting() string {
	switch {
	case len(c.times) > 0:
		return ""
	case c.first.IsZero():
		return "waiting for the first reading"
	}
	return "first reading at " + c.first.Local().Format("15:04:05")
}

// shownMessage returns the message with its time, unless it is too old.
func (c *chart) shownMessage(now time.Time) string {
	if c.message == "" || now.Sub(c.messageAt) >= messageTime {
		return ""
	}
	return c.messageAt.Local().Format("15:04:05 ") + c.message
}

// caption returns the interval, the window and how many panels do not fit.
func (c *chart) caption(hidden int) string {
	text := "window " + formatDuration(c.shown())
	if c.intervalText != "" {
		text = fmt.Sprintf("interval %s  %s", c.intervalText, text)
	}
	if c.condition != "" {
		text += "  " + c.condition
	}
	if !c.until.IsZero() {
		text += c.until.Local().Format("  until 15:04:05 (End: newest)")
	}
	if hidden > 0 {
		text += fmt.Sprintf("  %d more in a larger terminal", hidden)
	}
	return text
}

// formatDuration formats a duration without the zeros of Duration.String: 3m,
// not 3m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	if d >= time.Second && d <= 120*time.Second && d%time.Second == 0 {
		text = fmt.Sprintf("%ds", d/time.Second)
	}
	return text
}
