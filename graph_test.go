package main

import (
	"bytes"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3"
)

// A keyboard is a terminal with input from the start. Its first write is delayed, so
// that the input gets ahead of the drawing.
type keyboard struct {
	keys  *io.PipeReader
	slept bool
}

func (k *keyboard) Start() error               { return nil }
func (k *keyboard) Stop() error                { return k.keys.Close() }
func (k *keyboard) Drain() error               { return nil }
func (k *keyboard) Close() error               { return nil }
func (k *keyboard) Read(p []byte) (int, error) { return k.keys.Read(p) }
func (k *keyboard) NotifyResize(chan<- bool)   {}
func (k *keyboard) WindowSize() (tcell.WindowSize, error) {
	return tcell.WindowSize{Width: 80, Height: 24}, nil
}

func (k *keyboard) Write(p []byte) (int, error) {
	if !k.slept {
		k.slept = true
		time.Sleep(50 * time.Millisecond)
	}
	return len(p), nil
}

// The library locks its screen while it waits for keys to be read. The chart must
// still start and end when much is typed before the q. (After the q, the library's
// own goroutines may block each other; then close does not wait for them.)
func TestPasteAtTheBeginning(t *testing.T) {
	t.Parallel()
	for range 10 {
		quit := make(chan struct{})
		g := newGraph(chart{window: time.Minute, asked: []word{cpuWord}}, newBrake(), func() { close(quit) }, func() {})
		g.done = make(chan struct{})
		keys, typed := io.Pipe()
		defer typed.Close() // the library still reads if detach did not wait for it
		go typed.Write(slices.Concat(bytes.Repeat([]byte("0"), 1000), []byte("q"), bytes.Repeat([]byte("0"), 100)))
		ended := make(chan error, 1)
		go func() {
			if err := g.attach(&keyboard{keys: keys}, func(string) { keys.Close() }); err != nil {
				ended <- err
				return
			}
			go g.run()
			<-quit
			g.close()
			ended <- nil
		}()
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the chart does not end")
		}
	}
}

// Giving the terminal back may block, because its reader is slow. The chart ends anyway.
func TestBlockedTerminal(t *testing.T) {
	t.Parallel()
	for _, blocks := range []string{"write", "drain"} {
		restored := make(chan string, 2)
		g := newGraph(chart{window: time.Minute, asked: []word{cpuWord}}, newBrake(), func() {}, func() {})
		tty := &blockedTerminal{keyboard: keyboard{slept: true}, at: blocks, release: make(chan struct{})}
		var keys *io.PipeWriter
		tty.keys, keys = io.Pipe()
		defer keys.Close()
		defer close(tty.release)
		if err := g.attach(tty, func(text string) { restored <- text }); err != nil {
			t.Fatal(err)
		}
		tty.blocking.Store(true)
		g.done = make(chan struct{})
		go g.run()
		g.change(func(*chart) {})
		g.close()
		g.abandon()
		if got := <-restored; got != leaveScreen || len(restored) > 0 {
			t.Errorf("%s blocks: restored %d times more, with %q", blocks, len(restored), got)
		}
	}
}

// A blockedTerminal blocks once it is told to, in Write or in Drain.
type blockedTerminal struct {
	keyboard
	at       string
	blocking atomic.Bool
	release  chan struct{}
}

func (b *blockedTerminal) Write(p []byte) (int, error) {
	if b.blocking.Load() && b.at == "write" {
		<-b.release
	}
	return len(p), nil
}

func (b *blockedTerminal) Drain() error {
	if b.blocking.Load() && b.at == "drain" {
		<-b.release
	}
	return nil
}

func TestUTF8(t *testing.T) {
	for charset, want := range map[string]bool{"UTF-8": true, "utf8": true, "UTF8": true, "utf-8": true, "US-ASCII": false, "eucJP": false, "UTF-16": false, "": false} {
		if isUTF8(charset) != want {
			t.Errorf("%q is UTF-8: %v", charset, !want)
		}
	}
}
