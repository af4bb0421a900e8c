package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// help is the output of -h. It is also the table of the options, as docopt does
// it: optionTable reads their names, arguments and modes from it.
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
  -H, --header            print a header line that starts with #
  -g, --graph             draw a live chart on the terminal
      --window SECONDS    time axis of the chart (default 60)
      --below N           exit once all readings are below N; with --above,
                          once they are between the two
      --above N           exit once a reading is above N
      --for SECONDS       time for which --below or --above must hold
  -e, --exec COMMAND      talk to COMMAND over its stdin/stdout (repeatable)
      --label NAME        name the next host, socket or command (repeatable)
      --ask               on Ctrl-C, ask whether to continue

Listening:
  -l, --listen            serve readings
  -1, --once              serve one connection, then exit
  -m, --max-conns N       limit on open connections (default 10000)
  -a, --allow PREFIX      allow only this address or prefix (repeatable)
      --name NAME         host name that HTTP requests may use (repeatable)

General:
  -p, --port PORT         port to dial or to listen on (default 5000)
  -U, --unix PATH         use a Unix socket; repeatable without -l
      --cgroup GROUP      control group to read, as systemd-cgls prints it
  -k, --keep              reconnect; print nan while down (no effect with -l)
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

// name returns the long name of the option without dashes, or the short one if
// it has no other.
func (o option) name() string { return strings.TrimLeft(o.names[len(o.names)-1], "-") }

const (
	dialing   = "Dialing"
	listening = "Listening"
)

// optionTable returns the options that help lists. It reads them once.
var optionTable = sync.OnceValue(func() (table []option) {
	mode := ""
	for line := range strings.Lines(help) {
		text := strings.TrimSpace(line)
		names, usage, isRow := strings.Cut(text, "  ")
		switch {
		case strings.HasSuffix(text, ":") && line[0] != ' ':
			mode = strings.TrimSuffix(text, ":")
		case isRow && text[0] == '-':
			o := option{usage: strings.TrimSpace(usage), mode: mode}
			for _, name := range strings.Fields(names) {
				if name[0] == '-' {
					o.names = append(o.names, strings.TrimSuffix(name, ","))
				} else {
					o.arg = name
				}
			}
			table = append(table, o)
		case text != "" && len(table) > 0:
			table[len(table)-1].usage += " " + text
		}
	}
	return table
})

// optionOf returns the option that has this name, with its dashes.
func optionOf(name string) (option, bool) {
	i := slices.IndexFunc(optionTable(), func(o option) bool { return slices.Contains(o.names, name) })
	if i < 0 {
		return option{}, false
	}
	return optionTable()[i], true
}

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

// getopt calls set for each option in args, with the form in which it was typed
// and its value, and operand for each operand. As with getopt_long, options may
// follow operands, short options may be joined (-lv), and the value of a short
// option may follow directly (-i2).
func getopt(args []string, set func(o option, form, value string) error, operand func(string)) error {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			for _, arg := range args {
				operand(arg)
			}
			return nil
		case arg == "-", !strings.HasPrefix(arg, "-"):
			operand(arg)
			continue
		}
		form, value, valued := cutOption(arg)
		o, ok := optionOf(form)
		switch {
		case !ok:
			return unknownOption(form)
		case o.arg == "" && !valued:
			value = "true"
		case o.arg == "" && !strings.HasPrefix(form, "--") && !isValue(value):
			value, args = "true", append([]string{"-" + value}, args...)
		case o.arg == "":
			return usagef("%s takes no value%s", form, valueHint(form, strings.TrimPrefix(value, "=")))
		case !valued && len(args) == 0:
			return usagef("%s requires an argument", form)
		case !valued:
			value, args = args[0], args[1:]
		}
		if err := set(o, form, value); err != nil {
			return err
		}
	}
	return nil
}

// cutOption splits an argument into an option and what follows it: --name=value,
// or a letter and the rest.
func cutOption(arg string) (form, rest string, found bool) {
	form, rest, found = strings.Cut(arg, "=")
	if strings.HasPrefix(arg, "--") {
		return form, rest, found
	}
	if _, ok := optionOf("-" + form); ok { // -version is not -v -e rsion
		return "-" + form, rest, found
	}
	_, size := utf8.DecodeRuneInString(arg[1:])
	return arg[:1+size], arg[1+size:], len(arg) > 1+size
}

// isValue reports whether the text after a short option that takes no argument is
// a value, as in -l5000, rather than more options. The message can then say what
// to do instead.
func isValue(rest string) bool {
	return strings.ContainsAny(rest[:1], "=-") || isNumber(rest) && (len(rest) > 2 || !strings.ContainsAny(rest, "146"))
}

func unknownOption(name string) error {
	hint := habits[name]
	for _, o := range optionTable() {
		if long := "--" + o.name(); hint == "" && isNear(name, long) {
			hint = fmt.Sprintf(" (did you mean %s?)", long)
		}
	}
	return usagef("unknown option %s%s", quoteOdd(name), hint)
}
