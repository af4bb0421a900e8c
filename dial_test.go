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
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A script answers the n-th request of a client, on the server's end of a pipe.
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
			time.Sleep([]time.Duration{30, 70, 20, 2300, 0, 0}[n] * time.Millisecond) // the last one is for bye
			fmt.Fprintf(conn, "%d.0\n", n)
		})})
		if err != nil {
			t.Error(err)
		}
		// The late reply has the time of its arrival. Ticks 4 and 5 are skipped, and the
		// next tick keeps the phase.
		expect(t, lines, "0.00 0.03 0.0", "1.00 1.07 1.0", "2.00 2.02 2.0", "5.30 5.30 3.0", "6.00 6.00 4.0")
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
		expect(t, lines, "0.00 0.05 0.0", "0.05 0.10 1.0", "0.10 0.15 2.0", "0.15 0.20 3.0", "0.20 0.25 4.0")
	})
}

func TestServersMisbehave(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(conn net.Conn)
		want   string        // the error, or the line if there is none
		after  time.Duration // how long it takes
	}{
		{"no newline", func(c net.Conn) { io.WriteString(c, "12.5") }, "12.5", lineTimeout},
		{"no newline, then the end", func(c net.Conn) { io.WriteString(c, "12.5"); c.Close() }, "12.5", 0},
		{"carriage return", func(c net.Conn) { io.WriteString(c, "12.5\r\n") }, "12.5", 0},
		{"in pieces", func(c net.Conn) {
			for _, b := range "12.5\n" {
				time.Sleep(90 * time.Millisecond)
				io.WriteString(c, string(b))
			}
		}, "12.5", 450 * time.Millisecond},
		{"closes", func(c net.Conn) { c.Close() }, "alpha:5000: connection closed", 0},
		{"never answers", func(c net.Conn) { time.Sleep(time.Minute) }, "alpha:5000: no reply within 10s (to wait longer: -w)", 10 * time.Second},
		{"trickles", func(c net.Conn) {
			for range 1000 {
				time.Sleep(50 * time.Millisecond)
				if _, err := io.WriteString(c, "1"); err != nil {
					return
				}
			}
		}, "alpha:5000: no reply within 10s (to wait longer: -w)", 10 * time.Second},
		{"answers rubbish", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 \x1b[2J\n") }, `alpha:5000: unexpected reply to "cpu": "HTTP/1.1 \x1b[2J" (is it a cpunc server?)`, 0},
		{"answers too much", func(c net.Conn) { io.WriteString(c, "1.0 2.0\n") }, `alpha:5000: unexpected reply to "cpu": "1.0 2.0" (is it a cpunc server?)`, 0},
		{"answers nan", func(c net.Conn) { io.WriteString(c, "nan\n") }, "nan", 0},
		{"answers NaN", func(c net.Conn) { io.WriteString(c, "NaN\n") }, `alpha:5000: unexpected reply to "cpu": "NaN" (is it a cpunc server?)`, 0},
		{"answers two nan", func(c net.Conn) { io.WriteString(c, "nan nan\n") }, `alpha:5000: unexpected reply to "cpu": "nan nan" (is it a cpunc server?)`, 0},
		{"answers over 100", func(c net.Conn) { io.WriteString(c, "100.1\n") }, `alpha:5000: unexpected reply to "cpu": "100.1" (is it a cpunc server?)`, 0},
		{"answers below 0", func(c net.Conn) { io.WriteString(c, "-1.0\n") }, `alpha:5000: unexpected reply to "cpu": "-1.0" (is it a cpunc server?)`, 0},
		{"says error", func(c net.Conn) { io.WriteString(c, "error: no\x07\n") }, `alpha:5000: "no\a"`, 0},
		{"nothing but newlines", func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, strings.Repeat("\n", 4096)); err != nil {
					return
				}
			}
		}, "alpha:5000: unsolicited data: too many empty lines", 0},
		{"endless line", func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, strings.Repeat("z", 4096)); err != nil {
					return
				}
			}
		}, `alpha:5000: line too long (over 65536 bytes): "` + strings.Repeat("z", 200) + `"...`, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				lines, err := polled(t, &poller{interval: time.Minute, count: 1, dial: scripted(t, func(_ int, _ string, conn net.Conn) {
					test.answer(conn)
				})})
				got := ""
				if err != nil {
					got = err.Error()
				} else if len(lines) == 1 {
					got = lines[0][strings.LastIndex(lines[0], " ")+1:]
				}
				if got != test.want {
					t.Errorf("%q, want %q", got, test.want)
				}
				if took := time.Since(start); took < test.after || took > test.after+2*brief {
					t.Errorf("after %v, want %v", took, test.after)
				}
			})
		})
	}
}

// A first reply to a word may take longer than -w, because a server that has just started
// delays it. The others may not.
func TestFirstReplyTakesLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := strings.NewReader("cpu\nload\nload")
		delays := []time.Duration{10900 * time.Millisecond, 10900 * time.Millisecond, 10100 * time.Millisecond}
		lines, err := polled(t, &poller{first: time.Second, input: newLineReader(in), dial: scripted(t, func(n int, request string, conn net.Conn) {
			if request != "bye" {
				time.Sleep(delays[n])
				io.WriteString(conn, map[string]string{"cpu": "1.0\n", "load": "1.00 2.00 3.00\n"}[request])
			}
		})})
		expect(t, lines, "0.00 10.90 1.0", "10.90 21.80 1.00 2.00 3.00")
		if want := "alpha:5000: no reply within 10s (to wait longer: -w)"; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	})
}

// A reply without a newline ends with a silence. A newline that arrives later is not
// another reply.
func TestBareAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, err := polled(t, &poller{interval: time.Second, count: 3, dial: scripted(t, func(n int, _ string, conn net.Conn) {
			fmt.Fprintf(conn, "%d.5", n)
			time.Sleep(500 * time.Millisecond)
			go io.WriteString(conn, "\r\n") // is read with the next reply
		})})
		if err != nil {
			t.Error(err)
		}
		expect(t, lines, "0.00 0.10 0.5", "1.00 1.10 1.5", "2.00 2.10 2.5")
	})
}

// A silence does not end a reply from a server that has sent newlines before, nor a
// reply to cores, which may arrive in pieces. Otherwise the rest would be taken for
// the next reply.
func TestAnswersInPieces(t *testing.T) {
	for w, want := range map[word][]string{
		cpuWord:   {"0.00 0.00 12.5", "1.00 1.30 12.5", "2.00 2.30 12.5"},
		coresWord: {"0.00 0.30 12.5 1.0", "1.00 1.30 12.5 1.0", "2.00 2.30 12.5 1.0"},
	} {
		synctest.Test(t, func(t *testing.T) {
			lines, err := polled(t, &poller{interval: time.Second, count: 3, words: []word{w}, dial: scripted(t, func(n int, _ string, conn net.Conn) {
				answer := "12.5\n"
				if w == coresWord {
					answer = "12.5 1.0\n"
				}
				if w == coresWord || n > 0 {
					io.WriteString(conn, answer[:2])
					time.Sleep(3 * lineTimeout)
					answer = answer[2:]
				}
				io.WriteString(conn, answer)
			})})
			if err != nil {
				t.Error(err)
			}
			expect(t, lines, want...)
		})
	}
}

// The columns of a reply are its own, also if the same reading is requested twice. A
// gap has as many as the last reply.
func TestColumnsOfEachReply(t *testing.T) {
	listenIn(t)
	synctest.Test(t, func(t *testing.T) {
		lines, err := polled(t, &poller{interval: time.Second, count: 3, keep: true, words: []word{coresWord, coresWord}, dial: scripted(t, func(n int, _ string, conn net.Conn) {
			switch n { // there are two words in a request
			case 1:
				io.WriteString(conn, "1.0 2.0 3.0\n4.0\n")
			case 3:
				io.WriteString(conn, "1.0\n2.0 3.0 4.0\n")
			case 5:
				io.WriteString(conn, "1.0 2.0")
				conn.Close()
			}
		})})
		if err != nil {
			t.Error(err)
		}
		expect(t, lines, "0.00 0.00 1.0 2.0 3.0 4.0", "1.00 1.00 1.0 2.0 3.0 4.0", "2.00 2.00 nan nan nan nan nan nan")
	})
}

// A connection that ends in the middle of a reply is lost, and what arrived is not a
// reading, unless the server may be an older one that ends no reply with a newline.
func TestReplyCutShort(t *testing.T) {
	const cut = "alpha:5000: connection closed in the middle of a reply: "
	for _, test := range []struct {
		word    word
		replies []string // the connection ends after the last one
		want    []string
		err     string
	}{
		{cpuWord, []string{"12.5"}, []string{"0.00 0.00 12.5"}, ""},
		{cpuWord, []string{"12.5", "13.5"}, []string{"0.00 0.10 12.5", "1.00 1.00 13.5"}, ""},
		{cpuWord, []string{"97."}, nil, `alpha:5000: unexpected reply to "cpu": "97." (is it a cpunc server?)`},
		{cpuWord, []string{"12.5\n", "9"}, []string{"0.00 0.00 12.5"}, cut + `"9"`},
		{cpuWord, []string{"12.5\r\n", "\r\n97.5\r"}, []string{"0.00 0.00 12.5"}, cut + `"97.5\r"`},
		{cpuWord, []string{"12.5\n", "\n"}, []string{"0.00 0.00 12.5"}, "alpha:5000: connection closed"},
		{loadWord, []string{"0.25 0.50 0.75\n", "0.25 0.50 0."}, []string{"0.00 0.00 0.25 0.50 0.75"}, cut + `"0.25 0.50 0."`},
		{coresWord, []string{"10.0 20.0 3"}, nil, cut + `"10.0 20.0 3"`},
		{coresWord, []string{"10.0 20.0 30.0\n", "10.0 20.0"}, []string{"0.00 0.00 10.0 20.0 30.0"}, cut + `"10.0 20.0"`},
		{cpuWord, []string{"12.5\n", "error: too ma"}, []string{"0.00 0.00 12.5"}, cut + `"error: too ma"`},
	} {
		synctest.Test(t, func(t *testing.T) {
			lines, err := polled(t, &poller{interval: time.Second, count: len(test.replies), words: []word{test.word}, dial: scripted(t, func(n int, _ string, conn net.Conn) {
				if n < len(test.replies) {
					io.WriteString(conn, test.replies[n])
				}
				if n >= len(test.replies)-1 {
					conn.Close()
				}
			})})
			expect(t, lines, test.want...)
			if got := fmt.Sprint(err); got != cmp.Or(test.err, "<nil>") {
				t.Errorf("replies %q: %s, want %s", test.replies, got, test.err)
			}
		})
	}
}

// A server that ends its replies with a newline does so, too, on its next connection.
func TestReplyCutShortAgain(t *testing.T) {
	listenIn(t)
	synctest.Test(t, func(t *testing.T) {
		lines, err := polled(t, &poller{interval: time.Second, count: 5, keep: true, dial: scripted(t, func(n int, _ string, conn net.Conn) {
			switch n {
			case 0, 3:
				io.WriteString(conn, "97.5\n")
			default:
				io.WriteString(conn, "9")
				conn.Close()
			}
		})})
		if err != nil {
			t.Error(err)
		}
		expect(t, lines, "0.00 0.00 97.5", "1.00 1.00 nan", "2.00 2.00 nan", "3.00 3.00 97.5", "4.00 4.00 nan")
	})
}

// An error line is a gap for its word, and for those after it to which no reply follows.
// It ends a run with neither -k nor -g, and, with -g, before any reading has come.
func TestErrorLines(t *testing.T) {
	messages := listenIn(t)
	const text = "cannot read load averages: timed out"
	ok := "1.0\n0.25 0.50 0.75\n2.0\n"
	bad := "1.0\nerror: " + text + "\n"
	for _, test := range []struct {
		name    string
		network string
		replies []string // to a request for cpu, load and busy
		keep    bool
		chart   bool
		want    []string
		said    string // by the end
		err     string
	}{
		{name: "plain", replies: []string{ok, bad + "2.0\n"}, want: []string{"0.00 0.00 1.0 0.25 0.50 0.75 2.0"}, err: "alpha:5000: " + text},
		{name: "-k", keep: true, replies: []string{bad + "2.0\n", bad + "2.0\n", ok, bad + "2.0\n"}, want: []string{
			"0.00 0.00 1.0 nan nan nan 2.0", "1.00 1.00 1.0 nan nan nan 2.0", "2.00 2.00 1.0 0.25 0.50 0.75 2.0", "3.00 3.00 1.0 nan nan nan 2.0",
		}, said: "cpunc: alpha:5000: " + text + "\ncpunc: alpha:5000: " + text + "\n"},
		{name: "-g", chart: true, replies: []string{bad + "2.0\n", ok}, want: []string{
			"0.00 0.00 1.0 nan nan nan 2.0", "1.00 1.00 1.0 0.25 0.50 0.75 2.0",
		}, said: "cpunc: alpha:5000: " + text + "\n"},
		{name: "-g, command", network: command, chart: true, replies: []string{ok, bad + "2.0\n"}, want: []string{
			"0.00 0.00 1.0 0.25 0.50 0.75 2.0", "1.00 1.00 1.0 nan nan nan 2.0",
		}, said: "cpunc: alpha: " + text + "\n"},
		{name: "without the rest", keep: true, replies: []string{bad, bad, ok}, want: []string{
			"0.00 0.10 1.0 nan nan nan nan", "1.00 1.11 1.0 nan nan nan nan", "2.00 2.01 1.0 0.25 0.50 0.75 2.0",
		}, said: "cpunc: alpha:5000: " + text + "\n"},
		{name: "the rest comes late", keep: true, replies: []string{bad + "...2.0\n", ok}, want: []string{
			"0.00 0.10 1.0 nan nan nan nan", "1.00 1.01 1.0 0.25 0.50 0.75 2.0",
		}, said: "cpunc: alpha:5000: " + text + "\n"},
		{name: "every word", keep: true, replies: []string{ok, strings.Repeat("error: no\n", 3), ok}, want: []string{
			"0.00 0.00 1.0 0.25 0.50 0.75 2.0", "1.00 1.00 nan nan nan nan nan", "2.00 2.00 1.0 0.25 0.50 0.75 2.0",
		}, said: "cpunc: alpha:5000: no\n"},
		{name: "at the start", keep: true, replies: []string{strings.Repeat("error: no\n", 3), ok}, want: []string{
			"0.00 0.00 nan nan nan nan nan", "1.00 1.00 1.0 0.25 0.50 0.75 2.0",
		}, said: "cpunc: alpha:5000: no; reconnecting\ncpunc: alpha:5000: reconnected after 1s\n"},
		{name: "-g, at the start", chart: true, replies: []string{strings.Repeat("error: no\n", 3)}, err: "alpha:5000: no"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := messages()
			synctest.Test(t, func(t *testing.T) {
				p := &poller{
					hosts:    []*host{{address: address{network: cmp.Or(test.network, "tcp"), host: "alpha", port: "5000"}}},
					words:    []word{cpuWord, loadWord, busyWord},
					interval: time.Second, count: len(test.replies), keep: test.keep, chart: test.chart,
					dial: scripted(t, func(n int, request string, conn net.Conn) {
						if n%3 == 2 && request != "bye" {
							now, late, _ := strings.Cut(test.replies[n/3], "...")
							io.WriteString(conn, now)
							if late != "" {
								time.Sleep(2 * lineTimeout)
								io.WriteString(conn, late)
							}
						}
					}),
				}
				lines, err := polled(t, p)
				expect(t, lines, test.want...)
				if got := fmt.Sprint(err); got != cmp.Or(test.err, "<nil>") {
					t.Errorf("%s, want %s", got, test.err)
				}
			})
			if said := strings.TrimPrefix(messages(), before); said != test.said {
				t.Errorf("said %q, want %q", said, test.said)
			}
		})
	}
}

// Unsolicited replies are not taken for replies to later requests.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, err := polled(t, &poller{interval: time.Second, count: 3, dial: scripted(t, func(n int, _ string, conn net.Conn) {
			io.WriteString(conn, "1.0\n2.0\n3.0\n")
		})})
		expect(t, lines, "0.00 0.00 1.0")
		if want := `alpha:5000: unsolicited data: "2.0\n3.0\n"`; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
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

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"12.5", "0.0 100.0", "1.00 2.00 3.00", "error: no", "nan", "0x1p4", "1e3", "-0.0", "1_0", "", "99999999999999999999"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for w := range word(readings) {
			columns, err := parseReply(w, text)
			if err != nil {
				if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
					t.Errorf("%q appears unquoted in %q", text, err)
				}
				continue
			}
			for _, c := range columns {
				if n, err := strconv.ParseFloat(c, 64); c != "nan" && (err != nil || !(n >= 0) || n > 100 && w != loadWord) {
					t.Errorf("%q is accepted as a reply to %s", text, w)
				}
			}
		}
	})
}

// Whatever a server sends, each reading is a whole line of its own, in order, or the
// only text without a newline. The buffer is bounded.
func FuzzServer(f *testing.F) {
	f.Add([]byte("12.5\n"), []byte{1, 2})
	f.Add([]byte("\r\n\r\n1.0 2.0\n3"), []byte{9})
	f.Add([]byte(strings.Repeat("z", 70000)), []byte{255})
	f.Add([]byte("1.0\n2.0 3.0\n0.25 0.50 0.75\n4.0\nerror: no\n1.00 2.00 3.00\n9"), []byte{0})
	f.Add([]byte("1.0\nerror: no\n"), []byte{0})
	f.Add([]byte("12.5"), []byte{0})
	ws := []word{cpuWord, coresWord, loadWord}
	f.Fuzz(func(t *testing.T, text, cuts []byte) {
		conn := &tape{}
		for i, rest := 0, text; len(rest) > 0; i++ {
			n := 1
			if len(cuts) > 0 {
				n = min(1+int(cuts[i%len(cuts)]), len(rest))
			}
			conn.chunks = append(conn.chunks, rest[:n])
			rest = rest[n:]
		}
		var whole [][]string
		for line := range strings.Lines(string(text)) {
			if line, ended := strings.CutSuffix(line, "\n"); ended && strings.Trim(line, "\r") != "" {
				whole = append(whole, strings.Fields(line))
			}
		}
		server := &peer{Conn: conn}
		for n := 0; ; n += len(ws) {
			replies, err := server.ask(ws, time.Minute, 0)
			for i, columns := range replies {
				switch {
				case columns == nil:
				case n+i < len(whole) && slices.Equal(columns, whole[n+i]):
				case len(whole) == 0 && ws[i] == cpuWord && slices.Equal(columns, strings.Fields(string(text))):
				default:
					t.Errorf("%q: reply %d is %q", text, n+i, columns)
				}
			}
			if cap(server.unread) > 4*maxAnswer {
				t.Errorf("a buffer of %d bytes", cap(server.unread))
			}
			if err != nil && !isRefusal(err) || server.owed {
				return
			}
		}
	})
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

// after returns a script that answers the n-th request with n, after one of the
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
		// b's second reply arrives at 3.30, so its ticks 1 to 3 are gaps. Only the first
		// gap delays the other hosts, and only until the next tick.
		expect(t, lines,
			"0.00 0.10 0.0 0.0 0.0",
			"1.00 2.00 1.0 nan 1.0",
			"2.00 2.10 2.0 nan 2.0",
			"3.00 3.10 3.0 nan 3.0",
			"4.00 4.10 4.0 2.0 4.0",
			"5.00 5.90 5.0 3.0 5.0")
	})
}

// The first tick does not wait for a host that is connected but silent, except for a
// command, which may still be connecting.
func TestFirstTickOfSeveral(t *testing.T) {
	for network, want := range map[string]string{"tcp": "0.00 1.00 0.0 nan", command: "2.50 2.50 0.0 0.0"} {
		synctest.Test(t, func(t *testing.T) {
			quick, slow := scripted(t, after(0)), scripted(t, after(2500*time.Millisecond))
			p := &poller{interval: time.Second, count: 1}
			p.hosts = []*host{{address: address{network: "tcp", host: "a", port: "5000"}}, {address: address{network: network, host: "b", port: "5000"}}}
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
			expect(t, lines, want)
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
	for _, test := range []struct {
		network string
		dies    int // the request of the second host that ends its connection
		want    []string
		err     string
	}{
		{"tcp", 2, []string{"0.00 0.00 0.0 0.0", "1.00 1.00 1.0 1.0", "2.00 2.00 2.0 nan", "3.00 3.00 3.0 3.0"}, ""},
		{"tcp", 0, nil, "b:5000: connection closed"},
		{command, 2, []string{"0.00 0.00 0.0 0.0", "1.00 1.00 1.0 1.0"}, `b: connection closed in the middle of a reply: "9"`},
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
			p.hosts = []*host{{address: address{network: "tcp", host: "a", port: "5000"}}, {address: address{network: test.network, host: "b", port: "5000"}}}
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
			if want := fmt.Sprintf("%.2f", float64(n)/10); f[0] != want || len(f) != 102 || f[2] != fmt.Sprintf("%d.0", n) || f[101] != f[2] {
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
	if n := strings.Count(messages(), "\n"); n != 2 || !strings.Contains(messages(), "alpha:5000: connection refused; reconnecting\n") || !strings.Contains(messages(), "alpha:5000: reconnected after 1h") {
		t.Errorf("want one message for the loss and one for the return, got:\n%s", messages())
	}
}

// The message for a connection that takes too long does not depend on which timeout
// ends it.
func TestNoConnectionInTime(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	addr := address{network: "tcp", host: host, port: port}
	for n := range 300 {
		wait := time.Duration(n) * time.Microsecond
		conn, err := dialer{wait: wait}.dial(t.Context(), addr)
		if err == nil {
			conn.Close()
		} else if want := fmt.Sprintf("dial %s: connection timed out (%v)", addr, wait); err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
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
		expect(t, lines, "1.00 4.00 0.0", "5.00 8.00 1.0", "8.00 11.00 2.0")
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

// If the backlog of a Unix socket is full, dialing waits until there is room.
func TestBacklogFull(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("requires the backlog of Linux")
	}
	path := filepath.Join(shortDir(t), "sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	var full error
	for full == nil {
		var conn net.Conn
		if conn, full = net.Dial("unix", path); full == nil {
			defer conn.Close()
		}
	}
	addr := address{network: socket, host: path}
	begin := time.Now()
	if _, err := (dialer{wait: 300 * time.Millisecond}).dial(t.Context(), addr); err == nil || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("full: %v after %v", err, time.Since(begin))
	}
	time.AfterFunc(100*time.Millisecond, func() {
		for range 2 {
			if peer, _, err := syscall.Accept(fd); err == nil {
				defer syscall.Close(peer)
			}
		}
	})
	conn, err := (dialer{wait: 10 * time.Second}).dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
