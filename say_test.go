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
		if o.flush(); time.Since(begin) != grace {
			t.Errorf("flush took %v, want %v", time.Since(begin), grace)
		}
		close(drained)
		o.flush()
		held := maxHeld / len(messagePrefix+long+"\n")
		want := strings.Repeat(messagePrefix+long+"\n", 1+held) + "cpunc: 34 messages dropped\n"
		if got := written.String(); got != want {
			t.Errorf("%d bytes, ending in %q; want %d", len(got), got[len(got)-100:], len(want))
		}
	})
}

// Text from elsewhere is quoted if it is not valid UTF-8 or contains control
// characters, and is not cut inside a letter.
func TestQuoting(t *testing.T) {
	filler := strings.Repeat("x", maxExcerpt-1)
	message := strings.Repeat("x", maxMessage-maxExcerpt+1) // together with filler[1:], one byte less than the longest
	for _, test := range []struct{ text, excerpt, refusal string }{
		{"web1 é 日本", `"web1 é 日本"`, "web1 é 日本"},
		{"", `""`, ""},
		{"\x9b2J", `"\x9b2J"`, `"\x9b2J"`},                // CSI, a control character of 8 bits
		{"\u009b2J", `"\u009b2J"`, `"\u009b2J"`},          // the same in UTF-8
		{"\x9d0;x\x9c", `"\x9d0;x\x9c"`, `"\x9d0;x\x9c"`}, // OSC
		{"\xc0\x9b", `"\xc0\x9b"`, `"\xc0\x9b"`},          // overlong
		{"\xed\xa0\x80", `"\xed\xa0\x80"`, `"\xed\xa0\x80"`},
		{"caf\xc3", `"caf\xc3"`, `"caf\xc3"`}, // not cut by us
		{"a\x1b[2J\r", `"a\x1b[2J\r"`, `"a\x1b[2J\r"`},
		{"\u202eexe", `"\u202eexe"`, `"\u202eexe"`},
		{"\ufffd", "\"\ufffd\"", "\ufffd"}, // valid, though it often stands for what is not
		{filler + "z", `"` + filler + `z"`, filler + "z"},
		{filler + "zz", `"` + filler + `z"...`, filler + "zz"},
		{filler + "éé", `"` + filler + `"...`, filler + "éé"},
		{filler[1:] + "éé", `"` + filler[1:] + `é"...`, filler[1:] + "éé"},
		{filler[2:] + "😀😀", `"` + filler[2:] + `"...`, filler[2:] + "😀😀"},
		{filler + "\x9b\x9b", `"` + filler + `\x9b"...`, `"` + filler + `\x9b\x9b"`},
		{filler[1:] + message + "é", `"` + filler + `x"...`, filler[1:] + message + "..."},
	} {
		if got := excerpt([]byte(test.text)); got != test.excerpt {
			t.Errorf("excerpt of %q: %s, want %s", test.text, got, test.excerpt)
		}
		if got := refusal(test.text).Error(); got != test.refusal {
			t.Errorf("refusal %q: %s, want %s", test.text, got, test.refusal)
		}
	}
}

// What nobody has quoted is quoted in the end.
func TestSayOdd(t *testing.T) {
	messages := listenIn(t)
	say("open %s: no such file", "/a\x9b\n")
	if got, want := messages(), `cpunc: "open /a\x9b\n: no such file"`+"\n"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}

// Messages that are held back are shown at once and written at the end.
func TestOutboxHeld(t *testing.T) {
	var written bytes.Buffer
	o := &outbox{write: func(p []byte) error { written.Write(p); return nil }}
	var shown []string
	o.divert(func(message string) { shown = append(shown, message) })
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
