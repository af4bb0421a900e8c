package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxAnswer = 64 << 10               // bytes: 10,000 cores
	silence   = 100 * time.Millisecond // ends a reply that has no newline
	byeTime   = 100 * time.Millisecond

	maxLate = 100 * time.Millisecond // that a tick may be, when half its time is over

	minPause = 500 * time.Millisecond // before a host is dialed again
	maxPause = 30 * time.Second
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
	where := a.String()
	if a.network == socket {
		where = a.host
	} else if _, notIP := netip.ParseAddr(a.host); d.verbose && notIP != nil {
		if ips, err := net.DefaultResolver.LookupHost(limited, a.host); err == nil {
			say("%s is %s", a.host, strings.Join(ips, " "))
		}
	}
	conn, err := new(net.Dialer).DialContext(limited, a.network, where)
	if err != nil && ctx.Err() == nil && !time.Now().Before(deadline) {
		err = fmt.Errorf("no connection within %v", d.wait)
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
	lines   bool // it has ended a reply with a newline: it always does
	replied bool // to a request
}

// ask sends the words in one request, and gives the numbers of each reply as
// they came.
func (p *peer) ask(ws []word, wait time.Duration) ([][]string, error) {
	deadline := time.Now().Add(wait)
	if len(bytes.TrimSpace(p.unread)) > 0 {
		return nil, fmt.Errorf("sent what nobody asked for: %s", excerpt(p.unread))
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
			return nil, fmt.Errorf("no answer within %v", wait)
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
		p.unread = bytes.TrimLeft(p.unread, "\r\n")
		if line, rest, ok := bytes.Cut(p.unread, []byte("\n")); ok {
			p.unread, p.lines = rest, true
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if len(p.unread) >= maxAnswer {
			return nil, fmt.Errorf("more than %d bytes without a newline: %s", maxAnswer, excerpt(p.unread))
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
		return nil, fmt.Errorf("error: %s", excerpt(text))
	}
	columns := strings.Fields(string(line))
	width := len(columns)
	if want := w.width(); want != 0 && width != want || width == 0 {
		return nil, fmt.Errorf("not a reading of %s: %s", w, excerpt(line))
	}
	for _, column := range columns {
		if column == "nan" {
			continue
		}
		n, err := strconv.ParseFloat(column, 64)
		if err != nil || strings.Trim(column, "0123456789.") != "" || n > 100 && w != loadWord {
			return nil, fmt.Errorf("not a reading of %s: %s", w, excerpt(line))
		}
	}
	return columns, nil
}

// A host is one address that is polled.
type host struct {
	address
	cores   int        // how many columns its last reply to cores had
	replies [][]string // of the tick that is under way; nil for none

	polled, answered int

	// While it is busy, a goroutine asks it or redials it, and owns the rest.
	busy  atomic.Bool
	peer  *peer         // nil while there is no connection
	lost  time.Time     // since when it has not replied, if it has not
	pause time.Duration // before the last attempt to dial it again
}

// A poller asks every host the same words at each tick, and gives out what
// comes back as lines.
type poller struct {
	hosts    []*host
	words    []word
	input    *lineReader // if not nil, it has the words and sets the pace
	interval time.Duration
	wait     time.Duration // for a reply
	count    int           // of lines; 0 for no end
	keep     bool          // dial lost hosts again, and do without them meanwhile
	dial     func(context.Context, address) (net.Conn, error)
	emit     func(line) error
	pauses   pauses

	end      context.CancelCauseFunc // of the run; the first cause counts
	asking   sync.WaitGroup          // the goroutines of ticks
	farewell sync.WaitGroup          // the connections that have yet to be told bye
}

// run polls until there are count lines, a host is lost, emit fails or ctx is
// done. On return every session was told bye.
func (p *poller) run(ctx context.Context) error {
	ctx, p.end = context.WithCancelCause(ctx)
	p.end(p.poll(ctx)) // unless a host was the end of it
	p.asking.Wait()
	p.farewell.Wait()
	if err := context.Cause(ctx); err != errEnd && err != context.Canceled && err != context.DeadlineExceeded {
		return err
	}
	return nil
}

// poll gives errEnd when it has polled enough, or ctx is done.
func (p *poller) poll(ctx context.Context) error {
	var never time.Time
	if !p.keep { // then it begins when all are there
		if _, ok := p.tick(ctx, nil, never); !ok {
			return errEnd
		}
	}
	// A host alone may be late. Beside others, or where a gap must show, its
	// time is over with the tick; but a command may take its time to connect, and
	// this machine takes a whole interval for its first line.
	patient := len(p.hosts) == 1 && !p.keep || p.interval == 0
	connecting := slices.ContainsFunc(p.hosts, func(h *host) bool {
		return h.network == command && !p.keep || h.network == memory
	})
	late := max(p.interval/2, maxLate)
	c := clock{time.Now(), p.interval}
	for n, lines := 0, 0; p.count == 0 || lines < p.count; lines++ {
		ws, err := p.words, error(nil)
		if p.input != nil {
			ws, err = p.request(ctx)
		} else {
			n, err = p.due(ctx, c, n, late)
		}
		if err != nil {
			return err
		}
		at, over := c.at(n), never
		if !patient && (lines > 0 || !connecting) {
			over = c.at(n + 1)
			if least := time.Now().Add(p.interval / 2); over.Before(least) {
				over = least // half of it is left to the late
			}
		}
		l, ok := p.tick(ctx, ws, over)
		if !ok {
			return errEnd
		}
		if off := at.Sub(l.at); p.interval > 0 && -off <= p.interval {
			l.at = l.at.Add(off) // the wall clock of now, the phase of the tick
		}
		if err := p.emit(l); err != nil {
			return err
		}
		switch {
		case p.interval > 0 && patient:
			n = c.after(n, time.Now(), 0)
		case p.interval > 0:
			n = c.after(n, time.Now(), late)
		case p.input == nil && !l.answered:
			c.start = time.Now().Add(time.Second) // or nan would come as fast as it prints
		}
	}
	return errEnd
}

// await gives what comes first from ch, or errEnd when ctx is done before. When
// the polling is to pause, it goes on only after that.
func await[T any](ctx context.Context, p *poller, ch <-chan T) (got T, err error) {
	for {
		select {
		case got = <-ch:
			return got, nil
		case resume := <-p.pauses:
			select {
			case <-resume:
			case <-ctx.Done():
			}
		case <-ctx.Done():
			return got, errEnd
		}
	}
}

// due waits for tick n, and gives it, or the one in its place when it comes more
// than late, since polling paused.
func (p *poller) due(ctx context.Context, c clock, n int, late time.Duration) (int, error) {
	for {
		if _, err := await(ctx, p, time.After(time.Until(c.at(n)))); err != nil {
			return n, err
		}
		now := time.Now()
		if c.interval == 0 || now.Sub(c.at(n)) <= late {
			return n, nil
		}
		n = c.after(n, now, 0)
	}
}

// request reads the next request from the input.
func (p *poller) request(ctx context.Context) ([]word, error) {
	for {
		in, err := await(ctx, p, p.input.next())
		if err == nil && in.err == io.EOF {
			err = errEnd
		}
		if err = cmp.Or(err, in.err); err != nil {
			return nil, err
		}
		names := strings.Fields(in.text)
		if len(names) == 0 { // a blank line asks nothing
			continue
		}
		ws, err := parseReadings(names)
		if err != nil {
			err = fmt.Errorf("standard input: %w", err)
		}
		return ws, err
	}
}

// A result is what became of a host at one tick: its replies, or nil for a gap.
// One without a host says that the tick is over.
type result struct {
	host    *host
	replies [][]string
}

// tick asks every host that is not busy, each in a goroutine of this tick, and
// makes a line of what comes back until the tick is over, if ever. Without words
// it only connects. It is not ok when ctx is done before.
func (p *poller) tick(ctx context.Context, ws []word, over time.Time) (l line, ok bool) {
	results := make(chan result, len(p.hosts)+1) // what comes late stays there, and nobody reads it
	waiting := 0
	for _, h := range p.hosts {
		h.replies = nil
		if len(ws) > 0 {
			h.polled++
		}
		if h.busy.CompareAndSwap(false, true) {
			waiting++
			p.asking.Go(func() { defer onPanic(); p.ask(ctx, h, ws, results) }) // ends when the host has replied, or with ctx
		}
	}
	l.at = time.Now()
	if !over.IsZero() {
		defer time.AfterFunc(time.Until(over), func() { results <- result{} }).Stop()
	}
	for waiting > 0 {
		r, err := await(ctx, p, results)
		if err != nil {
			return l, false
		}
		if r.host == nil {
			break
		}
		if r.replies != nil && p.interval > 0 {
			l.at = time.Now()
		}
		r.host.take(ws, r.replies)
		waiting--
	}
	for _, h := range p.hosts {
		prefix := ""
		if len(p.hosts) > 1 {
			prefix = h.label() + "/"
		}
		l.answered = l.answered || h.replies != nil
		l.add(prefix, ws, h.replies, h.cores)
	}
	return l, true
}

// take keeps the replies of the tick that is under way.
func (h *host) take(ws []word, replies [][]string) {
	if h.replies = replies; replies == nil || len(ws) == 0 {
		return
	}
	h.answered++
	if i := slices.Index(ws, coresWord); i >= 0 {
		h.cores = len(replies[i])
	}
}

// ask is the goroutine of one host at one tick. The host's replies go into
// results; one that fails ends the run, or, with keep, is dialed again after it
// has left a gap.
func (p *poller) ask(ctx context.Context, h *host, ws []word, results chan<- result) {
	replies, err := p.exchange(ctx, h, ws)
	switch {
	case err == nil:
		if len(ws) > 0 && !h.lost.IsZero() {
			say("%s: back after %v", h, time.Since(h.lost).Round(100*time.Millisecond))
			h.lost, h.pause = time.Time{}, 0
		}
		h.busy.Store(false) // the next tick may come as soon as this has its result
		results <- result{h, replies}
	case !p.keep:
		p.end(err)
	default:
		results <- result{h, nil}
		p.redial(ctx, h, err)
		h.busy.Store(false)
	}
}

// exchange has h reply to the words, over the connection there is or a new one.
func (p *poller) exchange(ctx context.Context, h *host, ws []word) ([][]string, error) {
	if h.peer == nil {
		if err := p.connect(ctx, h); err != nil {
			return nil, err
		}
	}
	if len(ws) == 0 {
		return [][]string{}, nil
	}
	replies, err := h.peer.ask(ws, p.wait)
	if _, stale := err.(staleError); stale && h.peer.replied && p.keep {
		// The listener may have closed it long since, for saying nothing, or
		// have been started anew.
		p.drop(h)
		if dialErr := p.connect(ctx, h); dialErr != nil {
			return nil, fmt.Errorf("%s: %w", h, err)
		}
		replies, err = h.peer.ask(ws, p.wait)
	}
	if err == nil {
		h.peer.replied = true
		return replies, nil
	}
	if h.network == command { // Ctrl-C ends it, too, and perhaps before us
		select {
		case <-ctx.Done():
		case <-time.After(byeTime):
		}
	}
	p.drop(h)
	return nil, fmt.Errorf("%s: %w", h, err)
}

// redial dials h, which was lost to err, until that succeeds or ctx is done. The
// pauses before double until it has replied, and vary, so that many clients do
// not come back at once.
func (p *poller) redial(ctx context.Context, h *host, err error) {
	if h.lost.IsZero() {
		h.lost = time.Now()
		say("%v; dialing again", err)
	}
	for {
		h.pause = min(max(2*h.pause, minPause), maxPause)
		select {
		case <-time.After(h.pause/2 + rand.N(h.pause/2)):
		case <-ctx.Done():
			return
		}
		if p.connect(ctx, h) == nil {
			return
		}
	}
}

// connect gives h a connection that is told bye at the end of the run.
func (p *poller) connect(ctx context.Context, h *host) error {
	conn, err := p.dial(ctx, h.address)
	if err != nil {
		return err
	}
	p.farewell.Add(1)
	h.peer = &peer{Conn: conn, stay: context.AfterFunc(ctx, func() {
		defer p.farewell.Done()
		bye(conn) // what is asked now fails
	})}
	return nil
}

// drop closes the connection to h, if it has one.
func (p *poller) drop(h *host) {
	if h.peer != nil && h.peer.stay() {
		defer p.farewell.Done()
		bye(h.peer)
	}
	h.peer = nil
}

func bye(conn net.Conn) {
	conn.SetWriteDeadline(time.Now().Add(byeTime))
	conn.Write([]byte("bye\n"))
	conn.Close()
}
