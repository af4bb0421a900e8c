package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fetch sends text unchanged and returns everything it receives.
func fetch(t *testing.T, addr, text string) string {
	t.Helper()
	return fetchInPieces(t, addr, text, 1<<20)
}

// fetchInPieces writes the text in pieces of that size.
func fetchInPieces(t *testing.T, addr, text string, size int) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	go func() { // ends with the connection
		for piece := range slices.Chunk([]byte(text), size) {
			if _, err := conn.Write(piece); err != nil {
				return
			}
		}
	}()
	got, _ := io.ReadAll(conn)
	return string(got)
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	addr, _ := serving(t, &server{})
	hostname, _ := os.Hostname()
	get := func(host, path string) string {
		return fetch(t, addr, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	}
	for _, test := range []struct{ name, got, status, body string }{
		{"cpu", get("localhost", "/cpu"), "200 OK", stillCPU},
		{"cores", get("127.0.0.1:5000", "/cores"), "200 OK", stillCores},
		{"modes", get("[::1]:5000", "/modes"), "200 OK", stillModes},
		{"load", get("[::1]", "/load"), "200 OK", stillLoad},
		{"busy", get("localhost", "/busy"), "200 OK", stillBusy},
		{"pressure", get("localhost", "/pressure"), "200 OK", stillPressure},
		{"cgroup", get("localhost", "/cgroup"), "200 OK", stillCgroup},
		{"host name", get(hostname, "/cpu"), "200 OK", stillCPU},
		{"name of -l", get("EXAMPLE.test.:80", "/cpu"), "200 OK", stillCPU},
		{"no host in 1.0", fetch(t, addr, "GET /cpu HTTP/1.0\r\n\r\n"), "200 OK", stillCPU},
		{"bye is no path", get("localhost", "/bye"), "404 Not Found", "error: not found (known: /cpu, /cores, /modes, /load, /mean, /busy, /peak, /pressure, /cgroup, /metrics)\n"},
		{"not the name and port", get("localhost:5000.evil.example", "/cpu"), "403 Forbidden", ""},
		{"not quite an address", get("127.0.0.1.", "/cpu"), "403 Forbidden", ""},
		{"nor this", get("127.0.0.1.:5000", "/cpu"), "403 Forbidden", ""},
		{"no name", get(":5000", "/cpu"), "403 Forbidden", ""},
		{"foreign host", get("evil.example", "/cpu"), "403 Forbidden", "error: host name \"evil.example\" not allowed (use an address, or allow it with --name)\n"},
		{"foreign host, metrics", get("evil.example:5000", "/metrics"), "403 Forbidden", "error: host name \"evil.example\" not allowed (use an address, or allow it with --name)\n"},
		{"no host in 1.1", fetch(t, addr, "GET /cpu HTTP/1.1\r\n\r\n"), "400 Bad Request", ""},
		{"post", fetch(t, addr, "POST /cpu HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\ncpu"), "405 Method Not Allowed", "error: method not allowed (use GET or HEAD)\n"},
		{"options", fetch(t, addr, "OPTIONS / HTTP/1.0\r\n\r\n"), "204 No Content\r\nAllow: GET, HEAD, OPTIONS\r\n", ""},
		{"options *", fetch(t, addr, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), "204 No Content\r\nAllow: GET, HEAD, OPTIONS\r\n", ""},
		{"options *, foreign host", fetch(t, addr, "OPTIONS * HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"), "403 Forbidden", ""},
		{"head", fetch(t, addr, "HEAD /cpu HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), "200 OK", ""},
		{"0.9", fetch(t, addr, "GET /cpu\r\n\r\n"), "400 Bad Request", ""},
		{"a megabyte of headers", fetch(t, addr, "GET /cpu HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n"), "431 Request Header Fields Too Large", ""},
		{"pipelined", fetch(t, addr, strings.Repeat("GET /cpu HTTP/1.1\r\nHost: localhost\r\n\r\n", 3)+"GET /load HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), "200 OK", stillLoad},
	} {
		head, body, _ := strings.Cut(test.got, "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.") || !strings.HasPrefix(head[9:], test.status) {
			t.Errorf("%s: %q, want %s", test.name, test.got, test.status)
		} else if test.body != "" && !strings.HasSuffix(body, test.body) {
			t.Errorf("%s: body %q, want %q", test.name, body, test.body)
		} else if test.name == "head" && body != "" {
			t.Errorf("HEAD got the body %q", body)
		}
	}
	// A line may have several readings, and what -t and -H print.
	for target, want := range map[string]string{
		"/cpu,load":             "200 37.5 3.00 2.00 1.00\n",
		"/load%2Ccpu":           "200 3.00 2.00 1.00 37.5\n",
		"/cores?header":         "200 # cpu0 cpu1\n50.0 25.0\n",
		"/cpu,load?header=0":    "200 # cpu load1 load5 load15\n37.5 3.00 2.00 1.00\n",
		"/cpu,cpu":              "400 error: reading cpu given twice\n",
		"/cpu,":                 "400 error: unknown reading \"\" (choose from cpu, cores, modes, load, mean, busy, peak, pressure, cgroup)\n",
		"/cpu,bye":              "400 error: unknown reading \"bye\" (choose from cpu, cores, modes, load, mean, busy, peak, pressure, cgroup)\n",
		"/cpu?intervall=1":      "400 error: unknown query \"intervall\" (known: interval, time, header)\n",
		"/cpu?x":                "400 error: unknown query \"x\" (known: interval, time, header)\n",
		"/cpu?time;header":      "400 error: invalid query \"time;header\" (known: interval, time, header)\n",
		"/?read=cpu&x":          "200 " + strings.Join(paths(), "\n") + "\n",
		"/metrics,cpu?interval": "400 error: unknown reading \"metrics\" (choose from cpu, cores, modes, load, mean, busy, peak, pressure, cgroup)\n",
	} {
		head, body, _ := strings.Cut(get("localhost", target), "\r\n\r\n")
		if got := head[len("HTTP/1.1 "):][:4] + body; got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
	if got := get("localhost", "/cpu?time&header"); !regexp.MustCompile(`\r\n\r\n# time cpu\n\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z 37\.5\n$`).MatchString(got) {
		t.Errorf("with the time: %q", got)
	}
	// Input that is not HTTP is read as words, unchanged.
	if got := fetch(t, addr, "GETcpu\ncpu bye"); !strings.HasPrefix(got, `error: unknown word "GETcpu"`) || !strings.HasSuffix(got, stillCPU) {
		t.Errorf("%q", got)
	}
	if got := fetch(t, addr, "cpu GET /cpu HTTP/1.1\r\n\r\nbye"); !strings.HasPrefix(got, stillCPU+`error: unknown word "GET"`) {
		t.Errorf("%q", got)
	}
	if got := fetch(t, addr, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("\xaa", 500)); !strings.HasPrefix(got, `error: unknown word "\x16\x03\x01`) {
		t.Errorf("TLS hello: %q", got)
	}
}

// webInMemory starts a server in memory. It returns a function that opens a connection and
// a function that ends the server.
func webInMemory(t *testing.T, smp *sampler) (open func() net.Conn, end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ln := pipeListener{ctx, make(chan net.Conn)}
	ended := make(chan struct{})
	go func() { (&server{sampler: smp, maxConns: 1000}).serve(ctx, ln); close(ended) }()
	open = func() net.Conn {
		client, server := net.Pipe()
		ln.conns <- server
		t.Cleanup(func() { client.Close() })
		return client
	}
	return open, func() { cancel(); <-ended }
}

// A pipeListener accepts connections in memory until ctx is done.
type pipeListener struct {
	ctx   context.Context
	conns chan net.Conn
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (l pipeListener) Close() error   { return nil }
func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{} }

// Every request gets one response, whatever is in bodies, before requests or in the
// same packet.
func TestOneResponse(t *testing.T) {
	addr, _ := serving(t, &server{})
	const get, last = "GET /cpu HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /cpu HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
	body := strings.Repeat("\r\n", 300)
	header := func(lines int) string {
		return "GET /cpu HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("x: y\r\n", lines-2) + "\r\n"
	}
	for _, test := range []struct {
		name, send string
		ok         int
		then       string
	}{
		{"kept open", get + get + last, 3, ""},
		{"empty lines before", "\r\n\n" + last, 1, ""},
		{"empty lines between", get + "\r\n\r\n\n" + get + "\r\n" + last, 3, ""},
		{"GET with a body", "GET /cpu HTTP/1.1\r\nHost: localhost\r\nContent-Length: 600\r\n\r\n" + body, 1, ""},
		{"POST with a body", "POST /cpu HTTP/1.1\r\nHost: localhost\r\nContent-Length: 600\r\n\r\n" + body, 0, "405"},
		{"chunks", "GET /cpu HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("2\r\nab\r\n", 150) + "0\r\n\r\n", 1, ""},
		{"long headers", strings.Repeat(header(maxLines), 10) + last, 11, ""},
		{"too many lines", header(maxLines) + header(maxLines+1) + last, 1, "431"},
		{"many more", header(maxLines * 4), 0, "431"},
	} {
		for _, size := range []int{1, 100, len(test.send)} {
			got := fetchInPieces(t, addr, test.send, size)
			codes := regexp.MustCompile(`HTTP/1\.1 (\d+)`).FindAllString(got, -1)
			want := slices.Repeat([]string{"HTTP/1.1 200"}, test.ok)
			if test.then != "" {
				want = append(want, "HTTP/1.1 "+test.then)
			}
			if !slices.Equal(codes, want) {
				t.Errorf("%s, %d bytes at a time: %q, want %q", test.name, size, codes, want)
			}
		}
	}
}

// Headers need more memory than their size, so too many small ones are refused.
func TestManyHeaders(t *testing.T) {
	addr, _ := serving(t, &server{})
	got := fetch(t, addr, "GET /cpu HTTP/1.1\r\nHost: localhost\r\n"+strings.Repeat("a:\r\n", 3000)+"\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 431 ") {
		t.Errorf("%q", got)
	}
	many := strings.Repeat("GET /cpu HTTP/1.1\r\nHost: localhost\r\nA: b\r\n\r\n", 200) + "GET /load HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
	if got := fetch(t, addr, many); strings.Count(got, "HTTP/1.1 200 OK") != 201 {
		t.Errorf("%d of 201 requests on one connection are answered", strings.Count(got, "HTTP/1.1 200 OK"))
	}
}

// What the HTTP server reads does not depend on how the input is split. Only empty lines
// before a request are missing, and no header has too many lines.
func FuzzHeaders(f *testing.F) {
	f.Add([]byte("\r\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\nGET / HTTP/1.1\n\n"), []byte{1, 5})
	f.Add([]byte("GET /\r\r\n\r\r\n\r\rGET\n\n"), []byte{3})
	f.Add(bytes.Repeat([]byte("a\n"), maxLines), []byte{7})
	f.Add(bytes.Repeat([]byte("a\n"), maxLines+1), []byte{100})
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		read := func(chunks [][]byte, size int) string {
			tape := &tape{chunks: chunks}
			conn := &webConn{Conn: tape, input: bufio.NewReader(tape), session: new(session), empty: true}
			var text strings.Builder
			io.CopyBuffer(&text, struct{ io.Reader }{conn}, make([]byte, size))
			return text.String()
		}
		want := ""
		if len(in) > 0 {
			want = read([][]byte{in}, 4096)
		}
		for header := range strings.SplitSeq(strings.ReplaceAll(want, "\r", ""), "\n\n") {
			if n := strings.Count(header, "\n"); n > maxLines {
				t.Errorf("a header of %d lines", n)
			}
		}
		if got := read(inPieces(in, cuts), 1+len(cuts)); got != want && strings.Count(string(in), "\n") <= maxLines {
			t.Errorf("%q in pieces: %q, want %q", in, got, want)
		}
		if strings.Trim(want, "\r\n") == "" && want != "" {
			t.Errorf("of %q, %q is left", in, want)
		}
	})
}

// A proxy sends the requests of several clients over one connection, so no request
// depends on the one before.
func TestHTTPIntervals(t *testing.T) {
	inBubble(t, 60300*time.Millisecond, func(_, tick int) bool { return tick%700 < tick%300 }, func(t *testing.T, k *kernel, smp *sampler) {
		open, end := webInMemory(t, smp)
		defer end()
		client := open()
		in := bufio.NewReader(client)
		get := func() string {
			io.WriteString(client, "GET /cpu HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			return strings.TrimSpace(string(body))
		}
		for range 20 {
			begin := time.Now()
			get()
			time.Sleep(730 * time.Millisecond)
			want := connect(t, smp).ask("cpu") // a first reply
			if want == k.percent(begin, time.Now()) {
				continue
			}
			if got := get(); got != want {
				t.Errorf("%s, want %s, as for another client", got, want)
			}
			return
		}
		t.Error("every interval has the same reading")
	})
}

// The metrics have the names, the labels and the values of node_exporter.
func TestMetrics(t *testing.T) {
	srv := &server{}
	addr, _ := serving(t, srv)
	get := func(path string) string {
		return fetch(t, addr, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	}
	before := srv.sampler.replies[coresWord].Load()
	get("/cores")
	until(t, "connection closed", func() bool { return srv.serving.Load() == 0 })
	got := get("/metrics")
	for _, want := range []string{
		"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
		"# HELP node_cpu_seconds_total Seconds the CPUs spent in each mode.\n# TYPE node_cpu_seconds_total counter\n",
		"node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} 1.8e+06\n",
		"node_cpu_seconds_total{cpu=\"1\",mode=\"idle\"} 2.7e+06\n",
		"# TYPE node_pressure_cpu_waiting_seconds_total counter\nnode_pressure_cpu_waiting_seconds_total 450000\n",
		"# HELP node_load5 5m load average.\n# TYPE node_load5 gauge\nnode_load5 2\n",
		"cpunc_connections 1\n",
		fmt.Sprintf("cpunc_answers_total{word=\"cores\"} %d\n", before+1),
		"# TYPE cpunc_build_info gauge\ncpunc_build_info{version=",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the metrics lack %q:\n%s", want, got)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^node_cpu_seconds_total\{`).FindAllString(got, -1)); n != 2*int(modes) {
		t.Errorf("%d counters for two CPUs", n)
	}
}

// On systems without load averages, the metrics omit them. Load averages that cannot
// be read are an error.
func TestMetricsWithoutLoad(t *testing.T) {
	for failure, want := range map[error]string{
		errors.ErrUnsupported: "# HELP node_cpu_seconds_total ",
		os.ErrNotExist:        "error: cannot read load averages: file does not exist\n",
	} {
		smp := newSampler("")
		smp.read = func(src source) *sample {
			s := &sample{at: time.Now()}
			if src >= averages {
				s.err = failure
			}
			return s
		}
		got := metricsOf(newWeb(t.Context(), smp, nil, 0, new(server).serving.Load))
		if !strings.HasPrefix(got, want) || strings.Contains(got, "node_load") || strings.Contains(got, "node_pressure") {
			t.Errorf("%v: %s", failure, got)
		}
	}
}

// A connection is closed if a request arrives too slowly, or if the next request does
// not arrive in time.
func TestSlowHTTP(t *testing.T) {
	for _, test := range []struct {
		send  string
		after time.Duration
	}{
		{"GET /cpu HTTP/1.1\r\n", headTime},
		{"GET /load HTTP/1.1\r\nHost: localhost\r\n\r\n", idleTime},
	} {
		synctest.Test(t, func(t *testing.T) {
			open, end := webInMemory(t, newKernel(1, quarter).sampler())
			defer end()
			client := open()
			begin := time.Now()
			io.WriteString(client, test.send)
			io.Copy(io.Discard, client)
			if took := time.Since(begin); took < test.after || took > test.after+time.Second {
				t.Errorf("%q: closed after %v, want %v", test.send, took, test.after)
			}
		})
	}
}

// servePage starts a listener on a simulated machine with that many CPUs and moving
// counters, and returns its URL.
func servePage(t *testing.T, cpus int) string {
	k := newKernel(cpus, func(cpu, tick int) bool { return (tick/37+7*cpu)%5 < 2 || tick%(cpu%9+3) == 0 })
	k.boot = k.boot.Add(-time.Minute)
	smp := k.sampler()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	if err := smp.start(ctx); err != nil {
		t.Fatal(err)
	}
	addr, _ := serving(t, &server{sampler: smp})
	return "http://" + addr + "/"
}

// A stream sends one line every interval, in phase, until the client leaves. Each line
// covers the connection's own interval.
func TestStream(t *testing.T) {
	inBubble(t, 60300*time.Millisecond, func(_, tick int) bool { return tick%7 < tick%3 }, func(t *testing.T, k *kernel, smp *sampler) {
		open, end := webInMemory(t, smp)
		client := open()
		fmt.Fprint(client, "GET /cpu?interval=500ms HTTP/1.1\r\nHost: localhost\r\n\r\n")
		in := bufio.NewReader(client)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Fatalf("%v, %v", resp, err)
		}
		lines := bufio.NewScanner(resp.Body)
		start := time.Now()
		last := start
		for n := range 120 { // longer than any request timeout
			if !lines.Scan() {
				t.Fatalf("line %d: %v", n, lines.Err())
			}
			if at := time.Since(start); at != time.Duration(n)*500*time.Millisecond {
				t.Errorf("line %d came after %v", n, at)
			}
			if want := k.percent(last, time.Now()); n > 0 && lines.Text() != want {
				t.Errorf("line %d: %s, want %s", n, lines.Text(), want)
			}
			last = time.Now()
			if n%10 == 3 { // the reader is slow now and then
				time.Sleep(400 * time.Millisecond)
			}
		}
		begin := time.Now()
		ended := make(chan struct{})
		go func() { defer close(ended); end() }()
		rest, err := io.ReadAll(resp.Body)
		<-ended
		if took := time.Since(begin); took > time.Second || err != nil || len(rest) > 0 && rest[len(rest)-1] != '\n' {
			t.Errorf("the end took %v, the rest was %q, %v", took, rest, err)
		}
	})
}

// A stream of several readings prints what -t and -H print. If a reading fails, there
// is an error line, and its columns are nan; if all fail, there is only that.
func TestStreamOfSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cpus atomic.Int32
		cpus.Store(1)
		smp := newSampler("")
		smp.read = func(src source) *sample {
			s := &sample{at: time.Now(), load: [3]float64{1, 2, 3}}
			if src == groups || cpus.Load() == 0 {
				s.err = errors.New("broken")
			}
			for range int(cpus.Load()) {
				s.rows = append(s.rows, row{true, counts{modeIdle: uint64(time.Now().UnixMilli() / 10)}})
			}
			return s
		}
		open, end := webInMemory(t, smp)
		defer end()
		time.Sleep(300 * time.Millisecond)
		client := open()
		io.WriteString(client, "GET /load,cores,cgroup?time&header&interval=2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		expect := func(want string) {
			t.Helper()
			if got, err := lines.ReadString('\n'); got != want+"\n" {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		}
		expect("error: cgroup: broken")
		expect("# time load1 load5 load15 cpu0 cgroup throttled")
		expect("2000-01-01T00:00:01Z 1.00 2.00 3.00 0.0 nan nan") // a first reply may take a second, and the ticks start with it
		expect("error: cgroup: broken")
		expect("2000-01-01T00:00:03Z 1.00 2.00 3.00 0.0 nan nan")
		cpus.Store(2)
		expect("error: cgroup: broken")
		expect("# time load1 load5 load15 cpu0 cpu1 cgroup throttled")
		expect("2000-01-01T00:00:05Z 1.00 2.00 3.00 0.0 nan nan nan")
		cpus.Store(0)
		expect("error: cannot read load averages: broken")
		expect("error: cannot read CPU counters: broken")
		expect("error: cgroup: broken")
		expect("error: cannot read load averages: broken")
	})
}

// A client that stops reading is disconnected, as without HTTP.
func TestStreamStuck(t *testing.T) {
	inBubble(t, time.Minute, quarter, func(t *testing.T, k *kernel, smp *sampler) {
		open, end := webInMemory(t, smp)
		defer end()
		client := open()
		begin := time.Now()
		fmt.Fprint(client, "GET /cpu?interval=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
		client.Read(make([]byte, 10)) // and nothing after that
		time.Sleep(2 * stuckTime)
		if n, err := io.Copy(io.Discard, client); n > 4096 || time.Since(begin) > 3*stuckTime {
			t.Errorf("%d bytes after %v, %v", n, time.Since(begin), err)
		}
	})
}

func TestStreamRequests(t *testing.T) {
	t.Parallel()
	addr, _ := serving(t, &server{})
	ask := func(request string) string {
		return fetch(t, addr, request+"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	}
	for query, want := range map[string]string{
		"":      "error: invalid interval \"\": not a duration (examples: 2, 0.5, 500ms, 1m)\n",
		"x":     "error: invalid interval \"x\": not a duration (examples: 2, 0.5, 500ms, 1m)\n",
		"-1":    "error: invalid interval \"-1\": must not be negative\n",
		"0.05":  "error: invalid interval \"0.05\": must be 0 or at least 0.1\n",
		"1e300": "error: invalid interval \"1e300\": value out of range\n",
		"nan":   "error: invalid interval \"nan\": not a duration (examples: 2, 0.5, 500ms, 1m)\n",
	} {
		if got := ask("GET /cpu?interval=" + query + " HTTP/1.1"); !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.HasSuffix(got, "\r\n\r\n"+want) {
			t.Errorf("interval %q: %q", query, got)
		}
	}
	if got := ask("HEAD /cpu?interval=1 HTTP/1.1"); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "\r\nX-Accel-Buffering: no\r\n") || !strings.HasSuffix(got, "\r\n\r\n") {
		t.Errorf("HEAD: %q", got)
	}
	if got := ask("GET /nothing?interval=1 HTTP/1.1"); !strings.HasPrefix(got, "HTTP/1.1 404 ") {
		t.Errorf("no word: %q", got)
	}
	// A client that ends its input, as ncat does, gets a line.
	half, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	fmt.Fprint(half, "GET /cpu?interval=1 HTTP/1.0\r\n\r\n")
	half.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(half); err != nil || !strings.HasSuffix(string(got), "\r\n\r\n"+stillCPU) {
		t.Errorf("after the end of input: %q, %v", got, err)
	}
	// HTTP/1.0 has no chunked encoding: the lines are sent as they are, until the end.
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begin := time.Now()
	fmt.Fprint(conn, "GET /cpu?interval=0 HTTP/1.0\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || len(resp.TransferEncoding) > 0 {
		t.Fatalf("%v, %v", resp, err)
	}
	lines := bufio.NewReader(resp.Body)
	for range 4 {
		if line, err := lines.ReadString('\n'); line != stillCPU || err != nil {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if took := time.Since(begin); took < 3*minWindow {
		t.Errorf("four lines in %v, too fast for new readings", took)
	}
}

// At the root, a browser gets the page, and other clients get a list of the paths.
func TestRoot(t *testing.T) {
	addr, _ := serving(t, &server{})
	get := func(accept string) string {
		return fetch(t, addr, "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: "+accept+"\r\nConnection: close\r\n\r\n")
	}
	document, _ := page.ReadFile("page/index.html")
	for _, want := range []string{"HTTP/1.1 200 OK\r\n", "Content-Type: text/html; charset=utf-8\r\n", "X-Content-Type-Options: nosniff\r\n", "frame-ancestors 'none'\r\n", "script-src 'self';"} {
		if got := get("text/html,*/*;q=0.8"); !strings.Contains(got, want) || !strings.Contains(got, string(document)) {
			t.Errorf("the page lacks %q: %.500s", want, got)
		}
	}
	for path, want := range map[string]string{
		"page/style.css":  "Content-Type: text/css; charset=utf-8\r\n",
		"page/page.js":    "Content-Type: text/javascript; charset=utf-8\r\n",
		"page/":           "HTTP/1.1 404 Not Found\r\n",
		"page/missing.js": "HTTP/1.1 404 Not Found\r\n",
		"page/../http.go": "HTTP/1.1 404 Not Found\r\n",
	} {
		got := fetch(t, addr, "GET /"+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if !strings.Contains(got, want) {
			t.Errorf("%s: %.500q, want %q", path, got, want)
		}
	}
	if got, want := get("*/*"), "\r\n\r\n"+strings.Join(paths(), "\n")+"\n"; !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// metricsOf returns what a scrape receives: the metrics, or an error line.
func metricsOf(w *web) string {
	var text strings.Builder
	if err := writeMetrics(context.Background(), &text, w.sampler, &w.ratchet, w.connections()); err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	return text.String()
}
