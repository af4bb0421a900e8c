/*
Cpunc is netcat for CPU readings. It serves the CPU usage of a machine over the
network and prints the readings of other machines, one line per reply.

	cpunc [options] [host [port]]         poll a host, one line per reply
	cpunc [options] host[:port] ...       poll several, columns side by side
	cpunc [options] -                     lines from stdin instead of a host
	cpunc -l [options] [[host] port | -]  serve readings; with -, on stdin/stdout

A client sends words, and the server replies to each with one line of numbers:

	cpu       utilization of the whole machine in percent
	cores     the same for each logical CPU, in order of CPU number
	modes     percentages of user nice system iowait irq softirq steal idle
	load      load averages over 1, 5 and 15 minutes
	mean      utilization over the last 1, 5 and 15 minutes in percent
	busy      percentage of wall-clock time in which the CPUs were not idle
	peak      the same in the busiest 200 ms of the interval
	pressure  percentage of time in which runnable tasks waited for a CPU (Linux)
	cgroup    CPU use of the server's control group, or of the one that --cgroup
	          names, in percent of its limit, and percentage of periods in which
	          it was throttled (Linux)

A reply covers the time since the previous reply to the same word on the same
connection, so clients do not affect each other. The first reply of a connection
covers between one and three seconds. White space between words is optional.
The word weight is for HAProxy's agent-check: 88% means that 12 percent are in
use. The word bye, or the end of input, closes the connection. Any other input
gets a line that starts with "error:".

A connection that starts with an HTTP method is served as HTTP: GET /cpu returns
one line, GET /cpu?interval=1 streams a line every second, GET / returns a page
with a live chart to a browser, and GET /metrics returns the counters for
Prometheus.

When dialing, cpunc requests the words of -r every -i seconds and prints each
reply as one line at once. Only readings are written to standard output. Without
a host, cpunc reads this machine, with the same protocol over a pipe in memory.
With -e it talks to a command, with -U to a Unix socket, and with -g it draws a
chart on the terminal. The default port is 5000. Without a host, -l listens on
the loopback interface only.

With --below or --above, cpunc waits until the readings meet that condition. With
the operand -, it reads lines from standard input, such as those it has printed.

The exit status is 0 for success, 1 if the network, the server or the counters
failed, 2 for a usage error, and 3 if the run ended before the condition of
--below or --above was met. On SIGINT, SIGTERM or SIGHUP, a listener
finishes the replies in progress and exits with status 0. A client closes its
connections and then ends by that same signal, so that a shell which runs cpunc
in a loop or before && sees it. A second signal ends cpunc at once. The manual
page, cpunc.1, describes all options.

Each of these files uses only the ones below it:

	main.go        dialing and listening as a whole; the exit status
	signals.go     signals that end a run; the question of --ask
	options.go     the options: parsing, checking against each other, addresses
	completion.go  completion scripts for shells
	flags.go       the table of options, and how they are typed
	graph.go       the chart on a terminal: keys, mouse, resizing
	terminal.go    taking over the terminal, drawing on it, giving it back
	chart.go       the chart as a whole: time, window, messages
	panel.go       a panel of it: title, plot, legend
	heat.go        many CPUs as a heat map
	stack.go       modes on top of each other
	curves.go      lines through numbers
	trace.go       what a panel shows of a column: text, color, mark, legend
	axis.go        round values for a y axis
	palette.go     what a terminal can show: colors, characters
	frame.go       a picture of character cells
	history.go     the numbers in a chart
	listen.go      accepting connections, limits, the log of clients
	unix.go        Unix sockets to listen on
	http.go        the same readings over HTTP; page/ is the page for browsers
	metrics.go     the counters in the Prometheus text format
	poll.go        polling several hosts at each tick, reconnecting
	dial.go        connecting to one host, requests and replies
	gate.go        waiting until readings meet a condition
	replay.go      lines from standard input instead of a host
	line.go        the result of a tick: printing it, min/avg/max
	address.go     operands: hosts, ports, sockets, commands
	hint.go        what the user probably meant
	session.go     the server's side of a connection: words and replies
	scan.go        the words in the input of a client; telnet commands
	process.go     a command as a connection; ending it and its descendants
	stdio.go       standard streams, also as a connection
	sample.go      samples of the kernel, shared by all sessions
	words.go       the table of words: what is in the reply to each
	peak.go        the busiest 200 ms of any interval, for peak
	mean.go        samples of the last 15 minutes, for mean
	reading.go     readings, computed from two samples
	cgroup.go      the control group of this process, or one that is named
	counters.go    CPU counters, load averages and pressure from the kernel
	say.go         messages on standard error
	system_*.go    differences between operating systems
	clock.go       when ticks are due; the brake; durations
*/
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

func main() {
	err := run(os.Args)
	if by, ok := err.(signalError); ok {
		endBy(by.Signal)
	}
	status := 0
	switch {
	case errors.As(err, new(usageError)):
		status = 2
	case err == errUnmet:
		status, err = 3, nil
	case err != nil:
		status = 1
	}
	if err != nil {
		say("%v", err)
	}
	stderr.flush()
	os.Exit(status)
}

// errUnmet means that the run has ended before the condition of a gate was met.
var errUnmet = errors.New("condition not met")

func run(args []string) error {
	opt, err := parse(args[1:])
	if err != nil {
		return err
	}
	text := opt.completion
	switch {
	case opt.help:
		text = help
	case opt.version:
		text = fmt.Sprintln("cpunc", version())
	}
	if text != "" {
		_, err := io.WriteString(os.Stdout, text)
		return stdoutError(err)
	}
	if opt.cgroup != "" {
		if _, err := readGroup(opt.cgroup); err != nil {
			return sourceError(groups, err)
		}
	}
	ctx, end := context.WithCancelCause(context.Background())
	sig := catchSignals(ctx, opt.ask, end)
	if opt.listen {
		return listen(ctx, opt)
	}
	err = dial(ctx, opt, sig)
	if err != nil && err != errUnmet {
		return err
	}
	if by, ok := context.Cause(ctx).(signalError); ok { // rather than errUnmet
		return by
	}
	return err
}

// dial shows the lines of hosts, or of standard input, until ctx is done.
func dial(ctx context.Context, opt *options, sig *signals) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := newBrake()
	if opt.ask {
		go askAtInterrupts(ctx, sig.asking, b, cancel) // ends with ctx
	}
	var shown tee
	sum := summary{columns: map[string]*extent{}}
	if opt.verbose > 0 {
		shown = append(shown, &sum)
	}
	condition := newGate(opt)
	if opt.graph {
		g, err := openGraph(opt, condition, b, cancel, sig.interrupt)
		if err != nil {
			return err
		}
		defer g.close()
		shown = append(shown, g)
	}
	out := openOutput(ctx, opt.graph, cancel)
	text := &printer{w: out, header: opt.header}
	if opt.time {
		text.timeFormat = timeFormat(opt.pace())
	}
	shown = append(shown, text)
	if condition != nil {
		shown = append(shown, condition) // the last, so that the line that decides is printed
	}
	var lines interface{ run(context.Context) error }
	if opt.replay {
		buffered := bufio.NewWriterSize(out, maxInput)
		text.w = buffered
		lines = &replay{in: newLineReader(os.Stdin), count: opt.count, stay: opt.graph, brake: b, show: shown.show, flush: buffered.Flush}
	} else {
		lines = newPoller(opt, b, shown.show)
	}
	err := lines.run(ctx)
	sum.print()
	if err != nil || condition == nil || condition.met {
		return err
	}
	if opt.verbose > 0 {
		say("not met: %s", condition.missed())
	}
	return errUnmet
}

// openOutput returns standard output for the readings. It calls gone when the
// reader of a pipe has closed it.
func openOutput(ctx context.Context, graph bool, gone func()) io.Writer {
	if graph && isStdoutOnChart() {
		return io.Discard
	}
	if pipe := reopenStdout(); pipe != nil {
		go watchReader(pipe, gone) // ends with the reader, or with the process
		return output{ctx, pipe}   // on descriptor 1, a write to a closed pipe would end the process at once by SIGPIPE
	}
	return output{ctx, os.Stdout}
}

// openGraph opens the chart. With a command, which may first ask for a password,
// graph.show opens it later.
func openGraph(opt *options, condition *gate, b brake, quit, interrupt func()) (*graph, error) {
	if err := checkTerminal(); err != nil {
		return nil, err
	}
	g := newGraph(newChart(opt), b, quit, interrupt)
	if condition != nil {
		condition.report = func(text string) { g.change(func(c *chart) { c.condition = text }) }
	}
	if opt.given["exec"] != "" {
		return g, nil
	}
	err := g.open()
	if err == nil && isUnread(os.Stdin) && !opt.replay && !opt.requests && opt.addresses[0].network == memory {
		say("warning: stdin is not read (to draw it: cpunc -g -)") // in the chart
	}
	return g, err
}

// newChart returns an empty chart of what the options ask for.
func newChart(opt *options) chart {
	c := chart{
		asked:        opt.words,
		window:       min(max(opt.window, shortestWindow), longestWindow),
		intervalText: formatDuration(opt.interval),
	}
	switch {
	case opt.replay:
		c.asked, c.intervalText = []word{noWord}, ""
		if opt.given["window"] == "" {
			c.window = 0
		}
	case opt.requests:
		c.intervalText = "on request"
	}
	if opt.addresses[0].network == memory {
		c.cpus = runtime.NumCPU()
		if !opt.requests && slices.ContainsFunc(c.asked, func(w word) bool { return !table[w].instant }) {
			c.first = time.Now().Add(opt.interval)
		}
	}
	var names []string
	for _, a := range opt.addresses {
		names = append(names, a.String())
	}
	c.subject = strings.Join(names, ", ")
	return c
}

// newGate returns the gate of the options; nil if there is none.
func newGate(opt *options) *gate {
	if opt.given["below"] == "" && opt.given["above"] == "" {
		return nil
	}
	return &gate{
		below:    opt.below,
		above:    opt.above,
		hold:     opt.hold,
		interval: opt.pace(),
		all:      opt.replay,
		report:   func(string) {},
	}
}

// pace returns the time between lines, or 0 if standard input sets the pace.
func (opt *options) pace() time.Duration {
	if opt.replay || opt.requests {
		return 0
	}
	return opt.interval
}

// newPoller returns a poller that is set up as the options say.
func newPoller(opt *options, b brake, show func(line) error) *poller {
	d := dialer{wait: opt.wait, minFirst: opt.interval, group: opt.cgroup, verbose: opt.verbose > 0, stderr: os.Stderr}
	if opt.graph { // a command's messages must not overwrite the chart
		d.stderr = stderr
	}
	p := &poller{
		words:    opt.words,
		interval: opt.pace(),
		wait:     opt.wait,
		first:    firstWindow, // a listener that has just started delays its first replies for so long
		count:    opt.count,
		keep:     opt.keep,
		verbose:  opt.verbose > 0,
		chart:    opt.graph,
		dial:     d.dial,
		show:     show,
		brake:    b,
	}
	for _, a := range opt.addresses {
		p.hosts = append(p.hosts, &host{address: a})
		if a.network == memory {
			p.first = max(p.first, d.minFirst)
		}
	}
	if opt.requests {
		p.input = newLineReader(os.Stdin)
	}
	return p
}

// listen serves this machine's readings until ctx is done.
func listen(ctx context.Context, opt *options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addr := opt.addresses[0]
	srv := &server{
		sampler: newSampler(opt.cgroup),
		verbose: opt.verbose,
		once:    opt.once,
		allow:   opt.allow,
		names:   append(opt.names, addr.host),
	}
	srv.setLimits(opt.maxConns, maxDescriptors())
	if opt.given["max-conns"] != "" && srv.maxConns < int64(opt.maxConns) {
		say("warning: at most %d connections, because of the limit of open files (ulimit -n)", srv.maxConns)
	}
	if opt.given["wait"] != "" {
		srv.idle = opt.wait
	}
	var ln net.Listener
	if addr.network == stdio {
		if err := checkStdin(); err != nil {
			return err
		}
		srv.sampler.young = !isClient(os.Stderr) // to a client, the message about mean would be a reply
	} else {
		var err error
		if ln, err = addr.listen(ctx); err != nil {
			return fmt.Errorf("listen %s: %w%s", addr, cause(err), serviceHint(addr.host))
		}
		say("listening on %s%s", quoteOdd(ln.Addr().String()), addr.reachable(ln.Addr()))
		if one, instead := opt.allow.unreachable(ln.Addr()); one != "" {
			say("warning: %s cannot connect, because cpunc listens on the loopback interface only (all interfaces: %s)", one, instead)
		}
	}
	if err := srv.sampler.start(ctx); err != nil && addr.network != stdio { // whose client sees it in its replies
		say("%v", err) // not fatal: load and HTTP work without the CPU counters
	}
	// Most of the heap is long-lived connections, so collecting often costs
	// little, and saves a third of the memory of clients that do not read. With
	// few connections, it would make a reading over a new one a tenth slower. The
	// ballast prevents that, and never becomes resident.
	debug.SetGCPercent(20)
	ballast := make([]byte, 16<<20)
	defer runtime.KeepAlive(ballast)

	if addr.network == stdio {
		conn := newDuplex(os.Stdin, os.Stdout, addr.String())
		srv.serve(ctx, listenOnce(conn))
		return conn.flush(ctx)
	}
	onListening(ln.Addr())
	srv.serve(ctx, ln)
	return nil
}
