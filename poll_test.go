package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A script replies to the n-th request of a client, on the server's end of a pipe.
type script func(n int, request string, conn net.Conn)

// scripted returns a dial function for connections to servers that follow s.
func scripted(t *testing.T, s script) func(context.Context, address) (net.Conn, error) {
	var requests atomic.Int32
	var servers sync.WaitGroup
	t.Cleanup(servers.Wait)
	return func(context.Context, address) (net.Conn, error) {
		client, server := net.Pipe()
		servers.Go(func() {
			defer server.Close()
			for in := bufio.NewScanner(server); in.Scan(); {
				s(int(requests.Add(1)-1), in.Text(), server)
			}
		})
		return client, nil
	}
}

// polled runs p, in a bubble, and returns its lines and its error. Each line begins
// with the seconds from the start to its tick and to its output.
func polled(t *testing.T, p *poller) (lines []string, err error) {
	start := time.Now()
	if p.words == nil {
		p.words = []word{cpuWord}
	}
	if p.wait == 0 {
		p.wait = 10 * time.Second
	}
	if p.brake == nil {
		p.brake = newBrake()
	}
	if p.hosts == nil {
		p.hosts = []*host{{address: address{network: "tcp", host: "alpha", port: "5000"}}}
	}
	p.show = func(l line) error {
		lines = append(lines, fmt.Sprintf("%.2f %.2f %s", l.at.Sub(start).Seconds(), time.Since(start).Seconds(), strings.Join(l.columns, " ")))
		return nil
	}
	err = p.run(t.Context())
	return lines, err
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("lines (tick, printed, columns):\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTicksKeepTheirPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, err := polled(t, &poller{interval: time.Second, count: 5, dial: scripted(t, func(n int, request string, conn net.Conn) {
			time.Sleep([]time.Duration{950, 70, 20, 2300, 0, 0}[n] * time.Millisecond) // the last one is for bye
			fmt.Fprintf(conn, "%d.0\n", n)
		})})
		if err != nil {
			t.Error(err)
		}
		// The ticks start with the first line, as if the server had just started. The late
		// reply has the time of its arrival; two ticks are skipped, and the next one keeps
		// the phase.
		expect(t, lines, "0.95 0.95 0.0", "1.95 2.02 1.0", "2.95 2.97 2.0", "6.25 6.25 3.0", "6.95 6.95 4.0")
	})
}

// After a pause the ticks keep their phase, and missed ticks are skipped.
func TestPauseIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrake()
		go func() {
			for _, pause := range []time.Duration{3 * time.Second, 700 * time.Millisecond} {
				time.Sleep(1250 * time.Millisecond)
				b.pause()
				time.Sleep(pause)
				b.resume()
			}
		}()
		lines, err := polled(t, &poller{interval: time.Second, count: 6, brake: b, dial: scripted(t, func(n int, _ string, conn net.Conn) {
			fmt.Fprintf(conn, "%d.0\n", n)
		})})
		if err != nil {
			t.Error(err)
		}
		// The pauses are from 1.25 to 4.25 and from 5.50 to 6.20.
		expect(t, lines, "0.00 0.00 0.0", "1.00 1.00 1.0", "5.00 5.00 2.0", "6.00 6.20 3.0", "7.00 7.00 4.0", "8.00 8.00 5.0")
	})
}

func TestNoPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, err := polled(t, &poller{count: 5, dial: scripted(t, func(n int, _ string, conn net.Conn) {
			time.Sleep(50 * time.Millisecond)
			fmt.Fprintf(conn, "%d.0\n", n)
		})})
		if err != nil {
			t.Error(err)
		}
		expect(t, lines, "0.05 0.05 0.0", "0.10 0.10 1.0", "0.15 0.15 2.0", "0.20 0.20 3.0", "0.25 0.25 4.0")
	})
}

// When ctx ends, bye is sent, even while a reply is pending.
func TestBye(t *testing.T) {
	for _, after := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			var requests []string
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(after, cancel)
			p := &poller{
				hosts:    []*host{{}},
				words:    []word{cpuWord, loadWord},
				interval: time.Second,
				wait:     10 * time.Second,
				brake:    newBrake(),
				show:     func(line) error { return nil },
				dial: scripted(t, func(n int, request string, conn net.Conn) {
					requests = append(requests, request)
					if n == 1 {
						io.WriteString(conn, "1.0\n1.00 2.00 3.00\n")
					}
				}),
			}
			if err := p.run(ctx); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			want := []string{"cpu", "load", "bye"}
			if after > time.Second {
				want = []string{"cpu", "load", "cpu", "load", "bye"}
			}
			if !slices.Equal(requests, want) {
				t.Errorf("requests %q, want %q", requests, want)
			}
		})
	}
}

// pollHosts polls several scripted hosts.
func pollHosts(t *testing.T, p *poller, scripts ...script) ([]string, error) {
	open := map[string]func(context.Context, address) (net.Conn, error){}
	for i, s := range scripts {
		name := string(rune('a' + i))
		open[name] = scripted(t, s)
		p.hosts = append(p.hosts, &host{address: address{network: "tcp", host: name, port: "5000"}})
	}
	p.dial = func(ctx context.Context, a address) (net.Conn, error) { return open[a.host](ctx, a) }
	return polled(t, p)
}

// after returns a script that replies to the n-th request with n, after one of the
// delays in turn.
func after(delays ...time.Duration) script {
	return func(n int, request string, conn net.Conn) {
		if request != "bye" {
			time.Sleep(delays[n%len(delays)])
			fmt.Fprintf(conn, "%d.0\n", n)
		}
	}
}

func TestSeveralHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		lines, err := pollHosts(t, &poller{interval: time.Second, count: 6},
			after(0), after(30*ms, 2300*ms, 0, 900*ms, 10*ms), after(100*ms))
		if err != nil {
			t.Error(err)
		}
		// b's second reply arrives at 3.40, so its ticks 1 to 3 are gaps. Only the first
		// gap delays the other hosts, and only until the next tick.
		expect(t, lines,
			"0.10 0.10 0.0 0.0 0.0",
			"1.10 2.10 1.0 nan 1.0",
			"2.10 2.20 2.0 nan 2.0",
			"3.10 3.20 3.0 nan 3.0",
			"4.10 4.20 4.0 2.0 4.0",
			"5.10 6.00 5.0 3.0 5.0")
	})
}

// The first line waits for a host that has just started, and for a command, which may
// still be connecting, but not for a host that is connected and silent. The second one
// follows an interval later.
func TestFirstLineOfSeveral(t *testing.T) {
	for _, test := range []struct {
		network string
		keep    bool
		delay   time.Duration
		want    []string
	}{
		{"tcp", false, 1500 * time.Millisecond, []string{"1.50 1.50 0.0 0.0", "2.50 2.50 1.0 1.0"}},
		{"tcp", true, 1500 * time.Millisecond, []string{"1.50 1.50 0.0 0.0", "2.50 2.50 1.0 1.0"}},
		{"tcp", false, 2500 * time.Millisecond, []string{"2.00 2.00 0.0 nan", "3.00 3.00 1.0 1.0"}},
		{"tcp", true, 2500 * time.Millisecond, []string{"2.00 2.00 0.0 nan", "3.00 3.00 1.0 1.0"}},
		{command, false, 2500 * time.Millisecond, []string{"2.50 2.50 0.0 0.0", "3.50 3.50 1.0 1.0"}},
		{command, true, 2500 * time.Millisecond, []string{"2.50 2.50 0.0 0.0", "3.50 3.50 1.0 1.0"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			quick, slow := scripted(t, after(0)), scripted(t, after(test.delay, 0))
			p := &poller{interval: time.Second, first: time.Second, count: 2, keep: test.keep}
			p.hosts = []*host{{address: address{network: "tcp", host: "a", port: "5000"}}, {address: address{network: test.network, host: "b", port: "5000"}}}
			p.dial = func(ctx context.Context, a address) (net.Conn, error) {
				if a.host == "a" {
					return quick(ctx, a)
				}
				return slow(ctx, a)
			}
			lines, err := polled(t, p)
			if err != nil {
				t.Error(err)
			}
			expect(t, lines, test.want...)
		})
	}
}

func TestOneOfSeveralFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, err := pollHosts(t, &poller{interval: time.Second}, after(0), func(n int, _ string, conn net.Conn) {
			if n == 2 {
				conn.Close()
			}
			fmt.Fprintf(conn, "%d.0\n", n)
		})
		if err == nil || err.Error() != "b:5000: connection closed" {
			t.Errorf("%v", err)
		}
		expect(t, lines, "0.00 0.00 0.0 0.0", "1.00 1.00 1.0 1.0")
	})
}

// A chart goes on when one of several hosts dies, and reconnects, but does not run a
// command again. A host that has never replied ends it.
func TestOneOfSeveralFailsInChart(t *testing.T) {
	messages := listenIn(t)
	tcp := address{network: "tcp", host: "b", port: "5000"}
	for _, test := range []struct {
		second address
		dies   int // the request of the second host that ends its connection
		want   []string
		err    string
	}{
		{tcp, 2, []string{"0.00 0.00 0.0 0.0", "1.00 1.00 1.0 1.0", "2.00 2.00 2.0 nan", "3.00 3.00 3.0 3.0"}, ""},
		{tcp, 0, nil, "b:5000: connection closed"},
		{address{network: command, host: "b"}, 2, []string{"0.00 0.00 0.0 0.0", "1.00 1.00 1.0 1.0"}, `b: connection closed in the middle of a reply: "9"`},
	} {
		synctest.Test(t, func(t *testing.T) {
			dies := func(n int, _ string, conn net.Conn) {
				if n == test.dies {
					io.WriteString(conn, "9"[:min(n, 1)]) // in the middle of a reply, or it would reconnect at once
					conn.Close()
				}
				fmt.Fprintf(conn, "%d.0\n", n)
			}
			p := &poller{interval: time.Second, count: 4, chart: true}
			p.hosts = []*host{{address: address{network: "tcp", host: "a", port: "5000"}}, {address: test.second}}
			first, second := scripted(t, after(0)), scripted(t, dies)
			p.dial = func(ctx context.Context, a address) (net.Conn, error) {
				if a.host == "a" {
					return first(ctx, a)
				}
				return second(ctx, a)
			}
			lines, err := polled(t, p)
			expect(t, lines, test.want...)
			if got := fmt.Sprint(err); got != cmp.Or(test.err, "<nil>") {
				t.Errorf("%s, want %s", got, test.err)
			}
		})
	}
	if said := messages(); !strings.HasPrefix(said, "cpunc: b:5000: connection closed in the middle of a reply: \"9\"; reconnecting\ncpunc: b:5000: reconnected after ") {
		t.Errorf("said %q", said)
	}
}

func TestHundredHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scripts := make([]script, 100)
		for i := range scripts {
			scripts[i] = after(time.Duration(i) * time.Millisecond)
		}
		lines, err := pollHosts(t, &poller{interval: 100 * time.Millisecond, count: 50}, scripts...)
		if err != nil || len(lines) != 50 {
			t.Fatalf("%d lines, %v", len(lines), err)
		}
		for n, l := range lines {
			f := strings.Fields(l)
			if want := fmt.Sprintf("%.2f", 0.099+float64(n)/10); f[0] != want || len(f) != 102 || f[2] != fmt.Sprintf("%d.0", n) || f[101] != f[2] {
				t.Errorf("line %d: %s", n, l)
			}
		}
	})
}

// An outage simulates a host that may be down for a while.
type outage struct {
	t        *testing.T
	start    time.Time
	down     func(at time.Duration) bool
	attempts []time.Duration
	conns    []net.Conn
}

func (w *outage) open(ctx context.Context, a address) (net.Conn, error) {
	now := time.Since(w.start)
	w.attempts = append(w.attempts, now)
	if w.down(now) {
		return nil, fmt.Errorf("dial %s: connection refused", a)
	}
	client, server := net.Pipe()
	w.conns = append(w.conns, server)
	go func() {
		defer server.Close()
		for in := bufio.NewScanner(server); in.Scan() && in.Text() == "cpu"; {
			fmt.Fprintf(server, "%.1f\n", math.Mod(time.Since(w.start).Seconds(), 100)) // so that a stale number is noticed
		}
	}()
	return client, nil
}

// cut closes every connection.
func (w *outage) cut() {
	for _, c := range w.conns {
		c.Close()
	}
}

// The listener is down for ten seconds of a minute. There are still sixty lines, in
// phase, and the gap ends at the first tick after the reconnection.
func TestKeep(t *testing.T) {
	listenIn(t)
	for range 100 { // the pauses are random
		synctest.Test(t, func(t *testing.T) {
			w := &outage{t: t, start: time.Now(), down: func(at time.Duration) bool { return at > 20*time.Second && at < 30*time.Second }}
			time.AfterFunc(20500*time.Millisecond, w.cut)
			lines, err := polled(t, &poller{interval: time.Second, count: 60, keep: true, dial: w.open})
			if err != nil || len(lines) != 60 {
				t.Fatalf("%d lines, %v", len(lines), err)
			}
			// An attempt may come up to 16 s after the host is up again.
			back := w.attempts[len(w.attempts)-1]
			if back < 30*time.Second || back > 46*time.Second {
				t.Errorf("back at %v", back)
			}
			for n, l := range lines {
				want := fmt.Sprintf("%d.00 %[1]d.00 %[1]d.0", n)
				if n > 20 && time.Duration(n)*time.Second < back {
					want = fmt.Sprintf("%d.00 %[1]d.00 nan", n)
				}
				if l != want {
					t.Errorf("line %d: %s, want %s; back at %v", n, l, want, back)
				}
			}
		})
	}
}

// A lost host is reported before the line of that tick, even if the line is the last
// one.
func TestLostAtTheEnd(t *testing.T) {
	messages := listenIn(t)
	for run := range 1000 {
		p := &poller{
			hosts:    []*host{{address: address{network: "tcp", host: "alpha", port: "5000"}}},
			words:    []word{cpuWord},
			interval: time.Second,
			count:    1,
			keep:     true,
			brake:    newBrake(),
			dial:     func(context.Context, address) (net.Conn, error) { return nil, errors.New("refused") },
			show: func(line) error {
				if said := strings.Count(messages(), "refused; reconnecting\n"); said != run+1 {
					return fmt.Errorf("%d losses were reported in run %d", said, run)
				}
				return nil
			},
		}
		if err := p.run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// If a connection is closed between requests and a new one can be opened, no reading
// is lost. If connections are closed at once, the usual pauses apply.
func TestClosedBetweenTicks(t *testing.T) {
	messages := listenIn(t)
	synctest.Test(t, func(t *testing.T) {
		w := &outage{t: t, start: time.Now(), down: func(time.Duration) bool { return false }}
		time.AfterFunc(1500*time.Millisecond, w.cut)
		lines, err := polled(t, &poller{interval: time.Second, count: 4, keep: true, dial: w.open})
		if err != nil {
			t.Error(err)
		}
		expect(t, lines, "0.00 0.00 0.0", "1.00 1.00 1.0", "2.00 2.00 2.0", "3.00 3.00 3.0")
		if messages() != "" {
			t.Errorf("said %q", messages())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		lines, err := polled(t, &poller{interval: time.Second, count: 120, keep: true, dial: func(context.Context, address) (net.Conn, error) {
			attempts++
			client, server := net.Pipe()
			server.Close()
			return client, nil
		}})
		if err != nil || !strings.HasSuffix(lines[119], "nan") || attempts > 15 {
			t.Errorf("%d attempts in two minutes, %v", attempts, err)
		}
	})
}

// The pauses between attempts double from half a second to half a minute, with
// jitter.
func TestRedialPauses(t *testing.T) {
	messages := listenIn(t)
	synctest.Test(t, func(t *testing.T) {
		w := &outage{t: t, start: time.Now(), down: func(at time.Duration) bool { return at < time.Hour }}
		lines, err := polled(t, &poller{interval: 10 * time.Second, count: 370, keep: true, dial: w.open})
		if err != nil {
			t.Error(err)
		}
		if lines[0] != "0.00 0.00 nan" || !strings.HasSuffix(lines[369], " 90.0") {
			t.Errorf("first %s, last %s", lines[0], lines[369])
		}
		pause := minPause
		for i := 1; i < len(w.attempts); i++ {
			if got := w.attempts[i] - w.attempts[i-1]; got < pause/2 || got > pause {
				t.Errorf("attempt %d after %v, want about %v", i, got, pause)
			}
			pause = min(2*pause, maxPause)
		}
		if n := len(w.attempts); n < 100 || n > 300 {
			t.Errorf("%d attempts in an hour", n)
		}
	})
	if n := strings.Count(messages(), "\n"); n != 2 || !strings.Contains(messages(), "alpha:5000: connection refused (to serve there, on all interfaces: cpunc -l 0.0.0.0 5000); reconnecting\n") || !strings.Contains(messages(), "alpha:5000: reconnected after 1h") {
		t.Errorf("want one message for the loss and one for the return, got:\n%s", messages())
	}
}

// A host that hangs counts as lost after the timeout, and is then dialed again.
func TestHangingHost(t *testing.T) {
	listenIn(t)
	synctest.Test(t, func(t *testing.T) {
		lines, err := pollHosts(t, &poller{interval: time.Second, count: 15, keep: true}, after(0), func(n int, request string, conn net.Conn) {
			if request == "bye" {
				return
			}
			if n == 2 {
				time.Sleep(11 * time.Second)
				return
			}
			fmt.Fprintf(conn, "%d.0\n", n)
		})
		if err != nil {
			t.Error(err)
		}
		for n, l := range lines {
			f := strings.Fields(l)
			printed := fmt.Sprintf("%d.00", n)
			if n == 2 {
				printed = "3.00" // it may delay the other host until the next tick
			}
			if f[0] != fmt.Sprintf("%d.00", n) || f[1] != printed || f[2] != fmt.Sprintf("%d.0", n) {
				t.Errorf("line %d: %s", n, l)
			}
			if lost := n >= 2 && n <= 12; lost != (f[3] == "nan") {
				t.Errorf("line %d: %s", n, l)
			}
		}
	})
}

// With no pause between polls, there is still a pause between gaps.
func TestKeepWithoutPause(t *testing.T) {
	listenIn(t)
	synctest.Test(t, func(t *testing.T) {
		w := &outage{t: t, start: time.Now(), down: func(at time.Duration) bool { return true }}
		lines, err := polled(t, &poller{count: 5, keep: true, dial: w.open})
		if err != nil {
			t.Error(err)
		}
		expect(t, lines, "0.00 0.00 nan", "1.00 1.00 nan", "2.00 2.00 nan", "3.00 3.00 nan", "4.00 4.00 nan")
	})
}

func TestInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		go func() {
			for _, text := range []string{"cpu\n", "\n", "  cpu \n", "cpu"} {
				time.Sleep(time.Second)
				io.WriteString(w, text)
			}
			w.Close()
		}()
		lines, err := polled(t, &poller{input: newLineReader(r), dial: scripted(t, after(3*time.Second))})
		if err != nil {
			t.Error(err)
		}
		// A line is read only after the previous reply has been printed, and the next
		// line is written at least a second after that.
		expect(t, lines, "4.00 4.00 0.0", "8.00 8.00 1.0", "11.00 11.00 2.0")
	})
}

// Ctrl-C also ends the command, which may exit first. That is not an error.
func TestCommandEndsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := &poller{
			hosts: []*host{{address: address{network: command, host: "ssh web1"}}}, words: []word{cpuWord},
			interval: time.Second, wait: 10 * time.Second, brake: newBrake(), show: func(line) error { return nil },
			dial: scripted(t, func(n int, _ string, conn net.Conn) {
				if n == 3 {
					conn.Close()
					time.AfterFunc(brief/2, cancel)
					return
				}
				fmt.Fprintf(conn, "%d.0\n", n)
			}),
		}
		if err := p.run(ctx); err != nil {
			t.Error(err)
		}
	})
}
