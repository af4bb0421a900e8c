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
	graph.go    a chart on a terminal: keys, mouse, resizing
	chart.go    a chart as a grid of cells: lines in, picture out
	listen.go   sockets, accepting, limits, the log of clients
	http.go     the same conversation in HTTP
	dial.go     hosts, asking them, ticks
	line.go     what one tick brought: printing it, min/avg/max
	address.go  what operands name
	session.go  one conversation: bytes, words, replies
	stdio.go    standard streams and commands as connections
	sample.go   the kernel's counters and what is read from them
	say.go      what is told to a person
*/
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
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
	log.SetFlags(0)
	log.SetPrefix("cpunc: ") // every message: one line, lower case, no full stop
	if err := run(os.Args); err != nil {
		log.Print(err)
		if errors.As(err, new(usageError)) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func run(args []string) error {
	opt := new(options)
	app := newApp(opt)
	if err := app.Run(append(args[:1:1], permute(args[1:], app.Flags)...)); err != nil {
		return err
	}
	if opt.help {
		return printHelp(os.Stdout, app.Flags)
	}
	if opt.version {
		_, err := fmt.Println("cpunc", version())
		return stdoutError(err)
	}
	endings := []os.Signal{syscall.SIGHUP}
	if !opt.ask {
		endings = append(endings, os.Interrupt)
	}
	// What it was started to ignore stays ignored, as nohup and a shell's & want it.
	endings = append(slices.DeleteFunc(endings, signal.Ignored), syscall.SIGTERM)
	ctx, stop := signal.NotifyContext(context.Background(), endings...)
	defer stop()
	if opt.listen {
		return listen(ctx, opt, opt.addresses[0])
	}
	return dial(ctx, opt, opt.addresses)
}

// dial polls the addresses and prints a line a tick, until ctx is done.
func dial(ctx context.Context, opt *options, addrs []address) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &poller{
		words:    opt.read.words,
		interval: opt.interval.Duration,
		wait:     opt.wait.Duration,
		count:    int(opt.count),
		keep:     opt.keep,
		open: func(ctx context.Context, a address) (net.Conn, error) {
			return a.open(ctx, opt.wait.Duration, opt.verbose > 0)
		},
	}
	for _, a := range addrs {
		p.hosts = append(p.hosts, &host{address: a})
	}
	if opt.read.stdin {
		p.input = readInput(os.Stdin)
		p.interval = 0
	}
	var sum summary
	pipe := reopenStdout()
	if pipe != nil {
		defer pipe.Close()
		go watchReader(pipe, cancel)
	}
	var lines io.Writer = os.Stdout
	out := printer{header: opt.header}
	if opt.time {
		out.timeFormat = "2006-01-02T15:04:05Z"
		if p.interval < time.Second {
			out.timeFormat = "2006-01-02T15:04:05.000Z"
		}
	}
	breaks := make(chan func() bool)
	p.breaks = breaks
	show := func(line) {}
	if opt.graph {
		g, err := openGraph(newChart(opt, p.hosts), breaks)
		if err != nil {
			return err
		}
		defer g.close()
		var drawing sync.WaitGroup
		defer drawing.Wait()
		defer cancel()
		drawing.Go(func() { defer onPanic(); g.run(ctx, cancel) })
		show = func(l line) { g.emit(ctx, l) }
		switch {
		case isOnChart():
			lines = io.Discard
		case pipe != nil: // where no SIGPIPE leaves the terminal as it is
			lines = pipe
		}
	}
	out.w = newOutput(ctx, lines)
	p.emit = func(l line) error {
		if opt.verbose > 0 {
			sum.add(l)
		}
		show(l)
		return stdoutError(out.print(l))
	}
	if opt.ask && !signal.Ignored(os.Interrupt) {
		interrupts := make(chan os.Signal, 1)
		signal.Notify(interrupts, os.Interrupt)
		defer signal.Stop(interrupts)
		go askAtInterrupts(ctx, interrupts, breaks)
	}
	err := p.run(ctx)
	if opt.verbose > 0 {
		for _, h := range p.hosts {
			log.Printf("%s: %d polls, %d answers, %d lost", h, h.polled, h.answered, h.polled-h.answered)
		}
		sum.print()
	}
	return err
}

// listen serves this machine's readings at addr until ctx is done.
func listen(ctx context.Context, opt *options, addr address) error {
	srv := &server{
		sampler:  newSampler(),
		verbose:  opt.verbose,
		once:     opt.once,
		silence:  opt.silence,
		allow:    opt.allow,
		maxConns: int32(min(opt.maxConns, math.MaxInt32)),
	}
	var ln net.Listener
	if addr.network != stdio {
		var err error
		if ln, err = addr.listen(ctx); err != nil {
			return fmt.Errorf("listen %s: %w", addr, cause(err))
		}
		log.Print("listening on ", quoteOdd(ln.Addr().String()), addr.reachable(ln.Addr()))
	}
	if err := srv.sampler.remember(); err != nil && addr.network != stdio {
		log.Print(err) // the words that need no counters are served all the same
	}
	// The heap is mostly connections, which stay. What comes and goes is little,
	// so collecting it often costs less than room for it beside them.
	debug.SetGCPercent(20)

	srv.web = newWeb(srv.sampler, addr.host, srv.silence, srv.serving.Load)
	background, stop := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	helpers.Go(func() { srv.sampler.run(background) })
	helpers.Go(func() { srv.web.run(background) })

	if addr.network == stdio {
		srv.serving.Add(1)
		srv.running.Add(1)
		conn := newDuplex(os.Stdin, os.Stdout, addr.String())
		err := srv.attend(ctx, conn)
		srv.running.Wait() // it may have become HTTP
		switch {
		case errors.Is(err, errSilent): // no failure, as little as over a network
			err = nil
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil: // it was not to wait longer
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded): // waited for already
			return stdoutError(err)
		}
		return cmp.Or(stdoutError(conn.flush(ctx)), err)
	}
	onListening(ln.Addr())
	return srv.serve(ctx, ln)
}

// askAtInterrupts has the polling wait, at every interrupt, for what the user
// says, until ctx is done.
func askAtInterrupts(ctx context.Context, interrupts <-chan os.Signal, breaks chan<- func() bool) {
	for {
		select {
		case <-interrupts:
		case <-ctx.Done():
			return
		}
		answered := make(chan struct{}) // until then the next interrupt is for the question
		proceed := func() bool {
			defer close(answered)
			return askToContinue(ctx, interrupts)
		}
		select {
		case breaks <- proceed:
			<-answered
		case <-ctx.Done():
			return
		}
	}
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
		c.pace = "as asked"
	case loads == len(opt.read.words):
		quantity, c.least = "Load average", 0
	case loads > 0:
		quantity += " and load average"
	}
	c.title = quantity + " "
	for _, h := range hosts {
		c.title += " " + strings.Map(printable, h.String())
	}
	c.zoom(1)
	return c
}
