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
	end             chan struct{} // closed to end run
	done            chan struct{} // closed when run has returned; nil if it was not started

	mu    sync.Mutex // protects chart
	chart chart

	terminal atomic.Pointer[terminal] // nil before it is taken over
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
	time.AfterFunc(messageTime, g.drawSoon)
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
	g.terminal.Store(t)
	g.change(func(c *chart) { c.look = t.look() })
	return nil
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
	g.drawSoon()
}

func (g *graph) drawSoon() {
	select {
	case g.changed <- struct{}{}:
	default: // it is already known
	}
}

// run draws the chart and handles events until the graph is closed.
func (g *graph) run() {
	defer close(g.done)
	defer func() { g.terminal.Load().close() }()
	var drawn time.Time
	next := time.NewTimer(0)
	for {
		select {
		case event := <-g.terminal.Load().events():
			if !g.handle(event) {
				g.quit()
			}
		case <-g.changed:
			next.Reset(framePause - time.Since(drawn))
		case <-next.C:
			g.draw()
			drawn = time.Now()
		case <-g.end:
			g.draw() // the last line
			return
		}
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
			if err := g.suspend(); err != nil {
				say("%v", err)
				return false
			}
		case event.Key() == tcell.KeyCtrlL:
			g.redraw()
		case key == " ":
			g.toggle()
		case key == "?", key == "h":
			g.change(func(c *chart) { c.help = !c.help })
		case event.Key() == tcell.KeyLeft:
			g.change(func(c *chart) { c.move(-0.25) })
		case event.Key() == tcell.KeyRight:
			g.change(func(c *chart) { c.move(0.25) })
		case event.Key() == tcell.KeyEnd:
			g.change(func(c *chart) { c.until = time.Time{} })
		case key == "+":
			g.change(func(c *chart) { c.zoom(0.5) })
		case key == "-":
			g.change(func(c *chart) { c.zoom(2) })
		}
	case *tcell.EventMouse:
		x, y := event.Position()
		_, h := g.terminal.Load().screen.Size()
		if event.Buttons()&tcell.ButtonPrimary != 0 && y == h-1 && x < cells(runningButton) {
			g.toggle()
		}
	case *tcell.EventResize:
		g.redraw()
	case *tcell.EventError: // the terminal is gone
		return false
	}
	return true
}

// suspend gives the terminal back and stops the job. When that is continued, it
// takes over the terminal again.
func (g *graph) suspend() error {
	g.terminal.Load().close()
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
	f := g.chart.draw(time.Now(), w, h)
	g.mu.Unlock()
	t.show(f)
}

// redraw makes the next picture replace everything on the screen.
func (g *graph) redraw() {
	g.terminal.Load().shown = nil
	g.drawSoon()
}
