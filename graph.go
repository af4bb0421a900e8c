package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gdamore/tcell/v3"
	"golang.org/x/term"
)

// A graph shows a chart on the controlling terminal. Lines never wait for the
// terminal: only the goroutine that draws does.
type graph struct {
	pauses          pauses
	quit, interrupt func()        // called when the user presses q or Ctrl-C
	changed         chan struct{} // signals that the chart has changed
	ctrlZ           chan struct{}
	end             chan struct{} // closed to end run
	done            chan struct{} // closed when run has returned; nil if it was not started

	mu     sync.Mutex // protects the fields below; never held while drawing
	chart  chart
	w, h   int    // size of the last picture
	stale  bool   // whether the next picture must replace everything on the screen
	resume func() // ends the pause of the button

	// Set by attach; run uses them.
	screen tcell.Screen
	shown  *frame                   // what is on the screen
	tty    atomic.Pointer[terminal] // nil while the terminal is not taken over
}

const (
	framePause = 100 * time.Millisecond // between pictures
	grace      = 300 * time.Millisecond // for the terminal to take what is left at the end
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
		quit:      quit,
		interrupt: interrupt,
		changed:   make(chan struct{}, 1),
		ctrlZ:     make(chan struct{}, 1),
		end:       make(chan struct{}),
	}
}

// open takes over the terminal and draws on it until close.
func (g *graph) open() error {
	restoreTerminal = g.abandon
	if err := g.takeOver(); err != nil {
		return err
	}
	g.done = make(chan struct{})
	go func() { defer onPanic(); g.run() }() // ends with close
	if isTerminal(os.Stderr) {
		stderr.hold(func(message string) {
			g.say(quoteOdd(message))
		})
	}
	return nil
}

// show adds a line, and opens the graph once every host has replied or failed.
// Until then, a command may ask for a password.
func (g *graph) show(l line) error {
	g.change(func(c *chart) { c.add(l) })
	if g.isOpen() || !l.settled {
		return nil
	}
	return g.open()
}

// say shows a message on the chart for a while.
func (g *graph) say(message string) {
	g.change(func(c *chart) { c.say(message, time.Now()) })
	time.AfterFunc(messageTime, func() { signalTo(g.changed) })
}

// isOpen reports whether the graph has been opened.
func (g *graph) isOpen() bool { return g.done != nil }

// close draws the last line and gives the terminal back.
func (g *graph) close() {
	if !g.isOpen() {
		return
	}
	close(g.end)
	select {
	case <-g.done:
	case <-time.After(grace): // the terminal does not take the picture
		g.abandon()
	}
	stderr.release()
}

// takeOver takes over the controlling terminal.
func (g *graph) takeOver() error {
	dev, err := tcell.NewDevTty()
	if err == nil {
		err = g.attach(dev, saveTerminal(dev))
	}
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	return nil
}

// attach makes the library take over a terminal. restore must restore it
// without the library.
func (g *graph) attach(dev tcell.Tty, restore func(text string)) error {
	// The library would allocate as many cells as these say before it asks the
	// terminal, which knows its size.
	os.Unsetenv("COLUMNS")
	os.Unsetenv("LINES")
	t := &terminal{Tty: dev, watched: make(chan struct{})}
	defer close(t.watched)
	t.release = sync.OnceFunc(func() {
		t.released.Store(true)
		restore(leaveScreen)
	})
	screen, err := tcell.NewTerminfoScreenFromTty(t, tcell.OptNegotiation(false))
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return err
	}
	go func() { defer onPanic(); g.watch(screen.EventQ()) }() // ends with detach
	screen.HideCursor()
	screen.EnableMouse(tcell.MouseButtonEvents)
	g.screen, g.shown = screen, nil
	g.tty.Store(t)
	g.change(func(c *chart) {
		c.mono = screen.Colors() < 8
		c.colors = len(curveColors(screen.Colors()))
		c.ascii = !isUTF8(screen.CharacterSet()) || lacksBraille(os.Getenv("TERM"))
	})
	return nil
}

// detach gives the terminal back.
func (g *graph) detach() {
	t := g.tty.Load()
	ended := make(chan struct{})
	go func() { // ends with the library's goroutines, or with the process
		defer close(ended)
		io.WriteString(t, scrollAll)
		g.screen.Fini()
	}()
	select {
	case <-ended:
	case <-time.After(grace): // the library's goroutines may block each other if there is much input
		t.release()
	}
	g.tty.Store(nil)
}

// abandon restores the terminal if it is taken over, without waiting for what is
// being drawn.
func (g *graph) abandon() {
	if t := g.tty.Load(); t != nil {
		t.release()
	}
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

// run draws the chart until the graph is closed.
func (g *graph) run() {
	defer close(g.done)
	defer g.detach()
	for {
		select {
		case <-g.changed:
		case <-g.ctrlZ:
			if err := g.suspend(); err != nil {
				say("%v", err)
				g.quit()
				<-g.end
				return
			}
		case <-g.end:
			g.draw() // the last line
			return
		}
		g.draw()
		select {
		case <-time.After(framePause):
		case <-g.end:
		}
	}
}

// watch handles the events of a screen until the screen is given back. It must not
// use the screen, which the library keeps locked until the events are read.
func (g *graph) watch(events <-chan tcell.Event) {
	for event := range events {
		if !g.handle(event) {
			g.quit()
			break
		}
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
		case event.Key() == tcell.KeyLeft:
			g.change(func(c *chart) { c.move(-0.25) })
		case event.Key() == tcell.KeyRight:
			g.change(func(c *chart) { c.move(0.25) })
		case event.Key() == tcell.KeyEnd:
			g.change(func(c *chart) { c.back = false })
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
	return y == g.h-1 && x < cells(g.chart.button(time.Now(), g.w))
}

// suspend gives the terminal back and stops the job. When that is continued, it
// takes over the terminal again.
func (g *graph) suspend() error {
	g.detach()
	suspend()
	g.change((*chart).gap)
	return g.takeOver() // the library can resume, too, but may lose the first key
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

// draw puts the picture on the screen. It waits for the terminal.
func (g *graph) draw() {
	w, h := g.screen.Size()
	g.mu.Lock()
	c := g.chart
	stale := g.stale
	g.w, g.h, g.stale = w, h, false
	g.mu.Unlock()
	f := c.draw(time.Now(), w, h)
	if stale {
		g.screen.Sync()
		g.shown = nil
	}
	t, old := g.tty.Load(), g.shown
	fresh := old == nil || old.w != f.w || old.h != f.h
	if fresh {
		fmt.Fprintf(t, scrollOthers, f.h-1)
	}
	for at, r := range f.runes {
		// Most cells have not changed, and setting a cell costs more than
		// drawing it.
		if fresh || r != old.runes[at] || f.styles[at] != old.styles[at] {
			g.screen.SetContent(at%f.w, at/f.w, r, nil, cellStyle(f.styles[at], g.screen.Colors()))
		}
	}
	g.shown = f
	g.screen.Show()
	io.WriteString(t, conceal)
}

// redrawAll makes the next picture replace everything on the screen.
func (g *graph) redrawAll() {
	g.change(func(*chart) { g.stale = true })
}

// A terminal is what the library reads and writes. Its size is bounded, because
// it is not under our control.
type terminal struct {
	tcell.Tty
	watched  chan struct{} // closed once the events are read; until then, Read blocks
	release  func()        // restores the terminal without the library, once
	released atomic.Bool
}

const (
	writeSize           = 16 << 10 // bytes that are written at a time, so that the rest can be dropped
	maxColumns, maxRows = 1000, 300
)

// Write blocks until the terminal has taken text. Once the terminal is released,
// it drops the rest.
func (t *terminal) Write(text []byte) (int, error) {
	for chunk := range slices.Chunk(text, writeSize) {
		if t.released.Load() {
			break
		}
		if n, err := t.Tty.Write(chunk); err != nil {
			return n, err
		}
	}
	return len(text), nil
}

// Drain and Stop change the modes of the terminal, which release has restored.
func (t *terminal) Drain() error {
	if t.released.Load() {
		return nil
	}
	return t.Tty.Drain()
}

func (t *terminal) Stop() error {
	if t.released.Load() {
		return nil
	}
	return t.Tty.Stop()
}

func (t *terminal) Read(p []byte) (int, error) {
	<-t.watched
	return t.Tty.Read(p)
}

func (t *terminal) WindowSize() (tcell.WindowSize, error) {
	size, err := t.Tty.WindowSize()
	size.Width, size.Height = min(size.Width, maxColumns), min(size.Height, maxRows)
	return size, err
}

// leaveScreen is what the library would write: cursor, margins, keypad and mouse
// as before, and the main screen.
const leaveScreen = "\x1b[r\x1b[?25h\x1b[?1l\x1b>\x1b[m\x1b[?7h\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l"

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// isOnChart reports whether standard output is the terminal with the chart,
// which normally is that of standard input.
func isOnChart() bool {
	in, inErr := os.Stdin.Stat()
	out, outErr := os.Stdout.Stat()
	elsewhere := isTerminal(os.Stdin) && inErr == nil && outErr == nil && !os.SameFile(in, out)
	return isTerminal(os.Stdout) && !elsewhere
}
