package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A process is a connection to the standard input and output of a command.
type process struct {
	*duplex
	cmd      *exec.Cmd
	to, from *os.File
	ended    chan struct{} // closed when the command has exited
	err      error         // why it failed; valid once ended is closed
}

// startProcess starts command in a shell. Its standard error goes to stderr.
func startProcess(command string, stderr io.Writer) (net.Conn, error) {
	shell := []string{"sh", "-c"}
	switch runtime.GOOS {
	case "windows":
		shell = []string{"cmd", "/c"}
	case "plan9":
		shell = []string{"rc", "-c"}
	}
	cmd := exec.Command(shell[0], shell[1], command)
	stdin, to, err := os.Pipe()
	from, stdout, outErr := os.Pipe()
	if err = cmp.Or(err, outErr); err == nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
		cmd.WaitDelay = grace // for descendants that keep its standard error open
		err = cmd.Start()
	}
	stdin.Close()
	stdout.Close()
	if err != nil {
		to.Close()
		from.Close()
		return nil, fmt.Errorf("run %q: %w", command, cause(err))
	}
	p := &process{duplex: newDuplex(from, to, command), cmd: cmd, to: to, from: from, ended: make(chan struct{})}
	go func() { // ends with the command, and Close ends that
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Read returns the error of the command at the end of its output, if the
// command failed.
func (p *process) Read(b []byte) (int, error) {
	n, err := p.duplex.Read(b)
	if err == io.EOF && p.wait() && p.err != nil {
		err = p.err
	}
	return n, err
}

// Close ends the command by closing its input. If the command does not exit,
// Close sends SIGTERM and then SIGKILL to it and to its descendants. They are
// in the process group of cpunc, so that ssh can ask for a password and Ctrl-C
// reaches them.
func (p *process) Close() error {
	p.duplex.Close()
	p.to.Close()
	p.from.Close()
	if p.wait() {
		return nil
	}
	family := []*os.Process{p.cmd.Process}
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Kill} {
		family = descendants(family)
		for _, member := range family {
			member.Signal(signal)
		}
		p.wait()
	}
	return nil
}

// wait waits for a short time until the command has exited, and reports whether
// it has.
func (p *process) wait() bool {
	select {
	case <-p.ended:
		return true
	case <-time.After(grace):
		return false
	}
}

// descendants returns the members of a family, and their children, and so on.
func descendants(family []*os.Process) []*os.Process {
	others := parents()
	for _, member := range family {
		delete(others, member.Pid)
	}
	for i := 0; i < len(family); i++ {
		for pid, parent := range others {
			if parent != family[i].Pid {
				continue
			}
			delete(others, pid)
			// On Linux, os.Process still refers to the same process if its number
			// is used again.
			if child, err := os.FindProcess(pid); err == nil {
				family = append(family, child)
			}
		}
	}
	return family
}

// parents returns the parent of each process, from /proc if it is that of
// Linux, or else from ps. If both fail, it returns an empty map.
func parents() map[int]int {
	var table []byte
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		// The fields are pid, (name), state and parent. The name may contain
		// anything.
		stat, _ := os.ReadFile(name)
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 1 {
			table = fmt.Appendf(table, "%s %s\n", filepath.Base(filepath.Dir(name)), fields[1])
		}
	}
	if len(table) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		table, _ = exec.CommandContext(ctx, "ps", "-A", "-o", "pid,ppid").Output()
	}
	of := map[int]int{}
	for row := range strings.Lines(string(table)) {
		var pid, parent int
		if n, _ := fmt.Sscan(row, &pid, &parent); n == 2 {
			of[pid] = parent
		}
	}
	return of
}
