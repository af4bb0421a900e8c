package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	crowd     = flag.Int("crowd", 500, "connections of BenchmarkCrowd")
	crowdTime = flag.Duration("crowdtime", 2*time.Second, "how long BenchmarkCrowd asks, once a second each")
)

// yardstick is what a listener is measured by: a bare server, a goroutine per
// connection, that answers each read with a constant line.
func yardstick() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stderr, "listening on", ln.Addr())
	for {
		conn, err := ln.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, 512)
			for {
				if _, err := conn.Read(buf); err != nil {
					return
				}
				if _, err := conn.Write([]byte("12.5\n")); err != nil {
					return
				}
			}
		}()
	}
}

// servers are the programs to compare, each in a process of its own.
var servers = []struct {
	name string
	args []string
}{
	{"cpunc", []string{"-l", "-m", "20000", "0"}},
	{"yardstick", nil},
}

// spawn starts a server that ends with the benchmark.
func spawn(b *testing.B, name string, args []string) (addr string, pid int) {
	program, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Args[0] = name // that is how the test binary knows what to be
	stderr, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line[strings.LastIndex(line, " ")+1:]), cmd.Process.Pid
}

// asker is the client of the benchmarks.
type asker struct {
	net.Conn
	buf [64]byte
}

func (a *asker) ask() error {
	if _, err := a.Write([]byte("cpu")); err != nil {
		return err
	}
	n, err := a.Read(a.buf[:])
	if err == nil && (n < 4 || a.buf[n-1] != '\n') {
		err = fmt.Errorf("answered %q", a.buf[:n])
	}
	return err
}

func askers(b *testing.B, addr string, n int) []*asker {
	all := make([]*asker, n)
	for i := range all {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		all[i] = &asker{Conn: conn}
		b.Cleanup(func() { conn.Close() })
	}
	for _, a := range all { // the first answer of a new listener takes 100 ms
		if err := a.ask(); err != nil {
			b.Fatal(err)
		}
	}
	return all
}

// BenchmarkLockstep asks as fast as answers come.
func BenchmarkLockstep(b *testing.B) {
	for _, conns := range []int{1, 64, 256} {
		for _, server := range servers {
			b.Run(fmt.Sprintf("%d/%s", conns, server.name), func(b *testing.B) {
				addr, _ := spawn(b, server.name, server.args)
				all := askers(b, addr, conns)
				var left atomic.Int64
				left.Store(int64(b.N))
				var clients sync.WaitGroup
				b.ResetTimer()
				for _, a := range all {
					clients.Go(func() {
						for left.Add(-1) >= 0 {
							if err := a.ask(); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				clients.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
			})
		}
	}
}

// BenchmarkCrowd has many connections that ask once a second each, at phases
// spread over the second.
func BenchmarkCrowd(b *testing.B) {
	for _, server := range servers {
		b.Run(fmt.Sprintf("%d/%s", *crowd, server.name), func(b *testing.B) {
			for b.Loop() {
				addr, pid := spawn(b, server.name, server.args)
				empty, _ := used(pid)
				all := askers(b, addr, *crowd)
				_, before := used(pid)
				delays := make([][]time.Duration, len(all))
				var failed atomic.Int32
				var clients sync.WaitGroup
				start := time.Now().Add(100 * time.Millisecond)
				for i, a := range all {
					clients.Go(func() {
						at := start.Add(time.Second * time.Duration(i) / time.Duration(len(all)))
						for ; time.Since(start) < *crowdTime; at = at.Add(time.Second) {
							time.Sleep(time.Until(at))
							asked := time.Now()
							if err := a.ask(); err != nil {
								failed.Add(1)
								return
							}
							delays[i] = append(delays[i], time.Since(asked))
						}
					})
				}
				clients.Wait()
				full, after := used(pid)
				sorted := slices.Concat(delays...)
				slices.Sort(sorted)
				b.ReportMetric(float64(failed.Load()), "failed")
				b.ReportMetric(float64(sorted[len(sorted)*99/100].Microseconds()), "µs-p99")
				b.ReportMetric(1000*(after-before).Seconds()/crowdTime.Seconds(), "ms-CPU/s")
				b.ReportMetric(float64(full-empty)/1024/float64(len(all)), "KiB/conn")
				for _, a := range all {
					a.Close()
				}
			}
		})
	}
}

// used gives a process's resident memory in bytes and its CPU time, where
// there is a /proc; else nothing.
func used(pid int) (rss int64, cpu time.Duration) {
	dir := "/proc/" + strconv.Itoa(pid)
	if text, err := os.ReadFile(dir + "/statm"); err == nil {
		pages, _ := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
		rss = pages * int64(os.Getpagesize())
	}
	if text, err := os.ReadFile(dir + "/stat"); err == nil {
		_, rest, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(rest)
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		cpu = time.Duration(user+system) * 10 * time.Millisecond
	}
	return rss, cpu
}

// BenchmarkAnswer is an answer without a network: one that is repeated, and
// one that is new.
func BenchmarkAnswer(b *testing.B) {
	for _, age := range []time.Duration{0, time.Hour} {
		b.Run("after "+age.String(), func(b *testing.B) {
			s := &session{sampler: still()}
			conn := &counter{}
			for b.Loop() {
				for _, c := range []byte("cpu") {
					s.take(c)
				}
				if end := *s.last[cpuWord].end; age > 0 {
					end.at = end.at.Add(-age)
					s.last[cpuWord].end = &end
				}
				s.flush(context.Background(), conn)
			}
		})
	}
}

// BenchmarkPhase polls a hundred hosts ten times a second, and reports how far
// from their instants the requests arrive.
func BenchmarkPhase(b *testing.B) {
	const hosts, interval = 100, 100 * time.Millisecond
	addr, _ := spawn(b, "cpunc", servers[0].args)
	name, port, _ := net.SplitHostPort(addr)
	for b.Loop() {
		var mu sync.Mutex
		var sent []time.Time
		p := &poller{
			words: []word{cpuWord}, interval: interval, count: 30, wait: 10 * time.Second,
			open: func(ctx context.Context, a address) (net.Conn, error) {
				conn, err := a.open(ctx, 10*time.Second, false)
				return &stamped{Conn: conn, stamp: func() {
					mu.Lock()
					defer mu.Unlock()
					sent = append(sent, time.Now())
				}}, err
			},
			emit: func(line) error { return nil },
		}
		for range hosts {
			p.hosts = append(p.hosts, &host{address: address{"tcp", name, port}})
		}
		if err := p.run(b.Context()); err != nil {
			b.Fatal(err)
		}
		sent = sent[hosts : len(sent)-hosts] // not the first tick, which may be late, nor bye
		start := sent[0].Add(-interval)
		var off []time.Duration
		for _, at := range sent {
			off = append(off, (at.Sub(start)+interval/2)%interval-interval/2)
		}
		slices.SortFunc(off, func(x, y time.Duration) int { return int(x.Abs() - y.Abs()) })
		b.ReportMetric(float64(off[len(off)*99/100].Abs().Microseconds()), "µs-p99")
	}
}

// A stamped connection notes when it is written to.
type stamped struct {
	net.Conn
	stamp func()
}

func (s *stamped) Write(p []byte) (int, error) {
	s.stamp()
	return s.Conn.Write(p)
}
