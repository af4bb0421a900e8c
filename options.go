package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// options are the settings from the command line.
type options struct {
	listen, once, keep, ask bool
	graph, time, header     bool
	ipv4, ipv6              bool
	help, version           bool
	verbose                 int
	port, cgroup            string
	completion              string // a script
	interval, wait, window  time.Duration
	count, maxConns         int
	allow                   prefixes
	names                   []string
	read                    []string      // the arguments of -r, split at commas
	words                   []word        // what they request
	requests                bool          // whether requests come from standard input instead
	replay                  bool          // whether lines come from standard input instead of hosts
	below, above            float64       // NaN if not given
	hold                    time.Duration // of --for

	given     map[string]string // options as typed: by name, and the first one of each mode
	typed     []address         // operands, -U and -e in the order typed
	label     string            // of the next one
	addresses []address         // to dial, or the only one to listen on
}

// defaultInterval is the time between polls if -i is not given.
var defaultInterval = time.Second

// parse returns the options of the command line, whose arguments are args,
// after checking them.
func parse(args []string) (*options, error) {
	opt := &options{
		interval: defaultInterval,
		wait:     10 * time.Second,
		window:   time.Minute,
		below:    math.NaN(),
		above:    math.NaN(),
		maxConns: 10000,
		words:    []word{cpuWord},
		given:    map[string]string{},
	}
	flags := flag.NewFlagSet("cpunc", flag.ContinueOnError)
	for _, f := range opt.flags() {
		f.Apply(flags) // fails only for values from the environment, which none of them has
	}
	set := func(o option, form, value string) error {
		opt.given[o.name()] = form
		opt.given[o.mode] = cmp.Or(opt.given[o.mode], form)
		err := errors.New("must not be empty") // as "$PORT" is when PORT is not set
		if strings.TrimSpace(value) != "" {
			err = flags.Set(o.name(), value)
		}
		if err != nil {
			return usagef("invalid value %q for %s: %w", value, form, err)
		}
		return nil
	}
	if err := getopt(args, set, func(operand string) { opt.add("", operand) }); err != nil {
		return nil, err
	}
	if opt.help || opt.version || opt.completion != "" {
		return opt, nil
	}
	if len(opt.typed) == 0 && !opt.listen {
		opt.add(memory, "")
	}
	if err := opt.check(); err != nil {
		return nil, err
	}
	return opt, opt.resolve()
}

// flags returns the options for the library, each with its only name.
func (opt *options) flags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "interval", Value: into(&opt.interval, parseInterval)},
		&cli.GenericFlag{Name: "count", Value: into(&opt.count, parseCount)},
		&cli.GenericFlag{Name: "read", Value: setter(opt.addReadings)},
		&cli.BoolFlag{Name: "time", Destination: &opt.time},
		&cli.BoolFlag{Name: "header", Destination: &opt.header},
		&cli.BoolFlag{Name: "graph", Destination: &opt.graph},
		&cli.GenericFlag{Name: "window", Value: into(&opt.window, parsePositive)},
		&cli.GenericFlag{Name: "below", Value: into(&opt.below, parseLimit)},
		&cli.GenericFlag{Name: "above", Value: into(&opt.above, parseLimit)},
		&cli.GenericFlag{Name: "for", Value: into(&opt.hold, parsePositive)},
		&cli.GenericFlag{Name: "exec", Value: setter(opt.addCommand)},
		&cli.GenericFlag{Name: "label", Value: setter(opt.setLabel)},
		&cli.BoolFlag{Name: "ask", Destination: &opt.ask},
		&cli.BoolFlag{Name: "listen", Destination: &opt.listen},
		&cli.BoolFlag{Name: "once", Destination: &opt.once},
		&cli.GenericFlag{Name: "max-conns", Value: into(&opt.maxConns, parseCount)},
		&cli.GenericFlag{Name: "allow", Value: setter(opt.allow.add)},
		&cli.GenericFlag{Name: "name", Value: setter(opt.addName)},
		&cli.StringFlag{Name: "port", Destination: &opt.port},
		&cli.GenericFlag{Name: "unix", Value: setter(opt.addSocket)},
		&cli.GenericFlag{Name: "cgroup", Value: into(&opt.cgroup, parseGroup)},
		&cli.BoolFlag{Name: "keep", Destination: &opt.keep},
		&cli.GenericFlag{Name: "wait", Value: into(&opt.wait, parsePositive)},
		&cli.BoolFlag{Name: "4", Destination: &opt.ipv4},
		&cli.BoolFlag{Name: "6", Destination: &opt.ipv6},
		&cli.BoolFlag{Name: "verbose", Count: &opt.verbose},
		&cli.BoolFlag{Name: "help", Destination: &opt.help},
		&cli.BoolFlag{Name: "version", Destination: &opt.version},
		&cli.GenericFlag{Name: "completion", Value: into(&opt.completion, completion)},
	}
}

// A setter is the value of an option: a function that takes the argument.
type setter func(string) error

func (set setter) Set(text string) error { return set(text) }
func (set setter) String() string        { return "" }

// into returns the value of an option whose last argument counts.
func into[T any](to *T, parse func(string) (T, error)) setter {
	return func(text string) (err error) {
		*to, err = parse(text)
		return err
	}
}

func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, errors.New("must be a positive integer")
	}
	return n, nil
}

// parseGroup returns a path below the mount point of control groups.
func parseGroup(path string) (string, error) { return filepath.Clean("/" + path), nil }

func parseLimit(text string) (float64, error) {
	x, err := strconv.ParseFloat(text, 64)
	if number := strings.Replace(strings.TrimRight(text, "% "), ",", ".", 1); number != text && isReading(number) {
		return 0, fmt.Errorf("must be a plain number (%s)", number)
	}
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, errors.New("must be a number")
	}
	return x, nil
}

func (opt *options) addReadings(text string) (err error) {
	opt.read = append(opt.read, strings.Split(text, ",")...)
	if opt.requests = slices.Contains(opt.read, "-"); !opt.requests {
		opt.words, err = parseReadings(opt.read)
	} else if len(opt.read) > 1 {
		err = errors.New("- must be the only reading (it reads requests from standard input)")
	}
	return err
}

func (opt *options) addName(name string) error {
	host, port, err := splitAddress(name)
	switch {
	case err != nil || host == "":
		return errors.New("not a host name")
	case port != "":
		return fmt.Errorf("not a host name (a name has no port: --name %s)", host)
	}
	opt.names = append(opt.names, host)
	return nil
}

func (opt *options) addCommand(line string) error {
	opt.add(command, line)
	if name := strings.Fields(line)[0]; filepath.Base(name) == "cpunc" && execHint(line) != "" {
		return errors.New("not a server (did you mean -e 'cpunc -l -'?)")
	}
	return nil
}

func (opt *options) addSocket(path string) error {
	if len(path) > maxSocketPath {
		return fmt.Errorf("longer than the %d bytes that a socket may have (a relative path may be shorter)", maxSocketPath)
	}
	if strings.HasPrefix(path, "@") {
		path = "./" + path // a file: @ would start the name of an abstract socket, which is open to all users
	}
	opt.add(socket, path)
	return nil
}

func (opt *options) setLabel(label string) error {
	if opt.label != "" {
		return fmt.Errorf("no host, socket or command follows the label %q", opt.label)
	}
	opt.label = label
	return nil
}

// add adds an address as it was typed.
func (opt *options) add(network, text string) {
	opt.typed = append(opt.typed, address{network: network, host: text, label: opt.label})
	opt.label = ""
}

// check validates the options against the mode and against each other.
func (opt *options) check() error {
	operands := operandsOf(opt.typed)
	stdin := slices.Contains(operands, "-")
	opt.replay = stdin && !opt.listen
	for _, rule := range []struct {
		applies bool
		message string
		options string // that it is about
	}{
		{opt.listen, "cannot be used with -l" + unquoted(opt.typed), dialing},
		{!opt.listen, "requires -l", listening},
		{opt.listen && stdin, "cannot be used with -l -", "4 6 port allow once max-conns"},
		{opt.listen && opt.given["unix"] != "", "cannot be used with --unix", "4 6 port allow"},
		{opt.replay, "cannot be used with -, which reads lines from standard input", "interval read exec unix port keep wait 4 6 ask cgroup"},
		{opt.requests, "cannot be used with -r -", "interval below above"},
		{opt.graph, "cannot be used with --graph", "ask"},
		{!opt.graph, "requires --graph", "window"},
		{!opt.listen && opt.typed[0].network != memory, "cannot be used with a host or a command (give it to the listener there: cpunc -l --cgroup GROUP)", "cgroup"},
		{!opt.listen && !opt.requests && !slices.Contains(opt.words, cgroupWord), "requires -r cgroup", "cgroup"},
		{opt.given["exec"] != "" && !opt.keep, "with --exec requires --keep", "ask"},
		{opt.label != "", "requires a host, socket or command after it", "label"},
		{opt.ipv4, "cannot be used with -4", "6"},
		{!opt.listen && len(operands) == 0, "requires a host" + suggest(" (to serve: cpunc -l -p %s, to dial: cpunc -p %[1]s localhost)", opt.port), "4 6 port"},
		{slices.Contains(opt.words, modesWord), "cannot be used with modes, which has no single number (try -r cpu or -r busy)", "below above"},
		{math.IsNaN(opt.below) && math.IsNaN(opt.above), "requires --below or --above", "for"},
		{opt.below <= opt.above, "must be less than --below: the readings must be between the two", "above"},
	} {
		for name := range strings.FieldsSeq(rule.options) {
			if form := opt.given[name]; rule.applies && form != "" {
				return usagef("%s %s", form, rule.message)
			}
		}
	}
	return nil
}

// resolve sets opt.addresses to the addresses to dial or to listen on.
func (opt *options) resolve() (err error) {
	network := "tcp"
	switch {
	case opt.ipv4:
		network = "tcp4"
	case opt.ipv6:
		network = "tcp6"
	}
	opt.setHints()
	parse := dialAddresses
	if opt.listen {
		parse = listenAddress
	}
	if opt.addresses, err = parse(network, opt.typed, opt.port); err != nil {
		return usagef("%w", err)
	}
	return nil
}

// unquoted is a hint about the first command, if that is one word and the
// operands after it are probably part of it.
func unquoted(typed []address) string {
	i := slices.IndexFunc(typed, func(a address) bool { return a.network == command })
	if i < 0 || strings.ContainsAny(typed[i].host, " \t") {
		return ""
	}
	line := typed[i].host
	for _, next := range typed[i+1:] {
		if next.network != "" {
			break
		}
		line += " " + next.host
	}
	host, isSSH := strings.CutPrefix(line, "ssh ")
	switch {
	case line == typed[i].host:
		return ""
	case isSSH && !strings.Contains(host, " "):
		line += " cpunc -l -"
	case strings.HasSuffix(line, " -"): // -l was taken for an option of this cpunc
		line = strings.TrimSuffix(line, "-") + "-l -"
	}
	return suggest(" (quote the command: -e '%s')", line)
}

// setHints sets what the user probably meant by addresses that never reply.
func (opt *options) setHints() {
	follows := "" // a hint about the command before
	for i := range opt.typed {
		a := &opt.typed[i]
		switch {
		case a.network == command:
			follows = unquoted(opt.typed[i:])
			a.hint = cmp.Or(follows, execHint(a.host))
		case a.network != "":
			follows = ""
		case slices.Contains(words[:readings], a.host):
			a.hint = readingsHint(opt.read, operandsOf(opt.typed))
		default: // the command may fail later than this host
			a.hint = cmp.Or(habits[a.host], follows)
		}
	}
}
