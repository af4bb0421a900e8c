package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A hint is what the user probably meant, in parentheses after a space, or "" if
// that is not known.

// habits are about options and words of other programs.
var habits = map[string]string{
	"-V":      " (did you mean --version?)",
	"-n":      " (for a number of lines: -c)", // as in ping -c, top -n
	"-d":      " (for an interval: -i)",       // as in top
	"help":    " (for help: cpunc -h)",
	"version": " (for the version: cpunc --version)",
}

// isNear reports whether a is probably a misspelling of b: one letter wrong, one
// or two missing or added, or two neighbors swapped.
func isNear(a, b string) bool {
	if min(len(a), len(b)) <= len("--ab") { // too short to tell
		return false
	}
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return len(a)+len(b) <= 2 || len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
}

// valueHint is about an option that takes no value.
func valueHint(name, value string) string {
	if isNumber(value) && (name == "-l" || name == "--listen") {
		return fmt.Sprintf(" (to serve on that port: cpunc -l %s)", value)
	}
	return ""
}

// portHint is about a number among the operands to dial that is not a port,
// because it does not follow a host.
func portHint(operands []string, number string) string {
	if operands[0] == number {
		short := len(number) <= 2
		count, err := strconv.Atoi(operands[len(operands)-1])
		switch { // as in vmstat 1 5
		case short && len(operands) == 1:
			return fmt.Sprintf(" (for an interval: cpunc -i %s, to dial: cpunc localhost %[1]s)", number)
		case short && len(operands) == 2 && err == nil && count > 0:
			return fmt.Sprintf(" (for an interval and a number of lines: cpunc -i %s -c %d)", number, count)
		}
		return fmt.Sprintf(" (to serve: cpunc -l %s, to dial: cpunc localhost %[1]s)", number)
	}
	var hosts []string
	for _, o := range operands {
		if !isNumber(o) {
			hosts = append(hosts, o)
			continue
		}
		last := &hosts[len(hosts)-1]
		if _, _, err := net.SplitHostPort(*last); err == nil { // it has a port
			return ""
		}
		*last = net.JoinHostPort(strings.Trim(*last, "[]"), o)
	}
	return suggest(" (with several hosts: cpunc %s)", strings.Join(hosts, " "))
}

// hostHint is about an operand that is not a host.
func hostHint(s string) string {
	switch {
	case strings.IndexAny(s, "/.") == 0, strings.HasPrefix(s, "unix:"): // as in a URL
		return suggest(" (for a Unix socket: -U %s)", strings.TrimPrefix(strings.TrimPrefix(s, "unix://"), "unix:"))
	case strings.Contains(s, ","):
		return suggest(" (hosts are separated by spaces: %s)", strings.ReplaceAll(strings.Trim(s, ","), ",", " "))
	}
	text := s
	if !strings.Contains(s, "://") {
		text = "//" + s
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	target := u.Hostname() // for ssh
	switch {
	case u.Scheme == "ssh" && u.Port() != "":
		target = s // which ssh takes, too
	case u.Scheme != "ssh" && (u.Scheme != "" || u.User == nil):
		return suggest(" (want host or host:port: %s)", strings.TrimSuffix(u.Host, ":"))
	case u.User != nil:
		target = u.User.String() + "@" + target
	}
	return suggest(" (over ssh: cpunc -e 'ssh %s cpunc -l -')", target)
}

// dialHint is about a host that cannot be connected to.
func dialHint(host, port string, err error) string {
	ip, _ := netip.ParseAddr(host)
	switch reason := err.Error(); {
	case port == "": // a command or a socket
	case strings.HasSuffix(reason, "no such host"):
		if file, err := os.Stat(host); err == nil && file.Mode().IsRegular() && file.Size() > 0 { // the one that > made is empty
			return suggest(" (for this file: - <%s)", host)
		}
	case !strings.HasSuffix(reason, "connection refused"):
	case host == "localhost" || ip.IsLoopback():
		return suggest(" (to serve: cpunc -l %s)", host+" "+port)
	case ip.Is6():
		return suggest(" (to serve there, on all interfaces: cpunc -l :: %s)", port)
	default:
		return suggest(" (to serve there, on all interfaces: cpunc -l 0.0.0.0 %s)", port)
	}
	return ""
}

// serviceHint is about a host to listen on that may be meant as a port.
func serviceHint(host string) string {
	if port, err := net.LookupPort("tcp", host); err == nil && !isNumber(host) {
		return fmt.Sprintf(" (for this port: cpunc -l %d)", port)
	}
	return ""
}

// execHint is about a command that is not a server.
func execHint(line string) string {
	fields := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n;|&'\"", r) })
	isCpunc := func(f string) bool { return filepath.Base(f) == "cpunc" }
	if !slices.ContainsFunc(fields, isCpunc) || slices.Contains(fields, "-") {
		return ""
	}
	return " (to serve on stdin/stdout: cpunc -l -)"
}

// readingsHint is about hosts that have the names of readings, after the
// readings of -r, if any.
func readingsHint(given, hosts []string) string {
	names := slices.Clone(given)
	for _, h := range hosts {
		if slices.Contains(words[:readings], h) && !slices.Contains(names, h) {
			names = append(names, h)
		}
	}
	what := "this reading"
	if len(names) > 1 {
		what = "these readings"
	}
	return fmt.Sprintf(" (for %s: cpunc -r %s)", what, strings.Join(names, ","))
}

// withHint ends err with a hint, unless that is "". It replaces a more general
// one.
func withHint(err error, hint string) error {
	if hint == "" {
		return err
	}
	text := err.Error()
	if i := strings.LastIndex(text, " ("); i >= 0 && strings.HasSuffix(text, ")") {
		text = text[:i]
	}
	return errors.New(text + hint)
}

// suggest formats a hint, unless s contains what a shell or a terminal may take
// for more than text.
func suggest(format, s string) string {
	if s == "" || !isPlain(s) || strings.ContainsAny(s, "'\"\\$`;|&<>()*?#~!") {
		return ""
	}
	return fmt.Sprintf(format, s)
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
