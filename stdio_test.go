package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A duplex waits until everything is written, even if the reader pauses, but not
// forever.
func TestDuplexFlushes(t *testing.T) {
	for pause, want := range map[time.Duration]string{5 * time.Second: "<nil>", time.Minute: "write standard output: timed out"} {
		synctest.Test(t, func(t *testing.T) {
			r, w := io.Pipe()
			d := newDuplex(strings.NewReader(""), w, "test")
			d.Write([]byte("answer\n"))
			var got atomic.Pointer[string]
			go func() {
				time.Sleep(pause)
				text := make([]byte, 10)
				n, _ := r.Read(text)
				read := string(text[:n])
				got.Store(&read)
			}()
			d.Close()
			if err := d.flush(t.Context()); fmt.Sprint(err) != want {
				t.Errorf("%v, want %v", err, want)
			}
			time.Sleep(time.Minute)
			if text := got.Load(); text == nil || *text != "answer\n" {
				t.Errorf("%v arrived", text)
			}
		})
	}
}

// A socket unit or a line of inetd.conf that passes the listening socket, or no socket
// at all on standard input, leads to a message that says what to change.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if runtime.GOOS != "linux" || err != nil {
		t.Skip("other systems may not tell a listening socket from a connection")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	listening, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer listening.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	connection, err := client.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close() // the end of input
	activated := []string{sh, "-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec " + program(t) + " -l -"}
	for _, test := range []struct {
		args  []string
		stdin *os.File
		want  string
	}{
		{[]string{program(t), "-l", "-"}, listening, "cpunc: standard input is a listening socket, not a connection (inetd: use nowait; systemd: Accept=yes)\n"},
		{activated, nil, "cpunc: the socket from systemd is not on standard input (use Accept=yes and StandardInput=socket)\n"},
		{activated, connection, ""},
	} {
		cmd := exec.Command(test.args[0], test.args[1:]...)
		var said bytes.Buffer
		cmd.Stderr = &said
		if test.stdin != nil { // a nil *os.File is not nil as an io.Reader
			cmd.Stdin = test.stdin
		}
		err := cmd.Run()
		status := cmd.ProcessState.ExitCode()
		if wantStatus := min(len(test.want), 1); said.String() != test.want || status != wantStatus {
			t.Errorf("%q: %q, %v, want %q, status %d", test.args, &said, err, test.want, wantStatus)
		}
	}
}

// An output that nobody reads does not keep cpunc from ending.
func TestOutputBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		o := output{ctx, w}
		go func() { r.Read(make([]byte, 10)) }()
		if _, err := o.Write([]byte("one\n")); err != nil {
			t.Error(err)
		}
		time.AfterFunc(time.Hour, cancel)
		begin := time.Now()
		if _, err := o.Write([]byte("two\n")); err != errEnd || time.Since(begin) != time.Hour+brief {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		r.Close() // as at the end of the process
	})
}

// Ctrl-C goes to all programs of a pipeline. Those before and after cpunc may end
// first, and cpunc still ends by the signal.
func TestPipelineIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		time.AfterFunc(brief/2, interrupt)
		in := newLineReader(strings.NewReader("5\n"))
		if text, err := in.next(ctx); text != "5\n" || err != nil || ctx.Err() != nil {
			t.Errorf("%q, %v, %v", text, err, ctx.Err())
		}
		if _, err := in.next(ctx); err != io.EOF || ctx.Err() == nil {
			t.Errorf("%v, and %v instead of the interrupt", err, ctx.Err())
		}
	})

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	begin, gone := time.Now(), make(chan time.Duration)
	go watchReader(w, func() { gone <- time.Since(begin) })
	for { // a deadline ends the wait like a reader that closes the pipe, but cannot come too early
		select {
		case took := <-gone:
			if took < brief {
				t.Errorf("the run ends %v after its reader, want %v", took, brief)
			}
			return
		case <-time.After(time.Millisecond):
			w.SetReadDeadline(time.Now())
		}
	}
}
