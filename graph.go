package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gdamore/tcell/v3"
	"golang.org/x/term"
)

// A graph shows a chart on the controlling terminal. It never blocks its
// callers: it takes lines at once, and drops pictures if the terminal is too
// slow.
type graph struct {
	pauses  pauses
	changed chan struct{} // signals that the chart has changed
	urgent  chan struct{} // signals that the user has changed it
	ctrlZ   chan struct{}
	tstp    chan os.Signal
	done    chan struct{} // closed when run has returned

	quit, interrupt func() // called when the user presses q or Ctrl-C

	mu     sync.Mutex // protects the fields below; never held for long
	chart  chart
	w, h   int    // size of the last picture
	stale  bool   // whether the next picture must replace everything on the screen
	resume func() // ends the pause of the button

	terminal     sync.Mutex // protects the fields below while drawing and while restoring the terminal
	restoreModes func()     // the modes that the terminal had
	tty          *boundedTty
	screen       tcell.Screen
	shown        *frame // what is on the screen
	released     bool   // whether the terminal is not taken over now
}

const (
	linePause = 200 * time.Millisecond // between pictures if a line changes them
	keyPause  = 20 * time.Millisecond  // if a key changes them
)

// checkTerminal returns an error if a chart cannot be drawn on the terminal.
func checkTerminal() error {
	if _, err := tcell.NewDevTty(); err != nil {
		return fmt.Errorf("--graph requires a terminal: %w", cause(err))
	}
	if os.Getenv("TERM") == "dumb" { // in the shell of an editor
		return errors.New("--graph cannot draw on a terminal of type dumb")
	}
	return nil
}

// newGraph returns a graph that takes lines but is not open yet. It calls quit
// when the user quits, and interrupt when the user presses Ctrl-C, which is no
// signal while the terminal is in raw mode.
func newGraph(c chart, rests pauses, quit, interrupt func()) *graph {
	return &graph{
		chart:     c,
		pauses:    rests,
		changed:   make(chan struct{}, 1),
		urgent:    make(chan struct{}, 1),
		ctrlZ:     make(chan struct{}, 1),
		tstp:      make(chan os.Signal, 1),
		quit:      quit,
		interrupt: interrupt,
		released:  true,
	}
}

// open takes over the terminal until close, and draws on it until ctx is done.
func (g *graph) open(ctx context.Context) error {
	restoreTerminal = g.releaseTerminal
	if err := g.takeTerminal(); err != nil {
		return err
	}
	g.done = make(chan struct{})
	go func() { defer onPanic(); g.run(ctx) }() // ends with ctx; close waits for it
	if isTerminal(os.Stderr) {
		stderr.hold(func(message string) {
			g.change(func(c *chart) { c.message = quoteOdd(message) })
		})
	}
	return nil
}

// opening returns a function that adds a line, and opens the graph once every
// host has replied or failed. Until then, a command may ask for a password.
func (g *graph) opening(ctx context.Context) func(line) error {
	return func(l line) error {
		g.add(l)
		if g.isOpen() || !l.settled {
			return nil
		}
		return g.open(ctx)
	}
}

// isOpen reports whether the graph has been opened.
func (g *graph) isOpen() bool { return g.done != nil }

func (g *graph) takeTerminal() error {
	tty, err := tcell.NewDevTty()
	if err == nil {
		err = g.take(tty, saveModes())
	}
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	return nil
}

// take takes over a terminal. restore must set the modes that it has now.
func (g *graph) take(tty tcell.Tty, restore func()) error {
	// The library would allocate as many cells as these say before it asks the
	// terminal, which knows its size.
	os.Unsetenv("COLUMNS")
	os.Unsetenv("LINES")
	bounded := &boundedTty{Tty: tty, watched: make(chan struct{})}
	defer close(bounded.watched)
	screen, err := tcell.NewTerminfoScreenFromTty(bounded, tcell.OptNegotiation(false))
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return err
	}
	go func() { defer onPanic(); g.watch(screen.EventQ()) }() // ends with Fini
	screen.HideCursor()
	screen.EnableMouse(tcell.MouseButtonEvents)
	g.terminal.Lock()
	g.tty, g.screen, g.shown, g.released, g.restoreModes = bounded, screen, nil, false, restore
	g.terminal.Unlock()
	g.change(func(c *chart) {
		c.mono = screen.Colors() < 8
		c.ascii = !isUTF8(screen.CharacterSet()) || lacksBraille(os.Getenv("TERM"))
	})
	if len(suspendSignals) > 0 {
		signal.Notify(g.tstp, suspendSignals...)
	}
	return nil
}

// isUTF8 reports whether charset is UTF-8, which locales spell in many ways.
func isUTF8(charset string) bool {
	return strings.EqualFold(strings.ReplaceAll(charset, "-", ""), "utf8")
}

// lacksBraille reports whether a terminal of this type, such as a console, has
// no braille characters.
func lacksBraille(term string) bool {
	kind, _, _ := strings.Cut(term, "-")
	return slices.Contains([]string{"linux", "vt100", "vt102", "vt220", "vt320", "wsvt25", "cons25", "sun", "ansi"}, kind)
}

// releaseTerminal restores the terminal, unless that has been done.
func (g *graph) releaseTerminal() {
	g.terminal.Lock()
	defer g.terminal.Unlock()
	if g.released {
		return
	}
	g.released = true
	signal.Stop(g.tstp)
	io.WriteString(g.tty, scrollAll)
	ended := make(chan struct{})
	go func() { // ends with the library's goroutines, or with the process
		defer close(ended)
		g.screen.Fini()
	}()
	select {
	case <-ended:
	case <-time.After(finiTimeout): // its goroutines may block each other if there is much input
		io.WriteString(g.tty, leaveScreen)
		g.restoreModes()
	}
}

// saveModes returns a function that restores the modes the terminal has now.
func saveModes() (restore func()) {
	withTerminal := func(f func(fd int)) {
		if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
			defer tty.Close()
			f(int(tty.Fd()))
		}
	}
	var modes *term.State
	withTerminal(func(fd int) { modes, _ = term.GetState(fd) })
	return func() {
		if modes != nil {
			withTerminal(func(fd int) { term.Restore(fd, modes) })
		}
	}
}

const (
	finiTimeout = 300 * time.Millisecond
	// leaveScreen is what Fini would write: cursor, margins, keypad and mouse as
	// before, and the main screen.
	leaveScreen = "\x1b[?25h\x1b[?1l\x1b>\x1b[m\x1b[?7h\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l"
)

// close waits for run, whose ctx must be done, and restores the terminal.
func (g *graph) close() {
	if !g.isOpen() {
		return
	}
	<-g.done
	g.show() // the last line, which run may not have drawn
	g.releaseTerminal()
	stderr.release()
}

// add adds a line to the chart.
func (g *graph) add(l line) {
	g.change(func(c *chart) { c.add(l) })
}

// change changes the chart with f and has it drawn soon.
func (g *graph) change(f func(c *chart)) {
	g.mu.Lock()
	f(&g.chart)
	g.mu.Unlock()
	signalTo(g.changed)
}

// signalTo sends to a channel with a buffer of one, unless it is full.
func signalTo(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run draws the chart until ctx is done.
func (g *graph) run(ctx context.Context) {
	defer close(g.done)
	due := time.NewTimer(0)
	defer due.Stop()
	drawn, waiting := time.Time{}, true
	for {
		pause := linePause
		var err error
		select {
		case <-g.changed:
		case <-g.urgent:
			pause, waiting = keyPause, false
		case <-g.ctrlZ:
			err = g.suspend(true)
		case <-g.tstp:
			err = g.suspend(false)
		case <-due.C:
			waiting = false
			drawn = time.Now()
			g.show()
			continue
		case <-ctx.Done():
			return
		}
		if err != nil {
			say("%v", err)
			g.quit()
			return
		}
		if !waiting {
			waiting = true
			due.Reset(time.Until(drawn.Add(pause)))
		}
	}
}

// watch handles the events of a screen until the screen is released. It must not
// use the screen, which the library keeps locked until the events are read.
func (g *graph) watch(events <-chan tcell.Event) {
	for event := range events {
		if !g.handle(event) {
			g.quit()
			break
		}
		signalTo(g.urgent)
	}
	for range events { // otherwise, Fini would block
	}
}

// handle handles a key, a click or a change of size, and reports whether to
// continue.
func (g *graph) handle(event tcell.Event) bool {
	switch event := event.(type) {
	case *tcell.EventKey:
		switch key := event.Str(); {
		case event.Key() == tcell.KeyEsc, key == "q":
			return false
		case event.Key() == tcell.KeyCtrlC:
			g.interrupt()
		case event.Key() == tcell.KeyCtrlZ:
			signalTo(g.ctrlZ)
		case event.Key() == tcell.KeyCtrlL:
			g.redrawAll()
		case key == " ":
			g.toggle()
		case key == "?", key == "h":
			g.change(func(c *chart) { c.help = !c.help })
		case key == "+":
			g.change(func(c *chart) { c.zoom(0.5) })
		case key == "-":
			g.change(func(c *chart) { c.zoom(2) })
		}
	case *tcell.EventMouse:
		if event.Buttons()&tcell.ButtonPrimary != 0 && g.isOnButton(event.Position()) {
			g.toggle()
		}
	case *tcell.EventResize:
		g.redrawAll()
	case *tcell.EventError: // the terminal is gone
		return false
	}
	return true
}

func (g *graph) isOnButton(x, y int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return y == g.h-1 && x < utf8.RuneCountInString(g.chart.button(g.w))
}

// suspend restores the terminal and stops the process, or its whole job. When
// that is continued, it takes over the terminal again.
func (g *graph) suspend(job bool) error {
	g.releaseTerminal()
	suspend(job)
	g.change((*chart).gap)
	return g.takeTerminal() // the library can resume, too, but may lose the first key
}

// toggle begins or ends a pause.
func (g *graph) toggle() {
	g.change(func(c *chart) {
		c.stopped = !c.stopped
		if c.stopped {
			g.resume = g.pauses.begin()
			return
		}
		c.gap()
		g.resume()
	})
}

// Other programs may write to the terminal, such as tee in cpunc -g | tee log.
// They write at the cursor, which tcell leaves in the last cell. These
// sequences hide their text and keep their newlines from moving the picture.
const (
	scrollOthers = "\x1b[1;%dr" // only the rows above that of the cursor scroll
	scrollAll    = "\x1b[r"
	conceal      = "\x1b[8m"
)

// show puts the picture on the screen, unless the terminal has not taken an
// earlier one yet.
func (g *graph) show() {
	g.terminal.Lock()
	defer g.terminal.Unlock()
	if g.released || g.tty.isStuck() {
		return
	}
	w, h := g.screen.Size()
	g.mu.Lock()
	f := g.chart.draw(w, h)
	mono := g.chart.mono
	stale := g.stale
	g.w, g.h, g.stale = w, h, false
	g.mu.Unlock()
	if lost := g.tty.hasLost(); lost || stale {
		g.screen.Sync()
		g.shown = nil
	}
	old := g.shown
	fresh := old == nil || old.w != f.w || old.h != f.h
	if fresh {
		fmt.Fprintf(g.tty, scrollOthers, f.h-1)
	}
	for at, r := range f.runes {
		// Most cells have not changed, and setting a cell costs more than
		// drawing it.
		if fresh || r != old.runes[at] || f.styles[at] != old.styles[at] {
			g.screen.SetContent(at%f.w, at/f.w, r, nil, cellStyle(f.styles[at], mono, g.screen.Colors()))
		}
	}
	g.shown = f
	g.screen.Show()
	io.WriteString(g.tty, conceal)
}

// redrawAll makes the next picture replace everything on the screen.
func (g *graph) redrawAll() {
	g.change(func(*chart) { g.stale = true })
}

// curveColors are colors of the terminal's palette that can be told apart, and
// seen on dark and on light backgrounds. The first six are those of a terminal
// with fewer than 256 colors.
var curveColors = []int{2, 3, 6, 5, 1, 4, 208, 39, 141, 71, 203, 178, 30, 168, 100, 67}

// cellStyle returns the style of a cell for tcell.
func cellStyle(s style, mono bool, colors int) tcell.Style {
	base := tcell.StyleDefault
	switch {
	case s == dim:
		return base.Dim(true)
	case s == bold:
		return base.Bold(true)
	case s >= 0 && !mono:
		n := len(curveColors)
		if colors < 256 {
			n = 6
		}
		return base.Foreground(tcell.PaletteColor(curveColors[int(s)%n]))
	}
	return base
}

// A boundedTty is a terminal on which writes do not block: what it does not
// take within drainTime is lost. Its size is bounded, too, because it is not
// under our control.
type boundedTty struct {
	tcell.Tty
	watched chan struct{} // closed once the events are read; until then, Read blocks

	mu        sync.Mutex    // the library writes from several goroutines
	stuck     chan struct{} // closed when the write that timed out has ended
	abandoned chan struct{} // closed to end that write early
	lost      bool          // whether output was lost
}

const (
	drainTime           = 100 * time.Millisecond
	writeSize           = 512 // bytes that are written at a time, so that the rest can be dropped
	maxColumns, maxRows = 1000, 300
)

// isStuck reports whether the terminal has not taken an earlier write yet.
func (t *boundedTty) isStuck() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pending()
}

// pending is isStuck for callers that hold t.mu.
func (t *boundedTty) pending() bool {
	if t.stuck == nil {
		return false
	}
	select {
	case <-t.stuck:
		t.stuck = nil
		return false
	default:
		return true
	}
}

// hasLost reports whether output was lost since the last call.
func (t *boundedTty) hasLost() (lost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lost, t.lost = t.lost, false
	return lost
}

func (t *boundedTty) Write(text []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending() {
		t.lost = true
		return len(text), nil
	}
	written, abandoned := make(chan struct{}), make(chan struct{})
	rest := slices.Clone(text)
	go func() { // ends with the write; one that never ends, with the process
		defer close(written)
		for chunk := range slices.Chunk(rest, writeSize) {
			select {
			case <-abandoned:
				return
			default:
			}
			if _, err := t.Tty.Write(chunk); err != nil {
				return
			}
		}
	}()
	select {
	case <-written:
	case <-time.After(drainTime):
		t.stuck, t.abandoned, t.lost = written, abandoned, true
	}
	return len(text), nil
}

// Drain is called before the sequences that restore the terminal are written.
// It discards a picture that the terminal has not taken yet, to make room for
// them.
func (t *boundedTty) Drain() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending() {
		close(t.abandoned)
		flushTerminal()
		select {
		case <-t.stuck:
		case <-time.After(drainTime):
			return nil // changing the modes would wait for that write
		}
	}
	return t.Tty.Drain()
}

func (t *boundedTty) Read(p []byte) (int, error) {
	<-t.watched
	return t.Tty.Read(p)
}

func (t *boundedTty) WindowSize() (tcell.WindowSize, error) {
	size, err := t.Tty.WindowSize()
	size.Width, size.Height = min(size.Width, maxColumns), min(size.Height, maxRows)
	return size, err
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// isOnChart reports whether standard output is the terminal with the chart,
// which normally is that of standard input.
func isOnChart() bool {
	in, inErr := os.Stdin.Stat()
	out, outErr := os.Stdout.Stat()
	elsewhere := isTerminal(os.Stdin) && inErr == nil && outErr == nil && !os.SameFile(in, out)
	return isTerminal(os.Stdout) && !elsewhere
}
