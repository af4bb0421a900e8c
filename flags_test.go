package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// The help, the parser, the README and the manual page name the same options.
func TestOptionsDocumented(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(help, "\n"), "\n")
	if len(lines) > 60 {
		t.Errorf("the help has %d lines, more than 60", len(lines))
	}
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	var want, names []string
	for _, o := range optionTable() {
		want = append(want, o.names...)
		names = append(names, o.name())
	}
	slices.Sort(want)
	slices.Sort(names)
	var known []string
	for _, f := range new(options).flags() {
		known = append(known, f.Names()...)
		o := optionTable()[slices.IndexFunc(optionTable(), func(o option) bool { return o.name() == f.Names()[0] })]
		if (o.arg != "") != f.(cli.DocGenerationFlag).TakesValue() {
			t.Errorf("%s takes an argument in only one of the help and the parser", o.names)
		}
	}
	if slices.Sort(known); !slices.Equal(known, names) {
		t.Errorf("the parser has the options\n%v, the help\n%v", known, names)
	}

	man, err := os.ReadFile("cpunc.1")
	if err != nil {
		t.Fatal(err)
	}
	var inMan []string
	for _, item := range regexp.MustCompile(`(?m)^\.It Fl .*$`).FindAllString(string(man), -1) {
		for _, m := range regexp.MustCompile(`Fl (\S+)`).FindAllStringSubmatch(item, -1) {
			inMan = append(inMan, "-"+strings.ReplaceAll(m[1], `\-`, "-"))
		}
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var inReadme []string
	for _, row := range regexp.MustCompile("(?m)^\\| `-.*$").FindAllString(string(readme), -1) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		inReadme = append(inReadme, regexp.MustCompile(`-[-\w]+`).FindAllString(cell, -1)...)
	}
	for where, got := range map[string][]string{"manual page": inMan, "README": inReadme} {
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("the %s has the options\n%v, want\n%v", where, got, want)
		}
	}
	if n := strings.Count(string(readme), "\n"); n > 250 {
		t.Errorf("the README has %d lines, more than 250", n)
	}
	for _, name := range []string{"README.md", "doc/recipes.md", "CONTRIBUTING.md", "contrib/cpunc.service", "contrib/cpunc@.service"} {
		for _, command := range regexp.MustCompile("\\bcpunc(?: [^\\s'\"`|&;<>()$]+)+").FindAllString(string(readFile(t, name)), -1) {
			for _, arg := range strings.Fields(command) {
				long := strings.HasPrefix(arg, "--")
				if strings.HasPrefix(arg, "-") && arg != "-" && !slices.Contains(want, arg) && (long || strings.Trim(arg, "-"+shortOptions(want)) != "") {
					t.Errorf("%s has %q: unknown option %s", name, command, arg)
				}
			}
		}
	}
	for _, w := range words {
		for where, text := range map[string]string{"manual page": string(man), "README": string(readme)} {
			if !regexp.MustCompile(`\b` + w + `\b`).MatchString(text) {
				t.Errorf("the %s lacks the word %s", where, w)
			}
		}
	}
	if list := strings.Join(words[:readings], ","); !strings.Contains(help, " "+list+"\n") {
		t.Errorf("the help lacks the readings %s", list)
	}
}

// shortOptions returns the letters of the short options.
func shortOptions(names []string) (letters string) {
	for _, name := range names {
		if len(name) == 2 {
			letters += name[1:]
		}
	}
	return letters
}

// However the options are typed, they are the same as in the long form.
func TestForms(t *testing.T) {
	for _, test := range []struct{ typed, long string }{
		{"", "--"},
		{"localhost 5000 -i 2", "--interval=2 -- localhost 5000"},
		{"-lv 5000", "--listen --verbose -- 5000"},
		{"-vvlp5000", "--verbose --verbose --listen --port=5000 --"},
		{"-lp 5000 ::", "--listen --port=5000 -- ::"},
		{"-l1", "--listen --once --"},
		{"-4lm6", "-4 --listen --max-conns=6"},
		{"-i0.5 web1 -c3", "--interval=0.5 --count=3 -- web1"},
		{"web1 --interval=2 --count 3 web2", "--interval=2 --count=3 -- web1 web2"},
		{"-l - -v", "--listen --verbose -- -"},
		{"-v -- -", "--verbose -"},
		{"-e a --exec=b --exec c=d -ee", "--exec=a --exec=b --exec=c=d --exec=e --"},
		{"-version web1 -keep -kv", "--version --keep --keep --verbose -- web1"},
		{"web1 -i5 -i 2", "-i 2 web1"},
		{"web1 -p 6000 web2 -r cpu -r load,busy", "-r cpu,load,busy web1:6000 web2:6000 -p 6000"},
	} {
		typed, err := parse(strings.Fields(test.typed))
		long, longErr := parse(strings.Fields(test.long))
		if err != nil || longErr != nil {
			t.Errorf("%q: %v; %q: %v", test.typed, err, test.long, longErr)
			continue
		}
		for _, opt := range []*options{typed, long} {
			for name := range opt.given {
				opt.given[name] = "given"
			}
			opt.typed = nil
		}
		if typed, long := fmt.Sprintf("%+v", *typed), fmt.Sprintf("%+v", *long); typed != long {
			t.Errorf("%q: %s\n%q: %s", test.typed, typed, test.long, long)
		}
	}
	for _, test := range []struct{ typed, want string }{
		{"web1 -v -i", "-i requires an argument (try 'cpunc -h')"},
		{"-é", "unknown option -é (try 'cpunc -h')"},
		{"-n 5", "unknown option -n (for a number of lines: -c)"},
		{"--no", "unknown option --no (try 'cpunc -h')"},
		{"--zzzz=1", "unknown option --zzzz (try 'cpunc -h')"},
		{"-V", "unknown option -V (did you mean --version?)"},
		{"--bad", "unknown option --bad (try 'cpunc -h')"},
		{"--vebrose", "unknown option --vebrose (did you mean --verbose?)"},
		{"--verrose", "unknown option --verrose (did you mean --verbose?)"},
		{"--verison", "unknown option --verison (did you mean --version?)"},
		{"--intervall=2", "unknown option --intervall (did you mean --interval?)"},
		{"--verbos", "unknown option --verbos (did you mean --verbose?)"},
		{"--listen=5000", "--listen takes no value (to serve on that port: cpunc -l 5000)"},
		{"-l=5000", "-l takes no value (to serve on that port: cpunc -l 5000)"},
		{"-l5000", "-l takes no value (to serve on that port: cpunc -l 5000)"},
		{"-l1080", "-l takes no value (to serve on that port: cpunc -l 1080)"},
		{"-t=true", "-t takes no value (try 'cpunc -h')"},
		{"--verbose=2", "--verbose takes no value (try 'cpunc -h')"},
		{"-i -1", `invalid value "-1" for -i: must not be negative (try 'cpunc -h')`},
	} {
		if _, err := parse(strings.Fields(test.typed)); err == nil || err.Error() != test.want {
			t.Errorf("%q: %v, want %s", test.typed, err, test.want)
		}
	}
}

// Each option that cannot be used in a mode, or with others, is named in the error.
func TestRules(t *testing.T) {
	for _, test := range []struct{ line, options, want string }{
		{"-l", "-i1 -c1 -rcpu -t -H -g --window=1 --below=1 --above=1 --for=1 -ecat --label=a --ask", "cannot be used with -l (try 'cpunc -h')"},
		{"web1", "-1 -m1 -a::1 --name=a", "requires -l (try 'cpunc -h')"},
		{"-l -", "-4 -6 -p1 -a::1 -1 -m1", "cannot be used with -l - (try 'cpunc -h')"},
		{"-l -Usock", "-4 -6 -p1 -a::1", "cannot be used with --unix (try 'cpunc -h')"},
		{"-", "-i1 -rcpu -ecat -Usock -p1 -k -w1 -4 -6 --ask --cgroup=/", "cannot be used with -, which reads lines from standard input (try 'cpunc -h')"},
		{"-r -", "-i1 --below=1 --above=1", "cannot be used with -r - (try 'cpunc -h')"},
		{"-g", "--ask", "cannot be used with --graph (try 'cpunc -h')"},
		{"", "--window=1", "requires --graph (try 'cpunc -h')"},
		{"-r cgroup web1", "--cgroup=/", "cannot be used with a host or a command (give it to the listener there: cpunc -l --cgroup GROUP)"},
		{"", "--cgroup=/", "requires -r cgroup (try 'cpunc -h')"},
		{"-e cat", "--ask", "with --exec requires --keep (try 'cpunc -h')"},
		{"web1", "--label=a", "requires a host, socket or command after it (try 'cpunc -h')"},
		{"web1 -4", "-6", "cannot be used with -4 (try 'cpunc -h')"},
		{"-e cat", "-4 -6", "requires a host (try 'cpunc -h')"},
		{"", "-p80", "requires a host (to serve: cpunc -l -p 80, to dial: cpunc -p 80 localhost)"},
		{"-r cpu,modes", "--below=1 --above=1", "cannot be used with modes, which has no single number (try -r cpu or -r busy)"},
		{"", "--for=1", "requires --below or --above (try 'cpunc -h')"},
		{"--below=1", "--above=1", "must be less than --below: the readings must be between the two (try 'cpunc -h')"},
	} {
		for o := range strings.FieldsSeq(test.options) {
			form, _, isLong := strings.Cut(o, "=")
			if !isLong && !strings.HasPrefix(o, "--") {
				form = o[:2]
			}
			_, err := parse(append(strings.Fields(test.line), o))
			if want := form + " " + test.want; err == nil || err.Error() != want {
				t.Errorf("%q with %s: %v, want %s", test.line, o, err, want)
			}
		}
	}
	for _, line := range []string{
		"-l -k -w1 -v -Usock", "-Usock web1 -4 -p1", "-l -1 -m1 -a::1 --name=a -p1 -4 --cgroup=/", "-l - -k -v -w1 --name=a --cgroup=/",
		"--label=a - -c1 -t -H -g --window=1 --below=1 --for=1 -v", "-r - -c1 -t -H -k -w1 -v", "-r cgroup --cgroup=/", "-r - --cgroup=/",
		"-e cat --ask -k", "--above=1 --below=2 --for=1", "-r load,cores --below=1", "--label=a", "web1 -6 -p1 --ask",
	} {
		if _, err := parse(strings.Fields(line)); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// For any command line, the error is one line without unprintable characters.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{"-lv 5000", "--interval=2 web1", "-i\n1", "-e a -U b", "--label a -4", "--=", "-=", "---", "-r cpu,load -r -", "-a ::1%eth0/64", "localhost:\x03 0", "-l -p \x03 5000", "-p \x03 localhost 1", ":\x03", "-l :\x03", "-e a b\x03", "-l -4 -p \x03 -U a", "--label \x03 -l", "--\x9b", "web\x9b1", "-e \x9b -p \xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		opt, err := parse(strings.Split(line, " "))
		if err != nil && err.Error() != quoteOdd(err.Error()) {
			t.Errorf("%q: %q", line, err)
		}
		if err == nil && len(opt.addresses) == 0 && !opt.help && !opt.version && opt.completion == "" {
			t.Errorf("%q: nothing to do", line)
		}
	})
}
