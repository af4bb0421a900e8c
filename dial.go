package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxAnswer = 64 << 10               // bytes: 10,000 cores
	maxBlank  = 4 << 10                // bytes of empty lines beside a reply
	silence   = 100 * time.Millisecond // ends a reply that has no newline
	byeTime   = 100 * time.Millisecond
)

// A dialer connects to addresses. Every way to reach a session is here.
type dialer struct {
	wait    time.Duration // for a connection
	first   time.Duration // that the first line of this machine covers
	verbose bool
	stderr  io.Writer // of commands
}

func (d dialer) dial(ctx context.Context, a address) (net.Conn, error) {
	switch a.network {
	case memory:
		return thisMachine(d.first), nil
	case command:
		return startProcess(a.host, d.stderr)
	}
	deadline := time.Now().Add(d.wait)
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if _, notIP := netip.ParseAddr(a.host); d.verbose && notIP != nil && a.network != socket {
		if ips, err := net.DefaultResolver.LookupHost(limited, a.host); err == nil {
			say("%s resolves to %s", a.host, strings.Join(ips, " "))
		}
	}
	conn, err := new(net.Dialer).DialContext(limited, a.network, a.target())
	for a.network == socket && isBusy(err) && limited.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		conn, err = new(net.Dialer).DialContext(limited, a.network, a.target())
	}
	if err != nil && ctx.Err() == nil && !time.Now().Before(deadline) {
		err = fmt.Errorf("connection timed out (%v)", d.wait)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", a, cause(err))
	}
	if d.verbose && a.network == socket {
		say("%s: connected", a)
	} else if d.verbose {
		say("%s: connected to %s", a, conn.RemoteAddr())
	}
	return conn, nil
}

// isBusy says whether a Unix socket has no room for one more connection, which
// the kernel says at once instead of waiting.
func isBusy(err error) bool {
	var call *os.SyscallError
	if !errors.As(err, &call) {
		return false
	}
	again, ok := call.Err.(interface{ Timeout() bool }) // as EAGAIN is
	return ok && again.Timeout()
}

// thisMachine starts a session over a pipe in memory, whose first replies cover that
// much time. Closing it ends the session.
func thisMachine(first time.Duration) net.Conn {
	client, server := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	smp := newSampler()
	smp.least = max(min(first, smp.least), minWindow)
	go func() {
		defer onPanic()
		defer cancel()
		smp.record(ctx) // so that the first replies wait together, not one by one
		(&session{sampler: smp}).serve(ctx, server)
	}()
	return client
}

// A peer is the client's end of a session.
type peer struct {
	net.Conn
	stay    func() bool // calls off the bye that the end of the run sends
	unread  []byte
	blank   int  // bytes of empty lines since the request
	lines   bool // it has ended a reply with a newline: it always does
	replied bool // to a request
}

// ask sends the words in one request, and gives the numbers of each reply as
// they came.
func (p *peer) ask(ws []word, wait time.Duration) ([][]string, error) {
	deadline := time.Now().Add(wait)
	p.blank = 0
	if len(bytes.TrimSpace(p.unread)) > 0 {
		return nil, fmt.Errorf("unsolicited data: %s", excerpt(p.unread))
	}
	p.unread = p.unread[:0]
	var request []byte
	for _, w := range ws {
		request = append(append(request, w.String()...), ' ')
	}
	request[len(request)-1] = '\n'
	// An error of the write shows when reading, after what the server may have
	// said before it closed.
	p.SetWriteDeadline(deadline)
	p.Write(request)
	replies := make([][]string, len(ws))
	for i, w := range ws {
		line, err := p.line(w, deadline)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("no reply within %v", wait)
		case err == io.EOF:
			err = errors.New("connection closed")
		case err != nil:
			err = cause(err)
		}
		if err != nil && i == 0 && len(p.unread) == 0 {
			return nil, staleError{err}
		}
		if err == nil {
			replies[i], err = parseReply(w, line)
		}
		if err != nil {
			return nil, err
		}
	}
	return replies, nil
}

// A staleError is a connection that was lost before a reply began, perhaps long ago.
type staleError struct{ error }

// line reads the reply to w, which a newline ends, or, from older servers, a
// silence; but cores is so long that a silence may be in the middle. The line is
// valid until the next call.
func (p *peer) line(w word, deadline time.Time) ([]byte, error) {
	for {
		// An empty line is what was left of a reply that a silence ended.
		rest := bytes.TrimLeft(p.unread, "\r\n")
		p.blank += len(p.unread) - len(rest)
		if p.unread = rest; p.blank > maxBlank {
			return nil, errors.New("unsolicited data: nothing but empty lines")
		}
		if line, rest, ok := bytes.Cut(p.unread, []byte("\n")); ok {
			p.unread, p.lines = rest, true
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if len(p.unread) >= maxAnswer {
			return nil, fmt.Errorf("line too long (over %d bytes): %s", maxAnswer, excerpt(p.unread))
		}
		until := deadline
		if quiet := time.Now().Add(silence); len(p.unread) > 0 && !p.lines && w != coresWord && quiet.Before(deadline) {
			until = quiet
		}
		p.SetReadDeadline(until)
		p.unread = slices.Grow(p.unread, 512)
		n, err := p.Read(p.unread[len(p.unread):cap(p.unread)])
		p.unread = p.unread[:len(p.unread)+n]
		if n > 0 || err == nil {
			continue
		}
		if len(p.unread) > 0 && (err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) && until != deadline) {
			line := p.unread
			p.unread = nil
			return line, nil
		}
		return nil, err
	}
}

// parseReply checks that line replies to w, and splits it into its numbers.
func parseReply(w word, line []byte) ([]string, error) {
	if text, ok := bytes.CutPrefix(line, []byte("error: ")); ok {
		return nil, errors.New(excerptText(text))
	}
	columns := strings.Fields(string(line))
	width := len(columns)
	if want := w.width(); want != 0 && width != want || width == 0 {
		return nil, fmt.Errorf("unexpected reply to %q: %s (is it a cpunc server?)", w, excerpt(line))
	}
	for _, column := range columns {
		if column == "nan" {
			continue
		}
		n, err := strconv.ParseFloat(column, 64)
		if err != nil || strings.Trim(column, "0123456789.") != "" || n > 100 && w != loadWord {
			return nil, fmt.Errorf("unexpected reply to %q: %s (is it a cpunc server?)", w, excerpt(line))
		}
	}
	return columns, nil
}

func bye(conn net.Conn) {
	conn.SetWriteDeadline(time.Now().Add(byeTime))
	conn.Write([]byte("bye\n"))
	conn.Close()
}
