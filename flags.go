package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// help is the output of -h. It is also the table of the options: optionTable
// reads their names, arguments and modes from it.
const help = `Usage:
  cpunc [options] [host [port]]         poll a host, one line per reply
  cpunc [options] host[:port] ...       poll several, columns side by side
  cpunc [options] -                     lines from stdin instead of a host
  cpunc -l [options] [[host] port | -]  serve readings; with -, on stdin/stdout

Examples:
  cpunc                                 this machine, without a network
  cpunc -l 5000                         serve; http://localhost:5000/ is a chart
  cpunc -g web1 web2                    draw a live chart of two listeners

Without a host, cpunc -l listens on loopback only; for all interfaces, use
0.0.0.0 as the host. The manual: man cpunc.

Dialing:
  -i, --interval SECONDS  time between polls: 2, 0.5, 500ms, 1m; at least 0.1,
                          or 0 for no pause (default 1)
  -c, --count N           stop after N lines
  -r, --read WORDS        readings, comma-separated (default cpu; repeatable):
                          cpu,cores,modes,load,mean,busy,peak,pressure,cgroup
                          -: read requests from stdin
  -t, --time              prefix each line with the UTC time
  -H, --header            print a # header line
  -g, --graph             draw a live chart on the terminal
      --window SECONDS    time axis of the chart (default 60)
      --below N           exit once all readings are below N; with --above,
                          once they are between the two
      --above N           exit once a reading is above N
      --for SECONDS       with --below or --above: only after this long
  -e, --exec COMMAND      talk to COMMAND over its stdin/stdout (repeatable)
      --label NAME        name for the next host or command (repeatable)
      --ask               on Ctrl-C, ask whether to continue

Listening:
  -l, --listen            serve readings
  -1, --once              serve one connection, then exit
  -m, --max-conns N       limit on open connections (default 10000)
  -a, --allow PREFIX      allow only this address or prefix (repeatable)
      --name NAME         host name that HTTP requests may use (repeatable)

General:
  -p, --port PORT         port to dial or to listen on (default 5000)
  -U, --unix PATH         use a Unix socket instead of TCP
      --cgroup GROUP      control group to read, as systemd-cgls prints it
  -k, --keep              reconnect; print nan while down (implied by -l)
  -w, --wait SECONDS      timeout for connecting and for replies (default 10);
                          with -l, for idle clients (default none)
  -4                      IPv4 only
  -6                      IPv6 only
  -v, --verbose           log to stderr; -vv with -l: log every request
  -h, --help              print this help
      --version           print the version
      --completion SHELL  print a completion script for bash, zsh or fish
`

// An option is a row of the help.
type option struct {
	names      []string // as typed: -i, --interval
	arg, usage string   // arg is empty if the option takes none
	mode       string   // the heading above the row
}

// name returns the name of the option in the code, without dashes: the long
// name if there is one.
func (o option) name() string { return strings.TrimLeft(o.names[len(o.names)-1], "-") }

const (
	dialing   = "Dialing"
	listening = "Listening"
)

// optionTable returns the options that help lists. It reads them once.
var optionTable = sync.OnceValue(func() (table []option) {
	row := regexp.MustCompile(`^ +(-\S(?:, --\S+)?|--\S+)(?: ([A-Z]+))?  +(.*)$`)
	mode := ""
	for line := range strings.Lines(help) {
		line = strings.TrimSuffix(line, "\n")
		if title, ok := strings.CutSuffix(line, ":"); ok && title[0] != ' ' {
			mode = title
		} else if m := row.FindStringSubmatch(line); m != nil {
			table = append(table, option{strings.Split(m[1], ", "), m[2], m[3], mode})
		} else if text := strings.TrimSpace(line); text != "" && len(table) > 0 {
			table[len(table)-1].usage += " " + text
		}
	}
	return table
})

// A usageError is an error in the command line.
type usageError struct{ error }

// usagef returns a usageError that refers to -h, unless it ends with a hint of
// its own.
func usagef(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if !strings.HasSuffix(err.Error(), ")") {
		err = fmt.Errorf("%w (try 'cpunc -h')", err)
	}
	return usageError{err}
}

// options are the settings from the command line.
type options struct {
	listen, once, keep, ask bool
	graph                   bool
	window, hold            seconds
	below, above            limit
	time, header            bool
	ipv4, ipv6              bool
	help, version           bool
	completion              string
	verbose                 int
	port, socket, cgroup    string
	commands, labels, names list
	interval                interval
	wait                    seconds
	idle                    time.Duration // limit for idle clients when listening; 0: none
	count, maxConns         positive
	allow                   prefixes
	read                    wordList

	given     map[string]string // the options given, by name, in the form that was typed
	replay    bool              // whether lines come from standard input
	operands  []string
	addresses []address // to dial, or the only one to listen on
}

// defaultInterval is the time between polls if -i is not given.
var defaultInterval = time.Second

// parse returns the options of the command line, whose arguments are args,
// after checking them.
func parse(args []string) (*options, error) {
	opt := &options{
		interval: interval{seconds{defaultInterval}},
		wait:     seconds{10 * time.Second},
		window:   seconds{time.Minute},
		below:    limit(math.NaN()),
		above:    limit(math.NaN()),
		maxConns: 10000,
		read:     wordList{words: []word{cpuWord}, isDefault: true},
	}
	args, err := opt.permute(args)
	if err != nil {
		return nil, err
	}
	app := newApp(opt)
	if err := app.Run(append([]string{"cpunc"}, args...)); err != nil {
		return nil, err
	}
	if opt.help || opt.version || opt.completion != "" {
		return opt, nil
	}
	opt.verbose = max(0, opt.verbose) // the library starts counting at -1
	if err := opt.check(); err != nil {
		return nil, err
	}
	return opt, opt.resolve()
}

// newApp returns the parser of the library. It knows every option by a single
// name, which permute passes to it.
func newApp(opt *options) *cli.App {
	cli.HelpFlag = nil // the library would take operands for help topics
	return &cli.App{
		Name:                      "cpunc",
		DisableSliceFlagSeparator: true, // a command may contain commas
		HideHelp:                  true,
		HideVersion:               true, // the library would take -v for --version
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			m := regexp.MustCompile(`(?s)^invalid value (.*) for flag -(\S+?): (.*)$`).FindStringSubmatch(err.Error())
			if m == nil {
				return usagef("%s", quoteOdd(err.Error()))
			}
			return usagef("invalid value %s for %s: %s", m[1], opt.given[m[2]], m[3])
		},
		ExitErrHandler: func(*cli.Context, error) {}, // only main exits
		Flags: []cli.Flag{
			&cli.GenericFlag{Name: "interval", Value: &opt.interval},
			&cli.GenericFlag{Name: "count", Value: &opt.count},
			&cli.GenericFlag{Name: "read", Value: &opt.read},
			&cli.BoolFlag{Name: "time", Destination: &opt.time},
			&cli.BoolFlag{Name: "header", Destination: &opt.header},
			&cli.BoolFlag{Name: "graph", Destination: &opt.graph},
			&cli.GenericFlag{Name: "window", Value: &opt.window},
			&cli.GenericFlag{Name: "below", Value: &opt.below},
			&cli.GenericFlag{Name: "above", Value: &opt.above},
			&cli.GenericFlag{Name: "for", Value: &opt.hold},
			&cli.GenericFlag{Name: "exec", Value: &opt.commands},
			&cli.GenericFlag{Name: "label", Value: &opt.labels},
			&cli.BoolFlag{Name: "ask", Destination: &opt.ask},
			&cli.BoolFlag{Name: "listen", Destination: &opt.listen},
			&cli.BoolFlag{Name: "once", Destination: &opt.once},
			&cli.GenericFlag{Name: "max-conns", Value: &opt.maxConns},
			&cli.GenericFlag{Name: "allow", Value: &opt.allow},
			&cli.GenericFlag{Name: "name", Value: &opt.names},
			&cli.StringFlag{Name: "port", Destination: &opt.port},
			&cli.StringFlag{Name: "unix", Destination: &opt.socket},
			&cli.StringFlag{Name: "cgroup", Destination: &opt.cgroup},
			&cli.BoolFlag{Name: "keep", Destination: &opt.keep},
			&cli.GenericFlag{Name: "wait", Value: &opt.wait},
			&cli.BoolFlag{Name: "4", Destination: &opt.ipv4},
			&cli.BoolFlag{Name: "6", Destination: &opt.ipv6},
			&cli.BoolFlag{Name: "verbose", Count: &opt.verbose},
			&cli.BoolFlag{Name: "help", Destination: &opt.help},
			&cli.BoolFlag{Name: "version", Destination: &opt.version},
			&cli.StringFlag{Name: "completion", Destination: &opt.completion},
		},
		// No option has an action. Without the flags, the library does not look
		// for one, which would take a sixth of the startup time.
		Before: func(c *cli.Context) error { c.Command.Flags = nil; return nil },
		Action: func(c *cli.Context) error { opt.operands = c.Args().Slice(); return nil },
	}
}

// permute rewrites args for a parser that requires the form --name=value before
// all operands. As with getopt, options may follow operands, short options may
// be joined (-lv), and the argument of a short option may follow directly
// (-i2). It records in opt.given which options are given.
func (opt *options) permute(args []string) ([]string, error) {
	known := map[string]option{}
	for _, o := range optionTable() {
		for _, name := range o.names {
			known[name] = o
		}
	}
	opt.given = map[string]string{}
	var front, operands []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		var rest []string // the option, or the joined short ones, as name or name=value
		switch {
		case arg == "--":
			operands = append(operands, args...)
			args = nil
			continue
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			operands = append(operands, arg)
			continue
		case strings.HasPrefix(arg, "--"):
			rest = []string{arg}
		case len(arg) > 2 && known["-"+strings.SplitN(arg, "=", 2)[0]].names != nil: // -version is not -v -e rsion
			rest = []string{"-" + arg}
		default:
			rest = split(arg, known)
		}
		for _, form := range rest {
			name, value, valued := strings.Cut(form, "=")
			o, ok := known[name]
			switch {
			case !ok:
				return nil, unknownOption(name)
			case valued && o.arg == "":
				return nil, usagef("%s takes no value%s", name, valueHint(name, strings.TrimPrefix(value, "=")))
			case !valued && o.arg != "" && len(args) == 0:
				return nil, usagef("%s requires an argument", name)
			case !valued && o.arg != "":
				value, args = args[0], args[1:]
			}
			opt.given[o.name()] = name
			front = append(front, "--"+o.name())
			if o.arg != "" {
				front[len(front)-1] += "=" + value
			}
		}
	}
	return slices.Concat(front, []string{"--"}, operands), nil
}

// split splits joined short options: -lvi2 becomes -l, -v and -i=2. What
// follows an option without an argument and cannot be an option, as in -l5000,
// becomes its value, so that the message can say what to do instead.
func split(arg string, known map[string]option) (forms []string) {
	for rest := arg[1:]; rest != ""; {
		_, size := utf8.DecodeRuneInString(rest)
		name := "-" + rest[:size]
		rest = rest[size:]
		if rest != "" && (known[name].arg != "" || known[name].names != nil && isValue(rest)) {
			return append(forms, name+"="+rest)
		}
		forms = append(forms, name)
	}
	return forms
}

// isValue reports whether what follows a short option cannot be more options.
func isValue(rest string) bool {
	return rest[0] == '=' || isNumber(rest) && (len(rest) > 2 || !strings.ContainsAny(rest, "146"))
}

func unknownOption(name string) error {
	var known []string
	for _, o := range optionTable() {
		known = append(known, "--"+o.name())
	}
	return usagef("unknown option %s%s", quoteOdd(name), optionHint(name, known))
}

// check validates the options against each other and against the mode.
func (opt *options) check() error {
	for _, o := range optionTable() {
		switch name := o.name(); {
		case opt.given[name] == "":
		case o.mode == dialing && opt.listen:
			return usagef("%s cannot be used with -l%s", o.names[len(o.names)-1], quoteHint(opt.commands, opt.operands, true))
		case o.mode == listening && !opt.listen:
			return usagef("%s requires -l", o.names[len(o.names)-1])
		}
	}
	opt.replay = !opt.listen && len(opt.operands) == 1 && opt.operands[0] == "-"
	given := func(name string) bool { return opt.given[name] != "" }
	commands := len(opt.commands) > 0
	for _, rule := range []struct {
		broken  bool
		message string
	}{
		{opt.ipv4 && opt.ipv6, "-4 and -6 are mutually exclusive"},
		{given("unix") && commands, "--unix and --exec are mutually exclusive"},
		{given("interval") && opt.read.stdin, "--interval cannot be used with -r -"},
		{given("window") && !opt.graph, "--window requires --graph"},
		{opt.ask && opt.graph, "--ask cannot be used with --graph"},
		{opt.ask && commands && !opt.keep, "--ask with --exec requires --keep"},
		{given("unix") && opt.socket == "", "--unix: empty path"},
		{len(opt.socket) > maxSocketPath, fmt.Sprintf("--unix: path longer than the %d bytes that a socket may have (a relative path may be shorter)", maxSocketPath)},
		{given("cgroup") && opt.cgroup == "", "--cgroup: empty path"},
		{given("cgroup") && !opt.listen && (len(opt.operands) > 0 && !opt.replay || commands || given("unix")), "--cgroup cannot be used with a host or a command (give it to the listener there: cpunc -l --cgroup GROUP)"},
		{given("cgroup") && !opt.listen && !opt.replay && !opt.read.stdin && !slices.Contains(opt.read.words, cgroupWord), "--cgroup requires -r cgroup"},
		{given("port") && opt.port == "", "--port: empty argument"}, // "$PORT" when PORT is not set
		{slices.Contains(opt.operands, ""), "empty argument"},
		{slices.ContainsFunc(opt.commands, func(c string) bool { return strings.TrimSpace(c) == "" }), "--exec: empty command"},
		{slices.ContainsFunc(opt.labels, func(l string) bool { return strings.TrimSpace(l) == "" }), "--label: empty name"},
	} {
		if rule.broken {
			return usagef("%s", rule.message)
		}
	}
	for _, c := range opt.commands {
		if name, _, _ := strings.Cut(strings.TrimSpace(c), " "); filepath.Base(name) == "cpunc" && execHint(c) != "" {
			return usagef("--exec: %q is not a server%s", c, execHint(c))
		}
	}
	for _, n := range opt.names {
		if !isHostName(n) {
			return usagef("--name: invalid host name %q%s", n, nameHint(n))
		}
	}
	if err := opt.checkGate(); err != nil {
		return err
	}
	if opt.replay {
		for _, name := range []string{"interval", "read", "exec", "unix", "port", "keep", "wait", "4", "6", "ask", "cgroup"} {
			if form := opt.given[name]; form != "" {
				return usagef("%s cannot be used with -, which reads lines from standard input", form)
			}
		}
	}
	if opt.cgroup != "" {
		opt.cgroup = filepath.Clean("/" + opt.cgroup)
	}
	if opt.listen && given("wait") {
		opt.idle = opt.wait.Duration
	}
	return nil
}

// resolve sets opt.addresses to the addresses to dial or to listen on.
func (opt *options) resolve() error {
	network := "tcp"
	switch {
	case opt.ipv4:
		network = "tcp4"
	case opt.ipv6:
		network = "tcp6"
	}
	// addrs are set here if they need no host and port, and with is the option
	// that asks for them.
	var addrs []address
	with := ""
	switch {
	case opt.socket != "":
		with = "--unix"
		path := opt.socket
		if path[0] == '@' {
			path = "./" + path // a file: @ would start the name of an abstract socket, which is open to all users
		}
		addrs = []address{{network: socket, host: path}}
	case len(opt.commands) > 0:
		with = "--exec"
		for _, c := range opt.commands {
			addrs = append(addrs, address{network: command, host: c})
		}
	case opt.replay:
		with = "-"
		opt.operands = nil
		addrs = []address{{network: stdio}}
	case opt.listen && len(opt.operands) == 1 && opt.operands[0] == "-":
		with = "-l -"
		opt.operands = nil
		addrs = []address{{network: stdio}}
	case !opt.listen && len(opt.operands) == 0:
		addrs = []address{{network: memory}}
	}
	var err error
	switch {
	case addrs != nil:
		err = opt.checkHostless(with)
	case opt.listen:
		addrs, err = listenAddress(network, opt.operands, opt.port)
	default:
		addrs, err = dialAddresses(network, opt.operands, opt.port)
	}
	if err == nil && len(opt.labels) > len(addrs) {
		err = fmt.Errorf("too many labels: %d given, at most %d allowed", len(opt.labels), len(addrs))
	}
	if err != nil {
		return usagef("%w", err)
	}
	for i, l := range opt.labels {
		addrs[i].label = l
	}
	opt.addresses = addrs
	return nil
}

// checkHostless checks that no option requires a host when there is none. with
// is the option that replaces the host, or "" for this machine.
func (opt *options) checkHostless(with string) error {
	if len(opt.operands) > 0 {
		return fmt.Errorf("unexpected argument %q%s", opt.operands[0], cmp.Or(quoteHint(opt.commands, opt.operands, false), " (not allowed with -U or -e)"))
	}
	for _, name := range []string{"4", "6", "port", "allow", "once", "keep", "max-conns"} {
		form := opt.given[name]
		tcpOnly := name == "4" || name == "6" || name == "port" || name == "allow"
		switch {
		case form == "" || with != "-l -" && !tcpOnly:
		case with != "":
			return fmt.Errorf("%s cannot be used with %s", form, with)
		case name == "port":
			return fmt.Errorf("%s requires a host (to serve: cpunc -l -p %s, to dial: cpunc -p %[2]s localhost)", form, quoteOdd(opt.port))
		default:
			return fmt.Errorf("%s has no effect without a host", form)
		}
	}
	return nil
}

// checkGate checks the options of the gate.
func (opt *options) checkGate() error {
	form := cmp.Or(opt.given["below"], opt.given["above"])
	switch {
	case form == "" && opt.given["for"] != "":
		return usagef("--for requires --below or --above")
	case form == "":
		return nil
	case opt.read.stdin:
		return usagef("%s cannot be used with -r -", form)
	case slices.Contains(opt.read.words, modesWord):
		return usagef("%s cannot be used with modes, which has no single number (try -r cpu or -r busy)", form)
	case opt.above >= opt.below:
		return usagef("--above must be less than --below: the readings must be between the two")
	}
	return nil
}

// limit is the value of an option: a number; NaN if it is not given.
type limit float64

func (l *limit) String() string { return strconv.FormatFloat(float64(*l), 'f', -1, 64) }

func (l *limit) Set(text string) error {
	x, err := strconv.ParseFloat(text, 64)
	if number := strings.TrimRight(text, "% "); number != text && isReading(number) {
		return fmt.Errorf("must be a number without a unit (%s)", number)
	}
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return errors.New("must be a number")
	}
	*l = limit(x)
	return nil
}

// positive is the value of an option: a positive integer.
type positive int

func (p *positive) String() string { return strconv.Itoa(int(*p)) }

func (p *positive) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return errors.New("must be a positive integer")
	}
	*p = positive(n)
	return nil
}

// list is the value of a repeatable option.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(text string) error {
	*l = append(*l, text)
	return nil
}

// wordList is the value of -r: readings separated by commas, or - to read
// requests from standard input.
type wordList struct {
	words     []word
	stdin     bool
	isDefault bool // replaced by the first value that is given
}

func (l *wordList) String() string { return "" }

func (l *wordList) Set(text string) error {
	if l.isDefault {
		*l = wordList{}
	}
	if text == "-" {
		l.stdin = true
	} else {
		var names []string
		for _, w := range l.words {
			names = append(names, w.String())
		}
		ws, err := parseReadings(append(names, strings.Split(text, ",")...))
		if err != nil {
			return err
		}
		l.words = ws
	}
	if l.stdin && len(l.words) > 0 {
		return errors.New("- and readings are mutually exclusive")
	}
	return nil
}
