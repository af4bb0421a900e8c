package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var soak = flag.Duration("soak", 0, "how long TestSoak runs; 0: not at all")

// A thousand clients of all kinds, good and bad, come and go over TCP and a Unix
// socket for the duration of -soak. Memory, descriptors and goroutines stay as they
// were after the first minute, and no reply to a good client is lost.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("go test -run TestSoak -soak 30m -timeout 0")
	}
	smp := newSampler("")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := smp.start(ctx); err != nil {
		t.Fatal(err)
	}
	srv := &server{sampler: smp, idle: 5 * time.Second, maxConns: 1200}
	addr, _ := serving(t, srv)
	path := filepath.Join(shortDir(t), "sock")
	unix, err := listenUnix(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	local := &server{sampler: smp, idle: 5 * time.Second, maxConns: 1200}
	go local.serve(ctx, unix) // ends with ctx
	var replies, bad atomic.Int64
	visit := func(kind int) {
		network, to := "tcp", addr
		if kind%3 == 0 {
			network, to = "unix", path
		}
		conn, err := (&net.Dialer{Timeout: 10 * time.Second}).Dial(network, to)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		expect := func(lines *bufio.Reader, what string) bool {
			line, err := lines.ReadString('\n')
			if err != nil || strings.HasPrefix(line, "error: ") && !strings.Contains(line, "cgroup") && !strings.Contains(line, "pressure") {
				t.Errorf("%s: %q, %v", what, line, err)
				return false
			}
			replies.Add(1)
			return true
		}
		lines := bufio.NewReader(conn)
		switch kind % 10 {
		case 0, 1, 2, 3: // words
			for n := range 1 + kind%20 {
				word := words[(kind+n)%int(readings)]
				fmt.Fprintln(conn, word)
				if !expect(lines, word) {
					return
				}
				time.Sleep(time.Duration(kind%30) * time.Millisecond)
			}
			fmt.Fprint(conn, "bye")
		case 4, 5: // HTTP requests, one after another
			for n := range 1 + kind%5 {
				fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n", words[(kind+n)%int(readings)])
				resp, err := http.ReadResponse(lines, nil)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				replies.Add(1)
			}
		case 6: // a stream, closed in the middle
			fmt.Fprint(conn, "GET /cpu?interval=0.1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(lines, nil)
			if err != nil {
				t.Error(err)
				return
			}
			body := bufio.NewReader(resp.Body)
			for range 1 + kind%9 {
				if !expect(body, "stream") {
					return
				}
			}
		case 7: // rubbish
			bad.Add(1)
			conn.Write(bytes.Repeat([]byte("rubbish"), kind%50))
		case 8: // half a request, then silence
			bad.Add(1)
			fmt.Fprint(conn, "GET /cores HTT")
			io.Copy(io.Discard, conn) // until it is closed
		case 9: // many requests, nothing read, then a reset
			bad.Add(1)
			conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			conn.Write(bytes.Repeat([]byte("cores modes "), 500))
			if tcp, ok := conn.(*net.TCPConn); ok {
				tcp.SetLinger(0)
			}
		}
	}
	type state struct {
		goroutines, descriptors int
		heap                    uint64
	}
	var first state
	for begin, round := time.Now(), 0; time.Since(begin) < *soak; round++ {
		var visitors sync.WaitGroup
		for i := range 1000 {
			visitors.Go(func() { visit(7*i + round) })
		}
		visitors.Wait()
		until(t, "all connections closed", func() bool {
			return srv.serving.Load() == 0 && len(srv.refusals) == 0 && local.serving.Load() == 0
		})
		if round%20 != 5 {
			continue
		}
		time.Sleep(100 * time.Millisecond) // goroutines of package net/http end a little later
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		descriptors, _ := os.ReadDir("/proc/self/fd")
		now := state{runtime.NumGoroutine(), len(descriptors), m.HeapAlloc}
		t.Logf("%v: %d replies, %d bad clients, %d goroutines, %d descriptors, %d KiB of heap", time.Since(begin).Round(time.Second), replies.Load(), bad.Load(), now.goroutines, now.descriptors, now.heap>>10)
		if first.heap == 0 {
			first = now
		}
		if now.goroutines > first.goroutines+5 || now.descriptors > first.descriptors+5 || now.heap > first.heap+2<<20 {
			t.Errorf("grew from %+v to %+v", first, now)
		}
	}
}
