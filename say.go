package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stderr is where everything that a person is told goes.
var stderr = &outbox{write: writeStderr}

// say tells a person something in one line, as fmt.Sprintf has it. It never waits.
func say(format string, args ...any) {
	stderr.say(fmt.Sprintf(format, args...))
}

// An outbox holds messages until somebody takes them. The writer may be slow,
// stuck or gone: whoever has something to say does not wait for it.
type outbox struct {
	write func([]byte) error

	mu      sync.Mutex
	text    []byte        // whole lines that have yet to be written
	dropped int           // messages for which there was no room
	written chan struct{} // closed when the goroutine that writes is done; nil when there is none
	show    func(string)  // if not nil, the terminal is taken: messages wait, and this shows the newest
}

const (
	maxHeld  = 64 << 10               // bytes of messages that wait
	lastWord = 300 * time.Millisecond // for what is still to be said at exit
	prefix   = "cpunc: "
)

func (o *outbox) say(message string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.show != nil {
		o.show(message)
	}
	o.add(prefix + message + "\n")
}

// Write takes what a command says on its standard error.
func (o *outbox) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.show != nil {
		o.show(strings.TrimSpace(string(p)))
	}
	o.add(string(p))
	return len(p), nil
}

// add appends a message, or counts it as dropped; o.mu is held.
func (o *outbox) add(text string) {
	if len(o.text)+len(text) > maxHeld {
		o.dropped++
		return
	}
	o.text = append(o.text, text...)
	o.start()
}

// start starts a goroutine that writes until nothing is left; o.mu is held.
func (o *outbox) start() {
	if o.show != nil || o.written != nil || len(o.text) == 0 {
		return
	}
	done := make(chan struct{})
	o.written = done
	go func() { // ends when all is written, or with the process
		defer close(done)
		for text := o.take(); text != nil; text = o.take() {
			o.write(text) // an error is one that nobody could be told of
		}
	}()
}

// take gives what is to be written next, nil when that is nothing.
func (o *outbox) take() (text []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.text) == 0 || o.show != nil {
		o.written = nil
		return nil
	}
	text, o.text = o.text, nil
	if o.dropped > 0 {
		text = fmt.Appendf(text, "%s%d messages dropped\n", prefix, o.dropped)
		o.dropped = 0
	}
	return text
}

// hold keeps messages back, and has the newest shown, until release.
func (o *outbox) hold(show func(string)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.show = show
}

func (o *outbox) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.show = nil
	o.start()
}

// flush waits until all is written, but no longer than a fraction of a second.
func (o *outbox) flush() {
	o.release()
	o.mu.Lock()
	written := o.written
	o.mu.Unlock()
	if written == nil {
		return
	}
	select {
	case <-written:
	case <-time.After(lastWord):
	}
}

// writeStderr writes without package os, which lets SIGPIPE kill the process
// when the reader of standard error is gone.
func writeStderr(text []byte) error {
	if runtime.GOOS == "windows" { // where there is no SIGPIPE, but a console that wants UTF-16
		_, err := os.Stderr.Write(text)
		return err
	}
	for len(text) > 0 {
		n, err := syscall.Write(syscall.Stderr, text)
		var busy interface{ Temporary() bool }
		switch {
		case err == nil:
			text = text[n:]
		case errors.As(err, &busy) && busy.Temporary(): // it may be somebody's non-blocking pipe
			time.Sleep(10 * time.Millisecond)
		default:
			return err
		}
	}
	return nil
}

// restoreTerminal gives the terminal back, when a chart has it.
var restoreTerminal = func() {}

// onPanic is deferred by every goroutine that can run beside a chart, so that
// not even a panic keeps the terminal.
func onPanic() {
	if r := recover(); r != nil {
		restoreTerminal()
		panic(r)
	}
}

// cause is what an error of the network comes down to, without the operation
// and the addresses that the caller says in the user's own words.
func cause(err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		if dns.IsNotFound {
			return errors.New(dns.Err)
		}
		return fmt.Errorf("cannot resolve %s: %w", dns.Name, resolverError(dns))
	}
	var addr *net.AddrError
	if errors.As(err, &addr) {
		return errors.New(addr.Err)
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err
	}
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("timed out")
	}
	return err
}

// resolverError is why a name could not be resolved, without the resolver that
// was asked and the packet that was sent.
func resolverError(dns *net.DNSError) error {
	switch {
	case dns.IsTimeout:
		return errors.New("timed out")
	case errors.As(dns.Unwrap(), new(*os.SyscallError)):
		return cause(dns.Unwrap())
	}
	// Package net keeps only the text: dial udp 192.0.2.1:53: network is unreachable.
	return errors.New(strings.TrimSpace(dns.Err[strings.LastIndex(dns.Err, ": ")+1:]))
}

// quoteOdd quotes text that is more than one line of printable characters.
func quoteOdd(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

const maxExcerpt = 200 // bytes

// excerpt quotes the beginning of what a server sent.
func excerpt(text []byte) string {
	if len(text) > maxExcerpt {
		return fmt.Sprintf("%q...", text[:maxExcerpt])
	}
	return fmt.Sprintf("%q", text)
}

// excerptText is the beginning of a message that a server sent, quoted only where
// it is not plain text.
func excerptText(text []byte) string {
	if len(text) > maxExcerpt {
		return quoteOdd(string(text[:maxExcerpt])) + "..."
	}
	return quoteOdd(string(text))
}

// version is that of the module, or of the commit it was built from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
