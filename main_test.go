package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){
		"yardstick": yardstick,
		"listener":  main, // as it is built
		"endsby":    endsBy,
		"cpunc": func() {
			// The address goes into the file $READY, for waitlisten.
			onListening = func(addr net.Addr) {
				if ready := os.Getenv("READY"); ready != "" {
					replaceFile(ready, fmt.Sprintf("%v %d", addr, os.Getpid()))
				}
			}
			// Scripts replace proc/stat after the start. Without newer samples in
			// the history, first replies count from the start.
			historyEvery, maxWindow = time.Hour, time.Hour
			if d, err := time.ParseDuration(os.Getenv("FIRST")); err == nil {
				firstWindow = d
			}
			keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}
			if port := os.Getenv("DEFAULT_PORT"); port != "" {
				defaultPort = port
			}
			if d, err := time.ParseDuration(os.Getenv("INTERVAL")); err == nil {
				defaultInterval = d
			}
			if percentages, err := parsePercentages(os.Getenv("STEADY")); err == nil && percentages != nil {
				readSource = steady(percentages)
			}
			if os.Getenv("PANIC") != "" {
				readSource = func(source, string) *sample { panic("as the test wants") }
			}
			if name := os.Getenv("MESSAGES"); name != "" {
				stderr.write = noting(name, stderr.write)
			}
			main()
		},
	})
}

// tidy runs the tests and checks that no goroutine and no descriptor is left.
type tidy struct{ *testing.M }

func (m tidy) Run() int {
	flag.Set("test.parallel", "8") // the tests mostly wait, the short ones most of all
	flag.Parse()
	time.Local = time.UTC // of the frames
	if testing.Short() {
		flag.Set("test.parallel", "16")
	}
	// Signals that are ignored here, as under nohup or in a background job of a
	// script, would be ignored by every cpunc that a test script starts.
	ignored := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(ignored, s)
		}
	}
	defer signal.Stop(ignored)
	kept() // stays open
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

// leftovers returns the stacks of all goroutines and the names of all open
// descriptors, except those that the libraries keep forever.
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
		if err == nil && !strings.HasPrefix(name, "anon_inode:[event") { // of the network poller
			descriptors = append(descriptors, name)
		}
	}
	return goroutines, descriptors
}

// shortDir returns a new directory for sockets, whose paths may have 107 bytes. That of
// t.TempDir may be longer.
func shortDir(t testing.TB) string {
	parent := "/tmp"
	if runtime.GOOS == "windows" {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "cpunc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// noting returns a write function that also appends the text to a file.
func noting(name string, write func([]byte) error) func([]byte) error {
	return func(text []byte) error {
		if f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666); err == nil {
			f.Write(text)
			f.Close()
		}
		return write(text)
	}
}
