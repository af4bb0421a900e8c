package main

import (
	"cmp"
	"context"
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
	maxLate = 100 * time.Millisecond // that a tick may be, when half its time is over

	minPause = 500 * time.Millisecond // before a host is dialed again
	maxPause = 30 * time.Second
)

// A host is one address that is polled.
type host struct {
	address
	cores   int        // how many columns its last reply to cores had
	replies [][]string // of the tick that is under way; nil for none

	polled, answered int
	settled          bool // it has replied or failed at least once

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
	if !p.keep { // then it begins when all are there
		if _, ok := p.tick(ctx, nil, time.Time{}); !ok {
			return errEnd
		}
	}
	// A host alone may be late. Beside others, or where a gap must show, its
	// time is over with the tick; but see mayTakeLonger.
	patient := len(p.hosts) == 1 && !p.keep || p.interval == 0
	c := clock{time.Now(), p.interval}
	n := 0
	for lines := 0; p.count == 0 || lines < p.count; lines++ {
		ws, tick, err := p.next(ctx, c, n)
		if err != nil {
			return err
		}
		at, over := c.at(tick), time.Time{}
		if !patient && (lines > 0 || !p.mayTakeLonger()) {
			over = latest(c.at(tick+1), time.Now().Add(p.interval/2)) // half of it is left to the late
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
		n = p.following(&c, tick, patient, l.answered)
	}
	return errEnd
}

// next waits for tick n, or the next request of the input, and gives the words and
// the tick.
func (p *poller) next(ctx context.Context, c clock, n int) ([]word, int, error) {
	if p.input != nil {
		ws, err := p.request(ctx)
		return ws, n, err
	}
	n, err := p.due(ctx, c, n)
	return p.words, n, err
}

// following gives the tick after n, which is over now.
func (p *poller) following(c *clock, n int, patient, answered bool) int {
	now := time.Now()
	switch {
	case p.interval > 0 && patient:
		return c.after(n, now, 0)
	case p.interval > 0:
		return c.after(n, now, p.late())
	case p.input == nil && !answered:
		c.start = now.Add(time.Second) // or nan would come as fast as it prints
	}
	return n
}

// late is how late a tick may begin.
func (p *poller) late() time.Duration { return max(p.interval/2, maxLate) }

// mayTakeLonger says whether the first tick may last: a command may take its time to
// connect, and this machine takes a whole interval for its first line.
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
// than a little late, since polling paused.
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
	l.settled = true
	for _, h := range p.hosts {
		prefix := ""
		if len(p.hosts) > 1 {
			prefix = h.column() + "/"
		}
		l.answered = l.answered || h.replies != nil
		l.settled = l.settled && h.settled
		l.add(prefix, ws, h.replies, h.cores)
	}
	return l, true
}

// take keeps the replies of the tick that is under way.
func (h *host) take(ws []word, replies [][]string) {
	if h.replies = replies; len(ws) == 0 {
		return
	}
	if h.settled = true; replies == nil {
		return
	}
	h.answered++
	if i := slices.Index(ws, coresWord); i >= 0 {
		h.cores = len(replies[i])
	}
}

// wrap says of which host an error is, unless there is just this machine.
func (h *host) wrap(err error) error {
	if h.network == memory && h.label == "" {
		return err
	}
	return fmt.Errorf("%s: %w", h, err)
}

// ask is the goroutine of one host at one tick. The host's replies go into
// results; one that fails ends the run, or, with keep, is dialed again after it
// has left a gap.
func (p *poller) ask(ctx context.Context, h *host, ws []word, results chan<- result) {
	replies, err := p.exchange(ctx, h, ws)
	switch {
	case err == nil:
		if len(ws) > 0 && !h.lost.IsZero() {
			say("%s: reconnected after %v", h, time.Since(h.lost).Round(100*time.Millisecond))
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
			return nil, h.wrap(err)
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
	return nil, h.wrap(err)
}

// redial dials h, which was lost to err, until that succeeds or ctx is done. The
// pauses before double until it has replied, and vary, so that many clients do
// not come back at once.
func (p *poller) redial(ctx context.Context, h *host, err error) {
	if h.lost.IsZero() && ctx.Err() == nil {
		h.lost = time.Now()
		say("%v; reconnecting", err)
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
