package main

import (
	"errors"
	"strings"
	"testing"
)

// What stands in parentheses leads to a command line that is accepted. A hint that
// quotes what a shell would not take for text is left out.
func TestHints(t *testing.T) {
	const general = "(try 'cpunc -h')"
	for _, test := range []struct{ line, want string }{
		{"1", "missing host before port 1 (for an interval: cpunc -i 1, to dial: cpunc localhost 1)"},
		{"99 1000", "missing host before port 99 (for an interval and a number of lines: cpunc -i 99 -c 1000)"},
		{"1 0", "missing host before port 1 (to serve: cpunc -l 1, to dial: cpunc localhost 1)"},
		{"1 99999999999999999999", "missing host before port 1 (to serve: cpunc -l 1, to dial: cpunc localhost 1)"},
		{"1 5 9", "missing host before port 1 (to serve: cpunc -l 1, to dial: cpunc localhost 1)"},
		{"1 web1", "missing host before port 1 (to serve: cpunc -l 1, to dial: cpunc localhost 1)"},
		{"100", "missing host before port 100 (to serve: cpunc -l 100, to dial: cpunc localhost 100)"},
		{"100 5", "missing host before port 100 (to serve: cpunc -l 100, to dial: cpunc localhost 100)"},
		{"a 1 b 2", "missing host before port 2 (with several hosts: cpunc a:1 b:2)"},
		{"a b 2 c", "missing host before port 2 (with several hosts: cpunc a b:2 c)"},
		{"a 1 [::1] 2", "missing host before port 2 (with several hosts: cpunc a:1 [::1]:2)"},
		{"a:1 b 2", "missing host before port 2 (with several hosts: cpunc a:1 b:2)"},
		{"a b:1 2", "missing host before port 2 " + general},
		{"a 1 2", "missing host before port 2 " + general},
		{"a; b 1", "missing host before port 1 " + general},
		{"65536", `invalid port "65536" ` + general},
		{"0 5", `invalid port "0" ` + general},
		{"a 0", `invalid port "0" ` + general},
		{":80", `missing host in ":80" (this machine: localhost:80)`},
		{"-l :80", `missing host in ":80" (all interfaces: 0.0.0.0 80)`},
		{"-l -6 *", `missing host in "*" (all interfaces: :: 5000)`},
		{"[::1", `invalid address "[::1" (want host:port)`},
		{"a: b", `invalid address "a:" (want host:port)`},
		{"[a:b]", `invalid host "[a:b]" ` + general},
		{"[web1]", `invalid host "[web1]" ` + general},
		{"-l a -", "too many arguments (want [host] [port] or -U PATH)"},
		{"-l - 1", `invalid host "-" ` + general},

		{"/s", `invalid host "/s" (for a Unix socket: -U /s)`},
		{"../s", `invalid host "../s" (for a Unix socket: -U ../s)`},
		{"unix:/s", `invalid host "unix:/s" (for a Unix socket: -U /s)`},
		{"unix:///s", `invalid host "unix:///s" (for a Unix socket: -U /s)`},
		{"a,b,", `invalid host "a,b," (hosts are separated by spaces: a b)`},
		{"ssh://a", `invalid host "ssh://a" (over ssh: cpunc -e 'ssh a cpunc -l -')`},
		{"ssh://b@a/", `invalid host "ssh://b@a/" (over ssh: cpunc -e 'ssh b@a cpunc -l -')`},
		{"ssh://b@a:22", `invalid host "ssh://b@a:22" (over ssh: cpunc -e 'ssh ssh://b@a:22 cpunc -l -')`},
		{"b@a:5000/cpu", `invalid host "b@a:5000/cpu" (over ssh: cpunc -e 'ssh b@a cpunc -l -')`},
		{"http://b@a:80/cpu", `invalid host "http://b@a:80/cpu" (want host or host:port: a:80)`},
		{"a/cpu", `invalid host "a/cpu" (want host or host:port: a)`},
		{"b@", `invalid host "b@" ` + general},
		{"http://", `invalid host "http://" ` + general},
		{"a:b/c", `invalid host "a:b/c" ` + general},
		{"a$b/c", `invalid host "a$b/c" ` + general},

		{"-l -e ssh a", "-e cannot be used with -l (quote the command: -e 'ssh a cpunc -l -')"},
		{"-l -e ssh a b -", "-e cannot be used with -l (quote the command: -e 'ssh a b -l -')"},
		{"-l -e nc a 1 -U s b", "-e cannot be used with -l (quote the command: -e 'nc a 1')"},
		{"-l -e nc a;b", "-e cannot be used with -l " + general},
		{"-l a -e nc", "-e cannot be used with -l " + general},
		{"-l5", "-l takes no value (to serve on that port: cpunc -l 5)"},
		{"--listen=a", "--listen takes no value " + general},
		{"-v=5", "-v takes no value " + general},
	} {
		if _, err := parse(strings.Fields(test.line)); err == nil || err.Error() != test.want {
			t.Errorf("%q: %v, want %s", test.line, err, test.want)
		}
	}
}

// Hosts and commands have hints for the case that they never reply.
func TestHintsOfAddresses(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"a", ""},
		{"help", " (for help: cpunc -h)"},
		{"a version", "; (for the version: cpunc --version)"},
		{"cpu", " (for this reading: cpunc -r cpu)"},
		{"-r load cpu cpu", " (for these readings: cpunc -r load,cpu); (for these readings: cpunc -r load,cpu)"},
		{"-U cpu", ""},
		{"-e nc a", " (quote the command: -e 'nc a'); (quote the command: -e 'nc a')"},
		{"-e nc a -U s b", " (quote the command: -e 'nc a'); (quote the command: -e 'nc a');;"},
		{"-e nc -e cat a", "; (quote the command: -e 'cat a'); (quote the command: -e 'cat a')"},
		{"-e ssh;cpunc a", " (to serve on stdin/stdout: cpunc -l -);"},
	} {
		opt, err := parse(strings.Fields(test.line))
		var hints []string
		for _, a := range opt.addresses {
			hints = append(hints, a.hint)
		}
		if got := strings.Join(hints, ";"); err != nil || got != test.want {
			t.Errorf("%q: %q, %v, want %q", test.line, got, err, test.want)
		}
	}
	for line, want := range map[string]string{
		"ssh a cpunc":        " (to serve on stdin/stdout: cpunc -l -)",
		"ssh a '/bin/cpunc'": " (to serve on stdin/stdout: cpunc -l -)",
		"ssh a cpunc -l -":   "",
		"ssh a cpunchy":      "",
	} {
		if got := execHint(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// A hint replaces a more general one.
func TestWithHint(t *testing.T) {
	for _, test := range []struct{ text, hint, want string }{
		{"no reply (to wait longer: -w)", "", "no reply (to wait longer: -w)"},
		{"no reply (to wait longer: -w)", " (a)", "no reply (a)"},
		{"no (reply) yet", " (a)", "no (reply) yet (a)"},
		{"no reply", " (a)", "no reply (a)"},
	} {
		if got := withHint(errors.New(test.text), test.hint).Error(); got != test.want {
			t.Errorf("%q with %q: %q, want %q", test.text, test.hint, got, test.want)
		}
	}
}
