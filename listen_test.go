package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/load"
)

// still is a sampler over counters that never move: every answer is known,
// whenever it is asked for.
var still = sync.OnceValue(func() *sampler {
	const ageless = 1000 * time.Hour
	smp := &sampler{
		times: func(percpu bool) ([]cpu.TimesStat, error) {
			if percpu {
				return []cpu.TimesStat{{CPU: "cpu0"}, {CPU: "cpu1"}}, nil
			}
			return []cpu.TimesStat{{CPU: "cpu-total"}}, nil
		},
		avg:   func() (*load.AvgStat, error) { return &load.AvgStat{Load1: 3, Load5: 2, Load15: 1}, nil },
		every: ageless,
	}
	smp.remember()
	time.Sleep(minWindow)      // a first answer waits for it otherwise
	for src := range sources { // and none of these is ever too old
		now := *smp.now(src)
		now.at = now.at.Add(ageless)
		smp.newest[src].Store(&now)
	}
	return smp
})

// What still answers.
const (
	stillCPU   = "0.0\n"
	stillCores = "0.0 0.0\n"
	stillModes = "0.0 0.0 0.0 0.0 0.0 0.0 0.0 100.0\n"
	stillLoad  = "3.00 2.00 1.00\n"
)

// A tape is a connection whose input is known, one chunk a read.
type tape struct {
	net.Conn
	chunks [][]byte
	writes []string
}

func (c *tape) Read(p []byte) (int, error) {
	if len(c.chunks) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.chunks[0])
	if c.chunks[0] = c.chunks[0][n:]; len(c.chunks[0]) == 0 {
		c.chunks = c.chunks[1:]
	}
	return n, nil
}

func (c *tape) Write(p []byte) (int, error) {
	c.writes = append(c.writes, string(p))
	return len(p), nil
}

func (c *tape) Close() error                     { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// play gives what a session writes to a client that sends the chunks.
func play(smp *sampler, chunks ...[]byte) []string {
	chunks = append([][]byte(nil), chunks...)
	conn := &tape{chunks: chunks}
	(&session{sampler: smp}).serve(context.Background(), conn)
	return conn.writes
}

func TestWire(t *testing.T) {
	unknown := func(quoted string) string {
		return "error: unknown word " + quoted + " (there are cpu, cores, modes, load, bye)\n"
	}
	long := strings.Repeat("x", maxToken)
	for _, test := range []struct{ in, want string }{
		{"", ""},
		{"cpu", stillCPU},
		{"cpu\n", stillCPU},
		{"cpu\r\n", stillCPU},
		{" \t\r\n\n cpu \n", stillCPU},
		{"cpucpu", stillCPU + stillCPU},
		{"cores modes\tload", stillCores + stillModes + stillLoad},
		{strings.Repeat(" ", 1000) + "cpu", stillCPU},

		{"bye", ""},
		{"byecpu", ""},
		{"cpu bye cpu", stillCPU},
		{"cpubyefoo", stillCPU},

		{"foo", unknown(`"foo"`)},
		{"foo\ncpu", unknown(`"foo"`) + stillCPU},
		{"foo cpu load\ncpu", unknown(`"foo"`) + stillCPU},
		{"cpufoo cpu\r\nload", stillCPU + unknown(`"foo"`) + stillLoad},
		{"cp\nu", unknown(`"cp"`) + unknown(`"u"`)},
		{"cp", unknown(`"cp"`)},
		{"CPU\n", unknown(`"CPU"`)},
		{"xcpu\n", unknown(`"xcpu"`)},
		{"\xff\x1b[2J\"\n", unknown(`"\xff\x1b[2J\""`)},
		{"\x00", unknown(`"\x00"`)},

		{long[1:] + "\ncpu", unknown(`"`+long[1:]+`"`) + stillCPU},
		{long + "\ncpu", unknown(`"` + long + `"`)},
		{long + long, unknown(`"` + long + `"`)},
		{long[1:] + " cpu", unknown(`"` + long[1:] + `"`)},
		{"foo " + long[5:] + "\ncpu", unknown(`"foo"`) + stillCPU},
		{"foo " + long[4:] + "\ncpu", unknown(`"foo"`)},
		{"cpu" + long + "cpu", stillCPU + unknown(`"`+long+`"`)},
	} {
		if got := strings.Join(play(still(), []byte(test.in)), ""); got != test.want {
			t.Errorf("%q: %q, want %q", test.in, got, test.want)
		}
	}
}

// How the input is cut changes nothing.
func FuzzCuts(f *testing.F) {
	f.Add([]byte("cpu\r\ncores modesload foo bar\nbye"), []byte{1, 2, 3})
	f.Add([]byte("cpucpu cp u\n\n\xff"), []byte{1})
	f.Add(bytes.Repeat([]byte("cores "), 200), []byte{5, 7})
	f.Add(bytes.Repeat([]byte("y"), 100), []byte{63, 1})
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		want := strings.Join(play(still(), in), "")
		var chunks [][]byte
		rest := in
		for i := 0; len(rest) > 0; i++ {
			n := 1
			if len(cuts) > 0 {
				n = min(1+int(cuts[i%len(cuts)]), len(rest))
			}
			chunks = append(chunks, rest[:n])
			rest = rest[n:]
		}
		if got := strings.Join(play(still(), chunks...), ""); got != want {
			t.Errorf("%q cut by %v: %q, want %q", in, cuts, got, want)
		}
		for line := range strings.Lines(want) {
			switch line {
			case stillCPU, stillCores, stillModes, stillLoad:
			default:
				if !strings.HasPrefix(line, "error: unknown word ") || !strings.HasSuffix(line, "\n") {
					t.Errorf("%q got the line %q", in, line)
				}
			}
		}
	})
}

// What arrives together is answered together.
func TestOneWrite(t *testing.T) {
	writes := play(still(), []byte("cpu load cpu\nfoo\nmodes"), []byte("cpu"))
	if len(writes) != 2 || strings.Count(writes[0], "\n") != 5 || writes[1] != stillCPU {
		t.Errorf("two reads got the writes %q", writes)
	}
	if writes := play(still(), bytes.Repeat([]byte("cpu"), 150)); len(writes) != 1 {
		t.Errorf("150 words got %d writes", len(writes))
	}
}

// A session holds no more than it must, however much is asked at once.
func TestReplyIsBounded(t *testing.T) {
	smp := newSampler()
	smp.times = func(bool) ([]cpu.TimesStat, error) { return make([]cpu.TimesStat, 1000), nil }
	smp.remember()
	time.Sleep(minWindow)
	conn := &tape{chunks: [][]byte{bytes.Repeat([]byte("cores"), 100)}}
	s := &session{sampler: smp}
	s.serve(context.Background(), conn)
	for _, text := range conn.writes {
		if len(text) > maxReply+4000 {
			t.Errorf("a write of %d bytes", len(text))
		}
	}
	if cap(s.reply) > 1<<10 {
		t.Errorf("%d bytes kept after the answer", cap(s.reply))
	}
}

// An answer repeated within 100 ms costs no allocation.
func TestHotPathAllocates(t *testing.T) {
	smp := still()
	s := &session{sampler: smp}
	conn := &counter{}
	ask := func() {
		for _, b := range []byte("cpu\n") {
			s.take(b)
		}
		s.flush(context.Background(), conn)
	}
	ask()
	if n := testing.AllocsPerRun(1000, ask); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if conn.bytes == 0 {
		t.Error("nothing was answered")
	}
}

type counter struct {
	tape
	bytes int
}

func (c *counter) Write(p []byte) (int, error) { c.bytes += len(p); return len(p), nil }

// dialed gives both ends of a TCP connection.
func dialed(t testing.TB) (client, server *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// A client that closes its sending side still gets everything it asked for.
func TestHalfClose(t *testing.T) {
	client, server := dialed(t)
	client.Write([]byte("cpu load cp"))
	client.CloseWrite()
	if err := (&session{sampler: still()}).serve(t.Context(), server); err != nil {
		t.Error(err)
	}
	got, err := io.ReadAll(client)
	if want := stillCPU + stillLoad + "error: unknown word \"cp\""; err != nil || !strings.HasPrefix(string(got), want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}

// The error line arrives although the client's rubbish went unread.
func TestErrorLineArrives(t *testing.T) {
	client, server := dialed(t)
	go (&session{sampler: still()}).serve(t.Context(), server)
	client.Write(bytes.Repeat([]byte("y"), 10000))
	got, err := io.ReadAll(client)
	if err != nil || !strings.HasPrefix(string(got), "error: unknown word \"yyy") {
		t.Errorf("%q, %v", got, err)
	}
}

// A client that reads nothing is cut off after 10 s.
func TestStuckClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(1, quarter)
		client, server := net.Pipe()
		defer client.Close()
		begin := time.Now()
		go client.Write([]byte("cpu"))
		err := (&session{sampler: k.sampler()}).serve(t.Context(), server)
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != minWindow+stuckTime+time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// The end of the server lets an answer under way be finished.
func TestEndOfServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	smp := newSampler() // its first answer takes 100 ms
	go func() { ended <- (&server{sampler: smp, maxConns: 10}).serve(ctx, ln) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	asked := make(chan struct{})
	smp.times = func(percpu bool) ([]cpu.TimesStat, error) {
		if asked != nil {
			close(asked)
			asked = nil
		}
		return cpu.Times(percpu)
	}
	wait := asked
	conn.Write([]byte("cpu"))
	<-wait
	cancel()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.HasSuffix(got, []byte("\n")) {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// An accept that fails is tried again, more and more rarely, and said once.
func TestAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ln := &brokenListener{}
		if err := (&server{sampler: still(), maxConns: 10}).serve(ctx, ln); err != nil {
			t.Error(err)
		}
		if ln.tries < 50 || ln.tries > 75 {
			t.Errorf("%d tries in a minute", ln.tries)
		}
	})
}

type brokenListener struct{ tries int }

func (l *brokenListener) Accept() (net.Conn, error) {
	l.tries++
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept", errors.New("too many open files"))}
}
func (l *brokenListener) Close() error   { return nil }
func (l *brokenListener) Addr() net.Addr { return &net.TCPAddr{} }

// What was written to a duplex is waited for, though its reader pauses, but not
// for ever.
func TestDuplexFlushes(t *testing.T) {
	for pause, want := range map[time.Duration]error{5 * time.Second: nil, time.Minute: os.ErrDeadlineExceeded} {
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
			if err := d.flush(t.Context()); err != want {
				t.Errorf("%v, want %v", err, want)
			}
			time.Sleep(time.Minute)
			if text := got.Load(); text == nil || *text != "answer\n" {
				t.Errorf("%v arrived", text)
			}
		})
	}
}
