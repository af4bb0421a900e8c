package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden files of the scripts")

// steady returns a function that computes counters from the clock. They move
// like those of a machine with constant percentages of the modes, in the order
// of /proc/stat. Ticks are shorter than in reality, so that the percentages are
// exact.
func steady(percentages []float64) func(source, string) *sample {
	countRate = 1e9
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return func(src source, _ string) *sample {
		now := &sample{at: time.Now()}
		ticks := now.at.Sub(start).Seconds() * countRate
		counters := ""
		for _, percent := range percentages {
			counters += fmt.Sprintf(" %.0f", ticks*percent/100)
		}
		switch src {
		case totals, perCPU:
			now.stat.parse([]byte("cpu "+counters+"\ncpu0"+counters+"\n"), src == perCPU)
		case averages:
			now.load = [...]float64{0.5, 0.25, 0.1}
		default:
			return readKernel(src, "")
		}
		return now
	}
}

// parsePercentages parses percentages of user, nice, system, idle and so on. Of
// a single one, the rest is idle.
func parsePercentages(text string) (percentages []float64, err error) {
	for field := range strings.FieldsSeq(text) {
		percent, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, err
		}
		percentages = append(percentages, percent)
	}
	if len(percentages) == 1 {
		percentages = append(percentages, 0, 0, 100-percentages[0])
	}
	return percentages, nil
}

// replaceFile replaces the content of a file atomically.
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
	recipes := readRecipes(t)
	messages := filepath.Join(t.TempDir(), "messages")
	t.Cleanup(func() { checkMessages(t, messages) }) // when all scripts have ended
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("READY", filepath.Join(env.WorkDir, "ready"))
			env.Setenv("GORACE", "atexit_sleep_ms=10")
			env.Setenv("MESSAGES", messages)
			env.Setenv("MOST", "150000") // KiB of memory
			if raceEnabled() {
				env.Setenv("MOST", "900000")
			}
			env.Setenv("MAN", filepath.Join(here, "cpunc.1"))
			env.Setenv("SHORT", shortDir(t))
			env.Setenv("CONTRIB", filepath.Join(here, "contrib"))
			return nil
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "netns": // whether a network namespace can be made
				return exec.Command("unshare", "-n", "ip", "link", "add", "type", "veth").Run() == nil, nil
			case "pidns": // whether a process can be the first of a namespace
				return exec.Command("unshare", "-p", "-f", "true").Run() == nil, nil
			case "login": // whether sshd can run commands as this user
				entry, err := exec.Command("getent", "passwd", strconv.Itoa(os.Getuid())).Output()
				return err == nil && !regexp.MustCompile(`/(nologin|false)\n$`).Match(entry), nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"status":     status,
			"waitlisten": waitListen,
			"query":      query,
			"waitfile":   waitFile,
			"gone":       gone,
			"recipe":     func(ts *testscript.TestScript, neg bool, args []string) { writeRecipe(ts, recipes, args[0]) },
			"contrib":    copyContrib,
			"freeport":   freePort,
			"waitport":   waitPort,
			"terminate":  terminate,
			"serve":      serveCanned,
		},
	})
}

// checkMessages checks all messages that cpunc printed in the scripts. Each must be one
// line in cpunc's own words, not in those of a library.
func checkMessages(t *testing.T, name string) {
	text, err := os.ReadFile(name)
	if all := flag.Lookup("test.run").Value.String() == ""; err != nil && all {
		t.Errorf("no messages: %v", err)
	}
	foreign := regexp.MustCompile(`flag provided|flag needs|for flag|invalid boolean|parse error|strconv\.|lookup |dial (tcp|udp|unix)|(read|write|accept|listen) (tcp|udp|unix)|%!|\bEOF\b|0x[0-9a-f]|goroutine|syscall|context |i/o timeout|use of closed`)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		message, ok := strings.CutPrefix(line, "cpunc: ")
		switch {
		case strings.Contains(line, " warning"), strings.HasPrefix(line, "no way in"): // from the command itself
		case !ok, strings.HasSuffix(strings.TrimSuffix(message, "..."), "."), message != quoteOdd(message), message == "":
			t.Errorf("message %q, want one line of cpunc without a period at the end", line)
		case foreign.MatchString(message):
			t.Errorf("message %q contains the words of a library: %q", line, foreign.FindString(message))
		}
	}
}

// status runs a program. It must exit with the status in the first argument.
func status(ts *testscript.TestScript, neg bool, args []string) {
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		failed, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = failed.ExitCode()
	}
	if want, _ := strconv.Atoi(args[0]); got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// exits is status for a program that also prints the reason in one line.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	status(ts, neg, args)
	if why := ts.ReadFile("stderr"); !strings.HasPrefix(why, "cpunc: ") || strings.Index(why, "\n") != len(why)-1 {
		ts.Fatalf("said %q, want one line of cpunc", why)
	}
}

// endsBy is a program of the scripts: endsby INT PROGRAM [ARGUMENT...] runs a program,
// which must be ended by SIGINT. The program gets the signals that are sent to endsby.
func endsBy() {
	name := "SIG" + os.Args[1]
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Start()
	if err == nil {
		go func() { // ends with the process
			for s := range signals {
				cmd.Process.Signal(s)
			}
		}()
		err = cmd.Wait()
	}
	want := map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM, "SIGHUP": syscall.SIGHUP}[name]
	failed, ok := err.(*exec.ExitError)
	if ok && failed.Sys().(syscall.WaitStatus).Signaled() && failed.Sys().(syscall.WaitStatus).Signal() == want {
		os.Exit(0)
	}
	fmt.Fprintf(os.Stderr, "want the end by %s, got: %v\n", name, err)
	os.Exit(1)
}

// eventually waits until done returns true, which must happen soon.
func eventually(ts *testscript.TestScript, what string, done func() bool) {
	pause := time.Millisecond
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			ts.Fatalf("%s: timed out", what)
		}
		pause = min(pause*5/4, 50*time.Millisecond) // frequent checks may cost as much as what they wait for
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

// freePort sets $PORT to a free port, for programs that cannot choose one themselves. It
// is below those that the system chooses, so that no other test gets it meanwhile.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	for {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		ln, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			ln.Close()
			ts.Setenv("PORT", port)
			return
		}
	}
}

// waitPort waits until a program listens on $PORT.
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

// waitFile waits until the file contains a line: any line, or the one in the second
// argument.
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

// gone waits until the process whose ID is in a file has ended.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	number := strings.TrimSpace(ts.ReadFile(args[0]))
	pid, err := strconv.Atoi(number)
	ts.Check(err)
	process, err := os.FindProcess(pid)
	ts.Check(err)
	eventually(ts, "end of "+number, func() bool {
		stat, _ := os.ReadFile("/proc/" + number + "/stat") // if it is not reaped, it stays a zombie
		return process.Signal(syscall.Signal(0)) != nil || bytes.Contains(stat, []byte(") Z "))
	})
}

// terminate sends SIGTERM, which the script command kill does not support, to the
// process whose ID is in a file, or to $PID.
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

// serveCanned listens until the script ends and sets $HOST and $PORT. It replies to
// whatever a client sends with its argument, in which \n is a newline. If the argument
// is empty, it is silent. If it is "hangup", it closes the connection.
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
						reply = bytes.Repeat(reply, 1<<15) // a pause could be taken for the end of the reply
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

// readRecipes returns the recipes of the documents by name, without those that cannot be
// run. Each of them, and each file in contrib, must be used by a script.
func readRecipes(t *testing.T) map[string]recipe {
	var scripts []byte
	names, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range names {
		scripts = append(scripts, readFile(t, name)...)
	}
	used := func(command, name string) {
		if !bytes.Contains(scripts, []byte(command+" "+name+"\n")) {
			t.Errorf("no script has the line \"%s %s\"", command, name)
		}
	}
	files, err := os.ReadDir("contrib")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		used("contrib", file.Name())
	}
	recipes := map[string]recipe{}
	for _, document := range []string{"README.md", "doc/recipes.md"} {
		blocks := regexp.MustCompile("(?ms)^(?:<!-- (.*?) -->\n)?```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(string(readFile(t, document)), -1)
		for _, block := range blocks {
			comment, language, code := block[1], block[2], block[3]
			if language == "console" { // a session as an example
				continue
			}
			if strings.HasPrefix(comment, "not run: ") {
				continue
			}
			name, ok := strings.CutPrefix(comment, "recipe: ")
			if name, _, _ = strings.Cut(name, ";"); !ok {
				t.Errorf("%s: a recipe with neither a name nor a \"not run\" comment:\n%s", document, code)
				continue
			}
			if recipes[name].code != "" {
				t.Errorf("%s: a second recipe %s", document, name)
			}
			recipes[name] = recipe{name + "." + language, code}
			used("recipe", name)
		}
	}
	return recipes
}

// A recipe is code in the documents, and the name of its file.
type recipe struct{ file, code string }

// writeRecipe writes a recipe to the file NAME.sh, or that of another language.
func writeRecipe(ts *testscript.TestScript, recipes map[string]recipe, name string) {
	r, ok := recipes[name]
	if !ok {
		ts.Fatalf("the documents have no recipe %s", name)
	}
	ts.Check(os.WriteFile(ts.MkAbs(r.file), []byte(r.code), 0o666))
}

// copyContrib copies a file of contrib.
func copyContrib(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(ts.ReadFile(filepath.Join(ts.Getenv("CONTRIB"), args[0]))), 0o666))
}

func readFile(t *testing.T, name string) []byte {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
