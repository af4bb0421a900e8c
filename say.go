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
	"unicode/utf8"
)

// stderr receives every message to the user.
var stderr = &outbox{write: writeStderr}

// say prints a message to the user on one line, formatted by fmt.Sprintf. It
// never blocks. Text from elsewhere is quoted by the caller; if something else
// in the message cannot be printed as it is, the whole message is quoted.
func say(format string, args ...any) {
	stderr.say(quoteOdd(fmt.Sprintf(format, args...)))
}

// An outbox holds messages until they are written. The writer may be slow,
// stuck or gone, and those who send messages do not wait for it.
type outbox struct {
	write func([]byte) error

	mu      sync.Mutex
	text    []byte        // whole lines that have not been written yet
	dropped int           // number of messages that did not fit
	written chan struct{} // closed when the writing goroutine ends; nil if there is none
	show    func(string)  // while set, messages are buffered, and the newest is passed to it
}

const (
	maxHeld       = 64 << 10 // bytes of held messages
	messagePrefix = "cpunc: "
)

func (o *outbox) say(message string) { o.add(message, messagePrefix+message+"\n") }

// Write takes the standard error of a command.
func (o *outbox) Write(p []byte) (int, error) {
	o.add(strings.TrimSpace(string(p)), string(p))
	return len(p), nil
}

// add adds a message and its text, or counts it as dropped.
func (o *outbox) add(message, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.show != nil {
		o.show(message)
	}
	if len(o.text)+len(text) > maxHeld {
		o.dropped++
		return
	}
	o.text = append(o.text, text...)
	o.start()
}

// start starts a goroutine that writes what is held. o.mu must be held.
func (o *outbox) start() {
	if o.show != nil || o.written != nil || len(o.text) == 0 {
		return
	}
	o.written = make(chan struct{})
	go o.run() // ends when all is written, or with the process
}

// run writes until nothing is left, or messages are held back.
func (o *outbox) run() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.text) > 0 && o.show == nil {
		text := o.text
		if o.dropped > 0 {
			text = fmt.Appendf(text, "%s%d messages dropped\n", messagePrefix, o.dropped)
		}
		o.text, o.dropped = nil, 0
		o.mu.Unlock()
		o.write(text) // there is nowhere to report an error
		o.mu.Lock()
	}
	close(o.written)
	o.written = nil
}

// divert holds messages back and calls show with each new one, or, if that is
// nil, has all of them written. The channel is closed when they are; it is nil if
// there are none.
func (o *outbox) divert(show func(string)) (written <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.show = show
	o.start()
	return o.written
}

// flush waits until all messages are written, but no longer than grace.
func (o *outbox) flush() {
	written := o.divert(nil)
	if written == nil {
		return
	}
	select {
	case <-written:
	case <-time.After(grace):
	}
}

// writeStderr writes text to standard error. It does not use package os, which
// lets SIGPIPE kill the process if the reader of standard error is gone.
func writeStderr(text []byte) error {
	if runtime.GOOS == "windows" { // Windows has no SIGPIPE, but a console that requires UTF-16
		_, err := os.Stderr.Write(text)
		return err
	}
	for len(text) > 0 {
		n, err := syscall.Write(syscall.Stderr, text)
		var busy interface{ Temporary() bool }
		switch {
		case err == nil:
			text = text[n:]
		case errors.As(err, &busy) && busy.Temporary(): // another program may have made the pipe non-blocking
			time.Sleep(10 * time.Millisecond)
		default:
			return err
		}
	}
	return nil
}

// restoreTerminal restores the terminal if a chart has taken it over.
var restoreTerminal = func() {}

// onPanic is deferred by every goroutine that can run while a chart is shown,
// so that a panic, too, restores the terminal.
func onPanic() {
	if r := recover(); r != nil {
		restoreTerminal()
		panic(r)
	}
}

// cause returns the reason in an error of the system, without the operation and
// the addresses, which the caller adds in the user's terms.
func cause(err error) error {
	var (
		dns  *net.DNSError
		addr *net.AddrError
		call *os.SyscallError
		path *os.PathError
	)
	switch {
	case errors.As(err, &dns):
		err = resolverError(dns)
	case errors.As(err, &addr):
		err = errors.New(addr.Err)
	case errors.As(err, &call):
		err = call.Err
	case errors.As(err, &path):
		err = path.Err
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errors.New("timed out")
	}
	if runtime.GOOS == "windows" && !strings.HasSuffix(err.Error(), "...") { // its reasons are sentences
		return errors.New(strings.TrimSuffix(err.Error(), "."))
	}
	return err
}

// resolverError returns why a name could not be resolved, without the address
// of the resolver.
func resolverError(dns *net.DNSError) error {
	reason := dns.Unwrap()
	switch {
	case dns.IsNotFound:
		// Package net also says so if it cannot open the file of hosts.
		f, err := os.Open(os.DevNull)
		if err != nil {
			return cause(err)
		}
		f.Close()
		return errors.New(dns.Err)
	case dns.IsTimeout:
		reason = os.ErrDeadlineExceeded
	case !errors.As(reason, new(*os.SyscallError)):
		// Package net keeps only the text: dial udp 192.0.2.1:53: network is unreachable.
		reason = errors.New(strings.TrimSpace(dns.Err[strings.LastIndex(dns.Err, ": ")+1:]))
	}
	return fmt.Errorf("cannot resolve %s: %w", quoteOdd(dns.Name), cause(reason))
}

// isPlain reports whether s can be printed as it is: valid UTF-8 without
// newlines and other unprintable characters. A terminal may take a byte that is
// not UTF-8 for a control character.
func isPlain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) })
}

// quoteOdd quotes text that cannot be printed as it is.
func quoteOdd(s string) string {
	if isPlain(s) {
		return s
	}
	return strconv.Quote(s)
}

const (
	maxExcerpt = 200  // bytes of what is not a message
	maxMessage = 1000 // bytes of a message
)

// excerpt quotes the beginning of text from a server.
func excerpt(text []byte) string { return beginning(text, maxExcerpt, strconv.Quote) }

// beginning quotes at most the first size bytes of text.
func beginning(text []byte, size int, quote func(string) string) string {
	if len(text) <= size {
		return quote(string(text))
	}
	return quote(string(wholeLetters(text[:size]))) + "..."
}

// wholeLetters returns text without a letter whose last bytes have been cut off.
func wholeLetters(text []byte) []byte {
	for n := max(0, len(text)-utf8.UTFMax); n < len(text); n++ {
		if utf8.RuneStart(text[n]) && !utf8.FullRune(text[n:]) {
			return text[:n]
		}
	}
	return text
}

// version returns the version of the module, or of the commit that it was built
// from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
