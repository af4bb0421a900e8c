package main

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gdamore/tcell/v3"
)

// A graph shows a chart on the controlling terminal. Lines never wait for the
// terminal: only the goroutine that draws does.
type graph struct {
	brake           brake
	quit, interrupt func()        // called when the user presses q or Ctrl-C
	changed         chan struct{} // signals that the chart has changed
	ctrlZ           chan struct{}
	end             chan struct{} // closed to end run
	done            chan struct{} // closed when run has returned; nil if it was not started

	mu    sync.Mutex // protects the fields below; never held while drawing
	chart chart
	w, h  int  // size of the last picture
	stale bool // whether the next picture must replace everything on the screen

	terminal atomic.Pointer[terminal] // nil while it is not taken over
}

const framePause = 100 * time.Millisecond // between pictures

// newGraph returns a graph that takes lines but is not open yet. It calls quit
// when the user quits, and interrupt when the user presses Ctrl-C, which is no
// signal while the terminal is in raw mode.
func newGraph(c chart, b brake, quit, interrupt func()) *graph {
	return &graph{
		chart:     c,
		brake:     b,
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
		stderr.divert(func(message string) { g.say(quoteOdd(message)) })
	}
	return nil
}

// show adds a line, and opens the graph at the first one. Until then, a command
// may ask for a password.
func (g *graph) show(l line) error {
	g.change(func(c *chart) { c.add(l) })
	if g.done != nil {
		return nil
	}
	return g.open()
}

// say shows a message on the chart for a while.
func (g *graph) say(message string) {
	g.change(func(c *chart) { c.message, c.messageAt = message, time.Now() })
	time.AfterFunc(messageTime, func() { signalTo(g.changed) })
}

// close draws the last line and gives the terminal back.
func (g *graph) close() {
	if g.done == nil {
		return
	}
	close(g.end)
	select {
	case <-g.done:
	case <-time.After(grace): // the terminal does not take the picture
		g.abandon()
	}
	stderr.divert(nil)
}

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

// attach takes over a terminal. restore must restore it without the library.
func (g *graph) attach(dev tcell.Tty, restore func(text string)) error {
	t, err := newTerminal(dev, restore)
	if err != nil {
		return err
	}
	go func() { defer onPanic(); g.watch(t.events()) }() // ends with detach
	g.terminal.Store(t)
	g.change(func(c *chart) { c.look = t.look() })
	return nil
}

func (g *graph) detach() {
	if t := g.terminal.Load(); t != nil {
		t.close()
		g.terminal.Store(nil)
	}
}

// abandon restores the terminal if it is taken over, without waiting for what is
// being drawn.
func (g *graph) abandon() {
	if t := g.terminal.Load(); t != nil {
		t.release()
	}
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
			g.brake.pause()
			return
		}
		c.gap()
		g.brake.resume()
	})
}

func (g *graph) draw() {
	t := g.terminal.Load()
	w, h := t.screen.Size()
	g.mu.Lock()
	c, stale := g.chart.snapshot(), g.stale
	g.w, g.h, g.stale = w, h, false
	g.mu.Unlock()
	t.show(c.draw(time.Now(), w, h), stale)
}

// redrawAll makes the next picture replace everything on the screen.
func (g *graph) redrawAll() {
	g.change(func(*chart) { g.stale = true })
}
