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
	minPause = 500 * time.Millisecond // between attempts to reconnect
	maxPause = 30 * time.Second
)

// A host is one address that is polled.
type host struct {
	address
	cores    int // number of columns in its last reply to cores
	received int // number of polls that it replied to in time

	// While busy is set, a goroutine polls or redials the host, and owns the
	// fields below.
	busy    atomic.Bool
	peer    peer
	refused bool          // whether it refused some words of the last request
	lost    time.Time     // when it was lost; zero if it has replied since
	pause   time.Duration // before the last attempt to reconnect
}

// A poller sends the same words to every host at each tick, and shows the
// replies as lines.
type poller struct {
	hosts    []*host
	words    []word
	input    *lineReader // if not nil, it provides the words and sets the pace
	interval time.Duration
	wait     time.Duration // timeout for a reply
	first    time.Duration // how much longer a first reply may take
	count    int           // number of lines; 0: no limit
	keep     bool          // reconnect lost hosts, and show gaps meanwhile
	verbose  bool          // log how many polls each host replied to
	chart    bool          // as keep, for hosts that have replied, but not for commands
	dial     func(context.Context, address) (net.Conn, error)
	show     func(line) error
	brake    brake

	polls      int                     // number of polls
	fail       context.CancelCauseFunc // ends the run; the first cause counts
	unfinished sync.WaitGroup          // goroutines of polls, and connections to which bye has not been sent yet
}

// run polls until it has shown count lines, a host is lost, show fails or ctx is
// done. Before it returns, it ends every session with bye.
func (p *poller) run(ctx context.Context) error {
	ctx, p.fail = context.WithCancelCause(ctx)
	p.fail(p.loop(ctx)) // no effect if a lost host has already ended the run
	p.unfinished.Wait()
	if p.verbose { // as ping does
		for _, h := range p.hosts {
			say("%s: %d sent, %d received, %d lost", h, p.polls, h.received, p.polls-h.received)
		}
	}
	if err := context.Cause(ctx); err != errEnd && err != context.Canceled {
		return err
	}
	return nil
}

// loop shows a line per tick. It returns errEnd after count lines or when ctx
// is done.
func (p *poller) loop(ctx context.Context) error {
	if err := p.connectAll(ctx); err != nil {
		return err
	}
	c := clock{time.Now(), p.interval}
	for p.count == 0 || p.polls < p.count {
		ws, err := p.next(ctx, &c)
		if err != nil {
			return err
		}
		l, err := p.poll(ctx, ws, p.missed(c))
		if err != nil {
			return err
		}
		last := l.at // when the last reply came
		if p.polls == 1 {
			c.due = time.Now() // a first reply may take long, and the ticks start with the first line
		}
		l.at = c.stamp(last)
		if err := p.show(l); err != nil {
			return err
		}
		c = c.next(last) // a tick that was due before that would cover less than an interval
		if p.interval == 0 && l.isGap() {
			c.due = time.Now().Add(time.Second) // otherwise, nan would be shown without pause
		}
	}
	return errEnd
}

// connectAll connects to every host, unless those that fail leave gaps.
func (p *poller) connectAll(ctx context.Context) error {
	if p.keep {
		return nil
	}
	var dials sync.WaitGroup
	for _, h := range p.hosts {
		dials.Go(func() { // ends with ctx
			defer onPanic()
			if err := p.connect(ctx, h); err != nil {
				p.fail(err)
			}
		})
	}
	dials.Wait()
	return ctx.Err()
}

// next waits for the next request of the input, or for the next tick, and
// returns the words.
func (p *poller) next(ctx context.Context, c *clock) ([]word, error) {
	if p.input != nil {
		return p.request(ctx)
	}
	for {
		err := sleep(ctx, time.Until(c.due))
		if err == nil {
			err = p.brake.wait(ctx)
		}
		now := time.Now()
		if err != nil || now.Sub(c.due) <= p.interval/2 || p.interval == 0 {
			return p.words, err
		}
		*c = c.next(now) // after a pause
	}
}

// missed returns when the poll at the tick of c ends: hosts that have not replied
// then leave gaps. It is nil if all of them are waited for, as long as -w allows.
func (p *poller) missed(c clock) <-chan time.Time {
	end := c.due.Add(p.interval)
	isCommand := func(h *host) bool { return h.network == command }
	switch first := p.polls == 0; {
	case p.interval == 0, len(p.hosts) == 1 && !p.keep:
		return nil
	case first && slices.ContainsFunc(p.hosts, isCommand): // it may take long to connect
		return nil
	case first:
		end = end.Add(p.first)
	}
	return time.After(time.Until(end))
}

// request returns the next request from the input.
func (p *poller) request(ctx context.Context) ([]word, error) {
	for {
		text, err := p.input.next(ctx)
		if err == io.EOF {
			err = errEnd
		}
		if err != nil {
			return nil, err
		}
		names := strings.Fields(text)
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

// A result is the outcome of a poll for one host: its replies, or nil for a gap.
type result struct {
	host    *host
	replies [][]string
}

// poll sends the words to every host that is not busy, each in a goroutine of its
// own, and collects the replies into a line until all have come, or missed.
func (p *poller) poll(ctx context.Context, ws []word, missed <-chan time.Time) (line, error) {
	results := make(chan result, len(p.hosts)) // late results land where nobody reads them
	waiting := 0
	for _, h := range p.hosts {
		if h.busy.CompareAndSwap(false, true) {
			waiting++
			p.unfinished.Go(func() { defer onPanic(); p.pollHost(ctx, h, ws, results) }) // ends when the host has replied or is back, or with ctx
		}
	}
	p.polls++
	at := time.Now()
	replies := map[*host][][]string{}
	for waiting > 0 {
		select {
		case r := <-results:
			waiting--
			if r.replies != nil {
				replies[r.host] = r.replies
				at = time.Now()
			}
		case <-missed:
			waiting = 0
		case <-ctx.Done():
			return line{}, errEnd
		}
	}
	l := line{at: at}
	for _, h := range p.hosts {
		p.add(&l, h, ws, replies[h])
	}
	return l, p.brake.wait(ctx)
}

// add appends the columns of h: those of its replies to ws, where nil is a gap.
func (p *poller) add(l *line, h *host, ws []word, replies [][]string) {
	prefix := ""
	if len(p.hosts) > 1 || h.label != "" {
		prefix = strings.Join(strings.Fields(h.String()), "_") + "/" // white space separates columns
	}
	if replies != nil {
		h.received++
	} else {
		replies = make([][]string, len(ws))
	}
	for i, w := range ws {
		columns := replies[i]
		switch {
		case columns == nil:
			columns = slices.Repeat([]string{"nan"}, cmp.Or(w.width(), h.cores, 1))
		case w.width() == 0:
			h.cores = len(columns)
		}
		for c := range columns {
			l.names = append(l.names, prefix+w.column(c))
		}
		l.columns = append(l.columns, columns...)
	}
}

// wrap adds the name of the host to an error, unless it is this machine.
func (h *host) wrap(err error) error {
	if h.network == memory && h.label == "" {
		return err
	}
	return fmt.Errorf("%s: %w", h, err)
}

// pollHost polls one host and sends the replies to results. If the host fails, it
// ends the run, or sends a gap and reconnects.
func (p *poller) pollHost(ctx context.Context, h *host, ws []word, results chan<- result) {
	replies, err := p.exchange(ctx, h, ws)
	switch {
	case err != nil && !p.survives(h, err):
		p.fail(err)
	case err == nil || isRefusal(err):
		if !h.lost.IsZero() {
			say("%s: reconnected after %v", h, time.Since(h.lost).Round(100*time.Millisecond))
			h.lost, h.pause = time.Time{}, 0
		}
		if err != nil && !h.refused {
			say("%v", err)
		}
		h.refused = err != nil
		h.busy.Store(false) // first, because the next poll may begin once this result is sent
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
	return p.keep || p.chart && h.peer.everReplied && (isRefusal(err) || h.network != command)
}

// exchange sends the words to h, over its connection or a new one, and returns
// the replies. The connection is closed if it fails, but not after a refusal.
func (p *poller) exchange(ctx context.Context, h *host, ws []word) ([][]string, error) {
	if h.peer.Conn == nil {
		if err := p.connect(ctx, h); err != nil {
			return nil, err
		}
	}
	first := !h.peer.everReplied
	replies, err := h.peer.ask(ws, p.wait, p.first)
	_, stale := err.(staleError)
	switch {
	case err == nil:
		if first && h.network == command && h.hint != "" {
			say("warning: %s: cpunc without -l prints cpu, whatever the request is%s", h, h.hint)
		}
		return replies, nil
	case isRefusal(err):
		return replies, h.wrap(err)
	case h.network == command: // Ctrl-C also ends the command, perhaps before ctx is done
		sleep(ctx, brief)
	case stale && h.peer.replied && p.survives(h, err): // the listener may have closed an idle connection, or have been restarted
		p.drop(h)
		return p.exchange(ctx, h, ws) // which fails if the new connection is closed, too
	}
	if !h.peer.replied {
		err = withHint(err, h.hint)
	}
	p.drop(h)
	return nil, h.wrap(err)
}

// redial dials h, which was lost, until that succeeds or ctx is done.
// The pauses double until h has replied, and are random, so that many clients
// do not reconnect at the same time.
func (p *poller) redial(ctx context.Context, h *host) {
	for {
		h.pause = min(max(2*h.pause, minPause), maxPause)
		if sleep(ctx, h.pause/2+rand.N(h.pause/2)) != nil || p.connect(ctx, h) == nil {
			return
		}
	}
}

// connect dials h. At the end of the run, the connection is closed with bye.
func (p *poller) connect(ctx context.Context, h *host) error {
	conn, err := p.dial(ctx, h.address)
	if err != nil {
		return withHint(err, cmp.Or(h.hint, dialHint(h.host, h.port, err)))
	}
	p.unfinished.Add(1)
	h.peer.Conn, h.peer.unread, h.peer.replied = conn, nil, false
	h.peer.cancelBye = context.AfterFunc(ctx, func() {
		defer p.unfinished.Done()
		bye(conn) // a pending request fails
	})
	return nil
}

// drop closes the connection to h with bye, unless the end of the run has done
// so.
func (p *poller) drop(h *host) {
	if h.peer.cancelBye() {
		bye(h.peer.Conn)
		p.unfinished.Done()
	}
	h.peer.Conn = nil
}
