package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxLate = 100 * time.Millisecond // a tick may always be this late, even if the interval is short

	minPause = 500 * time.Millisecond // between attempts to reconnect
	maxPause = 30 * time.Second
)

// A host is one address that is polled.
type host struct {
	address
	hint    string     // for an error before its first reply
	cores   int        // number of columns in its last reply to cores
	replies [][]string // to the current tick; nil if none

	polled, answered int
	settled          bool // whether it has replied or failed at least once

	// While busy is set, a goroutine polls or redials the host, and owns the
	// fields below.
	busy    atomic.Bool
	peer    *peer         // nil when not connected
	lines   bool          // whether it has ended a reply with a newline
	known   bool          // whether it has ever replied with a number
	refused bool          // whether it refused some words of the last request
	lost    time.Time     // when it was lost; zero if it has replied since
	pause   time.Duration // before the last attempt to reconnect
}

// A poller sends the same words to every host at each tick, and emits the
// replies as lines.
type poller struct {
	hosts    []*host
	words    []word
	input    *lineReader // if not nil, it provides the words and sets the pace
	interval time.Duration
	wait     time.Duration // timeout for a reply
	first    time.Duration // how much longer a first reply may take
	count    int           // number of lines; 0: no limit
	keep     bool          // reconnect lost hosts, and emit gaps meanwhile
	chart    bool          // the same for hosts that have replied, but not for commands
	dial     func(context.Context, address) (net.Conn, error)
	emit     func(line) error
	pauses   pauses

	end    context.CancelCauseFunc // ends the run; the first cause counts
	asking sync.WaitGroup          // goroutines of ticks
	byes   sync.WaitGroup          // connections to which bye has not been sent yet
}

// run polls until it has emitted count lines, a host is lost, emit fails or ctx
// is done. Before it returns, it ends every session with bye.
func (p *poller) run(ctx context.Context) error {
	ctx, p.end = context.WithCancelCause(ctx)
	p.end(p.poll(ctx)) // no effect if a lost host has already ended the run
	p.asking.Wait()
	p.byes.Wait()
	if err := context.Cause(ctx); err != errEnd && err != context.Canceled && err != context.DeadlineExceeded {
		return err
	}
	return nil
}

// poll emits a line per tick. It returns errEnd after count lines or when ctx
// is done.
func (p *poller) poll(ctx context.Context) error {
	if !p.keep { // the first tick needs all of them
		if _, ok := p.tick(ctx, nil, time.Time{}); !ok {
			return errEnd
		}
	}
	// A single host may reply late. With several hosts, or with keep, a host
	// that has not replied before the next tick leaves a gap; but see
	// mayTakeLonger.
	patient := len(p.hosts) == 1 && !p.keep || p.interval == 0
	c := clock{time.Now(), p.interval}
	n := 0
	for lines := 0; p.count == 0 || lines < p.count; lines++ {
		ws, tick, err := p.next(ctx, c, n)
		if err != nil {
			return err
		}
		var deadline time.Time
		if !patient && (lines > 0 || !p.mayTakeLonger()) {
			deadline = latest(c.at(tick+1), time.Now().Add(p.interval/2)) // at least half an interval, even if the tick began late
		}
		l, ok := p.tick(ctx, ws, deadline)
		if !ok {
			return errEnd
		}
		if lines == 0 && p.hosts[0].network == memory {
			c.start = l.at // the first line covers the interval that ends with it
		}
		if p.interval > 0 {
			l.at = c.stamp(tick, l.at)
		}
		if err := p.emit(l); err != nil {
			return err
		}
		n = p.following(&c, tick, patient, l.answered)
	}
	return errEnd
}

// next waits for tick n, or for the next request of the input, and returns the
// words and the tick.
func (p *poller) next(ctx context.Context, c clock, n int) ([]word, int, error) {
	if p.input != nil {
		ws, err := p.request(ctx)
		return ws, n, err
	}
	n, err := p.due(ctx, c, n)
	return p.words, n, err
}

// following returns the tick after n, which has just ended.
func (p *poller) following(c *clock, n int, patient, answered bool) int {
	now := time.Now()
	switch {
	case p.interval > 0 && patient:
		return c.after(n, now, 0)
	case p.interval > 0:
		return c.after(n, now, p.late())
	case p.input == nil && !answered:
		c.start = now.Add(time.Second) // otherwise, nan would be printed without pause
	}
	return n
}

// late returns how late a tick may begin.
func (p *poller) late() time.Duration { return max(p.interval/2, maxLate) }

// mayTakeLonger reports whether the first tick has no time limit: a command may
// take long to connect, and the first line of this machine takes an interval.
func (p *poller) mayTakeLonger() bool {
	return slices.ContainsFunc(p.hosts, func(h *host) bool {
		return h.network == command && !p.keep || h.network == memory
	})
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// await returns the next value from ch, or errEnd if ctx is done first. While
// polling is paused, it does not return a value.
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

// due waits for tick n and returns it. If that is too late, because polling was
// paused, it waits for a later tick instead.
func (p *poller) due(ctx context.Context, c clock, n int) (int, error) {
	for {
		if _, err := await(ctx, p, time.After(time.Until(c.at(n)))); err != nil {
			return n, err
		}
		now := time.Now()
		if p.interval == 0 || now.Sub(c.at(n)) <= p.late() {
			return n, nil
		}
		n = c.after(n, now, 0)
	}
}

// request returns the next request from the input.
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
		if len(names) == 0 { // ignore blank lines
			continue
		}
		ws, err := parseReadings(names)
		if err != nil {
			err = fmt.Errorf("standard input: %w", err)
		}
		return ws, err
	}
}

// A result is the outcome for a host at one tick: its replies, or nil for a
// gap. A result without a host ends the tick.
type result struct {
	host    *host
	replies [][]string
}

// tick polls every host that is not busy, each in its own goroutine, and
// collects the replies into a line until deadline, or without limit if that is
// zero. Without words, it only connects. It reports false if ctx is done first.
func (p *poller) tick(ctx context.Context, ws []word, deadline time.Time) (l line, ok bool) {
	results := make(chan result, len(p.hosts)+1) // buffered, because nobody reads late results
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
	if !deadline.IsZero() {
		defer time.AfterFunc(time.Until(deadline), func() { results <- result{} }).Stop()
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
	l.settled = true
	for _, h := range p.hosts {
		prefix := ""
		if len(p.hosts) > 1 || h.label != "" {
			prefix = h.column() + "/"
		}
		l.answered = l.answered || h.replies != nil
		l.settled = l.settled && h.settled
		l.add(prefix, ws, h.replies, h.cores)
	}
	return l, true
}

// take stores the replies to the current tick.
func (h *host) take(ws []word, replies [][]string) {
	if h.replies = replies; len(ws) == 0 {
		return
	}
	if h.settled = true; replies == nil {
		return
	}
	h.answered++
	for i, w := range ws {
		if w.width() == 0 && replies[i] != nil {
			h.cores = len(replies[i])
		}
	}
}

// wrap adds the name of the host to an error, unless it is this machine.
func (h *host) wrap(err error) error {
	if h.network == memory && h.label == "" {
		return err
	}
	return fmt.Errorf("%s: %w", h, err)
}

// ask polls one host at one tick, in its own goroutine, and sends the replies
// to results. If the host fails, ask ends the run or sends a gap and reconnects.
func (p *poller) ask(ctx context.Context, h *host, ws []word, results chan<- result) {
	replies, err := p.exchange(ctx, h, ws)
	switch {
	case err != nil && !p.survives(h, err):
		p.end(err)
	case err == nil || isRefusal(err):
		if len(ws) > 0 && !h.lost.IsZero() {
			say("%s: reconnected after %v", h, time.Since(h.lost).Round(100*time.Millisecond))
			h.lost, h.pause = time.Time{}, 0
		}
		if err != nil && !h.refused {
			say("%v", err)
		}
		h.refused = err != nil
		h.busy.Store(false) // first, because the next tick may begin once this result is sent
		results <- result{h, replies}
	default:
		if h.lost.IsZero() && ctx.Err() == nil {
			h.lost = time.Now()
			say("%v; reconnecting", err) // before the result, which may end the run
		}
		results <- result{h, nil}
		p.redial(ctx, h)
		h.busy.Store(false)
	}
}

// survives reports whether the run goes on after h has failed.
func (p *poller) survives(h *host, err error) bool {
	return p.keep || p.chart && h.known && (isRefusal(err) || h.network != command)
}

// exchange sends the words to h, over its connection or a new one, and returns
// the replies. The connection is closed if it fails, but not after a refusal.
func (p *poller) exchange(ctx context.Context, h *host, ws []word) ([][]string, error) {
	if h.peer == nil {
		if err := p.connect(ctx, h); err != nil {
			return nil, err
		}
	}
	if len(ws) == 0 {
		return [][]string{}, nil
	}
	replies, err := p.query(h, ws)
	if _, stale := err.(staleError); stale && h.peer.hasReplied() && p.survives(h, err) && h.network != command {
		// The listener may have closed the idle connection long ago, or may
		// have been restarted.
		p.drop(h)
		if dialErr := p.connect(ctx, h); dialErr != nil {
			return nil, h.wrap(err)
		}
		replies, err = p.query(h, ws)
	}
	switch {
	case err == nil:
		return replies, nil
	case isRefusal(err):
		return replies, h.wrap(err)
	case h.network == command: // Ctrl-C also ends the command, perhaps before ctx is done
		select {
		case <-ctx.Done():
		case <-time.After(byeTime):
		}
	}
	if !h.peer.hasReplied() {
		err = withHint(err, h.hint)
	}
	p.drop(h)
	return nil, h.wrap(err)
}

// query sends the words to h over its connection. An error line is a refusal
// only from a server that has replied; otherwise, it refuses the connection.
func (p *poller) query(h *host, ws []word) ([][]string, error) {
	replies, err := h.peer.ask(ws, p.wait, p.first)
	h.lines = h.peer.lines
	h.known = h.known || replies != nil
	if r, ok := err.(refusal); ok && h.network == memory {
		r.whole = true
		err = r
	}
	if isRefusal(err) && !h.peer.hasReplied() {
		err = errors.New(err.Error())
	}
	return replies, err
}

// redial dials h, which was lost, until that succeeds or ctx is done.
// The pauses double until h has replied, and are random, so that many clients
// do not reconnect at the same time.
func (p *poller) redial(ctx context.Context, h *host) {
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

// connect dials h. At the end of the run, the connection is closed with bye.
func (p *poller) connect(ctx context.Context, h *host) error {
	conn, err := p.dial(ctx, h.address)
	if err != nil {
		return withHint(err, h.hint)
	}
	p.byes.Add(1)
	h.peer = &peer{Conn: conn, lines: h.lines, cancelBye: context.AfterFunc(ctx, func() {
		defer p.byes.Done()
		bye(conn) // a pending request fails
	})}
	return nil
}

// drop closes the connection to h, if there is one, with bye.
func (p *poller) drop(h *host) {
	if h.peer != nil && h.peer.cancelBye() {
		defer p.byes.Done()
		bye(h.peer)
	}
	h.peer = nil
}
