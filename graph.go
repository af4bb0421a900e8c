package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gdamore/tcell/v3"
	"golang.org/x/term"
)

// A graph shows a chart on the controlling terminal.
type graph struct {
	chart  chart
	mu     sync.Mutex // between drawing and a panic elsewhere that gives the terminal back
	tty    tcell.Tty
	screen tcell.Screen
	lines  chan line          // from the poller
	breaks chan<- func() bool // to the poller
	resume chan struct{}

	stopping chan<- func() bool // breaks, while the poller has yet to stop
	shown    *frame             // what is on the screen
	held     *heldMessages      // what would have gone into the picture; nil if it would not
}

const redrawPause = 200 * time.Millisecond // at the least, when it is lines that change the picture

// openGraph takes the terminal over, until close.
func openGraph(c chart, breaks chan<- func() bool) (*graph, error) {
	g := &graph{chart: c, lines: make(chan line, 16), breaks: breaks, resume: make(chan struct{})}
	if err := g.takeTerminal(); err != nil {
		return nil, err
	}
	restoreTerminal = g.giveTerminal
	if isTerminal(os.Stderr) {
		g.held = &heldMessages{news: make(chan string, 1)}
		log.SetOutput(g.held)
	}
	return g, nil
}

func (g *graph) takeTerminal() error {
	tty, err := tcell.NewDevTty()
	var screen tcell.Screen
	if err == nil {
		screen, err = tcell.NewTerminfoScreenFromTty(tty)
	}
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	screen.HideCursor()
	screen.EnableMouse(tcell.MouseButtonEvents)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tty, g.screen, g.shown = tty, screen, nil
	g.chart.mono = screen.Colors() < 8
	g.chart.ascii = screen.CharacterSet() != "UTF-8"
	return nil
}

func (g *graph) giveTerminal() {
	g.mu.Lock()
	defer g.mu.Unlock()
	io.WriteString(g.tty, scrollAll)
	g.screen.Fini()
}

// close gives the terminal back as it was.
func (g *graph) close() {
	g.giveTerminal()
	if g.held != nil {
		log.SetOutput(os.Stderr)
		os.Stderr.Write(g.held.text())
	}
}

// emit takes a line from the poller.
func (g *graph) emit(ctx context.Context, l line) {
	select {
	case g.lines <- l:
	case <-ctx.Done():
	}
}

// run draws what comes, and calls quit when the user wants to end, until ctx is
// done.
func (g *graph) run(ctx context.Context, quit func()) {
	var news chan string
	if g.held != nil {
		news = g.held.news
	}
	due := time.NewTimer(0)
	defer due.Stop()
	drawn, waiting := time.Time{}, true
	for {
		pause := redrawPause
		select {
		case l := <-g.lines:
			g.chart.add(l)
		case g.chart.message = <-news:
		case g.stopping <- func() bool { return g.stop(ctx) }:
			g.stopping = nil
			continue
		case event := <-g.screen.EventQ():
			pause, waiting = 0, false
			switch event := event.(type) {
			case *tcell.EventKey:
				switch key := event.Str(); {
				case event.Key() == tcell.KeyCtrlC, event.Key() == tcell.KeyEsc, key == "q":
					quit()
				case event.Key() == tcell.KeyCtrlZ:
					if err := g.suspend(); err != nil {
						log.Print(err)
						quit()
						return
					}
				case key == " ":
					g.toggle(ctx)
				case key == "+":
					g.chart.zoom(0.5)
				case key == "-":
					g.chart.zoom(2)
				}
			case *tcell.EventMouse:
				w, h := g.screen.Size()
				x, y := event.Position()
				if event.Buttons()&tcell.ButtonPrimary != 0 && y == h-1 && x < utf8.RuneCountInString(g.chart.button(w)) {
					g.toggle(ctx)
				}
			case *tcell.EventResize:
				g.screen.Sync()
				g.shown = nil
			case nil, *tcell.EventError: // the terminal is gone
				quit()
				return
			}
		case <-due.C:
			waiting = false
			drawn = time.Now()
			g.show()
			continue
		case <-ctx.Done():
			return
		}
		if !waiting {
			waiting = true
			due.Reset(time.Until(drawn.Add(pause)))
		}
	}
}

// suspend gives the terminal to the shell, and the whole job a rest, until the
// shell continues it.
func (g *graph) suspend() error {
	g.giveTerminal()
	// As the terminal itself would; not every platform's package syscall can.
	exec.Command("sh", "-c", "kill -TSTP 0").Run()
	g.chart.gap()
	return g.takeTerminal() // the library can resume, too, but may lose the first key
}

// toggle stops the polling, or starts it again.
func (g *graph) toggle(ctx context.Context) {
	g.chart.stopped = !g.chart.stopped
	switch {
	case g.chart.stopped:
		g.stopping = g.breaks
	case g.stopping != nil: // not stopped yet
		g.stopping = nil
	default:
		g.chart.gap()
		select {
		case g.resume <- struct{}{}:
		case <-ctx.Done():
		}
	}
}

// stop has the poller wait until it may go on, or ctx is done.
func (g *graph) stop(ctx context.Context) bool {
	select {
	case <-g.resume:
		return true
	case <-ctx.Done():
		return false
	}
}

// The terminal has others that write to it, like tee in cpunc -g | tee log. They
// do that where tcell leaves the cursor, in the last cell. With these their text
// is not seen there, and their newlines move nothing.
const (
	scrollOthers = "\x1b[1;%dr" // only the rows above the cursor's scroll
	scrollAll    = "\x1b[r"
	conceal      = "\x1b[8m"
)

// show puts the picture on the screen.
func (g *graph) show() {
	g.mu.Lock()
	defer g.mu.Unlock()
	f, old := g.chart.draw(g.screen.Size()), g.shown
	fresh := old == nil || old.w != f.w || old.h != f.h
	if fresh {
		fmt.Fprintf(g.tty, scrollOthers, f.h-1)
	}
	for at, r := range f.runes {
		// Most of a picture is as it was, and telling the screen so costs more
		// than drawing.
		if fresh || r != old.runes[at] || f.styles[at] != old.styles[at] {
			g.screen.SetContent(at%f.w, at/f.w, r, nil, g.look(f.styles[at]))
		}
	}
	g.shown = f
	g.screen.Show()
	io.WriteString(g.tty, conceal)
}

// Colors of the terminal's palette that are told apart, and seen, on dark and
// on light ground; the first six on every terminal that has colors.
var curveColors = []int{2, 3, 6, 5, 1, 4, 208, 39, 141, 71, 203, 178, 30, 168, 100, 67}

func (g *graph) look(s style) tcell.Style {
	look := tcell.StyleDefault
	switch {
	case s == dim:
		return look.Dim(true)
	case s == bold:
		return look.Bold(true)
	case s >= 0 && !g.chart.mono:
		n := len(curveColors)
		if g.screen.Colors() < 256 {
			n = 6
		}
		return look.Foreground(tcell.PaletteColor(curveColors[int(s)%n]))
	}
	return look
}

// heldMessages keeps what is logged until the terminal is free again.
type heldMessages struct {
	mu   sync.Mutex
	all  []byte
	news chan string // the newest, for the chart
}

const maxHeld = 64 << 10

func (m *heldMessages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.all)+len(p) <= maxHeld {
		m.all = append(m.all, p...)
	}
	select {
	case <-m.news:
	default:
	}
	m.news <- strings.Map(printable, strings.TrimSpace(strings.TrimPrefix(string(p), log.Prefix())))
	return len(p), nil
}

func (m *heldMessages) text() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// isOnChart says whether standard output is the terminal that the chart is on:
// as a rule, that is standard input's.
func isOnChart() bool {
	in, inErr := os.Stdin.Stat()
	out, outErr := os.Stdout.Stat()
	elsewhere := isTerminal(os.Stdin) && inErr == nil && outErr == nil && !os.SameFile(in, out)
	return isTerminal(os.Stdout) && !elsewhere
}
