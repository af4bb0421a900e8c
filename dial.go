package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxAnswer = 64 << 10               // bytes: 10,000 cores
	silence   = 100 * time.Millisecond // ends an answer that has no newline
	byeTime   = 100 * time.Millisecond

	maxLate = 100 * time.Millisecond // that a tick may be, when half its time is over
	ever    = 1 << 62                // a hundred years

	minPause = 500 * time.Millisecond // before a host is dialed again
	maxPause = 30 * time.Second
)

// open connects to a within wait. Every way to reach a session is here.
func (a address) open(ctx context.Context, wait time.Duration, verbose bool) (net.Conn, error) {
	switch a.network {
	case memory:
		return thisMachine(), nil
	case command:
		return startProcess(a.host)
	}
	deadline := time.Now().Add(wait)
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if _, notIP := netip.ParseAddr(a.host); verbose && notIP != nil && a.network != socket {
		if ips, err := net.DefaultResolver.LookupHost(limited, a.host); err == nil {
			log.Printf("%s is %s", a.host, strings.Join(ips, " "))
		}
	}
	where := a.String()
	if a.network == socket {
		where = a.host
	}
	conn, err := new(net.Dialer).DialContext(limited, a.network, where)
	if err != nil && ctx.Err() == nil && !time.Now().Before(deadline) {
		err = fmt.Errorf("no connection within %v", wait)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", a, cause(err))
	}
	if verbose {
		if a.network == socket {
			log.Printf("%s: connected", a)
		} else {
			log.Printf("%s: connected to %s", a, conn.RemoteAddr())
		}
	}
	return conn, nil
}

// thisMachine starts a session over a pipe in memory. Closing it ends the session.
func thisMachine() net.Conn {
	client, server := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	smp := newSampler()
	go func() {
		defer onPanic()
		defer cancel()
		smp.remember() // so that the first answers wait together, not one by one
		(&session{sampler: smp}).serve(ctx, server)
	}()
	return client
}

// A peer is the client's end of a session.
type peer struct {
	net.Conn
	unread []byte
	lines  bool // it has ended an answer with a newline: it always does
}

// ask sends the words in one request, and gives the numbers of each answer as
// they came.
func (p *peer) ask(ws []word, wait time.Duration) ([][]string, error) {
	deadline := time.Now().Add(wait)
	if len(bytes.TrimSpace(p.unread)) > 0 {
		return nil, fmt.Errorf("sent what nobody asked for: %s", excerpt(p.unread))
	}
	p.unread = p.unread[:0]
	var request []byte
	for i, w := range ws {
		if i > 0 {
			request = append(request, ' ')
		}
		request = append(request, w.String()...)
	}
	// An error of the write shows when reading, behind what the server may
	// have said before it closed.
	p.SetWriteDeadline(deadline)
	p.Write(append(request, '\n'))
	answers := make([][]string, len(ws))
	for i, w := range ws {
		line, err := p.line(w, deadline)
		switch {
		case err == io.EOF:
			err = errors.New("connection closed")
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("no answer within %v", wait)
		case err != nil:
			err = cause(err)
		}
		if err != nil {
			if i == 0 && len(p.unread) == 0 {
				err = goneError{err}
			}
			return nil, err
		}
		if answers[i], err = parseAnswer(w, line); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// A goneError is a connection that was lost before an answer began, perhaps long ago.
type goneError struct{ error }

// line reads the answer to w, which a newline ends, or, from older servers, a
// silence; but cores is so long that a silence may be in the middle. The line is
// valid until the next call.
func (p *peer) line(w word, deadline time.Time) ([]byte, error) {
	for {
		// An empty line is what was left of an answer that a silence ended.
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

// parseAnswer checks that line answers w, and splits it into its numbers.
func parseAnswer(w word, line []byte) ([]string, error) {
	if text, ok := bytes.CutPrefix(line, []byte("error: ")); ok {
		return nil, fmt.Errorf("error: %s", excerpt(text))
	}
	columns := strings.Fields(string(line))
	width := len(columns)
	if want := w.width(); want != 0 && width != want || width == 0 {
		return nil, fmt.Errorf("not a reading of %s: %s", w, excerpt(line))
	}
	for _, column := range columns {
		n, err := strconv.ParseFloat(column, 64)
		if err != nil || strings.Trim(column, "0123456789.") != "" || n > 100 && w != loadWord {
			return nil, fmt.Errorf("not a reading of %s: %s", w, excerpt(line))
		}
	}
	return columns, nil
}

// A poller asks every host the same words at the same instants and gives out
// what comes back as lines.
type poller struct {
	hosts    []*host
	words    []word
	input    *input // if not nil, it has the words and sets the pace
	interval time.Duration
	wait     time.Duration // for an answer
	count    int           // of lines; 0 for no end
	keep     bool          // dial lost hosts again, and do without them meanwhile
	open     func(context.Context, address) (net.Conn, error)
	emit     func(line) error
	// breaks are run between two steps of the polling, which waits for them:
	// false ends it.
	breaks <-chan func() bool

	results chan result
}

// A host is one address that is polled.
type host struct {
	address
	requests chan request
	busy     bool       // has a request that is not answered yet
	answers  [][]string // of the tick that is under way; nil for none
	cores    int        // how many columns its last answer to cores had

	polled, answered int

	lost  time.Time     // since when it has not answered, if it has not
	pause time.Duration // before the last attempt to dial it again
}

// A request is what every host is asked at one tick.
type request struct {
	tick  int
	words []word
	over  time.Time // nobody waits for the answer after this
}

// A result is what became of a host's request, or, with tick greeting, of its
// first connection. Where there is neither answer nor error, the host is away.
type result struct {
	*host
	tick    int
	answers [][]string
	err     error
}

const greeting = -1

// run polls until there are count lines, a host is lost, emit fails, a break
// says so or ctx is done. On return every session was told bye.
func (p *poller) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	defer cancel()
	p.results = make(chan result, len(p.hosts)) // a host never has two under way
	for _, h := range p.hosts {
		h.requests = make(chan request, 1)
		sessions.Go(func() { defer onPanic(); p.converse(ctx, h) })
	}
	if err := p.poll(ctx); err != errEnd {
		return err
	}
	return nil
}

func (p *poller) poll(ctx context.Context) error {
	if !p.keep {
		for range p.hosts {
			if _, _, err := p.step(ctx, nil, nil); err != nil {
				return err
			}
		}
	}
	// A host alone may be late. Beside others, or where a gap must show, its
	// time is over with the tick; but a command may take its time to connect.
	patient := len(p.hosts) == 1 && !p.keep || p.interval == 0
	connecting := !p.keep && slices.ContainsFunc(p.hosts, func(h *host) bool { return h.network == command })
	start := time.Now()
	for n, lines := 0, 0; p.count == 0 || lines < p.count; {
		at := start.Add(time.Duration(n) * p.interval)
		ws, err := p.begin(ctx, at)
		if err != nil {
			return err
		}
		late := time.Since(at)
		if p.interval > 0 && late >= max(p.interval/2, maxLate) { // for a break
			n += int(late/p.interval) + 1
			continue
		}
		over := at.Add(max(p.interval, late+p.interval/2)) // half of it is left to the late
		if patient || n == 0 && connecting {
			over = time.Now().Add(ever) // the host itself gives up before
		}
		l, err := p.ask(ctx, request{n, ws, over})
		if err != nil {
			return err
		}
		if p.interval > 0 {
			l.at = l.at.Add(at.Sub(l.at)) // the wall clock of now, the phase of the tick
		}
		if err := p.emit(l); err != nil {
			return err
		}
		lines++
		n++
		if p.interval == 0 {
			if p.input == nil && !l.answered {
				start = time.Now().Add(time.Second) // or nan would come as fast as it prints
			}
			continue
		}
		if late := time.Since(start.Add(time.Duration(n) * p.interval)); late > 0 {
			n += int(late / p.interval) // were over before they began
			if patient {
				n++ // began without us
			}
		}
	}
	return nil
}

// step waits for a result, for words of the input or for the clock, whichever
// is first. Meanwhile it gives way to breaks. A host that failed is an error.
func (p *poller) step(ctx context.Context, clock <-chan time.Time, input <-chan []word) (*result, []word, error) {
	for {
		// What came during a break may have come before the clock.
		select {
		case r := <-p.results:
			return heed(ctx, r)
		default:
		}
		select {
		case <-clock:
			return nil, nil, nil
		case ws, ok := <-input:
			if !ok {
				return nil, nil, cmp.Or(p.input.err, errEnd)
			}
			return nil, ws, nil
		case r := <-p.results:
			return heed(ctx, r)
		case proceed := <-p.breaks:
			if !proceed() {
				return nil, nil, errEnd
			}
		case <-ctx.Done():
			return nil, nil, errEnd
		}
	}
}

// heed notes that the host of r is free, and gives r or why there is none.
func heed(ctx context.Context, r result) (*result, []word, error) {
	r.busy = false
	if ctx.Err() != nil { // then it may have failed for having said bye
		return nil, nil, errEnd
	}
	return &r, nil, r.err
}

// begin waits for the next tick, which is at that time or with the next line
// of input, and gives its words. Answers that come meanwhile are too late.
func (p *poller) begin(ctx context.Context, at time.Time) ([]word, error) {
	var clock <-chan time.Time
	var input <-chan []word
	if p.input != nil {
		input = p.input.next()
	} else {
		clock = time.After(time.Until(at))
	}
	for {
		late, ws, err := p.step(ctx, clock, input)
		if err != nil || ws != nil {
			return ws, err
		}
		if late == nil {
			return p.words, nil
		}
	}
}

// ask sends r to every host that is free, and makes a line of what comes back
// until r is over.
func (p *poller) ask(ctx context.Context, r request) (line, error) {
	waiting := 0
	for _, h := range p.hosts {
		h.answers = nil
		h.polled++
		if !h.busy {
			h.busy = true
			h.requests <- r
			waiting++
		}
	}
	l := line{at: time.Now()}
	clock := time.After(time.Until(r.over))
	for waiting > 0 {
		got, _, err := p.step(ctx, clock, nil)
		if err != nil {
			return l, err
		}
		if got == nil {
			break
		}
		if got.tick == r.tick {
			waiting--
			got.host.take(r.words, got.answers)
		}
	}
	for _, h := range p.hosts {
		l.answered = l.answered || h.answers != nil
		prefix := ""
		if len(p.hosts) > 1 {
			prefix = h.label() + "/"
		}
		for i, w := range r.words {
			for c := range h.width(w) {
				l.names = append(l.names, prefix+columnName(w, c))
				if h.answers == nil {
					l.columns = append(l.columns, "nan")
				} else {
					l.columns = append(l.columns, h.answers[i][c])
				}
			}
		}
	}
	return l, nil
}

// take keeps the answers of the tick that is under way.
func (h *host) take(ws []word, answers [][]string) {
	if h.answers = answers; answers == nil {
		return
	}
	h.answered++
	for i, w := range ws {
		if w == coresWord {
			h.cores = len(answers[i])
		}
	}
}

// width is how many columns the answer to w has; to cores, how many the last
// one had.
func (h *host) width(w word) int {
	return cmp.Or(w.width(), h.cores, 1)
}

// converse connects to h and passes its requests on, until ctx is done or h
// fails for good.
func (p *poller) converse(ctx context.Context, h *host) {
	conn, err := p.open(ctx, h.address)
	if !p.keep {
		p.results <- result{h, greeting, nil, err}
	}
	for {
		if err == nil {
			err = p.session(ctx, h, conn)
		}
		if !p.keep || ctx.Err() != nil {
			return
		}
		if _, isGone := err.(goneError); isGone {
			// The listener may have closed it long since, for saying nothing, or
			// have been started anew.
			if again, openErr := p.open(ctx, h.address); openErr == nil {
				conn, err = again, nil
				continue
			}
			if ctx.Err() != nil {
				return
			}
		}
		if h.lost.IsZero() {
			h.lost = time.Now()
			log.Printf("%v; dialing again", err)
		}
		redialed := make(chan net.Conn)
		go func() { defer onPanic(); redialed <- p.redial(ctx, h) }()
		for conn = nil; conn == nil; {
			select {
			case conn = <-redialed:
				if conn == nil {
					return
				}
			case r := <-h.requests:
				p.results <- result{host: h, tick: r.tick}
			}
		}
		err = nil
	}
}

// redial dials h until that succeeds or ctx is done: then it gives nil. The
// pauses before double, and vary, so that many clients do not come back at once.
func (p *poller) redial(ctx context.Context, h *host) net.Conn {
	for {
		h.pause = min(max(2*h.pause, minPause), maxPause)
		select {
		case <-time.After(h.pause/2 + rand.N(h.pause/2)):
		case <-ctx.Done():
			return nil
		}
		if conn, err := p.open(ctx, h.address); err == nil {
			return conn
		}
	}
}

// session passes requests to the server at the other end of conn, until that
// fails or ctx is done. Then it says bye and closes conn. At a goneError, the
// request waits to be passed on again.
func (p *poller) session(ctx context.Context, h *host, conn net.Conn) error {
	left := make(chan struct{})
	bye := func() {
		conn.SetWriteDeadline(time.Now().Add(byeTime))
		conn.Write([]byte("bye\n"))
		conn.Close()
		close(left)
	}
	stay := context.AfterFunc(ctx, bye) // also while an answer is awaited
	defer func() {
		if stay() {
			bye()
		}
		<-left
	}()
	server := &peer{Conn: conn}
	for asked := 0; ; asked++ {
		select {
		case r := <-h.requests:
			if time.Now().After(r.over) { // it took until now to connect
				p.results <- result{host: h, tick: r.tick}
				continue
			}
			answers, err := server.ask(r.words, p.wait)
			gone, isGone := err.(goneError)
			if isGone && asked > 0 && p.keep && ctx.Err() == nil {
				h.requests <- r // for the next session, if there is one at once
				return goneError{fmt.Errorf("%s: %w", h, gone.error)}
			}
			if err != nil {
				// Not a goneError any more: this request is done with.
				err = fmt.Errorf("%s: %v", h, err)
				if h.network == command { // Ctrl-C ends it, too, and perhaps before us
					select {
					case <-ctx.Done():
					case <-time.After(byeTime):
					}
				}
			}
			told := err
			if p.keep { // then the host is away, and that is no error of the polling
				told = nil
			}
			p.results <- result{h, r.tick, answers, told}
			if err != nil {
				return err
			}
			if !h.lost.IsZero() {
				log.Printf("%s: back after %v", h, time.Since(h.lost).Round(100*time.Millisecond))
				h.lost, h.pause = time.Time{}, 0
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// An input reads requests from a file, a line each, and none before it is
// wanted.
type input struct {
	want  chan struct{}
	words chan []word
	err   error // why there are no more words, if not for the end of the file
}

func readInput(r io.Reader) *input {
	in := &input{want: make(chan struct{}, 1), words: make(chan []word)}
	go func() { // ends with the file, or else with the process
		defer close(in.words)
		lines := bufio.NewScanner(r)
		for range in.want {
			var ws []word
			for len(ws) == 0 { // a blank line asks nothing
				if !lines.Scan() {
					err := lines.Err()
					if err == bufio.ErrTooLong {
						err = errors.New("a line without end")
					}
					if err != nil {
						in.err = fmt.Errorf("standard input: %w", cause(err))
					}
					return
				}
				if ws, in.err = parseReadings(strings.Fields(lines.Text())); in.err != nil {
					in.err = fmt.Errorf("standard input: %w", in.err)
					return
				}
			}
			in.words <- ws
		}
	}()
	return in
}

func (in *input) next() <-chan []word {
	in.want <- struct{}{}
	return in.words
}
