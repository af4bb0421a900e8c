package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	headTime  = 10 * time.Second // timeout for receiving a request
	idleTime  = 5 * time.Minute  // between two requests, without -w
	maxHeader = 8 << 10          // bytes of a header
	maxLines  = 200              // of a header: each costs far more memory than its bytes
)

// A web serves the connections that turn out to speak HTTP. It is also the
// listener of its http.Server, and accepts the connections that are handed over
// to it.
type web struct {
	*http.Server
	sampler     *sampler
	ratchet     ratchet // of the counters in the metrics
	connections func() int32
	ctx         context.Context // of run; the context of a request ends with the input of its client

	conns chan net.Conn
	done  chan struct{}
	close func()
	names []string // allowed in Host, besides addresses
}

// sessionKey is the key of the session in the context of a request.
type sessionKey struct{}

// newWeb returns a web that allows these host names. Its connections may be
// idle for the given time, or for idleTime if that is 0. They are counted by
// the server, whose count connections returns.
func newWeb(smp *sampler, names []string, idle time.Duration, connections func() int32) *web {
	w := &web{sampler: smp, connections: connections, conns: make(chan net.Conn), done: make(chan struct{}), names: append(names, "localhost")}
	w.close = sync.OnceFunc(func() { close(w.done) })
	if name, err := os.Hostname(); err == nil {
		w.names = append(w.names, name)
	}
	idle = cmp.Or(idle, idleTime)
	w.Server = &http.Server{
		Handler:           w,
		ReadHeaderTimeout: min(headTime, idle),
		ReadTimeout:       min(headTime, idle),
		WriteTimeout:      stuckTime,
		IdleTimeout:       idle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // errors of clients are not logged
		ConnState: func(conn net.Conn, state http.ConnState) {
			if state == http.StateIdle {
				conn.(*webConn).lines.Store(0)
			}
		},
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, sessionKey{}, conn.(*webConn).session)
		},
	}
	return w
}

func (w *web) Accept() (net.Conn, error) {
	select {
	case conn := <-w.conns:
		return conn, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *web) Close() error { w.close(); return nil }

func (w *web) Addr() net.Addr { return &net.TCPAddr{} }

// run serves the connections until ctx is done. Then it finishes the pending
// requests within a short time.
func (w *web) run(ctx context.Context) {
	w.ctx = ctx
	finished := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(finished)
		soon, cancel := context.WithTimeout(context.Background(), 2*leaveTime)
		defer cancel()
		if w.Shutdown(soon) != nil {
			w.Server.Close()
		}
	})
	w.Serve(w)
	if !stop() {
		<-finished
	}
}

// take hands over the connection of a session that found HTTP. It calls gone
// when the connection is closed.
func (w *web) take(conn net.Conn, s *session, gone func()) {
	conn.SetDeadline(time.Time{})
	c := &webConn{Conn: conn, session: s, gone: sync.OnceFunc(gone)}
	select {
	case w.conns <- c:
	case <-w.done:
		c.Close()
	}
}

// A webConn is a connection whose first bytes have been read already. Its
// intervals are those of the session that read them.
type webConn struct {
	net.Conn
	*session
	gone  func()
	lines atomic.Int32 // lines read since the last request ended
}

func (c *webConn) Read(p []byte) (int, error) {
	if len(c.begun) > 0 {
		n := copy(p, c.begun)
		c.begun = c.begun[n:]
		return n, nil
	}
	// It reads little at a time, because the lines of several requests in one
	// read would all count for one request.
	n, err := c.Conn.Read(p[:min(len(p), 1<<10)])
	if c.lines.Add(int32(bytes.Count(p[:n], []byte("\n")))) > maxLines {
		io.WriteString(c.Conn, "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n")
		return 0, errors.New("too many header lines")
	}
	return n, err
}

func (c *webConn) Close() error {
	defer c.gone()
	return c.Conn.Close()
}

// ServeHTTP answers one request.
func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	s := r.Context().Value(sessionKey{}).(*session)
	if s.trace != nil {
		s.trace(fmt.Sprintf("%q", r.Method+" "+r.URL.RequestURI()))
	}
	refuse := func(status int, why string) {
		if s.trace != nil {
			s.trace(why)
		}
		http.Error(out, "error: "+why, status)
	}
	// Browsers must not guess another type, and must not let other sites load
	// the replies.
	out.Header().Set("X-Content-Type-Options", "nosniff")
	out.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	path := strings.TrimPrefix(r.URL.Path, "/")
	reading := word(slices.Index(words[:readings], path))
	query := r.URL.Query()
	switch {
	case !w.allowedHost(r.Host):
		// Otherwise, a web page could read this machine by DNS rebinding,
		// through a browser that can reach it.
		refuse(http.StatusForbidden, fmt.Sprintf("host name %q not allowed (use an address, or allow it with --name)", r.Host))
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		out.Header().Set("Allow", "GET, HEAD")
		refuse(http.StatusMethodNotAllowed, "method not allowed (use GET or HEAD)")
	case reading >= 0 && query.Has("interval"):
		interval, err := parseInterval(query.Get("interval"))
		if err != nil {
			refuse(http.StatusBadRequest, fmt.Sprintf("invalid interval %q: %v", query.Get("interval"), err))
			return
		}
		w.stream(out, r, s, reading, interval)
	case reading >= 0:
		w.send(out, w.line(s, reading), plainText)
	case path == "metrics":
		s.scrapes++
		setKind(out, "text/plain; version=0.0.4; charset=utf-8")
		if err := w.metrics(w.ctx, out); err != nil {
			refuse(http.StatusServiceUnavailable, err.Error())
		}
	case path == "" && strings.Contains(r.Header.Get("Accept"), "text/html"):
		out.Header().Set("Content-Security-Policy", pagePolicy())
		out.Header().Set("Referrer-Policy", "no-referrer")
		w.send(out, page, "text/html; charset=utf-8")
	case path == "":
		w.send(out, []byte(strings.Join(paths(), "\n")+"\n"), plainText)
	default:
		refuse(http.StatusNotFound, "not found (known: "+strings.Join(paths(), ", ")+")")
	}
}

const plainText = "text/plain; charset=utf-8"

// paths returns the paths that are served, without that of the page.
func paths() (all []string) {
	for _, name := range words[:readings] {
		all = append(all, "/"+name)
	}
	return append(all, "/metrics")
}

// page is the live chart for browsers.
//
//go:embed page.html
var page []byte

// pagePolicy is the Content-Security-Policy of the page. It allows only the
// page's own script and style, by their hashes.
var pagePolicy = sync.OnceValue(func() string {
	hash := func(tag string) string {
		_, rest, _ := bytes.Cut(page, []byte("<"+tag+">"))
		text, _, _ := bytes.Cut(rest, []byte("</"+tag+">"))
		sum := sha256.Sum256(text)
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; script-src " + hash("script") + "; style-src " + hash("style") +
		"; connect-src 'self'; img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
})

// line returns the session's reply to a word, which may be an error line.
func (w *web) line(s *session, reading word) []byte {
	s.answer(w.ctx, reading)
	text := s.unsent
	s.unsent = nil
	return text
}

// stream sends a line every interval, without buffering, until the client
// disconnects or stops reading, or w.ctx is done. An interval of 0 means
// minWindow, in which there always is something new.
func (w *web) stream(out http.ResponseWriter, r *http.Request, s *session, reading word, interval time.Duration) {
	setKind(out, plainText)
	if r.Method == http.MethodHead {
		return
	}
	conn := http.NewResponseController(out)
	conn.SetReadDeadline(time.Time{}) // the client sends nothing more
	c := clock{time.Now(), cmp.Or(interval, minWindow)}
	for n := 0; ; n = c.after(n, time.Now(), 0) {
		select {
		case <-time.After(time.Until(c.at(n))):
		case <-r.Context().Done():
			return
		case <-w.ctx.Done():
			return
		}
		conn.SetWriteDeadline(time.Now().Add(stuckTime))
		if _, err := out.Write(w.line(s, reading)); err != nil || conn.Flush() != nil {
			return
		}
	}
}

// send sends text, with status 503 if it is an error line.
func (w *web) send(out http.ResponseWriter, text []byte, kind string) {
	setKind(out, kind)
	if bytes.HasPrefix(text, []byte("error: ")) {
		out.WriteHeader(http.StatusServiceUnavailable)
	}
	out.Write(text)
}

// setKind sets the headers that every reading, page and scrape has.
func setKind(out http.ResponseWriter, kind string) {
	out.Header().Set("Content-Type", kind)
	out.Header().Set("Cache-Control", "no-store")
}

// allowedHost reports whether the host of a request is an address or an allowed
// name.
func (w *web) allowedHost(host string) bool {
	if host == "" { // HTTP/1.0, which no browser uses
		return true
	}
	if name, port, err := net.SplitHostPort(host); err == nil {
		if strings.Trim(port, "0123456789") != "" {
			return false
		}
		host = name
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	host = strings.TrimSuffix(host, ".")
	return host != "" && slices.ContainsFunc(w.names, func(name string) bool { return strings.EqualFold(strings.TrimSuffix(name, "."), host) })
}

// metrics writes the counters in the Prometheus text format. Names and help
// texts are those of node_exporter, if it has the metric. If the counters
// cannot be read, metrics returns an error and writes nothing. It does not
// build the whole text first, because that of a large machine is long, and a
// client may not read it.
func (w *web) metrics(ctx context.Context, out io.Writer) error {
	cores, load := w.sampler.sample(ctx, perCPU), w.sampler.sample(ctx, averages)
	if err := cmp.Or(cores.err, load.err); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	text := bufio.NewWriter(out)
	family := func(name, kind, help string) {
		fmt.Fprintf(text, "# HELP %s %s\n# TYPE %[1]s %[3]s\n", name, help, kind)
	}
	family("node_cpu_seconds_total", "counter", "Seconds the CPUs spent in each mode.")
	for _, r := range w.ratchet.hold(cores.rows) {
		for mode, name := range modeNames {
			fmt.Fprintf(text, "node_cpu_seconds_total{cpu=\"%d\",mode=%q} %g\n", r.cpu, name, r.seconds(mode))
		}
	}
	if load.err == nil { // otherwise, the system has no load averages
		for i, minutes := range []int{1, 5, 15} {
			name := fmt.Sprintf("node_load%d", minutes)
			family(name, "gauge", fmt.Sprintf("%dm load average.", minutes))
			fmt.Fprintf(text, "%s %g\n", name, load.load[i])
		}
	}
	if pressure := w.sampler.sample(ctx, pressures); pressure.err == nil {
		family("node_pressure_cpu_waiting_seconds_total", "counter", "Total time in seconds that processes have waited for CPU time.")
		fmt.Fprintf(text, "node_pressure_cpu_waiting_seconds_total %g\n", pressure.waited.Seconds())
	}
	family("cpunc_connections", "gauge", "Open connections.")
	fmt.Fprintf(text, "cpunc_connections %d\n", w.connections())
	family("cpunc_answers_total", "counter", "Replies to each word.")
	for word := range readings {
		fmt.Fprintf(text, "cpunc_answers_total{word=%q} %d\n", word.String(), w.sampler.replies[word].Load())
	}
	family("cpunc_build_info", "gauge", "Always 1; the labels are the versions of cpunc and Go.")
	fmt.Fprintf(text, "cpunc_build_info{version=%q,goversion=%q} 1\n", version(), runtime.Version())
	text.Flush() // an error means that the client has disconnected
	return nil
}
