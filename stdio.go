package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
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
	pipe, _ := os.OpenFile("/dev/stdout", os.O_WRONLY|syscall.O_NONBLOCK, 0)
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
	polled := false
	// The writing end of a pipe becomes readable only by an error, which Go may
	// report as readiness.
	conn.Read(func(uintptr) (done bool) {
		done, polled = polled, true
		return done
	})
	time.Sleep(brief) // Ctrl-C also ends the reader, perhaps before its signal has arrived here
	gone()
}

// An output is a writer that may block forever, such as a pipe that nobody
// reads. It stops waiting when ctx is done.
type output struct {
	ctx context.Context
	io.Writer
}

// Write returns errEnd if the reader is gone, or if ctx is done before text is
// written.
func (o output) Write(text []byte) (int, error) {
	err := await(o.ctx, brief, func() error {
		_, err := o.Writer.Write(text)
		return err
	})
	switch {
	case err == nil:
		return len(text), nil
	case sleep(o.ctx, brief) != nil, isReset(err): // the reader or the terminal is gone, which also ends the run
		return 0, errEnd
	}
	return 0, stdoutError(err)
}

// maxInput is the longest line of standard input, in bytes: enough for the
// cores of 8192 CPUs.
const maxInput = 64 << 10

// A lineReader reads standard input one line at a time, and no line before it is
// requested.
type lineReader struct {
	in     *bufio.Reader
	number int // of the last line
}

func newLineReader(in io.Reader) *lineReader {
	return &lineReader{in: bufio.NewReaderSize(in, maxInput)}
}

// hasLine reports whether the next line has arrived already.
func (r *lineReader) hasLine() bool {
	arrived, _ := r.in.Peek(r.in.Buffered())
	return bytes.IndexByte(arrived, '\n') >= 0
}

// next returns the next line, or io.EOF after the last one. It returns errEnd if
// ctx is done first.
func (r *lineReader) next(ctx context.Context) (string, error) {
	r.number++
	if r.hasLine() {
		return r.read()
	}
	var text string
	err := await(ctx, 0, func() (err error) {
		text, err = r.read()
		return err
	})
	if err == io.EOF { // Ctrl-C also ends the program before the pipe, perhaps before ctx is done
		sleep(ctx, brief)
	}
	if err != nil { // perhaps errEnd, and text is still being read
		return "", err
	}
	return text, nil
}

func (r *lineReader) read() (string, error) {
	text, err := r.in.ReadSlice('\n')
	switch {
	case err == nil, err == io.EOF && len(text) > 0:
		return string(text), nil
	case err == io.EOF:
		return "", err
	case err == bufio.ErrBufferFull:
		return "", fmt.Errorf("standard input, line %d: too long (over %d bytes)", r.number, maxInput)
	}
	return "", fmt.Errorf("read standard input: %w", cause(err))
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
// and the connection do. Each direction has a pipe of its own, because a net.Pipe
// has no CloseWrite: what is still to be written is written after the end of the
// input.
type duplex struct {
	net.Conn // writes go to the writer
	in       net.Conn
	name     string
	readErr  error         // error of the reader; valid at the end of in
	failure  error         // the same, once Read has returned it
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
		d.failure = err
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

// flush waits, after Close, until everything is written to standard output, and
// returns the error of that or of the reader.
func (d *duplex) flush(ctx context.Context) error {
	select {
	case <-d.written:
		return cmp.Or(stdoutError(d.writeErr), d.failure)
	case <-time.After(stuckTime):
		return stdoutError(os.ErrDeadlineExceeded)
	case <-ctx.Done():
		return nil
	}
}
