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
	headTime  = 10 * time.Second // for a whole request
	idleTime  = 5 * time.Minute  // between two, unless -w says else
	maxHeader = 8 << 10          // bytes
	maxLines  = 200              // of headers: each costs far more than its bytes
)

// A web answers the connections that turn out to speak HTTP. It is the
// listener of its own server, which accepts them when they are handed over.
type web struct {
	*http.Server
	sampler     *sampler
	ratchet     ratchet // of the counters in the metrics
	connections func() int32
	ctx         context.Context // of run; that of a request ends with its client's input

	conns chan net.Conn
	done  chan struct{}
	close func()
	names []string // that a Host may have, besides an address
}

// sessionKey is where a request's context has the session of its connection.
type sessionKey struct{}

// newWeb gives the web of a listener that requests may call by these names. Its
// connections are counted elsewhere, and may be idle for that long.
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
		ErrorLog:          log.New(io.Discard, "", 0), // clients' faults are theirs
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

// run serves what is handed over until ctx is done; then it finishes what is
// under way, and soon.
func (w *web) run(ctx context.Context) {
	w.ctx = ctx
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		soon, cancel := context.WithTimeout(context.Background(), 2*leaveTime)
		defer cancel()
		if w.Shutdown(soon) != nil {
			w.Server.Close()
		}
	})
	w.Serve(w)
	if !stop() {
		<-over
	}
}

// take hands over the connection of a session that found HTTP.
func (w *web) take(conn net.Conn, s *session, gone func()) {
	conn.SetDeadline(time.Time{})
	c := &webConn{Conn: conn, session: s, gone: sync.OnceFunc(gone)}
	select {
	case w.conns <- c:
	case <-w.done:
		c.Close()
	}
}

// A webConn is a connection whose first bytes were read already. Its intervals
// are those of the session that read them.
type webConn struct {
	net.Conn
	*session
	gone  func()
	lines atomic.Int32 // read since a request ended
}

func (c *webConn) Read(p []byte) (int, error) {
	if len(c.begun) > 0 {
		n := copy(p, c.begun)
		c.begun = c.begun[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p[:min(len(p), 1<<10)]) // not many requests at once, of which each may have its lines
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
	// No browser shows, frames or runs for another site what it gets here.
	out.Header().Set("X-Content-Type-Options", "nosniff")
	out.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	path := strings.TrimPrefix(r.URL.Path, "/")
	reading := word(slices.Index(words[:readings], path))
	query := r.URL.Query()
	switch {
	case !w.allowedHost(r.Host):
		// Otherwise a page could read this by DNS rebinding: from a browser here,
		// by a name that was made to point at this machine.
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
		out.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		out.Header().Set("Cache-Control", "no-store")
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

// paths are those there are, besides that of the page.
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

// pagePolicy is the Content-Security-Policy of the page: nothing but its own
// script and style, which are known by their hashes.
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

// line gives the line that the session has for a word, or an error line.
func (w *web) line(s *session, reading word) []byte {
	s.answer(w.ctx, reading)
	text := s.unsent
	s.unsent = nil
	return text
}

// stream sends a line every interval, each as it is made, until the client is
// gone or stops reading, or w.ctx is done. An interval of 0 is the shortest in
// which there is something new.
func (w *web) stream(out http.ResponseWriter, r *http.Request, s *session, reading word, interval time.Duration) {
	out.Header().Set("Content-Type", plainText)
	out.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	conn := http.NewResponseController(out)
	conn.SetReadDeadline(time.Time{}) // the client has nothing more to say
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

// send answers with text, which may be an error line.
func (w *web) send(out http.ResponseWriter, text []byte, kind string) {
	out.Header().Set("Content-Type", kind)
	out.Header().Set("Cache-Control", "no-store")
	if bytes.HasPrefix(text, []byte("error: ")) {
		out.WriteHeader(http.StatusServiceUnavailable)
	}
	out.Write(text)
}

// allowedHost says whether host, of a request, is an address or a name of this host.
func (w *web) allowedHost(host string) bool {
	if host == "" { // from HTTP/1.0, which no browser speaks
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

// metrics writes the counters in Prometheus' text format, those that node_exporter
// has under its names and with its help. It fails, with nothing written, where they
// cannot be read. It writes as it goes: the text of a large machine is long, and a
// client may leave it unread.
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
	if load.err == nil { // or there are none on this system
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
	family("cpunc_connections", "gauge", "Connections that are open.")
	fmt.Fprintf(text, "cpunc_connections %d\n", w.connections())
	family("cpunc_answers_total", "counter", "Answers given to each word.")
	for word := range readings {
		fmt.Fprintf(text, "cpunc_answers_total{word=%q} %d\n", word.String(), w.sampler.replies[word].Load())
	}
	family("cpunc_build_info", "gauge", "Always 1; what cpunc was built from.")
	fmt.Fprintf(text, "cpunc_build_info{version=%q,goversion=%q} 1\n", version(), runtime.Version())
	text.Flush() // an error is the client's, who is gone
	return nil
}
