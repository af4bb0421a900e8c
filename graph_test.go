package main

import (
	"bytes"
	"context"
	"io"
	"slices"
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
// own goroutines may block each other; then releaseTerminal does not wait for them.)
func TestPasteAtTheBeginning(t *testing.T) {
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		g := newGraph(chart{window: time.Minute, location: time.UTC, least: 100}, make(pauses, 1), cancel, cancel)
		g.done = make(chan struct{})
		keys, typed := io.Pipe()
		go typed.Write(slices.Concat(bytes.Repeat([]byte("0"), 1000), []byte("q"), bytes.Repeat([]byte("0"), 100)))
		ended := make(chan error, 1)
		go func() {
			if err := g.take(&keyboard{keys: keys}, func() {}); err != nil {
				ended <- err
				return
			}
			g.run(ctx)
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

func TestUTF8(t *testing.T) {
	for charset, want := range map[string]bool{"UTF-8": true, "utf8": true, "UTF8": true, "utf-8": true, "US-ASCII": false, "eucJP": false, "UTF-16": false, "": false} {
		if isUTF8(charset) != want {
			t.Errorf("%q is UTF-8: %v", charset, !want)
		}
	}
}
