package main

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// listenIn collects the messages of a test instead of printing them.
func listenIn(t *testing.T) (messages func() string) {
	var mu sync.Mutex
	var text bytes.Buffer
	before := stderr
	stderr = &outbox{write: func(p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		text.Write(p)
		return nil
	}}
	t.Cleanup(func() { stderr = before })
	return func() string {
		stderr.flush()
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
}

// Sending a message never blocks, and messages that do not fit are counted.
func TestOutboxStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written bytes.Buffer
		drained := make(chan struct{})
		o := &outbox{write: func(p []byte) error { <-drained; written.Write(p); return nil }}
		begin := time.Now()
		long := strings.Repeat("x", 1000)
		for range 100 {
			o.say(long)
			synctest.Wait() // the first is being written
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("sending took %v", took)
		}
		if o.flush(); time.Since(begin) != flushTimeout {
			t.Errorf("flush took %v, want %v", time.Since(begin), flushTimeout)
		}
		close(drained)
		o.flush()
		held := maxHeld / len(prefix+long+"\n")
		want := strings.Repeat(prefix+long+"\n", 1+held) + "cpunc: 34 messages dropped\n"
		if got := written.String(); got != want {
			t.Errorf("%d bytes, ending in %q; want %d", len(got), got[len(got)-100:], len(want))
		}
	})
}

// Messages that are held back are shown at once and written at the end.
func TestOutboxHeld(t *testing.T) {
	var written bytes.Buffer
	o := &outbox{write: func(p []byte) error { written.Write(p); return nil }}
	var shown []string
	o.hold(func(message string) { shown = append(shown, message) })
	o.say("one")
	o.Write([]byte("two\n"))
	if written.Len() > 0 {
		t.Errorf("%q was not held back", &written)
	}
	o.flush()
	if got := written.String(); got != "cpunc: one\ntwo\n" || strings.Join(shown, ",") != "one,two" {
		t.Errorf("%q written, %q shown", got, shown)
	}
}

// If standard error is gone, each message is tried once, and nothing else fails.
func TestOutboxGone(t *testing.T) {
	tries := 0
	o := &outbox{write: func([]byte) error { tries++; return errors.New("broken pipe") }}
	for range 3 {
		o.say("hello")
		o.flush()
	}
	if tries != 3 {
		t.Errorf("%d tries", tries)
	}
}
