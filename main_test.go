package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/shirou/gopsutil/v3/cpu"
)

var update = flag.Bool("update", false, "rewrite the golden files of the scripts")

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){
		"yardstick": yardstick,
		"cpunc": func() {
			// The address goes into the file $READY, for waitlisten.
			testOnlyListening = func(addr net.Addr) {
				if ready := os.Getenv("READY"); ready != "" {
					replaceFile(ready, fmt.Sprintf("%v %d", addr, os.Getpid()))
				}
			}
			// A script that replaces its proc/stat must not meet a history
			// that was quicker: first answers count from the start.
			testOnlyHistory = time.Hour
			testOnlyAlive = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}
			if port := os.Getenv("DEFAULT_PORT"); port != "" {
				testOnlyDefaultPort = port
			}
			if d, err := time.ParseDuration(os.Getenv("INTERVAL")); err == nil {
				testOnlyInterval = d
			}
			if percent, err := strconv.ParseFloat(os.Getenv("STEADY"), 64); err == nil {
				testOnlyTimes = steady(percent)
			}
			if os.Getenv("PANIC") != "" {
				testOnlyTimes = func(bool) ([]cpu.TimesStat, error) { panic("as the test wants") }
			}
			main()
		},
	})
}

// tidy are tests that must leave no goroutine and no descriptor behind.
type tidy struct{ *testing.M }

func (m tidy) Run() int {
	flag.Set("test.parallel", "4") // they wait more than they compute
	goroutines, descriptors := leftovers()
	code := m.M.Run()
	if code != 0 {
		return code
	}
	var g, d []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		g, d = leftovers()
		if len(g) <= len(goroutines) && len(d) <= len(descriptors) {
			return 0
		}
	}
	fmt.Printf("left behind: %d goroutines of %d, descriptors %q of %q\n%s\n", len(g), len(goroutines), d, descriptors, strings.Join(g, "\n\n"))
	return 1
}

// leftovers gives the stacks of the goroutines there are, but for those that the
// libraries keep for good, and the descriptors that are open, likewise.
func leftovers() (goroutines, descriptors []string) {
	stacks := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if !strings.Contains(stack, "os/signal.loop") {
			goroutines = append(goroutines, stack)
		}
	}
	const open = "/proc/self/fd" // on Linux
	entries, _ := os.ReadDir(open)
	for _, fd := range entries {
		name, err := os.Readlink(filepath.Join(open, fd.Name()))
		if err == nil && !strings.HasPrefix(name, "anon_inode:[event") { // of the poller
			descriptors = append(descriptors, name)
		}
	}
	return goroutines, descriptors
}

// steady reads counters, from the file that $HOST_PROC names, that move as those
// of a machine that is always busy to the same percentage. Several processes may
// have the file at once: it goes by the clock, and is never seen half written.
func steady(percent float64) func(bool) ([]cpu.TimesStat, error) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return func(percpu bool) ([]cpu.TimesStat, error) {
		ticks := time.Since(start).Seconds() * 100
		counters := fmt.Sprintf(" %f 0 0 %f 0 0 0 0 0 0\n", ticks*percent/100, ticks*(100-percent)/100)
		stat := filepath.Join(os.Getenv("HOST_PROC"), "stat")
		if err := replaceFile(stat, "cpu "+counters+"cpu0"+counters+"intr 0\n"); err != nil {
			return nil, err
		}
		return cpu.Times(percpu)
	}
}

// replaceFile gives a file a new content at one stroke.
func replaceFile(name, content string) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(content); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func TestScripts(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	readme := readReadme(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("READY", filepath.Join(env.WorkDir, "ready"))
			env.Setenv("GORACE", "atexit_sleep_ms=10")
			env.Setenv("MAN", filepath.Join(here, "cpunc.1"))
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "netns" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return exec.Command("unshare", "-n", "ip", "link", "add", "type", "veth").Run() == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"waitlisten": waitListen,
			"query":      query,
			"waitfile":   waitFile,
			"gone":       gone,
			"recipe":     func(ts *testscript.TestScript, neg bool, args []string) { writeRecipe(ts, readme, args[0]) },
			"freeport":   freePort,
			"waitport":   waitPort,
			"terminate":  terminate,
			"serve":      serveCanned,
		},
	})
}

// exits runs a program that must end with the status that is its first
// argument, having said why in one line.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	status := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		failed, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		status = failed.ExitCode()
	}
	if want, _ := strconv.Atoi(args[0]); status != want {
		ts.Fatalf("exit status %d, want %d", status, want)
	}
	if why := ts.ReadFile("stderr"); !strings.HasPrefix(why, "cpunc: ") || strings.Index(why, "\n") != len(why)-1 {
		ts.Fatalf("said %q, want one line of cpunc", why)
	}
}

// eventually waits until done, which must come about soon.
func eventually(ts *testscript.TestScript, what string, done func() bool) {
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("%s: waited in vain", what)
		}
	}
}

// waitListen waits until the cpunc in the background listens, and sets $HOST,
// $PORT and $PID.
func waitListen(ts *testscript.TestScript, neg bool, args []string) {
	ready := ts.Getenv("READY")
	var content []byte
	eventually(ts, "a listener", func() bool {
		var err error
		content, err = os.ReadFile(ready)
		return err == nil
	})
	ts.Check(os.Remove(ready))
	addr, pid, _ := strings.Cut(string(content), " ")
	host, port, _ := net.SplitHostPort(addr) // a Unix socket has neither
	ts.Setenv("HOST", host)
	ts.Setenv("PORT", port)
	ts.Setenv("PID", pid)
}

// freePort sets $PORT to one that nobody listens on now, for programs that
// can't take a free one themselves.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	ts.Setenv("PORT", port)
}

// waitPort waits until somebody listens on $PORT.
func waitPort(ts *testscript.TestScript, neg bool, args []string) {
	eventually(ts, "port "+ts.Getenv("PORT"), func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+ts.Getenv("PORT"))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// query waits until the Prometheus at $PORT answers a query with one value.
func query(ts *testscript.TestScript, neg bool, args []string) {
	var got string
	eventually(ts, "query "+args[0], func() bool {
		resp, err := http.Get("http://127.0.0.1:" + ts.Getenv("PORT") + "/api/v1/query?query=" + url.QueryEscape(args[0]))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		got = string(body)
		return strings.Contains(got, `,"`+args[1]+`"]`)
	})
}

// waitFile waits until a line is in the file: any, or the one that is its
// second argument.
func waitFile(ts *testscript.TestScript, neg bool, args []string) {
	line := "\n"
	if len(args) > 1 {
		line = args[1] + line
	}
	eventually(ts, args[0], func() bool {
		content, _ := os.ReadFile(ts.MkAbs(args[0]))
		return bytes.Contains(content, []byte(line))
	})
}

// gone checks that no process has the number that is in a file.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	number := strings.TrimSpace(ts.ReadFile(args[0]))
	pid, err := strconv.Atoi(number)
	ts.Check(err)
	process, err := os.FindProcess(pid)
	ts.Check(err)
	eventually(ts, "end of "+number, func() bool {
		stat, _ := os.ReadFile("/proc/" + number + "/stat") // where nobody reaps it, it is a zombie
		return process.Signal(syscall.Signal(0)) != nil || bytes.Contains(stat, []byte(") Z "))
	})
}

// terminate sends SIGTERM, for which kill has no name, to the process whose
// number is in a file, or else to $PID.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	number := ts.Getenv("PID")
	if len(args) > 0 {
		number = strings.TrimSpace(ts.ReadFile(args[0]))
	}
	pid, err := strconv.Atoi(number)
	ts.Check(err)
	process, err := os.FindProcess(pid)
	ts.Check(err)
	ts.Check(process.Signal(syscall.SIGTERM))
}

// serveCanned listens until the script ends, sets $HOST and $PORT, and answers
// whatever a client sends with its one argument, as Go quotes it; with none it
// is silent, and with "hangup" it closes.
func serveCanned(ts *testscript.TestScript, neg bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { ln.Close() })
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	ts.Setenv("HOST", host)
	ts.Setenv("PORT", port)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 1024)
				for {
					if _, err := conn.Read(buf); err != nil || args[0] == "hangup" {
						return
					}
					times := 1
					reply := []byte(strings.ReplaceAll(args[0], `\n`, "\n"))
					if args[0] == "endless" {
						times = 1 << 30
						reply = bytes.Repeat(reply, 1<<15) // a pause in between could be taken for an end
					}
					for ; times > 0; times-- {
						if _, err := conn.Write(reply); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
}

// readReadme gives the recipes of the README by name, with nothing for those
// that can't be run.
func readReadme(t *testing.T) map[string]string {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	recipes := map[string]string{}
	blocks := regexp.MustCompile("(?ms)^(?:<!-- (.*?) -->\n)?```(sh|ini|yaml)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	for _, block := range blocks {
		comment, code := block[1], block[3]
		if strings.HasPrefix(comment, "not run: ") {
			continue
		}
		kind, name, ok := strings.Cut(comment, ": ")
		if name, _, _ = strings.Cut(name, ";"); !ok || kind != "recipe" && kind != "unit" {
			t.Errorf("a recipe that is neither named nor excused:\n%s", code)
			continue
		}
		if kind == "recipe" {
			name += ".sh"
		}
		recipes[name] = code
	}
	var script []byte
	for _, file := range []string{"testdata/recipes.txtar", "testdata/http.txtar"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		script = append(script, text...)
	}
	for name := range recipes {
		if !bytes.Contains(script, []byte("recipe "+strings.TrimSuffix(name, ".sh")+"\n")) {
			t.Errorf("no script tries %s", name)
		}
	}
	return recipes
}

// writeRecipe writes a recipe of the README to a file: NAME.sh, or a unit.
func writeRecipe(ts *testscript.TestScript, recipes map[string]string, name string) {
	code, ok := recipes[name]
	if !ok {
		name += ".sh"
		if code, ok = recipes[name]; !ok {
			ts.Fatalf("the README has no recipe %s", name)
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(name), []byte(code), 0o666))
}

// The help, the README and the manual page name the same flags.
func TestFlagsDocumented(t *testing.T) {
	var help bytes.Buffer
	app := newApp(new(options))
	app.Writer = &help
	if err := app.Run([]string{"cpunc", "-h"}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(help.String(), "\n"); n > 40 {
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
	inHelp := regexp.MustCompile(`(?m)^ +(-.*?)\s{2}`).FindAllStringSubmatch(help.String(), -1)
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

func TestAddresses(t *testing.T) {
	for _, test := range []struct{ operands, want string }{
		{"", "this machine"},
		{"web1", "web1:5000"},
		{"web1 6000", "web1:6000"},
		{"web1 http", "web1:80"},
		{"web1:6000", "web1:6000"},
		{"[::1]:6000", "[::1]:6000"},
		{"[::1]", "[::1]:5000"},
		{"::1", "[::1]:5000"},
		{"::1 6000", "[::1]:6000"},
		{"fe80::1%eth0", "[fe80::1%eth0]:5000"},
		{"web1:http", "web1:80"},
		{"web1 web2", "web1:5000 web2:5000"},
		{"web1 web2:6000 web3", "web1:5000 web2:6000 web3:5000"},
		{"web1 6000 web2", "web1:6000 web2:5000"},
		{"web1 http web2", "web1:5000 http:5000 web2:5000"},

		{"web1 web2 6000", "error"},
		{"6000", "error"},
		{"web1 0", "error"},
		{"web1 99999", "error"},
		{"web1:99999", "error"},
		{"web1:", "error"},
		{":5000", "error"},
		{"web1:6000 7000", "error"},
		{"[::1", "error"},
		{"a:b:c", "error"},
	} {
		addrs, err := addresses(new(options), strings.Fields(test.operands))
		got := strings.Trim(fmt.Sprint(addrs), "[]")
		if len(addrs) == 1 {
			got = addrs[0].String() // has brackets of its own
		}
		if err != nil {
			got = "error"
		}
		if got != test.want {
			t.Errorf("dial %q: %s (%v), want %s", test.operands, got, err, test.want)
		}
	}
	for _, test := range []struct{ operands, port, want string }{
		{"", "", "localhost:5000"},
		{"6000", "", "localhost:6000"},
		{"0", "", "localhost:0"},
		{"0.0.0.0 6000", "", "0.0.0.0:6000"},
		{":: 6000", "", "[::]:6000"},
		{"web1", "", "web1:5000"},
		{"", "6000", "localhost:6000"},
		{"0.0.0.0", "6000", "0.0.0.0:6000"},
		{"web1:6000", "", "web1:6000"},
		{"-", "", "standard input"},

		{"- 6000", "", "error"},
		{"-", "6000", "error"},
		{"web1 6000", "6000", "error"},
		{"6000", "6000", "error"},
		{"99999", "", "error"},
		{"", "x", "error"},
		{"a 1 2", "", "error"},
	} {
		addrs, err := addresses(&options{listen: true, port: test.port}, strings.Fields(test.operands))
		got := ""
		if len(addrs) == 1 {
			got = addrs[0].String()
		}
		if err != nil {
			got = "error"
		}
		if got != test.want {
			t.Errorf("listen %q: %s (%v), want %s", test.operands, got, err, test.want)
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"web1", "web1:6000", "[::1]:5000", "::1", "fe80::1%eth0", "[::1]", ":5000", "a:b:c", "", "[", "[a:b]", "::%]"} {
		f.Add(s, "")
		f.Add(s, "6000")
	}
	f.Fuzz(func(t *testing.T, s, port string) {
		addr, err := parseAddress("tcp", s, port, 1)
		if err != nil {
			return
		}
		host, p, err := net.SplitHostPort(addr.String())
		if err != nil || host != addr.host || p != addr.port {
			t.Errorf("%q %q became %q, which does not read back: %v", s, port, addr, err)
		}
	})
}
