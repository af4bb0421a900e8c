package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// still returns a sampler whose counters moved once, so that every reply is known at
// any time.
func still() *sampler {
	const ageless = 1000 * time.Hour
	const jiffies = uint64(ageless / jiffy)
	begin := time.Now().Add(-firstWindow)
	dir, _ := os.Stat(".")
	here := controlGroup{id: dir}
	smp := newSampler("")
	smp.maxFirst = ageless
	for src := range sources {
		f := <-smp.feeds[src]
		f.history = []*sample{{
			at:    begin,
			stat:  stat{cpus: 2, rows: []row{{online: true}, {online: true}}},
			usage: &usage{group: here, limit: 4, quotas: []quota{{cpus: 4}}},
		}}
		f.newest = &sample{
			at: begin.Add(ageless),
			stat: stat{
				total: counts{modeUser: jiffies / 4 * 3, modeIdle: jiffies / 4 * 5}, cpus: 2,
				rows: []row{{true, counts{modeUser: jiffies / 2, modeIdle: jiffies / 2}}, {true, counts{modeUser: jiffies / 4, modeIdle: jiffies / 4 * 3}}},
			},
			load:   [3]float64{3, 2, 1},
			waited: ageless / 8,
			usage:  &usage{group: here, seconds: ageless.Seconds(), limit: 4, quotas: []quota{{cpus: 4, periods: 8 * float64(jiffies), throttled: float64(jiffies)}}},
		}
		smp.feeds[src] <- f
	}
	return smp
}

// The replies of still.
const (
	stillCPU      = "37.5\n"
	stillCores    = "50.0 25.0\n"
	stillModes    = "37.5 0.0 0.0 0.0 0.0 0.0 0.0 62.5\n"
	stillLoad     = "3.00 2.00 1.00\n"
	stillBusy     = stillCPU
	stillPressure = "12.5\n"
	stillCgroup   = "25.0 12.5\n"
	stillWeight   = "62%\n"
)

// A tape is a connection with a fixed input, one chunk per read.
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

func (c *tape) Close() error { c.chunks = nil; return nil }

func (c *tape) SetReadDeadline(time.Time) error { return nil }

func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// play returns what a session writes to a client that sends the chunks.
func play(smp *sampler, chunks ...[]byte) []string {
	chunks = append([][]byte(nil), chunks...)
	conn := &tape{chunks: chunks}
	(&session{sampler: smp}).serve(context.Background(), conn)
	return conn.writes
}

// A listener that was stopped, as containers are, does not take its clients for idle.
func TestStoppedListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &sleeper{tape: tape{chunks: [][]byte{[]byte("load\n")}}, wakes: time.Now().Add(time.Minute)}
		s := &session{sampler: newKernel(1, quarter).sampler(), idle: 3 * time.Second}
		if err := s.serve(t.Context(), conn); err != nil || len(conn.writes) != 1 {
			t.Errorf("%v, writes %q", err, conn.writes)
		}
	})
}

func TestWire(t *testing.T) {
	unknown := func(quoted string) string {
		return "error: unknown word " + quoted + " (known: cpu, cores, modes, load, mean, busy, peak, pressure, cgroup, weight, bye)\n"
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
		{"weight", stillWeight},
		{"pressurebusycgroupcpu", stillPressure + stillBusy + stillCgroup + stillCPU},
		{strings.Repeat(" ", 1000) + "cpu", stillCPU},
		{long[1:] + "é", unknown(`"` + long[1:] + `"`)}, // not cut inside a letter
		{long[2:] + "é", unknown(`"` + long[2:] + `é"`)},
		{"caf\xe9", unknown(`"caf\xe9"`)},

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
		{"\x00 cpu\x00load", stillCPU + stillLoad},

		// CR ends a line, and so does the CR NUL of telnet.
		{"foo\rcpu\rload\r", unknown(`"foo"`) + stillCPU + stillLoad},
		{"foo\r\x00cpu\r\x00load", unknown(`"foo"`) + stillCPU + stillLoad},
		{"foo x\r\n\r\ncpu\r\n", unknown(`"foo"`) + stillCPU},

		// The rest of a line with an unknown word is dropped, except bye.
		{"foo bye cpu\ncpu", unknown(`"foo"`)},
		{"foo byecpu\ncpu", unknown(`"foo"`)},
		{"foo by e goodbye b\xff\xf1ye\ncpu", unknown(`"foo"`)},
		{"foobye goodbye\ncpu", unknown(`"foobye"`) + stillCPU},

		// Telnet commands are skipped.
		{"\xff\xfb\x1f\xff\xfb\x20\xff\xfb\x18\xff\xfd\x03cpu\r\ncpu\r\n", stillCPU + stillCPU}, // PuTTY
		{"cpu\r\n\xff\xf1c\xff\xf1pu\r\n", stillCPU + stillCPU},
		{"cpu\r\n\xff\xf4\xff\xfd\x06cpu\r\n", stillCPU + "\xff\xfb\x06" + stillCPU}, // Ctrl-C in telnet
		{"\xff\xfa\x1f\x00\x50\xff\xff\xf0\xff\xf0cpu", stillCPU},                    // the size of a window, with an escaped 255
		{"foo cpu\xff\xfa\x18\n\xff\xf0 load\ncpu", unknown(`"foo"`) + stillCPU},
		{"\xff\xfd\ncpu", stillCPU},
		{"\xff\xff\xff\xf0cpu\xff\xfb", stillCPU},
		{"\xffcpu\ncpu", unknown(`"\xffcpu"`) + stillCPU},
		{"cpu\xff", stillCPU + unknown(`"\xff"`)},
		{"cpu \xff\ncpu", stillCPU + unknown(`"\xff"`) + stillCPU},
		{"\xff\xfa" + long[4:] + "\xff\xf0cpu", stillCPU},
		{"\xff\xfa" + long[3:] + "\xff\xf0cpu", unknown(`"\xff\xfa` + long[3:] + `\xff"`)},

		{long[1:] + "\ncpu", unknown(`"`+long[1:]+`"`) + stillCPU},
		{long + "\ncpu", unknown(`"` + long + `"`)},
		{long + long, unknown(`"` + long + `"`)},
		{long[1:] + " cpu", unknown(`"` + long[1:] + `"`)},
		{"foo " + long[5:] + "\ncpu", unknown(`"foo"`) + stillCPU},
		{"foo " + long[4:] + "\ncpu", unknown(`"foo"`) + stillCPU},
		{"foo" + strings.Repeat(" \t", maxToken) + "\ncpu", unknown(`"foo"`) + stillCPU},
		{"foo " + long[3:] + "\ncpu", unknown(`"foo"`)},
		{"cpu" + long + "cpu", stillCPU + unknown(`"`+long+`"`)},
	} {
		if got := strings.Join(play(still(), []byte(test.in)), ""); got != test.want {
			t.Errorf("%q: %q, want %q", test.in, got, test.want)
		}
	}
}

// The replies do not depend on how the input is split.
func FuzzCuts(f *testing.F) {
	f.Add([]byte("cpu\r\ncores modesload foo bar\nbye"), []byte{1, 2, 3})
	f.Add([]byte("cpucpu cp u\n\n\xff"), []byte{1})
	f.Add([]byte("busypressure\tcgroup"), []byte{2, 3})
	f.Add([]byte("\xff\xfb\x1fcpu\r\x00\xff\xfa\x18\x00xterm\xff\xf0foo cpu\rload\xff"), []byte{1})
	f.Add([]byte("foo good bye"), []byte{2})
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
		for line := range strings.Lines(strings.ReplaceAll(want, "\xff\xfb\x06", "")) {
			switch line {
			case stillCPU, stillCores, stillModes, stillLoad, stillPressure, stillCgroup, stillWeight:
			default:
				if !strings.HasPrefix(line, "error: unknown word ") || !strings.HasSuffix(line, "\n") {
					t.Errorf("%q got the line %q", in, line)
				}
			}
		}
	})
}

// inPieces cuts input as it could arrive: each piece is as long as the next of cuts says,
// which begin again, and one byte without any.
func inPieces(in, cuts []byte) (pieces [][]byte) {
	for i := 0; len(in) > 0; i++ {
		n := 1
		if len(cuts) > 0 {
			n = min(1+int(cuts[i%len(cuts)]), len(in))
		}
		pieces = append(pieces, in[:n])
		in = in[n:]
	}
	return pieces
}

// The choice between the two protocols depends only on the bytes, not on how they are
// split.
func FuzzTongue(f *testing.F) {
	f.Add([]byte("GET /cpu HTTP/1.1\r\n\r\n"), []byte{1})
	f.Add([]byte("HEAD / HTTP/1.0\r\n"), []byte{4, 1})
	f.Add([]byte("GETTING cpu"), []byte{2})
	f.Add([]byte(" GET / "), []byte{1})
	f.Add([]byte("cpuGET / "), []byte{3})
	f.Add([]byte("\r\nGET / HTTP/1.0\r\n"), []byte{1})
	f.Add([]byte("\n\nfoo\nGET / HTTP/1.0\r\n"), []byte{1})
	f.Add([]byte("\xff\xfb\x1fG\xff\xfa\x1f\xff\xff\xff\xf0ET \xff\xf1/ HTTP/1.0\r\n"), []byte{1})
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		conn := &tape{chunks: inPieces(in, cuts)}
		s := &session{sampler: still()}
		err := s.serve(context.Background(), conn)
		if bytes.IndexByte(in, telnetIAC) >= 0 && len(in) >= maxToken { // perhaps too long a command
			return
		}
		method, _, ok := strings.Cut(strings.TrimLeft(withoutTelnet(in), "\x00\t\r\n "), " ")
		if want := ok && slices.Contains(methods, method); want != (err == errHTTP) {
			t.Fatalf("%q cut by %v: %v", in, cuts, err)
		}
		if err == errHTTP {
			if got := append(s.begun, bytes.Join(conn.chunks, nil)...); !bytes.HasPrefix(got, []byte(method+" ")) || !bytes.HasSuffix(in, got[len(method):]) || len(conn.writes) > 0 {
				t.Errorf("of %q, %q is left, and %q was written", in, got, conn.writes)
			}
		} else if got, want := strings.Join(conn.writes, ""), strings.Join(play(still(), in), ""); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	})
}

// withoutTelnet returns the input without telnet commands, as Latin-1.
func withoutTelnet(in []byte) string {
	var text strings.Builder
	for _, b := range in {
		text.WriteRune(rune(b))
	}
	return regexp.MustCompile(`(?s)\xff(?:[\xf0-\xf9\xff]|[\xfb-\xfe].|\xfa(?:[^\xff]|\xff[^\xf0])*\xff\xf0)`).ReplaceAllString(text.String(), "")
}

// Requests that arrive together are answered with one write.
func TestOneWrite(t *testing.T) {
	writes := play(still(), []byte("cpu load cpu\nfoo\nmodes"), []byte("cpu"))
	if len(writes) != 2 || strings.Count(writes[0], "\n") != 5 || writes[1] != stillCPU {
		t.Errorf("two reads got the writes %q", writes)
	}
	if writes := play(still(), bytes.Repeat([]byte("cpu"), 150)); len(writes) != 1 {
		t.Errorf("150 words got %d writes", len(writes))
	}
}

// dialed returns both ends of a TCP connection.
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

// The error line arrives although the rest of the client's input is not read.
func TestErrorLineArrives(t *testing.T) {
	client, server := dialed(t)
	go (&session{sampler: still()}).serve(t.Context(), server)
	client.Write(bytes.Repeat([]byte("y"), 10000))
	got, err := io.ReadAll(client)
	if err != nil || !strings.HasPrefix(string(got), "error: unknown word \"yyy") {
		t.Errorf("%q, %v", got, err)
	}
}

// A client that resets its connection, as health checks do, has left like any other.
func TestReset(t *testing.T) {
	for _, ask := range []string{"", "cpu", "cpu lo"} {
		client, server := dialed(t)
		ended := make(chan error)
		go func() { ended <- (&session{sampler: still()}).serve(t.Context(), server) }()
		client.Write([]byte(ask))
		if ask != "" {
			bufio.NewReader(client).ReadString('\n')
		}
		client.SetLinger(0)
		client.Close()
		if err := <-ended; err != nil {
			t.Errorf("after %q: %v", ask, err)
		}
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
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != firstWindow+stuckTime {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// A silent client is disconnected after the idle timeout, and not before.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		begin := time.Now()
		ended := make(chan error)
		k := newKernel(1, quarter)
		go func() {
			ended <- (&session{sampler: k.sampler(), idle: 30 * time.Second}).serve(t.Context(), server)
		}()
		for range 5 {
			time.Sleep(29 * time.Second)
			client.Write([]byte("c")) // not a word yet, but not idle either
			if n, _ := client.Write([]byte("pu")); n != 2 {
				t.Fatal("disconnected too early")
			}
			client.Read(make([]byte, 10))
		}
		err := <-ended
		if err == nil || err.Error() != "idle for 30s" {
			t.Error(err)
		}
		if took := time.Since(begin).Round(time.Second); took != firstWindow+5*29*time.Second+30*time.Second {
			t.Errorf("disconnected after %v", took)
		}
	})
}

// Intervals do not depend on the wall clock, which is changed by an hour here since
// the last reply. Time during which the process did not run, for example because it
// was stopped, belongs to the next reply.
func TestClocks(t *testing.T) {
	smp := newSampler("")
	smp.read = func(source) *sample {
		return &sample{at: time.Now(), stat: stat{total: counts{modeUser: 1125, modeIdle: 10375}, cpus: 1}}
	}
	for _, hours := range []int64{-1, 0, 1} {
		begin := &sample{at: time.Now().Add(-5 * time.Second), stat: stat{total: counts{modeUser: 1000, modeIdle: 10000}, cpus: 1}}
		before := begin.at
		// The first word of a Time has the seconds of the wall clock from bit 30 on.
		*(*int64)(unsafe.Pointer(&begin.at)) -= hours * 3600 << 30
		if d := before.Round(0).Sub(begin.at.Round(0)); d != time.Duration(hours)*time.Hour || !before.Equal(begin.at) {
			t.Fatalf("the wall clock was set by %v", d)
		}
		s := &session{sampler: smp}
		s.last[cpuWord].sample = begin
		s.process(context.Background(), nil, []byte("cpu"))
		if got := string(s.unsent); got != "25.0\n" {
			t.Errorf("set by %d h: %q", hours, got)
		}
	}
}

// A teller is a client in a test.
type teller struct {
	t *testing.T
	net.Conn
	lines *bufio.Scanner
}

// connect starts a session on smp that ends with the test.
func connect(t *testing.T, smp *sampler) *teller {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&session{sampler: smp}).serve(t.Context(), server)
	}()
	t.Cleanup(func() { client.Close(); <-done })
	return &teller{t, client, bufio.NewScanner(client)}
}

func (c *teller) ask(word string) string {
	if _, err := c.Write([]byte(word)); err != nil {
		c.t.Error(err)
	}
	if !c.lines.Scan() {
		c.t.Errorf("no answer to %q: %v", word, c.lines.Err())
	}
	return c.lines.Text()
}

func TestSameLineWithin100ms(t *testing.T) {
	inBubble(t, 60300*time.Millisecond, func(_, tick int) bool { return tick%17 < tick%5 }, func(t *testing.T, k *kernel, smp *sampler) {
		c := connect(t, smp)
		first := c.ask("cpu")
		begin := time.Now()
		reads := k.reads()
		time.Sleep(60 * time.Millisecond)
		if got := c.ask("cpu"); got != first {
			t.Errorf("after 60 ms: %s, want %s again", got, first)
		}
		if k.reads() != reads {
			t.Error("the counters were read for a repeated line")
		}
		time.Sleep(40 * time.Millisecond)
		if got, want := c.ask("cpu"), k.percent(begin, time.Now()); got != want {
			t.Errorf("after 100 ms: %s, want %s", got, want)
		}
	})
}

// Each word and each session has its own intervals.
func TestIntervalIsTheWordsOwn(t *testing.T) {
	inBubble(t, time.Minute, func(_, tick int) bool { return tick%7 < tick%3 }, func(t *testing.T, k *kernel, smp *sampler) {
		c, other := connect(t, smp), connect(t, smp)
		c.ask("cpu")
		begin := time.Now()
		time.Sleep(350 * time.Millisecond)
		c.ask("modes")
		other.ask("cpu")
		time.Sleep(350 * time.Millisecond)
		other.ask("cpu")
		if got, want := c.ask("cpu"), k.percent(begin, time.Now()); got != want {
			t.Errorf("cpu %s, want the %s since its own last answer", got, want)
		}
	})
}

// 50 clients poll at different intervals, and each gets exactly its own numbers.
func TestManyClients(t *testing.T) {
	busyTick := func(_, tick int) bool { return tick*tick%23 < 9 || tick/37%3 == 0 }
	const step = 2 * jiffy // two requests come at once, or too far apart to share a sample
	inBubble(t, 4*time.Second, busyTick, func(t *testing.T, k *kernel, smp *sampler) {
		var clients sync.WaitGroup
		for i := range 50 {
			clients.Go(func() {
				phase := time.Duration(i) * 3 * step
				interval := time.Duration(5+i) * step
				time.Sleep(phase)
				synctest.Wait()
				age := time.Since(k.boot.Add(time.Minute)) - firstWindow
				last := time.Now().Add(-firstWindow - age%historyEvery) // the last sample in the history
				c := connect(t, smp)
				for n := range 30 {
					got := c.ask("cpu")
					now := time.Now()
					if want := k.percent(last, now); got != want {
						t.Errorf("client %d, poll %d: %s, want %s", i, n, got, want)
					}
					last = now
					time.Sleep(interval)
				}
			})
		}
		clients.Wait()
	})
}
