/*
Cpunc is netcat for CPU readings.

	cpunc [flags] [host [port]]       dial: ask every second, print one line an answer
	cpunc -l [flags] [[host] port]    listen: answer everyone who connects

A listener answers each word that it is sent with one line of numbers:

	cpu     busy percent of the whole machine
	cores   busy percent of each logical CPU, in number order
	modes   user nice system iowait irq softirq steal idle, percent
	load    load average over 1, 5 and 15 minutes

An answer covers the time since the same connection was last answered that
word, and the first one at least the last second; how many others ask changes
nothing. Between words white space is optional. The word bye, or the end of
input, closes the connection; what is not a word gets a line that begins with
"error:".

Dialing, cpunc asks for the words of -r every -i seconds and prints each answer
as a line, at once; nothing but readings goes to standard output. Without a
host it reads this machine, through the same session over a pipe in memory. The
port is 5000 where none is given. Listening is on localhost alone where no host
is given.

SIGINT and SIGTERM end cpunc in good order, with status 0. The status is 1 when
the network, the server or the counters fail, and 2 when the command line makes
no sense. The manual page, cpunc.1, has every flag.
*/
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
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

// A usageError is a command line that makes no sense.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// options are the flags, read.
type options struct {
	listen, once, keep, ask bool
	ipv4, ipv6              bool
	help, version           bool
	verbose                 int
	port                    string
	interval, wait          seconds
	count                   positive
	read                    readingList
}

// Flags that mean something only when dialing, or only when listening, are in
// the category of that mode.
const (
	dialing   = "Dialing"
	listening = "Listening"
	either    = "Either"
)

func newApp(opt *options) *cli.App {
	opt.interval = seconds{time.Second, true}
	opt.wait = seconds{10 * time.Second, false}
	opt.read = readingList{cpuWord}
	cli.HelpFlag = nil // the library's help takes operands for topics
	cli.FlagStringer = describe
	return &cli.App{
		Name:           "cpunc",
		HideHelp:       true,
		HideVersion:    true, // the library's takes -v
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return usageError{err} },
		ExitErrHandler: func(*cli.Context, error) {}, // main alone exits
		Flags: []cli.Flag{
			&cli.GenericFlag{Name: "interval", Aliases: []string{"i"}, Value: &opt.interval, Category: dialing,
				Usage: "`SECONDS` between polls, or 500ms, 1m; 0: no pause (1)"},
			&cli.GenericFlag{Name: "count", Aliases: []string{"c"}, Value: &opt.count, Category: dialing,
				Usage: "stop after `N` lines"},
			&cli.GenericFlag{Name: "read", Aliases: []string{"r"}, Value: &opt.read, Category: dialing,
				Usage: "ask for `WORDS`: cpu,cores,modes,load (cpu)"},
			&cli.GenericFlag{Name: "wait", Aliases: []string{"w"}, Value: &opt.wait, Category: dialing,
				Usage: "wait `SECONDS` for a connection or an answer (10)"},
			&cli.BoolFlag{Name: "ask", Destination: &opt.ask, Category: dialing,
				Usage: "on Ctrl-C ask whether to continue"},

			&cli.BoolFlag{Name: "listen", Aliases: []string{"l"}, Destination: &opt.listen, Category: listening,
				Usage: "serve this machine's readings"},
			&cli.StringFlag{Name: "port", Aliases: []string{"p"}, Destination: &opt.port, Category: listening,
				Usage: "listen on `PORT` (5000)"},
			&cli.BoolFlag{Name: "once", Aliases: []string{"1"}, Destination: &opt.once, Category: listening,
				Usage: "serve one connection, then exit"},
			&cli.BoolFlag{Name: "keep", Aliases: []string{"k"}, Destination: &opt.keep, Category: listening,
				Usage: "keep listening, as -l does anyway"},

			&cli.BoolFlag{Name: "4", Destination: &opt.ipv4, Category: either,
				Usage: "IPv4 only"},
			&cli.BoolFlag{Name: "6", Destination: &opt.ipv6, Category: either,
				Usage: "IPv6 only"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Count: &opt.verbose, Category: either,
				Usage: "say what happens; with -l twice: every request"},
			&cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Destination: &opt.help, Category: either,
				Usage: "print this and exit"},
			&cli.BoolFlag{Name: "version", Destination: &opt.version, Category: either,
				Usage: "print the version and exit"},
		},
		Action: func(c *cli.Context) error { return start(c, opt) },
	}
}

const help = `cpunc: netcat for CPU readings

cpunc [flags] [host [port]]       dial: ask every second, print one line an answer
cpunc -l [flags] [[host] port]    listen: answer everyone who connects
{{range .VisibleFlagCategories}}
{{.Name}}:
{{range .Flags}}  {{.}}
{{end}}{{end}}`

// describe makes the line of a flag in the help.
func describe(f cli.Flag) string {
	doc := f.(cli.DocGenerationFlag)
	usage := doc.GetUsage()
	var value string
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		name, after, _ := strings.Cut(rest, "`")
		value, usage = " "+name, before+name+after
	}
	names := f.Names()
	indent := ""
	if len(names) == 1 && len(names[0]) > 1 {
		indent = "    " // where others have a letter
	}
	slices.Reverse(names)
	for i, name := range names {
		names[i] = dashed(name)
	}
	return indent + strings.Join(names, ", ") + value + "\t" + usage
}

// dashed is the name of a flag as one types it.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// version is that of the module, or of the commit it was built from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

func run(args []string) error {
	app := newApp(new(options))
	return app.Run(append(args[:1:1], permute(args[1:], app.Flags)...))
}

// permute rewrites args as getopt reads them, for a parser that does not: flags
// may stand behind operands, short ones be joined (-lv), and the value of a
// short one follow at once (-i2).
func permute(args []string, flags []cli.Flag) []string {
	valued := map[string]bool{}
	for _, f := range flags {
		for _, name := range f.Names() {
			valued[name] = f.(cli.DocGenerationFlag).TakesValue()
		}
	}
	var front, operands []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		needsValue := false
		switch {
		case arg == "--":
			operands = append(operands, args...)
			args = nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			operands = append(operands, arg)
		case strings.HasPrefix(arg, "--"):
			front = append(front, arg)
			needsValue = valued[arg[2:]]
		default:
			for i, letter := range arg[1:] {
				front = append(front, "-"+string(letter))
				if valued[string(letter)] {
					value := arg[1+i+len(string(letter)):]
					if needsValue = value == ""; !needsValue {
						front = append(front, value)
					}
					break
				}
			}
		}
		if needsValue {
			if len(args) == 0 {
				return front // for the parser to complain of
			}
			front = append(front, args[0])
			args = args[1:]
		}
	}
	return slices.Concat(front, []string{"--"}, operands)
}

// start checks the flags against the mode, and goes there.
func start(c *cli.Context, opt *options) error {
	if opt.help {
		cli.HelpPrinter(c.App.Writer, help, c.App)
		return nil
	}
	if opt.version {
		fmt.Fprintln(c.App.Writer, "cpunc", version())
		return nil
	}
	opt.verbose = max(0, opt.verbose) // the library counts up from -1
	mode, other := dialing, listening
	if opt.listen {
		mode, other = other, mode
	}
	for _, f := range c.App.Flags {
		name := f.Names()[0]
		if c.IsSet(name) && f.(cli.CategorizableFlag).GetCategory() == other {
			return usagef("%s means nothing when %s", dashed(name), strings.ToLower(mode))
		}
	}
	network := "tcp"
	switch {
	case opt.ipv4 && opt.ipv6:
		return usagef("-4 and -6 exclude each other")
	case opt.ipv4:
		network = "tcp4"
	case opt.ipv6:
		network = "tcp6"
	}
	operands := c.Args().Slice()
	if opt.listen {
		addr, err := listenAddress(network, operands, opt.port)
		if err != nil {
			return usageError{err}
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return listen(ctx, opt, addr)
	}
	addr, err := dialAddress(network, operands)
	if err != nil {
		return usageError{err}
	}
	if addr.network == "" && network != "tcp" {
		return usagef("-4 and -6 mean nothing without a host")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return dial(ctx, opt, addr)
}

// An address is what to dial or to listen on. Without a network it is this
// machine itself.
type address struct{ network, host, port string }

func (a address) String() string {
	if a.network == "" {
		return "this machine"
	}
	return net.JoinHostPort(a.host, a.port)
}

const defaultPort = "5000"

// dialAddress reads the operands of dial mode: [host [port]].
func dialAddress(network string, operands []string) (address, error) {
	switch len(operands) {
	case 0:
		return address{}, nil
	case 1:
		if isNumber(operands[0]) {
			return address{}, fmt.Errorf("%s is a port without a host (to serve: cpunc -l %[1]s, to dial: cpunc localhost %[1]s)", operands[0])
		}
		return parseAddress(network, operands[0], "", 1)
	case 2:
		return parseAddress(network, operands[0], operands[1], 1)
	}
	return address{}, fmt.Errorf("one host and one port at most: %q", operands)
}

// listenAddress reads the operands of listen mode, [[host] port], and the port
// of -p.
func listenAddress(network string, operands []string, port string) (address, error) {
	host := "localhost"
	switch {
	case len(operands) > 2:
		return address{}, fmt.Errorf("one host and one port at most: %q", operands)
	case len(operands) > 0 && port != "" && (len(operands) == 2 || isNumber(operands[0])):
		return address{}, fmt.Errorf("two ports: %s and %q", port, operands[len(operands)-1])
	case len(operands) == 2:
		host, port = operands[0], operands[1]
	case len(operands) == 1 && isNumber(operands[0]):
		port = operands[0]
	case len(operands) == 1:
		host = operands[0]
	}
	return parseAddress(network, host, port, 0)
}

// parseAddress reads a host, host:port or [host]:port. The port may also be
// given apart, and is 5000 when it is not given at all; lowest is the least
// that it may be.
func parseAddress(network, s, port string, lowest int) (address, error) {
	host := s
	_, notIP := netip.ParseAddr(s)
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	} else if strings.Contains(s, ":") && notIP != nil {
		var own string
		var err error
		if host, own, err = net.SplitHostPort(s); err != nil || own == "" {
			return address{}, fmt.Errorf("%q is no host:port", s)
		}
		if port != "" {
			return address{}, fmt.Errorf("two ports: %q and %q", s, port)
		}
		port = own
	}
	if host == "" {
		return address{}, fmt.Errorf("%q names no host", s)
	}
	if port == "" {
		port = defaultPort
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil || n < lowest {
		return address{}, fmt.Errorf("%q is no port", port)
	}
	return address{network, host, strconv.Itoa(n)}, nil
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// cause is what an error of the network comes down to, without the operation
// and the addresses that the caller says in the user's own words.
func cause(err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return errors.New(dns.Err)
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err
	}
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("timed out")
	}
	return err
}

// The parser sets a flag's long name to what String gives after the short one
// was set, so String and Set are each other's inverse.

// seconds is a flag's value: 2, 0.5, 500ms or 1m.
type seconds struct {
	time.Duration
	orNone bool // 0 is fine
}

func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if f, ferr := strconv.ParseFloat(text, 64); ferr == nil {
		d, err = time.Duration(f*float64(time.Second)), nil
		if math.IsNaN(f) || f > math.MaxInt64/float64(time.Second) {
			err = errors.New("out of range")
		}
	}
	switch {
	case err != nil:
		return errors.New("no time in seconds, nor one like 500ms or 1m")
	case d < 0:
		return errors.New("less than nothing")
	case d == 0 && !s.orNone:
		return errors.New("no time at all")
	}
	s.Duration = d
	return nil
}

// positive is a flag's value: a number of at least 1.
type positive int

func (p *positive) String() string { return strconv.Itoa(int(*p)) }

func (p *positive) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return errors.New("no whole number from 1 up")
	}
	*p = positive(n)
	return nil
}

// readingList is a flag's value: words with commas between.
type readingList []word

func (l *readingList) String() string {
	var names []string
	for _, w := range *l {
		names = append(names, w.String())
	}
	return strings.Join(names, ",")
}

func (l *readingList) Set(text string) error {
	ws, err := parseReadings(strings.Split(text, ","))
	if err == nil {
		*l = ws
	}
	return err
}
