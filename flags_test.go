package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The help, the README and the manual page name the same flags.
func TestFlagsDocumented(t *testing.T) {
	app := newApp(new(options))
	if n := strings.Count(help, "\n"); n > 40 {
		t.Errorf("the help has %d lines, more than a screen", n)
	}
	var want []string
	for _, f := range app.Flags {
		for _, name := range f.Names() {
			want = append(want, dashed(name))
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)

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
		names, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		inReadme = append(inReadme, regexp.MustCompile(`-[-\w]+`).FindAllString(names, -1)...)
	}
	inHelp := regexp.MustCompile(`(?m)^ +(-.*?)\s{2}`).FindAllStringSubmatch(help, -1)
	var inHelpNames []string
	for _, m := range inHelp {
		inHelpNames = append(inHelpNames, regexp.MustCompile(`(^|\s)(--?[\w-]+)`).FindAllString(m[1], -1)...)
	}
	for where, got := range map[string][]string{"help": inHelpNames, "man page": inMan, "README": inReadme} {
		for i := range got {
			got[i] = strings.TrimSpace(got[i])
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%s has the flags\n%v, want\n%v", where, got, want)
		}
	}
}

func TestPermute(t *testing.T) {
	flags := newApp(new(options)).Flags
	for _, test := range []struct{ args, want string }{
		{"", "--"},
		{"localhost 5000 -i 2", "-i 2 -- localhost 5000"},
		{"-lv 5000", "-l -v -- 5000"},
		{"-vvlp5000", "-v -v -l -p 5000 --"},
		{"-lp 5000 ::", "-l -p 5000 -- ::"},
		{"-i0.5 web1 -c3", "-i 0.5 -c 3 -- web1"},
		{"web1 --interval=2 --count 3 web2", "--interval=2 --count 3 -- web1 web2"},
		{"-l - -v", "-l -v -- -"},
		{"-v -- -l -v", "-v -- -l -v"},
		{"-i -1", "-i -1 --"},
		{"web1 -v -i", "-v -i"},
		{"-é", "-é --"},
		{"-e a --exec=b --exec c -ed", "-e a -e=b -e c -e d --"},
		{"--verbose -vl --listen", "--verbose --verbose -l -l --"},
		{"-version web1 -keep -kv", "--version --keep --keep -v -- web1"},
		{"--no -n --no=1", "--no -n --no=1 --"},
	} {
		if got := strings.Join(permute(strings.Fields(test.args), flags), " "); got != test.want {
			t.Errorf("permute %q: %q, want %q", test.args, got, test.want)
		}
	}
}
