package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// cause is what an error of the network comes down to, without the operation
// and the addresses that the caller says in the user's own words.
func cause(err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		if dns.IsNotFound {
			return errors.New(dns.Err)
		}
		return fmt.Errorf("look up %s: %s", dns.Name, dns.Err)
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

// quoteOdd quotes what is not plain text of one line.
func quoteOdd(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// excerpt quotes the beginning of what a server sent.
func excerpt(text []byte) string {
	const enough = 200
	if len(text) > enough {
		return fmt.Sprintf("%q...", text[:enough])
	}
	return fmt.Sprintf("%q", text)
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

// version is that of the module, or of the commit it was built from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
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
