package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stdoutError wraps an error of writing to standard output. It returns nil if
// err is nil.
func stdoutError(err error) error {
	if err == nil {
		return err
	}
	return fmt.Errorf("write standard output: %w", cause(err))
}

// reopenStdout opens standard output again if it is a pipe and the system can
// do that. Otherwise, it returns nil. The new file is non-blocking, so that it
// can be polled, while the old one, which other programs may share, stays as it
// is. Opening a named pipe whose reader has left does not block.
func reopenStdout() *os.File {
	if info, err := os.Stdout.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return nil
	}
	pipe, err := os.OpenFile("/dev/stdout", os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	return pipe
}

// isUnread reports whether f is a file that has not been read to its end.
func isUnread(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	at, err := f.Seek(0, io.SeekCurrent)
	return err == nil && at < info.Size()
}

// watchReader calls gone when the reader of pipe has closed it, so that cpunc
// exits at once and not at the next line. It also does so when pipe is closed.
// If pipe cannot be polled, the next line fails instead.
func watchReader(pipe *os.File, gone func()) {
	conn, err := pipe.SyscallConn()
	if err != nil || pipe.SetReadDeadline(time.Time{}) != nil {
		return
	}
	first := true
	// The writing end of a pipe becomes readable only by an error, which Go may
	// report as readiness.
	conn.Read(func(uintptr) bool {
		first = !first
		return first
	})
	gone()
}

// An output is a writer that may block forever, such as a pipe that nobody
// reads. It stops waiting when ctx is done.
type output struct {
	ctx context.Context
	io.Writer
}

// Write returns errEnd if ctx is done before text is written.
func (o output) Write(text []byte) (int, error) {
	done := make(chan error, 1)
	go func() { // ends with the write; one that never ends, with the process
		_, err := o.Writer.Write(text)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			return len(text), nil
		}
		select {
		case <-o.ctx.Done(): // the reader has closed the pipe, which also ends the run
			return 0, errEnd
		case <-time.After(brief):
			return 0, stdoutError(err)
		}
	case <-o.ctx.Done():
		select {
		case err := <-done: // it was almost done
			if err == nil {
				return len(text), nil
			}
		case <-time.After(brief):
		}
		return 0, errEnd
	}
}

// A lineReader reads one line at a time, and none before it is requested.
type lineReader struct {
	*bufio.Scanner
	name string
}

// A textLine is a line from a lineReader, or the error instead of one, which is
// io.EOF at the end.
type textLine struct {
	text string
	err  error
}

// next reads the next line and sends it to the channel. The caller need not
// receive it.
func (r lineReader) next() <-chan textLine {
	read := make(chan textLine, 1)
	go func() { // ends with the line, or with the process
		if r.Scan() {
			read <- textLine{text: r.Text()}
			return
		}
		err := r.Err()
		switch err {
		case nil:
			err = io.EOF
		case bufio.ErrTooLong:
			err = fmt.Errorf("%s: line too long", r.name)
		default:
			err = fmt.Errorf("%s: %w", r.name, cause(err))
		}
		read <- textLine{err: err}
	}()
	return read
}

// checkStdin returns an error if inetd or systemd has passed a socket that is
// not the connection of a client on standard input.
func checkStdin() error {
	if isListening(os.Stdin) {
		return errors.New("standard input is a listening socket, not a connection (inetd: use nowait; systemd: Accept=yes)")
	}
	info, err := os.Stdin.Stat()
	if err == nil && info.Mode()&os.ModeSocket == 0 && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		return errors.New("the socket from systemd is not on standard input (use Accept=yes and StandardInput=socket)")
	}
	return nil
}

// isClient reports whether f is the connection of a client, as inetd makes
// standard error.
func isClient(f *os.File) bool {
	info, err := f.Stat()
	out, outErr := os.Stdout.Stat()
	return err == nil && outErr == nil && info.Mode()&os.ModeSocket != 0 && os.SameFile(info, out)
}

// A duplex is a connection over two one-way streams, such as standard input and
// output. These may not support deadlines, but the pipes in memory between them
// and the connection do.
type duplex struct {
	net.Conn // writes go to the writer
	in       net.Conn
	name     string
	readErr  error         // error of the reader; valid at the end of in
	written  chan struct{} // closed when the writer has everything, or has failed
	writeErr error         // error of the writer; valid once written is closed
}

func newDuplex(r io.Reader, w io.Writer, name string) *duplex {
	in, received := net.Pipe()
	out, sending := net.Pipe()
	d := &duplex{Conn: out, in: in, name: name, written: make(chan struct{})}
	go func() { // ends with r, or with the first byte after Close
		_, d.readErr = io.Copy(received, r)
		received.Close()
	}()
	go func() { // ends with Close, or when w fails
		_, d.writeErr = io.Copy(w, sending)
		sending.Close()
		close(d.written)
	}()
	return d
}

func (d *duplex) Read(p []byte) (int, error) {
	n, err := d.in.Read(p)
	if err == io.EOF && d.readErr != nil {
		err = fmt.Errorf("read %s: %w", d.name, cause(d.readErr))
	}
	return n, err
}

func (d *duplex) SetReadDeadline(t time.Time) error { return d.in.SetReadDeadline(t) }

func (d *duplex) RemoteAddr() net.Addr { return &net.UnixAddr{Name: d.name, Net: d.name} }

// Close waits for a short time until everything is written.
func (d *duplex) Close() error {
	d.Conn.Close()
	select {
	case <-d.written:
	case <-time.After(grace):
	}
	return d.in.Close()
}

// flush waits, after Close, until everything is written, and returns the error
// of the writer.
func (d *duplex) flush(ctx context.Context) error {
	select {
	case <-d.written:
		return d.writeErr
	case <-time.After(stuckTime):
		return os.ErrDeadlineExceeded
	case <-ctx.Done():
		return nil
	}
}

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
	p := &process{cmd: exec.Command(shell[0], shell[1], command), ended: make(chan struct{})}
	stdin, to, err := os.Pipe()
	var stdout *os.File
	if err == nil {
		p.to = to
		p.from, stdout, err = os.Pipe()
	}
	if err == nil {
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, stdout, stderr
		p.cmd.WaitDelay = grace // for descendants that keep its standard error open
		err = p.cmd.Start()
	}
	stdin.Close()
	stdout.Close()
	if err != nil {
		p.to.Close()
		p.from.Close()
		return nil, fmt.Errorf("run %q: %w", command, cause(err))
	}
	go func() { // ends with the command, and Close ends that
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	p.duplex = newDuplex(p.from, p.to, command)
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

// descendants adds to family the children of its members, and their children,
// and so on.
func descendants(family []*os.Process) []*os.Process {
	children := map[int][]int{}
	for pid, parent := range parents() {
		children[parent] = append(children[parent], pid)
	}
	known := map[int]bool{}
	for _, member := range family {
		known[member.Pid] = true
	}
	for i := 0; i < len(family); i++ {
		for _, pid := range children[family[i].Pid] {
			// On Linux, os.Process still refers to the same process if its
			// number is used again.
			if child, err := os.FindProcess(pid); err == nil && !known[pid] {
				known[pid] = true
				family = append(family, child)
			}
		}
	}
	return family
}

// parents returns the parent of each process, from /proc if it is that of
// Linux, or else from ps. If both fail, it returns an empty map.
func parents() map[int]int {
	of := map[int]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		// The fields are pid, (name), state and parent. The name may contain
		// anything.
		text, _ := os.ReadFile(name)
		var state string
		var pid, parent int
		_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
		fmt.Sscan(string(text), &pid)
		if n, _ := fmt.Sscan(rest, &state, &parent); n == 2 {
			of[pid] = parent
		}
	}
	if len(of) > 0 {
		return of
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	table, _ := exec.CommandContext(ctx, "ps", "-A", "-o", "pid,ppid").Output()
	for row := range strings.Lines(string(table)) {
		var pid, parent int
		if n, _ := fmt.Sscan(row, &pid, &parent); n == 2 {
			of[pid] = parent
		}
	}
	return of
}
