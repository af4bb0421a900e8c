package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// serving starts a server on a loopback port and returns its address and a function
// that ends it. The function checks that no goroutine of the server is left.
func serving(t *testing.T, srv *server) (addr string, end func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if srv.maxConns == 0 {
		srv.maxConns = 20000
	}
	if srv.sampler == nil {
		srv.sampler = still()
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv.names = append(srv.names, "example.test")
	ended := make(chan struct{})
	go func() { srv.serve(ctx, ln); close(ended) }()
	end = sync.OnceFunc(func() {
		cancel()
		<-ended
		if n := srv.serving.Load(); n != 0 {
			t.Errorf("%d connections are still counted", n)
		}
		until(t, "no goroutine left", func() bool {
			stacks := make([]byte, 4<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			return !bytes.Contains(stacks, fmt.Appendf(nil, "(%p", srv))
		})
	})
	t.Cleanup(end)
	return ln.Addr().String(), end
}

// honest is a poller that checks every reply and records how long it takes.
type honest struct {
	delays []time.Duration
	err    error
}

func (h *honest) poll(addr string, n int, interval time.Duration) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		h.err = err
		return
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for range n {
		asked := time.Now()
		conn.Write([]byte("cpu\n"))
		conn.SetReadDeadline(asked.Add(patience))
		if line, err := lines.ReadString('\n'); err != nil || line != stillCPU {
			h.err = fmt.Errorf("%q, %v", line, err)
			return
		}
		h.delays = append(h.delays, time.Since(asked))
		time.Sleep(interval)
	}
}

// raceEnabled reports whether the race detector is on, with which goroutines cost ten
// times as much.
var raceEnabled = sync.OnceValue(func() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
})

// Thousands of clients are silent, slow, greedy or rude while ten honest clients poll.
// No reply to the honest clients is lost, and the limits disconnect the others.
func TestAbusiveClients(t *testing.T) {
	silent, slow, greedy, rude := 5000, 300, 40, 100
	if testing.Short() {
		t.Skip("slow clients need ten seconds")
	}
	if raceEnabled() {
		silent, slow, greedy, rude = 500, 100, 20, 20
	}
	for 2*(silent+slow+greedy+rude)+200 > maxDescriptors() {
		silent, slow, greedy, rude = silent/2, slow/2, greedy/2, rude/2
	}
	t.Parallel()
	srv := &server{} // without a limit for idle clients: on a busy machine, honest ones are late
	addr, _ := serving(t, srv)
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	stop := make(chan struct{})
	var bad sync.WaitGroup
	defer bad.Wait()
	defer close(stop)
	var cut atomic.Int32 // disconnected greedy and rude clients
	for range silent {
		dial()
	}
	for range slow {
		conn := dial()
		bad.Go(func() {
			for _, b := range []byte(strings.Repeat("c", 2*maxToken)) {
				select {
				case <-time.After(200 * time.Millisecond): // a short pause keeps the test short
				case <-stop:
					return
				}
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
			}
		})
	}
	for i := range greedy + rude {
		conn := dial()
		conn.(*net.TCPConn).SetReadBuffer(4096) // so that it fills up soon
		words := bytes.Repeat([]byte("modes "), 1000)
		if i >= greedy {
			words = bytes.Repeat([]byte("rubbish"), 1000)
		}
		bad.Go(func() {
			conn.SetWriteDeadline(time.Now().Add(30 * time.Second))
			for {
				if _, err := conn.Write(words); err != nil {
					cut.Add(1)
					return
				}
			}
		})
	}
	var good sync.WaitGroup
	pollers := make([]honest, 10)
	for i := range pollers {
		good.Go(func() { pollers[i].poll(addr, 30, 100*time.Millisecond) })
	}
	good.Wait()
	runtime.GC()
	runtime.ReadMemStats(&during)
	var delays []time.Duration
	for _, h := range pollers {
		if h.err != nil {
			t.Error(h.err)
		}
		delays = append(delays, h.delays...)
	}
	slices.Sort(delays)
	p99 := delays[len(delays)*99/100]
	all := silent + slow + greedy + rude
	perConn := (int64(during.StackInuse+during.HeapAlloc) - int64(before.StackInuse+before.HeapAlloc)) / int64(all)
	t.Logf("p99 %v beside %d silent, %d slow, %d greedy and %d rude clients; %d bytes for each of those, both ends", p99, silent, slow, greedy, rude, perConn)
	if all >= 500 && perConn > 32<<10 { // other tests use memory as well
		t.Errorf("%d bytes for each bad connection", perConn)
	}
	// The rude clients are disconnected after 64 bytes, and the greedy ones because they
	// do not read their replies.
	until(t, "bad clients disconnected", func() bool {
		return int(cut.Load()) == greedy+rude && srv.serving.Load() <= int64(silent+slow)
	})
}

const patience = time.Minute // for anything a test waits for; a machine may be slow

// until polls a condition until it holds. A condition that does not come true in time
// fails the test.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// A connection beyond the limit of -m gets an error line. When another connection
// closes, the next one is served.
func TestMaxConns(t *testing.T) {
	srv := new(server)
	srv.setLimits(3, math.MaxInt32)
	addr, _ := serving(t, srv)
	var conns []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write([]byte("cpu"))
		bufio.NewReader(conn).ReadString('\n')
		conns = append(conns, conn)
	}
	for range 5 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("cpu\n"))
		got, err := io.ReadAll(conn)
		if want := "error: too many connections (limit 3)\n"; string(got) != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
		conn.Close()
	}
	got := fetch(t, addr, "GET /cpu HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 503 Service Unavailable\r\n") || !strings.HasSuffix(got, "\r\n\r\nerror: too many connections (limit 3)\n") {
		t.Errorf("over HTTP: %q", got)
	}
	if got := fetchInPieces(t, addr, "\r\nGET /cpu HTTP/1.1\r\n\r\n", 2); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("over HTTP in small packets: %q", got)
	}
	if got := fetch(t, addr, ""); got != "error: too many connections (limit 3)\n" {
		t.Errorf("to a client that sends nothing: %q", got)
	}
	conns[0].Close()
	until(t, "one connection closed", func() bool { return srv.serving.Load() == 2 })
	var h honest
	h.poll(addr, 1, 0)
	if h.err != nil {
		t.Error(h.err)
	}
}

func TestAllow(t *testing.T) {
	for _, test := range []struct {
		allow, addr string
		want        bool
	}{
		{"", "192.0.2.1:5", true},
		{"192.0.2.1", "192.0.2.1:5", true},
		{"192.0.2.1", "192.0.2.2:5", false},
		{"192.0.2.0/24", "192.0.2.200:5", true},
		{"192.0.2.0/24", "192.0.3.1:5", false},
		{"192.0.2.0/24", "[::ffff:192.0.2.7]:5", true},
		{"::ffff:192.0.2.0/120", "192.0.2.7:5", true},
		{"::ffff:192.0.2.9", "192.0.2.9:5", true},
		{"0.0.0.0/0", "203.0.113.1:5", true},
		{"0.0.0.0/0", "[2001:db8::1]:5", false},
		{"2001:db8::/32", "[2001:db8:1::1]:5", true},
		{"2001:db8::/32", "[2001:db9::1]:5", false},
		{"fe80::/10", "[fe80::1%eth0]:5", true},
		{"::1 127.0.0.1", "127.0.0.1:5", true},
	} {
		var p prefixes
		for _, text := range strings.Fields(test.allow) {
			if err := p.add(text); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.admit(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(test.addr))); got != test.want {
			t.Errorf("-a %s: %s is admitted: %v", test.allow, test.addr, got)
		}
	}
	addr, _ := serving(t, &server{allow: prefixes{netip.MustParsePrefix("127.0.0.2/32")}})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("cpu\n"))
	conn.SetReadDeadline(time.Now().Add(patience))
	if n, err := conn.Read(make([]byte, 10)); n != 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("%d bytes, %v for an address that is not allowed", n, err)
	}
	if runtime.GOOS != "linux" { // other systems may not have 127.0.0.2
		return
	}
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	if conn, err = from.Dial("tcp", addr); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("cpu\n"))
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != stillCPU {
		t.Errorf("%q, %v for an address that is allowed", line, err)
	}
}

// Peers that reset, leave halfway or shut down while a reply is pending leave nothing
// behind.
func TestRudePeers(t *testing.T) {
	addr, _ := serving(t, &server{sampler: newSampler("")}) // its first replies take 100 ms
	for i := range 60 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		tcp := conn.(*net.TCPConn)
		switch i % 4 {
		case 0: // reset with a request pending
			tcp.Write([]byte("cpu"))
			tcp.SetLinger(0)
		case 1: // half a word
			tcp.Write([]byte("co"))
		case 2: // half-close, then close
			tcp.Write([]byte("cpu"))
			tcp.CloseWrite()
		case 3: // does not read
			tcp.CloseRead()
			tcp.Write([]byte("cpucpucpu"))
		}
		tcp.Close()
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("load"))
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || len(strings.Fields(line)) != 3 {
		t.Errorf("%q, %v", line, err)
	}
}

// program returns a path at which other programs can run cpunc.
func program(t *testing.T) string {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/cpunc"
	if err := os.Symlink(binary, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// With few descriptors, fewer connections are served than -m allows, and other clients
// are told so.
func TestFewDescriptors(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if runtime.GOOS == "windows" || err != nil {
		t.Skip("requires ulimit")
	}
	const full = "error: too many connections (limit 36)\n"
	addr, messages := spawn(t, exec.Command(sh, "-c", "ulimit -n 64; FIRST=100ms exec "+program(t)+" -l 0"))
	ask := func() (conn net.Conn, reply string) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, "load\n")
		reply, _ = bufio.NewReader(conn).ReadString('\n')
		return conn, reply
	}
	var conns []net.Conn
	for range 36 {
		conn, reply := ask()
		if len(strings.Fields(reply)) != 3 {
			t.Fatalf("%d clients, the next got %q", len(conns), reply)
		}
		conns = append(conns, conn)
	}
	for range 36 {
		if _, reply := ask(); reply != full && reply != "" { // nothing if too many are being told
			t.Errorf("beyond the limit: %q", reply)
		}
	}
	io.WriteString(conns[0], "cpu")
	if line, err := bufio.NewReader(conns[0]).ReadString('\n'); err != nil || !strings.Contains("0123456789", line[:1]) {
		t.Errorf("beside many refused clients: %q, %v", line, err)
	}
	for _, conn := range conns {
		conn.Close()
	}
	until(t, "served again", func() bool {
		_, reply := ask()
		return len(strings.Fields(reply)) == 3
	})
	if n := messages.Buffered(); n > 0 {
		text, _ := messages.Peek(n)
		t.Errorf("messages: %q", text)
	}
}

// Listening on a privileged port without the privilege is an error.
func TestPrivilegedPort(t *testing.T) {
	first, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if n, err := strconv.Atoi(strings.TrimSpace(string(first))); err != nil || n <= 1 {
		t.Skip("every user may listen on every port")
	}
	args := []string{program(t), "-l", "1"}
	if os.Geteuid() == 0 {
		if _, err := exec.LookPath("setpriv"); err != nil {
			t.Skip("root without setpriv")
		}
		args = append([]string{"setpriv", "--bounding-set=-net_bind_service"}, args...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	said, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if want := "cpunc: listen localhost:1: permission denied\n"; string(said) != want || err == nil {
		t.Errorf("%q and %v, want %q and status 1", said, err, want)
	}
}

// A server that ends finishes the reply that is pending.
func TestEndOfServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(1, quarter)
		open, end := webInMemory(t, k.sampler())
		client := open()
		begin := time.Now()
		io.WriteString(client, "cpu")
		synctest.Wait()
		go end()
		got, err := io.ReadAll(client)
		if want := k.percent(begin, begin.Add(minWindow)) + "\n"; string(got) != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	})
}

// Whatever its clients do, and even if the kernel does not reply, a server ends within a
// second. On a busy machine only the time of a bubble can show that.
func TestEndWithinASecond(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(1, quarter)
			smp := k.sampler()
			reply := make(chan struct{})
			smp.read = func(src source) *sample {
				if src == totals && hangs {
					<-reply
				}
				return k.read(src)
			}
			open, end := webInMemory(t, smp)
			for _, input := range []string{
				"", "c", "cpu", "cpu", "load", "modes busy load", strings.Repeat("load ", 1000),
				"GET /cpu", "GET /cpu HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
				"GET /cpu?interval=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /load?interval=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
			} {
				for _, reads := range []bool{true, false} {
					client := open()
					go io.WriteString(client, input)
					if reads {
						go io.Copy(io.Discard, client)
					}
				}
			}
			time.Sleep(1500 * time.Millisecond)
			synctest.Wait()
			begin := time.Now()
			end()
			if took := time.Since(begin); took > time.Second {
				t.Errorf("a kernel that hangs: %v; took %v", hangs, took)
			}
			close(reply)
			time.Sleep(time.Second) // the sessions end
		})
	}
}

// A failed accept is retried with growing pauses and reported once.
func TestAcceptFails(t *testing.T) {
	messages := listenIn(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ln := &brokenListener{}
		(&server{sampler: still(), maxConns: 10}).serve(ctx, ln)
		if ln.tries < 50 || ln.tries > 75 {
			t.Errorf("%d tries in a minute", ln.tries)
		}
	})
	if got, want := messages(), "cpunc: accept: too many open files; retrying\n"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}

type brokenListener struct{ tries int }

func (l *brokenListener) Accept() (net.Conn, error) {
	l.tries++
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept", errors.New("too many open files"))}
}

func (l *brokenListener) Close() error { return nil }

func (l *brokenListener) Addr() net.Addr { return &net.TCPAddr{} }

// A client that sends many requests and stops reading costs the listener at most
// 64 KiB. Words, which are cheap to send, leave little garbage, because one CPU collects
// it late.
func TestStuckClientsAreCheap(t *testing.T) {
	if raceEnabled() {
		t.Skip("-race changes the use of memory")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // with more, stacks are spread over more memory, each time in another way
	const clients = 200
	for _, test := range []struct {
		name, request string
		read          int64 // bytes
	}{
		{"words", strings.Repeat("cores ", 2000), 100_000},
		{"metrics", strings.Repeat("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 50), 100_000},
		{"header line", "GET /modes,cores,load?interval=0.1&time&header HTTP/1.1\r\nHost: localhost\r\n\r\n", 1000},
		{"stream", "GET /cores?interval=0.1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 1000},
		{"header", "GET /cpu HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("a:\r\n", maxLines-2), 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			smp := newKernel(512, quarter).sampler()
			smp.sampleAll()
			time.Sleep(firstWindow)
			open, end := webInMemory(t, smp)
			defer end()
			request := []byte(test.request)
			var before, after runtime.MemStats
			memory := func(m *runtime.MemStats) {
				for range 2 { // stacks that one has found to be unused are given back by the next one
					runtime.GC()
				}
				runtime.ReadMemStats(m)
			}
			memory(&before)
			for range clients {
				client := open()
				go client.Write(request) // ends with the connection
				go io.CopyBuffer(io.Discard, io.LimitReader(client, test.read), make([]byte, 512))
			}
			time.Sleep(stuckTime / 2)
			synctest.Wait()
			memory(&after)
			perClient := func(before, after uint64) int64 { return int64(after-before) / clients }
			stacks := perClient(before.StackInuse, after.StackInuse)
			held := perClient(before.HeapAlloc, after.HeapAlloc) + stacks
			all := perClient(before.TotalAlloc, after.TotalAlloc) + stacks
			t.Logf("%s: %d bytes for each client, %d with garbage", test.name, held, all)
			if held > 64<<10 || test.name == "words" && all > 96<<10 {
				t.Error("too much")
			}
		})
	}
}

// A server that is busy with words, HTTP requests and streams ends, and completes every
// line and every reply that it has begun. TestEndWithinASecond checks how long it takes.
func TestEndUnderMixedLoad(t *testing.T) {
	t.Parallel()
	many := 60
	if raceEnabled() {
		many = 20
	}
	for 4*many+200 > maxDescriptors() { // other tests need some, too
		many /= 2
	}
	for round := range 3 {
		srv := &server{}
		addr, end := serving(t, srv)
		var clients sync.WaitGroup
		var replies atomic.Int64
		dial := func() net.Conn {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		for i := range many {
			conn := dial()
			clients.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					lines := in
					if i%3 == 0 {
						io.WriteString(conn, "modes")
					} else {
						path := "/modes"
						if i%3 == 2 {
							path += "?interval=0.1"
						}
						fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
						resp, err := http.ReadResponse(in, nil)
						if err != nil {
							return // before a reply began
						}
						lines = bufio.NewReader(resp.Body)
					}
					for {
						line, err := lines.ReadString('\n')
						if line != "" && line != stillModes {
							t.Errorf("kind %d: %q, %v", i%3, line, err)
						}
						if err == io.EOF && i%3 == 1 {
							break // the next request
						}
						if err != nil {
							return
						}
						replies.Add(1)
						if i%3 == 0 {
							break
						}
					}
				}
			})
		}
		stuck := dial()
		defer stuck.Close()
		go func() { // ends with the connection
			for {
				if _, err := stuck.Write(bytes.Repeat([]byte("modes"), 10000)); err != nil {
					return
				}
			}
		}()
		until(t, "load", func() bool { return replies.Load() > int64(10*many*(round+1)) })
		end()
		clients.Wait()
	}
}
