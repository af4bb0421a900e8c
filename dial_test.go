package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestServersMisbehave(t *testing.T) {
	for _, test := range []struct {
		name  string
		reply func(conn net.Conn)
		want  string        // the error, or the line if there is none
		after time.Duration // how long it takes
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
		{"never replies", func(c net.Conn) { time.Sleep(time.Minute) }, "alpha:5000: no reply within 10s (to wait longer: -w)", 10 * time.Second},
		{"trickles", func(c net.Conn) {
			for range 1000 {
				time.Sleep(50 * time.Millisecond)
				if _, err := io.WriteString(c, "1"); err != nil {
					return
				}
			}
		}, "alpha:5000: no reply within 10s (to wait longer: -w)", 10 * time.Second},
		{"replies rubbish", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 \x1b[2J\n") }, `alpha:5000: unexpected reply to "cpu": "HTTP/1.1 \x1b[2J" (is it a cpunc server?)`, 0},
		{"replies too much", func(c net.Conn) { io.WriteString(c, "1.0 2.0\n") }, `alpha:5000: unexpected reply to "cpu": "1.0 2.0" (is it a cpunc server?)`, 0},
		{"replies nan", func(c net.Conn) { io.WriteString(c, "nan\n") }, "nan", 0},
		{"replies NaN", func(c net.Conn) { io.WriteString(c, "NaN\n") }, `alpha:5000: unexpected reply to "cpu": "NaN" (is it a cpunc server?)`, 0},
		{"replies two nan", func(c net.Conn) { io.WriteString(c, "nan nan\n") }, `alpha:5000: unexpected reply to "cpu": "nan nan" (is it a cpunc server?)`, 0},
		{"replies over 100", func(c net.Conn) { io.WriteString(c, "100.1\n") }, `alpha:5000: unexpected reply to "cpu": "100.1" (is it a cpunc server?)`, 0},
		{"replies below 0", func(c net.Conn) { io.WriteString(c, "-1.0\n") }, `alpha:5000: unexpected reply to "cpu": "-1.0" (is it a cpunc server?)`, 0},
		{"says error", func(c net.Conn) { io.WriteString(c, "error: no\x07\n") }, `alpha:5000: "no\a"`, 0},
		{"nothing but newlines", func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, strings.Repeat("\n", 4096)); err != nil {
					return
				}
			}
		}, `alpha:5000: line too long (over 65536 bytes): "` + strings.Repeat(`\n`, 200) + `"...`, 0},
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
					test.reply(conn)
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

// The first reply on a connection may take longer than -w, because a server that has just
// started delays it. The others may not.
func TestFirstReplyTakesLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := strings.NewReader("cpu\nload")
		delays := []time.Duration{10900 * time.Millisecond, 10100 * time.Millisecond}
		lines, err := polled(t, &poller{first: time.Second, input: newLineReader(in), dial: scripted(t, func(n int, request string, conn net.Conn) {
			if request != "bye" {
				time.Sleep(delays[n])
				io.WriteString(conn, map[string]string{"cpu": "1.0\n", "load": "1.00 2.00 3.00\n"}[request])
			}
		})})
		expect(t, lines, "10.90 10.90 1.0")
		if want := "alpha:5000: no reply within 10s (to wait longer: -w)"; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	})
}

// A reply without a newline ends with a silence. A newline that arrives later is not
// another reply.
func TestBareReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines, err := polled(t, &poller{interval: time.Second, count: 3, dial: scripted(t, func(n int, _ string, conn net.Conn) {
			fmt.Fprintf(conn, "%d.5", n)
			time.Sleep(500 * time.Millisecond)
			go io.WriteString(conn, "\r\n") // is read with the next reply
		})})
		if err != nil {
			t.Error(err)
		}
		expect(t, lines, "0.10 0.10 0.5", "1.10 1.20 1.5", "2.10 2.20 2.5")
	})
}

// A silence does not end a reply from a server that has sent newlines before, nor a
// reply to cores, which may arrive in pieces. Otherwise the rest would be taken for
// the next reply.
func TestRepliesInPieces(t *testing.T) {
	for w, want := range map[word][]string{
		cpuWord:   {"0.00 0.00 12.5", "1.00 1.30 12.5", "2.00 2.30 12.5"},
		coresWord: {"0.30 0.30 12.5 1.0", "1.30 1.60 12.5 1.0", "2.30 2.60 12.5 1.0"},
	} {
		synctest.Test(t, func(t *testing.T) {
			lines, err := polled(t, &poller{interval: time.Second, count: 3, words: []word{w}, dial: scripted(t, func(n int, _ string, conn net.Conn) {
				reply := "12.5\n"
				if w == coresWord {
					reply = "12.5 1.0\n"
				}
				if w == coresWord || n > 0 {
					io.WriteString(conn, reply[:2])
					time.Sleep(3 * lineTimeout)
					reply = reply[2:]
				}
				io.WriteString(conn, reply)
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
		{cpuWord, []string{"12.5", "13.5"}, []string{"0.10 0.10 12.5", "1.10 1.10 13.5"}, ""},
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

// A process that was stopped, as by Ctrl-Z, wakes up long after the deadline for a reply
// that has arrived in time.
func TestStoppedWhileWaiting(t *testing.T) {
	for _, wakes := range []time.Duration{11 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			server := &peer{Conn: &sleeper{tape: tape{chunks: [][]byte{[]byte("12.5\n")}}, wakes: time.Now().Add(wakes)}}
			replies, err := server.ask([]word{cpuWord}, 10*time.Second, 0)
			if err != nil || len(replies) != 1 || replies[0][0] != "12.5" {
				t.Errorf("%q, %v", replies, err)
			}
		})
	}
}

// A sleeper is a connection of a process that is stopped until it wakes, so that timers
// fire before data is read.
type sleeper struct {
	tape
	wakes, deadline time.Time
}

func (c *sleeper) SetReadDeadline(t time.Time) error {
	c.deadline = t
	return nil
}

func (c *sleeper) Read(p []byte) (int, error) {
	time.Sleep(time.Until(c.wakes))
	if time.Now().After(c.deadline) {
		return 0, os.ErrDeadlineExceeded
	}
	return c.tape.Read(p)
}

// A reset is not the end of a reply without a newline.
func TestReplyCutByReset(t *testing.T) {
	server := &peer{Conn: &resetting{tape{chunks: [][]byte{[]byte("9")}}}}
	if replies, err := server.ask([]word{cpuWord}, time.Minute, 0); replies != nil || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%q, %v", replies, err)
	}
}

// A resetting connection is reset after the last chunk.
type resetting struct{ tape }

func (c *resetting) Read(p []byte) (int, error) {
	n, err := c.tape.Read(p)
	if err != nil {
		err = syscall.ECONNRESET
	}
	return n, err
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
		address address
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
		{name: "-g, command", address: address{network: command, host: "alpha"}, chart: true, replies: []string{ok, bad + "2.0\n"}, want: []string{
			"0.00 0.00 1.0 0.25 0.50 0.75 2.0", "1.00 1.00 1.0 nan nan nan 2.0",
		}, said: "cpunc: alpha: " + text + "\n"},
		{name: "without the rest", keep: true, replies: []string{bad, bad, ok}, want: []string{
			"0.10 0.10 1.0 nan nan nan nan", "1.10 1.20 1.0 nan nan nan nan", "2.10 2.10 1.0 0.25 0.50 0.75 2.0",
		}, said: "cpunc: alpha:5000: " + text + "\n"},
		{name: "the rest comes late", keep: true, replies: []string{bad + "...2.0\n", ok}, want: []string{
			"0.10 0.10 1.0 nan nan nan nan", "1.10 1.10 1.0 0.25 0.50 0.75 2.0",
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
					hosts:    []*host{{address: cmp.Or(test.address, address{network: "tcp", host: "alpha", port: "5000"})}},
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

func FuzzReply(f *testing.F) {
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
			if cap(server.unread) > 4*maxLine {
				t.Errorf("a buffer of %d bytes", cap(server.unread))
			}
			if err != nil && !isRefusal(err) {
				return
			}
		}
	})
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

// If the backlog of a Unix socket is full, dialing waits until there is room.
func TestBacklogFull(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("requires the backlog of Linux")
	}
	path := filepath.Join(shortDir(t), "sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	syscall.CloseOnExec(fd)
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
	accepted := make(chan struct{})
	time.AfterFunc(100*time.Millisecond, func() {
		defer close(accepted)
		peer, _, err := syscall.Accept(fd)
		if err != nil {
			t.Error(err)
			return
		}
		syscall.Close(peer)
	})
	defer func() { <-accepted }() // before fd is closed, whose number may then be that of another listener
	conn, err := (dialer{wait: 10 * time.Second}).dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestDialHint(t *testing.T) {
	refused := errors.New("dial: connection refused")
	for _, test := range []struct {
		host, port string
		err        error
		want       string
	}{
		{"web1", "5000", refused, " (to serve there, on all interfaces: cpunc -l 0.0.0.0 5000)"},
		{"2001:db8::1", "80", refused, " (to serve there, on all interfaces: cpunc -l :: 80)"},
		{"127.0.0.2", "5000", refused, " (to serve: cpunc -l 127.0.0.2 5000)"},
		{"::1", "5000", refused, " (to serve: cpunc -l ::1 5000)"},
		{"cpunc.sock", "", refused, ""},
		{"web1", "5000", errors.New("dial: no route to host"), ""},
		{"go.mod", "5000", errors.New("dial: no such host"), " (for this file: - <go.mod)"},
		{"page", "5000", errors.New("dial: no such host"), ""},
	} {
		if got := dialHint(test.host, test.port, test.err); got != test.want {
			t.Errorf("dialHint(%q, %q, %q) = %q, want %q", test.host, test.port, test.err, got, test.want)
		}
	}
}
