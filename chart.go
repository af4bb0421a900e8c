package main

import (
	"fmt"
	"maps"
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
	condition    string // of the gate, and for how long it has held
	window       time.Duration
	whole        bool // whether the window is all that was received
	location     *time.Location
	cpus         int       // number of CPUs; 0 if it is unknown
	first        time.Time // when the first line is expected, if that takes long

	newest  []string // numbers of the newest line, as received
	stopped bool
	help    bool // whether the keys are shown over the chart
	back    bool // whether the window ends at until instead of at the newest line
	until   time.Duration

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

// snapshot returns a copy that later changes do not affect. It shares the
// numbers, which are only appended to.
func (c *chart) snapshot() chart {
	copied := *c
	copied.columns = slices.Clone(c.columns)
	return copied
}

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
	c.newest = l.columns[:n]
	if c.whole {
		whole := c.history.newest() - c.times[0]
		c.window = max((whole + time.Second - 1).Truncate(time.Second), shortestWindow)
	}
}

// zoom multiplies the window by factor, within its limits.
func (c *chart) zoom(factor float64) {
	c.whole = false
	c.window = min(max(time.Duration(float64(c.window)*factor), shortestWindow), longestWindow)
}

// move moves the window by a part of it, no further than there are lines. At
// the newest line, the window follows it again.
func (c *chart) move(part float64) {
	if len(c.times) == 0 {
		return
	}
	c.until = max(c.right()+time.Duration(part*float64(c.window)), c.times[0])
	c.back = c.until < c.history.newest()
}

func (c *chart) right() time.Duration {
	if c.back {
		return max(c.until, c.times[0])
	}
	return c.history.newest()
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
	f.put(1, h-2, plain, c.caption(hidden))
	button := c.button(now, w)
	f.put(0, h-1, bold, button)
	beside := c.shownMessage(now)
	if keys := "  ? help  q quit  +/- zoom"; beside == "" && cells(button+keys) < w {
		beside = keys
	}
	f.put(cells(button)+1, h-1, plain, beside)
	if c.help {
		f.putBox(keyHelp)
	}
	if c.ascii {
		f.toASCII()
	}
	return f
}

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
	panels[len(panels)-1].last = true
	left := 0
	for i, p := range panels {
		height := (h - 1) / len(panels) // without the row of the time
		p.lay(f.w, i*height, height)
		left = max(left, p.labelWidth()+2) // a column of space, and the axis
	}
	s := c.stretch(c.right(), c.window, 2*(f.w-left))
	ticks := c.ticks(s)
	for _, p := range panels {
		p.draw(f, s, left, ticks)
	}
	for _, tick := range ticks {
		x := left + tick.at - len(tick.text)/2
		f.put(min(max(x, 0), f.w-len(tick.text)), panels[len(panels)-1].bottom(), plain, tick.text)
	}
	if text := c.waiting(); text != "" {
		f.put(max(left, (f.w-cells(text))/2), panels[0].y+1+panels[0].rows/2, plain, text)
	}
	return hidden
}

func (c *chart) panels() (panels []*panel) {
	right := c.right()
	begin, _ := slices.BinarySearch(c.times, right-c.window)
	end, _ := slices.BinarySearch(c.times, right+1)
	for _, g := range divide(c.names) {
		p := c.newPanel(g)
		for _, i := range g.columns {
			name := c.names[i]
			if g.host != "" { // which the title has
				_, name = splitName(name)
			}
			p.names = append(p.names, name)
			p.extents = append(p.extents, c.columns[i].extent(begin, end))
			p.newest = append(p.newest, c.text(i, end-1))
		}
		panels = append(panels, p)
	}
	if len(panels) == 0 {
		for _, w := range c.asked {
			panels = append(panels, c.newPanel(group{reading: w}))
		}
	}
	if first := panels[0]; first.host == "" {
		first.title += "  " + c.subject
	}
	return panels
}

// newPanel returns the panel of a group, without its numbers.
func (c *chart) newPanel(g group) *panel {
	p := &panel{group: g, look: c.look, title: "Readings"} // of a log, may be anything
	if g.reading != noWord {
		p.title = table[g.reading].title
	}
	if g.host != "" {
		p.title += "  " + g.host
	}
	if g.reading == loadWord {
		switch p.cpus = c.countCPUs(); p.cpus {
		case 0:
		case 1:
			p.title += " (1 CPU)"
		default:
			p.title += fmt.Sprintf(" (%d CPUs)", p.cpus)
		}
	}
	return p
}

// countCPUs returns the number of CPUs of each host, or 0 if that is unknown or
// differs.
func (c *chart) countCPUs() int {
	if c.cpus > 0 {
		return c.cpus
	}
	counts := map[string]int{}
	for _, name := range c.names {
		host, w, _ := columnOf(name)
		counts[host] += 0
		if w == coresWord {
			counts[host]++
		}
	}
	all := slices.Sorted(maps.Values(counts))
	if len(all) == 0 || all[0] != all[len(all)-1] {
		return 0
	}
	return all[0]
}

// ticks returns round times that are far enough apart for their labels, and the
// columns of cells at which they are.
func (c *chart) ticks(s stretch) (ticks []label) {
	if len(c.times) == 0 {
		return nil
	}
	steps := len(s.edges) - 1
	begin, window := c.start.Add(s.begin), s.step*time.Duration(steps)
	step := 24 * time.Hour
	for _, n := range []time.Duration{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200} {
		if d := n * time.Second; c.window <= d*time.Duration(max(1, steps/24)) {
			step = d
			break
		}
	}
	layout := "15:04:05"
	if step >= 24*time.Hour {
		layout = "Jan 02"
	}
	_, offset := begin.In(c.location).Zone()
	local := time.Duration(offset) * time.Second
	for at := begin.Add(local).Truncate(step).Add(-local); at.Before(begin.Add(window)); at = at.Add(step) {
		if !at.Before(begin) {
			ticks = append(ticks, label{s.at(at.Sub(c.start)) / 2, at.In(c.location).Format(layout)})
		}
	}
	return ticks
}

// text returns number n of a column as received, or with the usual decimals.
func (c *chart) text(column, n int) string {
	switch {
	case !c.back:
		return c.newest[column]
	case n < 0:
		return "nan"
	}
	return string(appendNumber(nil, c.columns[column].numbers[n], decimals(c.names[column])))
}

// waiting returns what a chart without a line says.
func (c *chart) waiting() string {
	switch {
	case len(c.times) > 0:
		return ""
	case c.first.IsZero():
		return "waiting for the first reading"
	}
	return "first reading at " + c.first.In(c.location).Format("15:04:05")
}

// button returns the label of the button, which is short if the message needs
// the space.
func (c *chart) button(now time.Time, w int) string {
	state, change := "running", "pause"
	if c.stopped {
		state, change = "paused", "resume"
	}
	text := fmt.Sprintf("[ %s: click or press space to %s ]", state, change)
	if beside := c.shownMessage(now); cells(strings.TrimSpace(text+" "+beside)) > w {
		return fmt.Sprintf("[ %s: space ]", state)
	}
	return text
}

// shownMessage returns the message with its time, unless it is too old.
func (c *chart) shownMessage(now time.Time) string {
	if c.message == "" || now.Sub(c.messageAt) >= messageTime {
		return ""
	}
	return c.messageAt.In(c.location).Format("15:04:05 ") + c.message
}

// caption returns the interval, the window and how many panels do not fit.
func (c *chart) caption(hidden int) string {
	text := "window " + formatDuration(c.window)
	if c.intervalText != "" {
		text = fmt.Sprintf("interval %s  %s", c.intervalText, text)
	}
	if c.condition != "" {
		text += "  " + c.condition
	}
	if c.back {
		text += fmt.Sprintf("  until %s (End: newest)", c.start.Add(c.until).In(c.location).Format("15:04:05"))
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
