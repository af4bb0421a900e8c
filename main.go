/*
Cpunc is netcat for CPU readings.

	cpunc [flags] [host [port]]         dial: ask every second, print one line an answer
	cpunc [flags] host[:port] ...       dial several: one line a tick, columns side by side
	cpunc -l [flags] [[host] port | -]  listen: answer everyone who connects

A listener answers each word that it is sent with one line of numbers:

	cpu     busy percent of the whole machine
	cores   busy percent of each logical CPU, in number order
	modes   user nice system iowait irq softirq steal idle, percent
	load    load average over 1, 5 and 15 minutes
	busy    percent of the wall-clock time in which the CPUs were not idle
	pressure
	        percent of the time in which some task waited for a CPU (Linux)
	cgroup  CPU use of the listener's control group in percent of its limit, and
	        percent of the periods in which it was throttled (Linux)

An answer covers the time since the same connection was last answered that
word, and the first one at least the last second; how many others ask changes
nothing. Between words white space is optional. The word bye, or the end of
input, closes the connection; what is not a word gets a line that begins with
"error:". A connection that begins like HTTP is HTTP: GET /cpu, and /metrics for
Prometheus.

Dialing, cpunc asks for the words of -r every -i seconds and prints each answer
as a line, at once; nothing but readings goes to standard output. Without a
host it reads this machine, through the same session over a pipe in memory;
-e dials a command, -U a Unix socket, and -g draws a chart. The
port is 5000 where none is given. Listening is on localhost alone where no host
is given.

SIGINT, SIGTERM and SIGHUP end cpunc in good order, with status 0. The status is
1 when the network, the server or the counters fail, and 2 when the command line
makes no sense. The manual page, cpunc.1, has every flag.

The files, each of which uses only those below it:

	main.go     one mode made of its parts; signals; the exit
	flags.go    what the command line says
	completion.go  what shells complete
	graph.go    a chart on a terminal: keys, mouse, resizing
	chart.go    a chart as a grid of cells: lines in, picture out
	listen.go   sockets, accepting, limits, the log of clients
	http.go     the same conversation in HTTP
	poll.go     many hosts, asked at each tick
	dial.go     reaching one host, and asking it
	line.go     what one tick brought: printing it, min/avg/max
	address.go  what operands name
	session.go  one conversation: bytes, words, replies
	stdio.go    standard streams and commands as connections
	reading.go  readings made of two samples
	sample.go   words; samples, taken for all sessions together
	cgroup.go   the control group of this process
	counters.go what the kernel says: CPU counters, load averages, pressure
	clock.go    when ticks are due, and when they rest
	say.go      what is told to a person
	system_*.go  what differs from system to system
*/
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	err := run(os.Args)
	status := 0
	switch {
	case errors.As(err, new(usageError)):
		status = 2
	case err != nil:
		status = 1
	}
	if err != nil {
		say("%v", err)
	}
	stderr.flush()
	os.Exit(status)
}

func run(args []string) error {
	opt, err := parse(args[1:])
	if err != nil {
		return err
	}
	switch {
	case opt.help:
		_, err := io.WriteString(os.Stdout, help)
		return stdoutError(err)
	case opt.completion != "":
		script, err := completion(opt.completion, optionTable(), words[:readings])
		if err != nil {
			return usageError{err}
		}
		_, err = io.WriteString(os.Stdout, script)
		return stdoutError(err)
	case opt.version:
		_, err := fmt.Println("cpunc", version())
		return stdoutError(err)
	}
	interrupts := make(chan os.Signal, 1)
	ctx, stop := catchSignals(opt.ask, interrupts)
	defer stop()
	if opt.listen {
		return listen(ctx, opt)
	}
	return dial(ctx, opt, interrupts)
}

// catchSignals gives a context that ends with the first signal that asks for an
// end. The second ends the process at once, whatever it waits for. With ask,
// interrupts are no such signals while ctx goes on; they are passed on instead.
func catchSignals(ask bool, interrupts chan<- os.Signal) (ctx context.Context, stop func()) {
	// What it was started to ignore stays ignored, as nohup and a shell's & want it.
	endings := slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGHUP}, signal.Ignored)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, append(endings, syscall.SIGTERM)...)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the process
		for s := range signals {
			switch {
			case ctx.Err() != nil:
				restoreTerminal()
				stderr.flush()
				os.Exit(signalStatus(s))
			case ask && s == os.Interrupt:
				select {
				case interrupts <- s:
				default: // one is enough
				}
			default:
				cancel()
			}
		}
	}()
	return ctx, cancel
}

// dial polls hosts and prints a line a tick, until ctx is done.
func dial(ctx context.Context, opt *options, interrupts <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rests := make(pauses, 1)
	p := newPoller(opt, rests)
	out := output{ctx, os.Stdout}
	pipe := reopenStdout()
	if pipe != nil {
		defer pipe.Close()
		go watchReader(pipe, cancel)
	}
	lines := printer{w: &out, header: opt.header, timeFormat: timeFormat(opt)}
	var sum summary
	show := func(line) error { return nil }
	p.emit = func(l line) error {
		if opt.verbose > 0 {
			sum.add(l)
		}
		if err := show(l); err != nil {
			return err
		}
		return lines.print(l)
	}
	if opt.graph {
		g, err := newGraph(newChart(opt, p.hosts), rests)
		if err != nil {
			return err
		}
		defer g.close()
		defer cancel()
		if len(opt.commands) == 0 {
			err = g.open(ctx, cancel)
		}
		if err != nil {
			return err
		}
		show = g.opening(ctx, cancel)
		switch {
		case isOnChart():
			out.Writer = io.Discard
		case pipe != nil: // where no SIGPIPE leaves the terminal as it is
			out.Writer = pipe
		}
	}
	if opt.ask {
		go askAtInterrupts(ctx, interrupts, rests, cancel) // ends with ctx
	}
	err := p.run(ctx)
	if opt.verbose > 0 {
		summarize(p.hosts, &sum)
	}
	return err
}

// summarize says what became of the polls, as ping does.
func summarize(hosts []*host, sum *summary) {
	for _, h := range hosts {
		say("%s: %d sent, %d received, %d lost", h, h.polled, h.answered, h.polled-h.answered)
	}
	sum.print()
}

// newPoller gives what polls as the flags say.
func newPoller(opt *options, rests pauses) *poller {
	d := dialer{wait: opt.wait.Duration, first: opt.interval.Duration, verbose: opt.verbose > 0, stderr: os.Stderr}
	if opt.graph { // over which no command may write
		d.stderr = stderr
	}
	p := &poller{
		words:    opt.read.words,
		interval: opt.interval.Duration,
		wait:     opt.wait.Duration,
		count:    int(opt.count),
		keep:     opt.keep,
		dial: func(ctx context.Context, a address) (net.Conn, error) {
			conn, err := d.dial(ctx, a)
			if err != nil {
				err = fmt.Errorf("%w%s", err, hint(a.host))
			}
			return conn, err
		},
		pauses: rests,
	}
	for _, a := range opt.addresses {
		p.hosts = append(p.hosts, &host{address: a})
	}
	if opt.read.stdin {
		p.input = &lineReader{bufio.NewScanner(os.Stdin), "standard input"}
		p.interval = 0
	}
	return p
}

// hint says what was probably meant by a host that could not be dialed.
func hint(host string) string {
	switch {
	case host == "help":
		return " (for help: cpunc -h)"
	case host == "version":
		return " (for the version: cpunc --version)"
	case slices.Contains(words[:readings], host):
		return fmt.Sprintf(" (for this reading: cpunc -r %s)", host)
	}
	return ""
}

// timeFormat is that of the time before the columns, if there is to be one.
func timeFormat(opt *options) string {
	switch {
	case !opt.time:
		return ""
	case opt.interval.Duration < time.Second || opt.read.stdin:
		return "2006-01-02T15:04:05.000Z"
	}
	return "2006-01-02T15:04:05Z"
}

// listen serves this machine's readings until ctx is done.
func listen(ctx context.Context, opt *options) error {
	addr := opt.addresses[0]
	srv := &server{
		sampler:  newSampler(),
		verbose:  opt.verbose,
		once:     opt.once,
		idle:     opt.idle,
		allow:    opt.allow,
		maxConns: int32(min(opt.maxConns, math.MaxInt32)),
	}
	var ln net.Listener
	if addr.network != stdio {
		var err error
		if ln, err = addr.listen(ctx); err != nil {
			return fmt.Errorf("listen %s: %w", addr, cause(err))
		}
		say("listening on %s%s", quoteOdd(ln.Addr().String()), addr.reachable(ln.Addr()))
	}
	if err := srv.sampler.record(ctx); err != nil && addr.network != stdio {
		say("%v", err) // the words that need no counters are served all the same
	}
	// The heap is mostly connections, which stay. What comes and goes is little,
	// so collecting it often costs less than room for it beside them.
	debug.SetGCPercent(20)

	srv.web = newWeb(srv.sampler, append(opt.names, addr.host), srv.idle, srv.serving.Load)
	background, stop := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	helpers.Go(func() { srv.sampler.run(background) })
	helpers.Go(func() { srv.web.run(background) })
	if addr.network == stdio {
		return srv.serveStdio(ctx, newDuplex(os.Stdin, os.Stdout, addr.String()))
	}
	onListening(ln.Addr())
	return srv.serve(ctx, ln)
}

// askAtInterrupts has the polling rest at every interrupt until the user says
// whether to go on, until ctx is done.
func askAtInterrupts(ctx context.Context, interrupts <-chan os.Signal, rests pauses, end func()) {
	for {
		select {
		case <-interrupts:
		case <-ctx.Done():
			return
		}
		resume := rests.begin()
		if !askToContinue(ctx, interrupts) {
			end()
		}
		resume()
	}
}

// askToContinue asks on the terminal whether to go on. Another interrupt, the
// end of ctx or no terminal means no.
func askToContinue(ctx context.Context, interrupts <-chan os.Signal) bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	replies := lineReader{bufio.NewScanner(tty), "terminal"}
	for {
		go fmt.Fprint(tty, "\ncontinue (y/n)? ") // the terminal may be stopped
		select {
		case reply := <-replies.next():
			switch strings.ToLower(strings.TrimSpace(reply.text)) {
			case "y", "yes":
				return true
			case "n", "no":
				return false
			}
			if reply.err != nil {
				return false
			}
		case <-interrupts:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// newChart gives the empty chart of what the flags ask for.
func newChart(opt *options, hosts []*host) chart {
	quantity := "CPU utilization (%)"
	c := chart{least: 100, window: opt.window.Duration, location: time.Local, pace: brief(opt.interval.Duration)}
	loads := 0
	for _, w := range opt.read.words {
		if w == loadWord {
			loads++
		}
	}
	switch {
	case opt.read.stdin:
		c.pace = "on request"
	case loads == len(opt.read.words):
		quantity, c.least = "Load average", 0
	case loads > 0:
		quantity += " and load average"
	}
	c.title = quantity + " "
	for _, h := range hosts {
		c.title += " " + quoteOdd(h.String())
	}
	c.zoom(1)
	return c
}
