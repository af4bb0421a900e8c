package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// A usageError is a command line that makes no sense.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// options are the flags, read.
type options struct {
	listen, once, keep, ask bool
	graph                   bool
	window                  seconds
	time, header            bool
	ipv4, ipv6              bool
	help, version           bool
	verbose                 int
	port, socket            string
	commands                cli.StringSlice
	interval, wait          seconds
	idle                    time.Duration // how long a client may send nothing, when listening; 0: forever
	count, maxConns         positive
	allow                   prefixes
	read                    wordList

	addresses []address // to dial, or the one to listen on
}

// Flags that mean something only when dialing, or only when listening, are in
// the category of that mode.
const (
	dialing   = "Dialing"
	listening = "Listening"
	either    = "Both"
)

// defaultInterval is the time between polls where the flags do not say.
var defaultInterval = time.Second

func newApp(opt *options) *cli.App {
	opt.interval = seconds{Duration: defaultInterval, orNone: true, least: minWindow}
	opt.wait = seconds{Duration: 10 * time.Second}
	opt.window = seconds{Duration: time.Minute}
	opt.maxConns = 10000
	opt.read = wordList{words: []word{cpuWord}}
	cli.HelpFlag = nil // the library's help takes operands for topics
	return &cli.App{
		Name:                      "cpunc",
		DisableSliceFlagSeparator: true, // a command may have commas
		HideHelp:                  true,
		HideVersion:               true, // the library's takes -v
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			// The library has one dash for all names.
			longName := regexp.MustCompile(`(flag |: )-(\w\w)`)
			return usagef("%s", quoteOdd(longName.ReplaceAllString(err.Error(), "$1--$2")))
		},
		ExitErrHandler: func(*cli.Context, error) {}, // main alone exits
		Flags: []cli.Flag{
			&cli.GenericFlag{Name: "interval", Aliases: []string{"i"}, Value: &opt.interval, Category: dialing},
			&cli.GenericFlag{Name: "count", Aliases: []string{"c"}, Value: &opt.count, Category: dialing},
			&cli.GenericFlag{Name: "read", Aliases: []string{"r"}, Value: &opt.read, Category: dialing},
			&cli.BoolFlag{Name: "time", Aliases: []string{"t"}, Destination: &opt.time, Category: dialing},
			&cli.BoolFlag{Name: "header", Aliases: []string{"H"}, Destination: &opt.header, Category: dialing},
			&cli.BoolFlag{Name: "graph", Aliases: []string{"g"}, Destination: &opt.graph, Category: dialing},
			&cli.GenericFlag{Name: "window", Value: &opt.window, Category: dialing},
			&cli.StringSliceFlag{Name: "exec", Aliases: []string{"e"}, Destination: &opt.commands, Category: dialing},
			&cli.BoolFlag{Name: "ask", Destination: &opt.ask, Category: dialing},

			&cli.BoolFlag{Name: "listen", Aliases: []string{"l"}, Destination: &opt.listen, Category: listening},
			&cli.StringFlag{Name: "port", Aliases: []string{"p"}, Destination: &opt.port, Category: listening},
			&cli.BoolFlag{Name: "once", Aliases: []string{"1"}, Destination: &opt.once, Category: listening},
			&cli.GenericFlag{Name: "max-conns", Aliases: []string{"m"}, Value: &opt.maxConns, Category: listening},
			&cli.GenericFlag{Name: "allow", Aliases: []string{"a"}, Value: &opt.allow, Category: listening},

			&cli.StringFlag{Name: "unix", Aliases: []string{"U"}, Destination: &opt.socket, Category: either},
			&cli.BoolFlag{Name: "keep", Aliases: []string{"k"}, Destination: &opt.keep, Category: either},
			&cli.GenericFlag{Name: "wait", Aliases: []string{"w"}, Value: &opt.wait, Category: either},
			&cli.BoolFlag{Name: "4", Destination: &opt.ipv4, Category: either},
			&cli.BoolFlag{Name: "6", Destination: &opt.ipv6, Category: either},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Count: &opt.verbose, Category: either},
			&cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Destination: &opt.help, Category: either},
			&cli.BoolFlag{Name: "version", Destination: &opt.version, Category: either},
		},
		// No flag has an action of its own, and to look for one takes the library
		// a sixth of the time that cpunc needs to start.
		Before: func(c *cli.Context) error { c.Command.Flags = nil; return nil },
		Action: func(c *cli.Context) error { return opt.check(c) },
	}
}

// help is what -h prints.
const help = `cpunc: netcat for CPU readings

cpunc [flags] [host [port]]         dial: ask every second, print one line an answer
cpunc [flags] host[:port] ...       dial several: one line a tick, columns side by side
cpunc -l [flags] [[host] port | -]  listen: answer everyone who connects; -: on stdio

Dialing:
  -i, --interval SECONDS  SECONDS between polls, or 500ms, 1m; 0: no pause (1)
  -c, --count N           stop after N lines
  -r, --read WORDS        ask for WORDS, with commas between: cpu, cores, modes, load,
                          busy, pressure, cgroup (cpu); -: as standard input says
  -t, --time              put the UTC time in front
  -H, --header            first name the columns, behind a #
  -g, --graph             draw a live chart on the terminal
      --window SECONDS    SECONDS on the chart's time axis (60)
  -e, --exec COMMAND      dial the standard input and output of COMMAND; again for more
      --ask               on Ctrl-C ask whether to continue

Listening:
  -l, --listen        serve this machine's readings
  -p, --port PORT     listen on PORT (5000)
  -1, --once          serve one connection, then exit
  -m, --max-conns N   serve at most N connections at once (10000)
  -a, --allow PREFIX  serve the address or PREFIX alone; again for more

Both:
  -U, --unix PATH     use the Unix socket PATH
  -k, --keep          keep going: dial again, print nan meanwhile; -l does anyway
  -w, --wait SECONDS  wait SECONDS for a connection or an answer (10), or for a client (ever)
  -4                  IPv4 only
  -6                  IPv6 only
  -v, --verbose       say what happens; with -l twice: every request
  -h, --help          print this and exit
      --version       print the version and exit
`

// dashed is the name of a flag as one types it.
func dashed(name string) string {
	if utf8.RuneCountInString(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// parse reads the command line, and checks it.
func parse(args []string) (*options, error) {
	opt := new(options)
	app := newApp(opt)
	return opt, app.Run(append(args[:1:1], permute(args[1:], app.Flags)...))
}

// permute rewrites args as getopt reads them, for a parser that does not: flags
// may stand behind operands, short ones be joined (-lv), and the value of a
// short one follow at once (-i2). A flag that is repeated keeps the form it came
// in first, since the parser takes no two.
func permute(args []string, flags []cli.Flag) []string {
	type flag struct {
		valued bool
		form   string
	}
	known := map[string]*flag{}
	for _, f := range flags {
		one := &flag{valued: f.(cli.DocGenerationFlag).TakesValue()}
		for _, name := range f.Names() {
			known[name] = one
		}
	}
	var front, operands []string
	put := func(name string) (valued bool) {
		f := known[name]
		if f == nil { // for the parser to complain of
			f = new(flag)
		}
		f.form = cmp.Or(f.form, dashed(name))
		front = append(front, f.form)
		return f.valued
	}
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
		case strings.HasPrefix(arg, "--"), len(arg) > 2 && known[arg[1:]] != nil: // -version is not -v -e rsion
			name, value, ok := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
			if needsValue = put(name) && !ok; ok {
				front[len(front)-1] += "=" + value
			}
		default:
			for i, letter := range arg[1:] {
				if put(string(letter)) {
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

// check checks the flags against the mode, unless they ask for no more than a
// text, and notes the addresses.
func (opt *options) check(c *cli.Context) error {
	if opt.help || opt.version {
		return nil
	}
	opt.verbose = max(0, opt.verbose) // the library counts up from -1
	given := c.LocalFlagNames()
	isGiven := func(name string) bool { return slices.Contains(given, name) }
	mode, other := dialing, listening
	if opt.listen {
		mode, other = other, mode
	}
	for _, f := range c.App.Flags {
		name := f.Names()[0]
		if isGiven(name) && f.(cli.CategorizableFlag).GetCategory() == other {
			return usagef("%s means nothing when %s", dashed(name), strings.ToLower(mode))
		}
	}
	if opt.read.stdin && isGiven("interval") {
		return usagef("--interval means nothing with -r -, which has no clock")
	}
	if isGiven("window") && !opt.graph {
		return usagef("--window means nothing without --graph")
	}
	for _, f := range []struct{ name, value string }{{"unix", opt.socket}, {"port", opt.port}} {
		if isGiven(f.name) && f.value == "" { // "$PORT", with none
			return usagef("--%s is empty", f.name)
		}
	}
	if opt.ask && opt.graph {
		return usagef("--ask means nothing with --graph, where Ctrl-C is a key")
	}
	if opt.ask && !opt.keep && len(opt.commands.Value()) > 0 {
		return usagef("--ask means nothing with --exec, whose command Ctrl-C ends, but for --keep")
	}
	var err error
	opt.addresses, err = addresses(opt, c.Args().Slice())
	if err != nil {
		return usageError{err}
	}
	if opt.listen {
		if isGiven("wait") {
			opt.idle = opt.wait.Duration
		}
		if isGiven("max-conns") && opt.addresses[0].network == stdio {
			return usagef("--max-conns means nothing for %s", opt.addresses[0])
		}
	}
	return nil
}

// addresses gives what the flags and operands say to dial, or to listen on:
// then there is one.
func addresses(opt *options, operands []string) ([]address, error) {
	network := "tcp"
	switch {
	case opt.ipv4 && opt.ipv6:
		return nil, errors.New("-4 and -6 exclude each other")
	case opt.ipv4:
		network = "tcp4"
	case opt.ipv6:
		network = "tcp6"
	}
	if slices.Contains(operands, "") { // "$PORT", with none
		return nil, errors.New("an operand is empty")
	}
	commands := opt.commands.Value()
	var addrs []address
	var err error
	switch {
	case opt.socket != "":
		path := opt.socket
		if path[0] == '@' {
			path = "./" + path // a file, and not one of Linux's sockets that are everybody's
		}
		addrs = []address{{network: socket, host: path}}
	case len(commands) > 0:
		for _, c := range commands {
			if strings.TrimSpace(c) == "" {
				return nil, errors.New("--exec needs a command")
			}
			addrs = append(addrs, address{network: command, host: c})
		}
	case opt.listen && slices.Equal(operands, []string{"-"}):
		operands = nil
		addrs = []address{{network: stdio}}
	case opt.listen:
		addrs, err = listenAddress(network, operands, opt.port)
		return addrs, err
	case len(operands) > 0:
		return dialAddresses(network, operands)
	default:
		addrs = []address{{network: memory}}
	}
	switch a := addrs[0]; {
	case opt.socket != "" && len(commands) > 0:
		err = errors.New("--unix and --exec exclude each other")
	case len(operands) > 0:
		err = fmt.Errorf("%q is one too many beside %q", operands[0], a)
	case network != "tcp":
		err = fmt.Errorf("-%c means nothing for %s", network[len("tcp")], a)
	case opt.port != "":
		err = fmt.Errorf("--port means nothing for %s", a)
	case len(opt.allow) > 0:
		err = fmt.Errorf("--allow means nothing for %s", a)
	case a.network == stdio && opt.once:
		err = fmt.Errorf("--once means nothing for %s", a)
	case a.network == stdio && opt.keep:
		err = fmt.Errorf("--keep means nothing for %s", a)
	}
	return addrs, err
}

// The parser sets a flag's long name to what String gives after the short one
// was set, so String and Set are each other's inverse.

// seconds is a flag's value: 2, 0.5, 500ms or 1m.
type seconds struct {
	time.Duration
	orNone bool          // 0 is fine
	least  time.Duration // that it must be otherwise
}

func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if f, ferr := strconv.ParseFloat(text, 64); ferr == nil && !math.IsNaN(f) {
		if f >= math.MaxInt64/float64(time.Second) {
			return errors.New("too long")
		}
		d, err = time.Duration(f*float64(time.Second)), nil
	}
	switch {
	case err != nil:
		return errors.New("no time in seconds, nor one like 500ms or 1m")
	case d < 0:
		return errors.New("less than nothing")
	case d == 0 && !s.orNone:
		return errors.New("no time at all")
	case d > 0 && d < s.least:
		return fmt.Errorf("must be 0 or at least %v", s.least.Seconds())
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

// wordList is a flag's value: words with commas between, or - for what standard
// input says.
type wordList struct {
	words []word
	stdin bool
}

func (l *wordList) String() string {
	if l.stdin {
		return "-"
	}
	var names []string
	for _, w := range l.words {
		names = append(names, w.String())
	}
	return strings.Join(names, ",")
}

func (l *wordList) Set(text string) error {
	if text == "-" {
		*l = wordList{stdin: true}
		return nil
	}
	ws, err := parseReadings(strings.Split(text, ","))
	if err == nil {
		*l = wordList{words: ws}
	}
	return err
}
