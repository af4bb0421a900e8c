package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxLine     = 64 << 10               // bytes of a reply, and of empty lines before it: enough for 10,000 cores
	lineTimeout = 100 * time.Millisecond // a pause this long ends a reply that has no newline
)

// A dialer connects to addresses of every kind.
type dialer struct {
	wait     time.Duration // timeout for connecting
	minFirst time.Duration // time that a first reply of this machine covers at least
	group    string        // the control group of this machine to read; "": that of this process
	verbose  bool
	stderr   io.Writer // standard error of commands
}

func (d dialer) dial(ctx context.Context, a address) (net.Conn, error) {
	switch a.network {
	case memory:
		return thisMachine(ctx, d.minFirst, d.group), nil
	case command:
		return startProcess(a.host, d.stderr)
	}
	deadline := time.Now().Add(d.wait)
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	attempt := net.Dialer{Control: func(_, at string, _ syscall.RawConn) error { // is called for each address of a name
		if d.verbose && at != a.target() {
			say("%s: trying %s", a, at)
		}
		return nil
	}}
	conn, err := attempt.DialContext(limited, a.network, a.target())
	// If the queue of a Unix socket is full, connect does not block but fails with
	// EAGAIN, which package os counts as a timeout.
	for a.network == socket && os.IsTimeout(err) && sleep(limited, 10*time.Millisecond) == nil {
		conn, err = attempt.DialContext(limited, a.network, a.target())
	}
	if err != nil && ctx.Err() == nil && !time.Now().Before(deadline) {
		err = fmt.Errorf("connection timed out (%v)", d.wait)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", a, cause(err))
	}
	if d.verbose {
		say("%s: connected to %s", a, quoteOdd(conn.RemoteAddr().String()))
	}
	return conn, nil
}

// thisMachine starts a session for this machine over a pipe in memory. minFirst
// and group are those of the dialer. The session ends with the connection or
// with ctx, even if it is waiting to reply.
func thisMachine(ctx context.Context, minFirst time.Duration, group string) net.Conn {
	client, server := net.Pipe()
	smp := newSampler(group)
	smp.young = true
	smp.minFirst = max(minFirst, minWindow)
	// A word whose turn comes after that wait must find the sample still.
	smp.maxFirst = max(smp.maxFirst, smp.minFirst+firstWindow)
	go func() { // ends as the session does
		defer onPanic()
		// The start of all first replies, so that only the first word waits. It is the
		// replies that say that counters cannot be read.
		if err := smp.sampleAll(); err == errZeros {
			say("%v", err)
		}
		(&session{sampler: smp}).serve(ctx, server)
	}()
	return client
}

// A peer is the server at the other end of a connection, or of one connection
// after another.
type peer struct {
	net.Conn                // nil when not connected
	cancelBye   func() bool // cancels the bye at the end of the run, and reports whether that was in time
	unread      []byte
	replied     bool // whether it has replied with a number on this connection
	everReplied bool // the same on any connection
	lines       bool // whether it has ended a reply with a newline, so it ends all of them with one
}

// ask sends the words in one request and returns the numbers of each reply as
// text. The first reply on a connection may take longer than wait by first. If
// the server refuses some of the words, these have no numbers, and the error is
// the first refusal.
func (p *peer) ask(ws []word, wait, first time.Duration) ([][]string, error) {
	deadline := time.Now().Add(wait)
	if !p.replied {
		deadline = deadline.Add(first)
	}
	if len(bytes.TrimSpace(p.unread)) > 0 {
		return nil, fmt.Errorf("unsolicited data: %s", excerpt(p.unread))
	}
	p.unread = p.unread[:0]
	var request []byte
	for _, w := range ws { // a line each, because a server drops the rest of a line with a word that it does not know
		request = append(append(request, w.String()...), '\n')
	}
	// If the write fails, the read reports it, after any text that the server
	// sent before it closed the connection.
	p.SetWriteDeadline(deadline)
	p.Write(request)
	replies, err := p.readReplies(ws, deadline)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("no reply within %v (to wait longer: -w)", wait)
	case isRefusal(err) && !p.replied: // before the first reply, it refuses the whole connection
		err = errors.New(err.Error())
	}
	return replies, err
}

// readReplies reads the replies to the words. They are nil if there are no
// numbers.
func (p *peer) readReplies(ws []word, deadline time.Time) (replies [][]string, refused error) {
	for i, w := range ws {
		columns, err := p.readReply(w, deadline)
		switch {
		case err == nil:
			if replies == nil {
				replies = make([][]string, len(ws))
			}
			replies[i] = columns
			p.replied, p.everReplied = true, true
		case isRefusal(err):
			refused = cmp.Or(refused, err)
			deadline = time.Now().Add(lineTimeout) // for the rest, which may never come
		case refused != nil:
			p.Close() // otherwise, a late reply would be taken for one to the next request
			p.unread = nil
			return replies, refused
		default:
			return nil, err
		}
	}
	return replies, refused
}

// A refusal is the text of an error line.
type refusal string

func (r refusal) Error() string { return beginning([]byte(r), maxMessage, quoteOdd) }

func isRefusal(err error) bool { return errors.As(err, new(refusal)) }

// A staleError means that the connection was lost before a reply began, perhaps
// long before the request.
type staleError struct{ error }

// readReply reads the reply to w and returns its numbers.
func (p *peer) readReply(w word, deadline time.Time) ([]string, error) {
	line, err := p.readLine(w, deadline)
	switch {
	case err == nil:
		return parseReply(w, line)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, err
	case err == io.EOF:
		err = errors.New("connection closed")
	}
	if err = cause(err); len(bytes.TrimSpace(p.unread)) == 0 {
		return nil, staleError{err}
	}
	return nil, err
}

// readLine reads the reply to w. It ends with a newline or, from older servers,
// with the connection or a pause. But a reply to cores may be cut anywhere and
// still look whole, so that always needs a newline. The line is valid until the
// next call.
func (p *peer) readLine(w word, deadline time.Time) ([]byte, error) {
	bare := !p.lines && w.width() > 0 // whether it may end without a newline
	for {
		text := bytes.TrimLeft(p.unread, "\r\n") // the newline that arrived late, after a pause had ended the reply
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		if ended {
			p.unread, p.lines = rest, true
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if len(p.unread) >= maxLine {
			return nil, fmt.Errorf("line too long (over %d bytes): %s", maxLine, excerpt(p.unread))
		}
		until := deadline
		if quiet := time.Now().Add(lineTimeout); bare && len(text) > 0 && quiet.Before(deadline) {
			until = quiet
		}
		err := p.readMore(until)
		paused := until != deadline && errors.Is(err, os.ErrDeadlineExceeded)
		switch {
		case err == nil:
		case len(text) == 0, err != io.EOF && !paused: // a reset may have cut it
			return nil, err
		case !bare:
			return nil, fmt.Errorf("connection closed in the middle of a reply: %s", excerpt(text))
		default: // the end of the connection or a pause has ended it
			p.unread = nil
			return text, nil
		}
	}
}

// readMore reads more of a reply. The time in which this process was stopped, as
// by Ctrl-Z, does not count: the reply may have arrived meanwhile.
func (p *peer) readMore(deadline time.Time) error {
	p.SetReadDeadline(deadline)
	p.unread = slices.Grow(p.unread, 512)
	n, err := p.Read(p.unread[len(p.unread):cap(p.unread)])
	p.unread = p.unread[:len(p.unread)+n]
	late := time.Since(deadline)
	switch {
	case n > 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && late > brief:
		return p.readMore(time.Now().Add(late))
	}
	return err
}

// parseReply checks that line is a reply to w and splits it into its numbers.
func parseReply(w word, line []byte) ([]string, error) {
	if text, ok := bytes.CutPrefix(line, []byte("error: ")); ok {
		err := refusal(text)
		if bytes.HasPrefix(text, fmt.Appendf(nil, "unknown word %q", w)) {
			return nil, fmt.Errorf("%s requires a newer server: %w", w, err)
		}
		return nil, err
	}
	columns := strings.Fields(string(line))
	wrong := func(column string) bool { return !isNumberOf(w, column) }
	if want := w.width(); len(columns) == 0 || want > 0 && len(columns) != want || slices.ContainsFunc(columns, wrong) {
		return nil, fmt.Errorf("unexpected reply to %q: %s (is it a cpunc server?)", w, excerpt(line))
	}
	return columns, nil
}

// isNumberOf reports whether text is a number in a reply to w.
func isNumberOf(w word, text string) bool {
	if text == "nan" {
		return true
	}
	n, err := strconv.ParseFloat(text, 64)
	limit := table[w].limit
	return err == nil && strings.Trim(text, "0123456789.") == "" && !strings.HasSuffix(text, ".") && (limit == 0 || n <= limit)
}

// bye tells the server that the session is over and closes the connection.
func bye(conn net.Conn) {
	conn.SetWriteDeadline(time.Now().Add(brief))
	conn.Write([]byte("bye\n"))
	conn.Close()
}
