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

// A terminal is taken over by the library, which reads and writes through it.
type terminal struct {
	tcell.Tty
	screen    tcell.Screen
	shown     *frame            // what is on the screen; nil to draw all of it
	ready     chan struct{}     // closed when the library is; until then, Read blocks
	restore   func(text string) // restores the terminal without the library
	restoring sync.Mutex        // the process must not end meanwhile
	released  atomic.Bool       // whether it is restored
}

const (
	writeSize           = 16 << 10  // bytes that are written at a time, so that the rest can be dropped
	maxColumns, maxRows = 1000, 300 // the size of a terminal is not under our control
)

func checkTerminal() error {
	if _, err := tcell.NewDevTty(); err != nil {
		return fmt.Errorf("--graph requires a terminal: %w", cause(err))
	}
	if os.Getenv("TERM") == "dumb" { // in the shell of an editor
		return errors.New("--graph cannot draw on a terminal of type dumb")
	}
	return nil
}

// newTerminal takes over a terminal. restore must restore it without the library.
func newTerminal(dev tcell.Tty, restore func(text string)) (*terminal, error) {
	// The library would allocate as many cells as these say before it asks the
	// terminal, which knows its size.
	os.Unsetenv("COLUMNS")
	os.Unsetenv("LINES")
	t := &terminal{Tty: dev, ready: make(chan struct{}), restore: restore}
	screen, err := tcell.NewTerminfoScreenFromTty(t, tcell.OptNegotiation(false))
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return nil, err
	}
	t.screen = screen
	screen.HideCursor()
	screen.EnableMouse(tcell.MouseButtonEvents)
	close(t.ready)
	return t, nil
}

// events returns keys, clicks and changes of size.
func (t *terminal) events() <-chan tcell.Event { return t.screen.EventQ() }

// look returns what the terminal can show.
func (t *terminal) look() look {
	return newLook(t.screen.Colors(), !isUTF8(t.screen.CharacterSet()) || lacksBraille(os.Getenv("TERM")))
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

// close gives the terminal back.
func (t *terminal) close() {
	ended := make(chan struct{})
	go func() { // ends with the library's goroutines, or with the process
		defer close(ended)
		io.WriteString(t, scrollAll)
		t.screen.Fini()
	}()
	timeout := time.After(grace)
	for {
		select {
		case <-t.events(): // otherwise, Fini would wait
		case <-ended:
			t.released.Store(true)
			return
		case <-timeout: // the library's goroutines may block each other if there is much input
			t.release()
			return
		}
	}
}

// release restores the terminal without the library, unless it is restored.
func (t *terminal) release() {
	t.restoring.Lock()
	defer t.restoring.Unlock()
	if !t.released.Swap(true) {
		t.restore(leaveScreen)
	}
}

// leaveScreen is what the library would write: cursor, margins, keypad and mouse
// as before, and the main screen.
const leaveScreen = "\x1b[r\x1b[?25h\x1b[?1l\x1b>\x1b[m\x1b[?7h\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l"

// Other programs may write to the terminal, such as tee in cpunc -g | tee log.
// They write at the cursor, which tcell leaves in the last cell. These
// sequences hide their text and keep their newlines from moving the picture.
const (
	scrollOthers = "\x1b[1;%dr" // only the rows above that of the cursor scroll
	scrollAll    = "\x1b[r"
	conceal      = "\x1b[8m"
)

// show puts a picture on the screen.
func (t *terminal) show(f *frame) {
	all := t.shown == nil || t.shown.w != f.w || t.shown.h != f.h
	if all {
		t.screen.Sync()
		fmt.Fprintf(t, scrollOthers, f.h-1)
	}
	for at, r := range f.runes {
		// Most cells have not changed, and setting a cell costs more than
		// drawing it.
		if all || r != t.shown.runes[at] || f.styles[at] != t.shown.styles[at] {
			t.screen.SetContent(at%f.w, at/f.w, r, nil, cellStyle(f.styles[at]))
		}
	}
	t.shown = f
	t.screen.Show()
	io.WriteString(t, conceal)
}

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
func (t *terminal) Drain() error { return t.unlessReleased(t.Tty.Drain) }
func (t *terminal) Stop() error  { return t.unlessReleased(t.Tty.Stop) }

func (t *terminal) unlessReleased(change func() error) error {
	if t.released.Load() {
		return nil
	}
	return change()
}

// Read keeps keys from the library until events can be taken from it: while it
// waits for that, it holds a lock that its initialization needs.
func (t *terminal) Read(p []byte) (int, error) {
	<-t.ready
	return t.Tty.Read(p)
}

func (t *terminal) WindowSize() (tcell.WindowSize, error) {
	size, err := t.Tty.WindowSize()
	size.Width, size.Height = min(size.Width, maxColumns), min(size.Height, maxRows)
	return size, err
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// isStdoutOnChart reports whether standard output is the terminal with the
// chart, which normally is that of standard input.
func isStdoutOnChart() bool {
	in, inErr := os.Stdin.Stat()
	out, outErr := os.Stdout.Stat()
	elsewhere := isTerminal(os.Stdin) && inErr == nil && outErr == nil && !os.SameFile(in, out)
	return isTerminal(os.Stdout) && !elsewhere
}
