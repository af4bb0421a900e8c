package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/netip"
	"os"
	"os/signal"
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
)

// open connects to a within wait. Every way to reach a session is here.
func (a address) open(ctx context.Context, wait time.Duration, verbose bool) (net.Conn, error) {
	if a.network == "" {
		return thisMachine(), nil
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if _, notIP := netip.ParseAddr(a.host); verbose && notIP != nil {
		if ips, err := net.DefaultResolver.LookupHost(limited, a.host); err == nil {
			log.Printf("%s is %s", a.host, strings.Join(ips, " "))
		}
	}
	conn, err := new(net.Dialer).DialContext(limited, a.network, a.String())
	if limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no connection within %v", wait)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", a, cause(err))
	}
	if verbose {
		log.Printf("%s: connected to %s", a, conn.RemoteAddr())
	}
	return conn, nil
}

// thisMachine starts a session over a pipe in memory. Closing it ends the session.
func thisMachine() net.Conn {
	client, server := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	smp := newSampler()
	go smp.run(ctx)
	go func() {
		defer cancel()
		(&session{sampler: smp}).serve(ctx, server)
	}()
	return client
}

// A peer is the client's end of a session.
type peer struct {
	net.Conn
	unread []byte
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
		line, err := p.line(deadline)
		switch {
		case err == io.EOF:
			return nil, errors.New("connection closed")
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("no answer within %v", wait)
		case err != nil:
			return nil, cause(err)
		}
		if answers[i], err = parseAnswer(w, line); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// line reads one answer, which a newline ends, or, from older servers, a
// silence. The line is valid until the next call.
func (p *peer) line(deadline time.Time) ([]byte, error) {
	for {
		// An empty line is what was left of an answer that a silence ended.
		p.unread = bytes.TrimLeft(p.unread, "\r\n")
		if line, rest, ok := bytes.Cut(p.unread, []byte("\n")); ok {
			p.unread = rest
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if len(p.unread) >= maxAnswer {
			return nil, fmt.Errorf("more than %d bytes without a newline: %s", maxAnswer, excerpt(p.unread))
		}
		until := deadline
		if quiet := time.Now().Add(silence); len(p.unread) > 0 && quiet.Before(deadline) {
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
		return nil, fmt.Errorf("server error: %s", excerpt(text))
	}
	columns := strings.Fields(string(line))
	width := len(columns)
	if want := [readings]int{cpuWord: 1, modesWord: int(modes), loadWord: 3}[w]; want != 0 && width != want || width == 0 {
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

// excerpt quotes the beginning of what a server sent.
func excerpt(text []byte) string {
	const enough = 200
	if len(text) > enough {
		return fmt.Sprintf("%q...", text[:enough])
	}
	return fmt.Sprintf("%q", text)
}

// A poller asks every host the same words at the same instants and gives out
// what comes back as lines.
type poller struct {
	hosts    []*host
	words    []word
	interval time.Duration
	wait     time.Duration // for an answer
	count    int           // of lines; 0 for no end
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
}

// A request is what every host is asked at one tick.
type request struct {
	tick  int
	words []word
	over  time.Time // nobody waits for the answer after this
}

// A result is what became of a host's request, or, with tick greeting, of its
// first connection.
type result struct {
	*host
	tick    int
	answers [][]string
	err     error
}

const greeting = -1

// A line is what one tick brought: the columns of all hosts side by side.
type line struct {
	at      time.Time // of the tick
	names   []string
	columns []string // numbers as they came, or nan
}

// errEnd ends the polling with nothing having failed.
var errEnd = errors.New("end of polling")

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
		sessions.Go(func() { p.converse(ctx, h) })
	}
	if err := p.poll(ctx); err != errEnd {
		return err
	}
	return nil
}

func (p *poller) poll(ctx context.Context) error {
	for range p.hosts {
		if _, err := p.step(ctx, nil); err != nil {
			return err
		}
	}
	// A host alone may be late; beside others its time is over with the tick.
	patient := len(p.hosts) == 1 || p.interval == 0
	start := time.Now()
	for n, lines := 0, 0; p.count == 0 || lines < p.count; lines++ {
		at := start.Add(time.Duration(n) * p.interval)
		if err := p.sleep(ctx, at); err != nil {
			return err
		}
		over := at.Add(p.interval)
		if patient {
			over = time.Now().Add(2 * p.wait) // the host itself gives up before
		}
		l, err := p.ask(ctx, request{n, p.words, over})
		if err != nil {
			return err
		}
		if err := p.emit(l); err != nil {
			return err
		}
		n++
		if late := time.Since(start.Add(time.Duration(n) * p.interval)); late > 0 && p.interval > 0 {
			n += int(late / p.interval) // were over before they began
			if patient {
				n++ // began without us
			}
		}
	}
	return nil
}

// step waits for a result, or for clock: then the result is nil. Meanwhile it
// gives way to breaks. A host that failed is an error.
func (p *poller) step(ctx context.Context, clock <-chan time.Time) (*result, error) {
	for {
		select {
		case <-clock:
			return nil, nil
		case r := <-p.results:
			r.busy = false
			return &r, r.err
		case proceed := <-p.breaks:
			if !proceed() {
				return nil, errEnd
			}
		case <-ctx.Done():
			return nil, errEnd
		}
	}
}

// sleep waits until at. Answers that come meanwhile are too late for their
// tick and fall out.
func (p *poller) sleep(ctx context.Context, at time.Time) error {
	clock := time.After(time.Until(at))
	for {
		if late, err := p.step(ctx, clock); late == nil || err != nil {
			return err
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
		got, err := p.step(ctx, clock)
		if err != nil {
			return l, err
		}
		if got == nil {
			break
		}
		if got.tick == r.tick {
			got.host.take(r.words, got.answers)
			waiting--
		}
	}
	for _, h := range p.hosts {
		prefix := ""
		if len(p.hosts) > 1 {
			prefix = h.String() + "/"
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
	h.answers = answers
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
	return [readings]int{cpuWord: 1, coresWord: max(1, h.cores), modesWord: int(modes), loadWord: 3}[w]
}

// columnName is what column c of the answer to w is called.
func columnName(w word, c int) string {
	switch w {
	case coresWord:
		return "cpu" + strconv.Itoa(c)
	case modesWord:
		return modeNames[c]
	case loadWord:
		return [...]string{"load1", "load5", "load15"}[c]
	}
	return w.String()
}

// converse connects to h and passes its requests on, until h fails or ctx is
// done.
func (p *poller) converse(ctx context.Context, h *host) {
	conn, err := p.open(ctx, h.address)
	p.results <- result{h, greeting, nil, err}
	if err != nil {
		return
	}
	bye := sync.OnceFunc(func() {
		conn.SetWriteDeadline(time.Now().Add(byeTime))
		conn.Write([]byte("bye\n"))
		conn.Close()
	})
	defer bye()
	defer context.AfterFunc(ctx, bye)() // also while an answer is awaited
	server := &peer{Conn: conn}
	for {
		select {
		case r := <-h.requests:
			answers, err := server.ask(r.words, p.wait)
			if err != nil {
				err = fmt.Errorf("%s: %w", h, err)
			}
			p.results <- result{h, r.tick, answers, err}
			if err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// dial polls addr and prints a line for every answer, until ctx is done.
func dial(ctx context.Context, opt *options, addr address) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &poller{
		hosts:    []*host{{address: addr}},
		words:    opt.read,
		interval: opt.interval.Duration,
		wait:     opt.wait.Duration,
		count:    int(opt.count),
		open: func(ctx context.Context, a address) (net.Conn, error) {
			return a.open(ctx, opt.wait.Duration, opt.verbose > 0)
		},
	}
	var sum summary
	p.emit = func(l line) error {
		if opt.verbose > 0 {
			sum.add(l)
		}
		// One write a line, and at once: whoever reads must not wait.
		if _, err := os.Stdout.WriteString(strings.Join(l.columns, " ") + "\n"); err != nil {
			return fmt.Errorf("write standard output: %w", cause(err))
		}
		return nil
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	breaks := make(chan func() bool)
	p.breaks = breaks
	go func() {
		for {
			select {
			case <-interrupts:
			case <-ctx.Done():
				return
			}
			proceed := func() bool { return opt.ask && askToContinue(ctx, interrupts) }
			select {
			case breaks <- proceed:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer watchReader(cancel)()

	err := p.run(ctx)
	if opt.verbose > 0 {
		sum.print(p.hosts)
	}
	return err
}

// askToContinue asks on the terminal whether to go on. Another interrupt, the
// end of ctx or no terminal means no.
func askToContinue(ctx context.Context, interrupts <-chan os.Signal) bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer tty.Close() // ends the reading below
	replies := make(chan string)
	go func() {
		defer close(replies)
		for in := bufio.NewScanner(tty); in.Scan(); {
			select {
			case replies <- in.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		fmt.Fprint(tty, "\ncontinue (y/n)? ")
		select {
		case reply, ok := <-replies:
			switch strings.ToLower(strings.TrimSpace(reply)) {
			case "y", "yes":
				return true
			case "n", "no":
				return false
			}
			if !ok {
				return false
			}
		case <-interrupts:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// watchReader calls gone when standard output is a pipe whose reader has gone
// away, so that cpunc ends then and not only with the next line. Where a pipe
// can't be watched, that line does it.
func watchReader(gone func()) (stop func()) {
	if info, err := os.Stdout.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return func() {}
	}
	// Opened anew, it can be waited on without making standard output, which
	// other programs may share, non-blocking.
	pipe, err := os.OpenFile("/dev/stdout", os.O_WRONLY, 0)
	if err != nil {
		return func() {}
	}
	conn, err := pipe.SyscallConn()
	if err != nil {
		pipe.Close()
		return func() {}
	}
	go func() {
		first := true
		// A pipe's writing end is never ready to be read, unless by its error.
		err := conn.Read(func(uintptr) bool {
			first = !first
			return first
		})
		if err == nil {
			gone()
		}
	}()
	return func() { pipe.Close() }
}

// A summary is what -v says at the end of each column, as ping does.
type summary struct {
	names   []string
	columns map[string]*extremes
}

type extremes struct {
	n             int
	min, max, sum float64
}

func (s *summary) add(l line) {
	if s.columns == nil {
		s.columns = map[string]*extremes{}
	}
	for i, name := range l.names {
		x, err := strconv.ParseFloat(l.columns[i], 64)
		if err != nil || math.IsNaN(x) {
			continue
		}
		e := s.columns[name]
		if e == nil {
			e = &extremes{min: x, max: x}
			s.columns[name] = e
			s.names = append(s.names, name)
		}
		e.n++
		e.min, e.max, e.sum = min(e.min, x), max(e.max, x), e.sum+x
	}
}

func (s *summary) print(hosts []*host) {
	for _, h := range hosts {
		log.Printf("%s: %d polls, %d answers, %d lost", h, h.polled, h.answered, h.polled-h.answered)
	}
	for _, name := range s.names {
		e := s.columns[name]
		log.Printf("%s: min/avg/max %.2f/%.2f/%.2f", name, e.min, e.sum/float64(e.n), e.max)
	}
}
