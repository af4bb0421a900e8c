package main

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	crowd     = flag.Int("crowd", 100, "connections of BenchmarkCrowd and BenchmarkMemory to each server")
	crowdTime = flag.Duration("crowdtime", 2*time.Second, "how long BenchmarkCrowd polls in each of its three turns, and BenchmarkIdle waits")
)

// yardstick is the server that a listener is compared with. It runs a goroutine per
// connection and answers each read with a constant line.
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

// servers are the programs to compare. Each runs in its own process.
var servers = [...]struct {
	name string
	args []string
}{
	{"listener", []string{"-l", "-m", "20000", "0"}},
	{"yardstick", nil},
}

// spawn starts a listener that is killed at the end of the test, and returns its
// address and a reader of its further messages.
func spawn(t testing.TB, cmd *exec.Cmd) (addr string, messages *bufio.Reader) {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	messages = bufio.NewReader(stderr)
	for {
		line, err := messages.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if _, addr, ok := strings.Cut(line, "listening on "); ok { // there may be a warning before
			return strings.TrimSpace(addr), messages
		}
	}
}

// spawnServer starts one of the servers and returns its address and process ID.
func spawnServer(b *testing.B, name string, args []string) (addr string, pid int) {
	program, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Args[0] = name // the test binary runs the program of this name
	addr, _ = spawn(b, cmd)
	return addr, cmd.Process.Pid
}

// asker is a client for the benchmarks.
type asker struct {
	net.Conn
	buf    [64]byte
	delays []time.Duration // of the replies
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
	for _, a := range all { // the first reply of a new listener takes 100 ms
		if err := a.ask(); err != nil {
			b.Fatal(err)
		}
	}
	return all
}

// BenchmarkLockstep sends requests as fast as replies arrive. The servers take
// turns, because the speed of the machine varies from second to second. The result
// is the median of the ratios of all turns.
func BenchmarkLockstep(b *testing.B) {
	const turns = 50
	for _, conns := range []int{1, 64, 256} {
		b.Run(strconv.Itoa(conns), func(b *testing.B) {
			var all [len(servers)][]*asker
			for i, server := range servers {
				addr, _ := spawnServer(b, server.name, server.args)
				all[i] = askers(b, addr, conns)
			}
			each := b.N/turns + 1
			var took [len(servers)]time.Duration
			var ratios []float64
			b.ResetTimer()
			for turn := range turns {
				var now [len(servers)]time.Duration
				for i := range servers {
					i ^= turn % 2 // the first server may be at a disadvantage
					start := time.Now()
					lockstep(b, all[i], each)
					now[i] = time.Since(start)
					took[i] += now[i]
				}
				ratios = append(ratios, now[1].Seconds()/now[0].Seconds())
			}
			for i, server := range servers {
				b.ReportMetric(float64(turns*each)/took[i].Seconds(), server.name+"/s")
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[turns/2], "of-yardstick")
		})
	}
}

// lockstep sends n requests in total and waits for the replies.
func lockstep(b *testing.B, all []*asker, n int) {
	var left atomic.Int64
	left.Store(int64(n))
	var clients sync.WaitGroup
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
}

// BenchmarkVisit opens a connection for every reading, as nc, curl and status bars
// do.
func BenchmarkVisit(b *testing.B) {
	const turns = 50
	for _, visitors := range []int{1, 16} {
		b.Run(strconv.Itoa(visitors), func(b *testing.B) {
			var addrs [len(servers)]string
			var pids [len(servers)]int
			for i, server := range servers {
				addrs[i], pids[i] = spawnServer(b, server.name, server.args)
				askers(b, addrs[i], 1)
			}
			each := b.N/turns + 1
			var ratios []float64
			var cpu [len(servers)]time.Duration
			b.ResetTimer()
			for turn := range turns {
				var took [len(servers)]time.Duration
				for i := range servers {
					i ^= turn % 2
					start, before := time.Now(), cpuTime(pids[i])
					visit(b, addrs[i], visitors, each)
					took[i] = time.Since(start)
					cpu[i] += cpuTime(pids[i]) - before
				}
				ratios = append(ratios, took[1].Seconds()/took[0].Seconds())
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[turns/2], "of-yardstick")
			b.ReportMetric(cpu[0].Seconds()/cpu[1].Seconds(), "CPU-of-yardstick")
		})
	}
}

// visit sends n requests, each over its own connection, and waits for the replies.
func visit(b *testing.B, addr string, visitors, n int) {
	var left atomic.Int64
	left.Store(int64(n))
	var clients sync.WaitGroup
	for range visitors {
		clients.Go(func() {
			for left.Add(-1) >= 0 {
				conn, err := net.Dial("tcp", addr)
				if err == nil {
					err = (&asker{Conn: conn}).ask()
					conn.Close()
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// BenchmarkCrowd opens many connections to each server. Each connection sends a
// request once a second, and the requests are spread over the second. The servers
// take turns of a second, because the speed of the machine varies.
func BenchmarkCrowd(b *testing.B) {
	const turns = 3
	if len(servers)*(*crowd)+200 > maxDescriptors() {
		b.Skipf("too few descriptors for %d connections to each server", *crowd)
	}
	for b.Loop() {
		var crowds [len(servers)][]*asker
		var pids [len(servers)]int
		for i, server := range servers {
			var addr string
			addr, pids[i] = spawnServer(b, server.name, server.args)
			crowds[i] = askers(b, addr, *crowd)
		}
		var cpu [turns][len(servers)]float64
		failed := 0
		for turn := range turns {
			for range *crowdTime / time.Second {
				for i := range servers {
					before := cpuTime(pids[i])
					failed += onceASecond(crowds[i], time.Second)
					cpu[turn][i] += (cpuTime(pids[i]) - before).Seconds() / crowdTime.Seconds()
				}
			}
		}
		slices.SortFunc(cpu[:], func(x, y [len(servers)]float64) int { return cmp.Compare(x[0]/x[1], y[0]/y[1]) })
		median := cpu[turns/2]
		b.ReportMetric(median[0]/median[1], "CPU-of-yardstick")
		b.ReportMetric(float64(failed), "failed")
		var p99 [len(servers)]float64
		for i, server := range servers {
			var delays []time.Duration
			for _, a := range crowds[i] {
				delays = append(delays, a.delays...)
				a.Close()
			}
			slices.Sort(delays)
			p99[i] = float64(delays[len(delays)*99/100].Microseconds())
			b.ReportMetric(1000*median[i], server.name+"-ms-CPU/s")
		}
		b.ReportMetric(p99[0]/p99[1], "p99-of-yardstick")
	}
}

// BenchmarkMemory measures the memory of a connection that has found no fresh sample,
// so that its session has read the kernel. The meter is not exact below 1,000
// connections.
func BenchmarkMemory(b *testing.B) {
	if *crowd+200 > maxDescriptors() {
		b.Skipf("too few descriptors for %d connections", *crowd)
	}
	for b.Loop() {
		for _, server := range servers {
			addr, pid := spawnServer(b, server.name, server.args)
			askers(b, addr, 1)
			empty := residentMemory(pid)
			all := askers(b, addr, *crowd)
			time.Sleep(minWindow)
			for _, a := range all {
				time.Sleep(jiffy + time.Millisecond)
				if err := a.ask(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(residentMemory(pid)-empty)/1024/float64(*crowd), server.name+"-KiB/conn")
		}
	}
}

// BenchmarkIdle measures a listener that has no clients.
func BenchmarkIdle(b *testing.B) {
	for b.Loop() {
		_, pid := spawnServer(b, servers[0].name, servers[0].args)
		time.Sleep(historyEvery / 2)
		before := cpuTime(pid)
		time.Sleep(*crowdTime)
		b.ReportMetric(100*(cpuTime(pid)-before).Seconds()/crowdTime.Seconds(), "%CPU")
	}
}

// onceASecond sends a request once a second on each connection, for the given time,
// and returns how many connections failed.
func onceASecond(all []*asker, long time.Duration) int {
	var failed atomic.Int32
	var clients sync.WaitGroup
	start := time.Now().Add(100 * time.Millisecond)
	for i, a := range all {
		clients.Go(func() {
			at := start.Add(time.Second * time.Duration(i) / time.Duration(len(all)))
			for ; at.Before(start.Add(long)); at = at.Add(time.Second) {
				time.Sleep(time.Until(at))
				asked := time.Now()
				if err := a.ask(); err != nil {
					failed.Add(1)
					return
				}
				a.delays = append(a.delays, time.Since(asked))
			}
		})
	}
	clients.Wait()
	return int(failed.Load())
}

// residentMemory returns the resident memory of a process in bytes, or 0 where there is
// no /proc.
func residentMemory(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// cpuTime returns the CPU time of all threads of a process, or 0 where there is no
// /proc. Programs in Go keep their threads.
func cpuTime(pid int) (sum time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, thread := range threads {
		text, _ := os.ReadFile(thread)
		var ns time.Duration
		fmt.Sscan(string(text), &ns)
		sum += ns
	}
	return sum
}

// BenchmarkAnswer measures replies without a network: repeated ones and new ones.
func BenchmarkAnswer(b *testing.B) {
	for _, age := range []time.Duration{0, time.Hour} {
		b.Run("after "+age.String(), func(b *testing.B) {
			s := &session{sampler: still()}
			conn := &counter{}
			for b.Loop() {
				s.process(context.Background(), conn, []byte("cpu"))
				if end := *s.last[cpuWord].sample; age > 0 {
					end.at = end.at.Add(-age)
					s.last[cpuWord].sample = &end
				}
				s.flush(context.Background(), conn)
			}
		})
	}
}

// A counter is a connection that counts what is written.
type counter struct {
	tape
	bytes int
}

func (c *counter) Write(p []byte) (int, error) { c.bytes += len(p); return len(p), nil }

// BenchmarkPhase polls 100 hosts ten times a second and reports how far from their
// due times the requests are sent.
func BenchmarkPhase(b *testing.B) {
	const hosts, interval = 100, 100 * time.Millisecond
	addr, _ := spawnServer(b, servers[0].name, servers[0].args)
	name, port, _ := net.SplitHostPort(addr)
	for b.Loop() {
		var mu sync.Mutex
		var sent, ticks []time.Time
		p := &poller{
			words: []word{cpuWord}, interval: interval, count: 30, wait: 10 * time.Second, brake: newBrake(),
			dial: func(ctx context.Context, a address) (net.Conn, error) {
				conn, err := dialer{wait: 10 * time.Second}.dial(ctx, a)
				return &stamped{Conn: conn, stamp: func() {
					mu.Lock()
					defer mu.Unlock()
					sent = append(sent, time.Now())
				}}, err
			},
			show: func(l line) error { ticks = append(ticks, l.at); return nil },
		}
		for range hosts {
			p.hosts = append(p.hosts, &host{address: address{network: "tcp", host: name, port: port}})
		}
		if err := p.run(b.Context()); err != nil {
			b.Fatal(err)
		}
		sent = sent[hosts : len(sent)-hosts] // without the first tick, which may be late, and without bye
		var off []time.Duration
		for _, at := range sent {
			off = append(off, (at.Sub(ticks[0])+interval/2)%interval-interval/2)
		}
		slices.SortFunc(off, func(x, y time.Duration) int { return int(x.Abs() - y.Abs()) })
		b.ReportMetric(float64(off[len(off)*99/100].Abs().Microseconds()), "µs-p99")
	}
}

// A stamped connection calls stamp before every write.
type stamped struct {
	net.Conn
	stamp func()
}

func (s *stamped) Write(p []byte) (int, error) {
	s.stamp()
	return s.Conn.Write(p)
}
