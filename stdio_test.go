package main

import (
	"context"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A duplex waits until everything is written, even if the reader pauses, but not
// forever.
func TestDuplexFlushes(t *testing.T) {
	for pause, want := range map[time.Duration]error{5 * time.Second: nil, time.Minute: os.ErrDeadlineExceeded} {
		synctest.Test(t, func(t *testing.T) {
			r, w := io.Pipe()
			d := newDuplex(strings.NewReader(""), w, "test")
			d.Write([]byte("answer\n"))
			var got atomic.Pointer[string]
			go func() {
				time.Sleep(pause)
				text := make([]byte, 10)
				n, _ := r.Read(text)
				read := string(text[:n])
				got.Store(&read)
			}()
			d.Close()
			if err := d.flush(t.Context()); err != want {
				t.Errorf("%v, want %v", err, want)
			}
			time.Sleep(time.Minute)
			if text := got.Load(); text == nil || *text != "answer\n" {
				t.Errorf("%v arrived", text)
			}
		})
	}
}

// An output that nobody reads does not keep cpunc from ending.
func TestOutputBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		o := output{ctx, w}
		go func() { r.Read(make([]byte, 10)) }()
		if _, err := o.Write([]byte("one\n")); err != nil {
			t.Error(err)
		}
		time.AfterFunc(time.Hour, cancel)
		begin := time.Now()
		if _, err := o.Write([]byte("two\n")); err != errEnd || time.Since(begin) != time.Hour+lastWait/4 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		r.Close() // as at the end of the process
	})
}
