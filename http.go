package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	headTime  = 10 * time.Second // timeout for receiving a request
	idleTime  = 5 * time.Minute  // between two requests, without -w
	maxHeader = 8 << 10          // bytes of a header
	maxLines  = 200              // header lines; a parsed line takes far more memory than its bytes
)

// A web serves the connections that turn out to speak HTTP.
type web struct {
	server      *http.Server
	sampler     *sampler
	ratchet     ratchet // of the counters in the metrics
	connections func() int64
	ctx         context.Context // server lifetime; r.Context() is canceled when the client half-closes, which must not fail a reading
	names       []string        // allowed in Host, besides addresses
}

// connKey is the key of the webConn in the context of a request.
type connKey struct{}

// newWeb returns a web that allows these host names, and whose readings and
// streams end with ctx. Its connections may be idle for the given time, or for
// idleTime if that is 0. connections returns the number of all connections of the
// server, for the metrics.
func newWeb(ctx context.Context, smp *sampler, names []string, idle time.Duration, connections func() int64) *web {
	w := &web{ctx: ctx, sampler: smp, connections: connections, names: append(names, "localhost")}
	if name, err := os.Hostname(); err == nil {
		w.names = append(w.names, name)
	}
	idle = cmp.Or(idle, idleTime)
	w.server = &http.Server{
		Handler:                      w,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            min(headTime, idle),
		ReadTimeout:                  min(headTime, idle),
		WriteTimeout:                 stuckTime,
		IdleTimeout:                  idle,
		MaxHeaderBytes:               maxHeader,
		ErrorLog:                     log.New(io.Discard, "", 0), // errors of clients are not logged
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
	}
	return w
}

// handOver serves a connection on which the session s found HTTP, in a goroutine
// of the http.Server. It calls closed when the connection is closed.
func (w *web) handOver(conn net.Conn, s *session, closed func()) {
	conn.SetDeadline(time.Time{})
	input := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(s.begun), conn), 512)
	one := &webConn{Conn: conn, session: s, input: input, closed: sync.OnceFunc(closed), empty: true}
	w.server.Serve(listenOnce(one)) // returns at once
}

// A oneConn is a listener with one connection.
type oneConn chan net.Conn

func listenOnce(conn net.Conn) oneConn {
	one := make(oneConn, 1)
	one <- conn
	return one
}

func (one oneConn) Accept() (net.Conn, error) {
	select {
	case conn := <-one:
		return conn, nil
	default:
		return nil, net.ErrClosed
	}
}

// Close closes the connection if it has not been accepted, because the server
// has ended.
func (one oneConn) Close() error {
	if conn, err := one.Accept(); err == nil {
		conn.Close()
	}
	return nil
}

func (oneConn) Addr() net.Addr { return &net.UnixAddr{} }

// A webConn is a connection of an http.Server. It bounds the number of lines
// in each header, and skips empty lines before a request. Requests are counted
// by the session that read its first bytes.
type webConn struct {
	net.Conn
	session *session
	input   *bufio.Reader // of Conn, after what the session has read
	closed  func()        // called when it is closed
	lines   int           // lines of the current header so far
	empty   bool          // its current line is empty so far
	body    bool          // the rest of the input is the body of the last request
}

// Read returns bytes of only one header at a time, because what follows it may
// be a body. It refuses a request whose header has too many lines.
func (c *webConn) Read(p []byte) (n int, err error) {
	if c.body {
		return c.input.Read(p)
	}
	for n < len(p) && (n == 0 || c.input.Buffered() > 0) {
		b, err := c.input.ReadByte()
		if err != nil {
			return n, err
		}
		if c.lines == 0 && c.empty && (b == '\r' || b == '\n') {
			continue
		}
		p[n] = b
		n++
		switch {
		case b != '\n':
			c.empty = c.empty && b == '\r'
		case c.empty: // the end of the header
			c.lines = 0
			return n, nil
		case c.lines == maxLines:
			io.WriteString(c.Conn, "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n")
			lingerClose(c.Conn)
			return 0, net.ErrClosed
		default:
			c.lines++
			c.empty = true
		}
	}
	return n, nil
}

// CloseWrite lets the http.Server wait for a client that is still sending.
func (c *webConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (c *webConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// ServeHTTP answers one request.
func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	conn := r.Context().Value(connKey{}).(*webConn)
	s := conn.session
	// A proxy sends the requests of several clients over one connection, so
	// each request has intervals of its own.
	defer s.sampler.peaks.leave(s)
	defer clear(s.last[:])
	if r.ContentLength != 0 { // no request needs a body
		conn.body = true
		out.Header().Set("Connection", "close")
	}
	s.note(strconv.Quote(r.Method + " " + r.URL.RequestURI()))
	// Browsers must not guess another type, and must not let other sites load
	// the replies.
	out.Header().Set("X-Content-Type-Options", "nosniff")
	out.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	if status, err := w.respond(out, r, s); err != nil {
		s.note(err.Error())
		http.Error(out, "error: "+err.Error(), status)
	}
}

// respond writes the response to a request, or returns the status and the error
// to respond with.
func (w *web) respond(out http.ResponseWriter, r *http.Request, s *session) (status int, err error) {
	const allowed = "GET, HEAD, OPTIONS"
	host := (&url.URL{Host: r.Host}).Hostname()
	path := strings.TrimPrefix(r.URL.Path, "/")
	readings, err := parseReadings(strings.Split(path, ","))
	switch {
	case r.Host != "" && !w.allows(host): // without a host it is HTTP/1.0, which no browser uses
		// Otherwise, a web page could read this machine by DNS rebinding,
		// through a browser that can reach it.
		return http.StatusForbidden, fmt.Errorf("host name %q not allowed (use an address, or allow it with --name)", host)
	case r.Method == http.MethodOptions:
		out.Header().Set("Allow", allowed)
		out.WriteHeader(http.StatusNoContent)
		return 0, nil
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		out.Header().Set("Allow", allowed)
		return http.StatusMethodNotAllowed, errors.New("method not allowed (use GET or HEAD)")
	case path == "metrics":
		s.scrapes++
		setKind(out, "text/plain; version=0.0.4; charset=utf-8")
		return http.StatusServiceUnavailable, writeMetrics(w.ctx, out, w.sampler, &w.ratchet, w.connections())
	case path == "" && strings.Contains(r.Header.Get("Accept"), "text/html"):
		out.Header().Set("Content-Security-Policy", pagePolicy)
		out.Header().Set("Referrer-Policy", "no-referrer")
		return 0, sendPage(out, "page/index.html")
	case strings.HasPrefix(path, "page/"):
		return http.StatusNotFound, sendPage(out, path)
	case path == "":
		setKind(out, plainText)
		io.WriteString(out, strings.Join(paths(), "\n")+"\n")
		return 0, nil
	case err != nil && err != errWeight && !strings.Contains(path, ","):
		return http.StatusNotFound, fmt.Errorf("not found (known: %s)", strings.Join(paths(), ", "))
	case err != nil:
		return http.StatusBadRequest, err
	}
	query, interval, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return http.StatusBadRequest, err
	}
	setKind(out, plainText)
	lines := printer{w: out, header: query.Has("header")}
	if query.Has("time") {
		lines.timeFormat = timeFormat(interval)
	}
	if query.Has("interval") {
		w.stream(out, r, s, readings, interval, &lines)
		return 0, nil
	}
	l, failed := w.read(s, readings, lines.header)
	if len(failed) > 0 {
		return http.StatusServiceUnavailable, failed[0]
	}
	l.at = time.Now()
	lines.show(l)
	return 0, nil
}

// parseQuery parses the part of a request for readings after the question mark.
func parseQuery(text string) (query url.Values, interval time.Duration, err error) {
	query, err = url.ParseQuery(text)
	if err != nil {
		return nil, 0, fmt.Errorf("invalid query %q (known: interval, time, header)", text)
	}
	for name := range query {
		if name != "interval" && name != "time" && name != "header" {
			return nil, 0, fmt.Errorf("unknown query %q (known: interval, time, header)", name)
		}
	}
	if query.Has("interval") {
		if interval, err = parseInterval(query.Get("interval")); err != nil {
			return nil, 0, fmt.Errorf("invalid interval %q: %w", query.Get("interval"), err)
		}
	}
	return query, interval, nil
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
//go:embed page
var page embed.FS

// pagePolicy is the Content-Security-Policy of the page. It allows nothing from
// elsewhere, and no script or style within the document.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// sendPage sends a file of the page.
func sendPage(out http.ResponseWriter, name string) error {
	text, err := page.ReadFile(name)
	switch {
	case name == "page/table.js":
		text = readingsModule()
	case err != nil:
		return errors.New("not found")
	}
	kind := map[string]string{".html": "text/html", ".css": "text/css", ".js": "text/javascript"}[path.Ext(name)]
	setKind(out, kind+"; charset=utf-8")
	out.Write(text)
	return nil
}

// readingsModule returns the JavaScript module that gives the page the readings of
// the table.
func readingsModule() []byte {
	var rows []map[string]any
	for _, r := range table[:readings] {
		rows = append(rows, map[string]any{"word": r.name, "title": r.title, "columns": r.columns, "limit": r.limit})
	}
	text, _ := json.Marshal(rows)
	return slices.Concat([]byte("export default "), text)
}

// read returns the readings as a line, in which each reading is one text, to
// save memory. The columns of those that failed are nan.
func (w *web) read(s *session, readings []word, header bool) (l line, failed []error) {
	if slices.Contains(readings, peakWord) {
		s.read(w.ctx, peakWord) // first, as in a session
	}
	for _, reading := range readings {
		reply, err := s.reply(w.ctx, reading)
		text := strings.TrimSpace(string(reply))
		if err != nil {
			failed = append(failed, err)
			text = strings.Repeat(" nan", max(1, reading.width()))[1:]
		}
		l.columns = append(l.columns, text)
		if header {
			var names []string
			for c := range strings.Count(text, " ") + 1 {
				names = append(names, reading.column(c))
			}
			l.names = append(l.names, strings.Join(names, " "))
		}
	}
	return l, failed
}

// stream sends a line every interval, without buffering, until the client
// disconnects or stops reading, or w.ctx is done. An interval of 0 means
// minWindow, in which there always is something new.
func (w *web) stream(out http.ResponseWriter, r *http.Request, s *session, readings []word, interval time.Duration, lines *printer) {
	out.Header().Set("X-Accel-Buffering", "no") // nginx must not buffer either
	if r.Method == http.MethodHead {
		return
	}
	conn := http.NewResponseController(out)
	conn.SetReadDeadline(time.Time{}) // the client sends nothing more
	for c := (clock{interval: cmp.Or(interval, minWindow)}); ; {
		l, failed := w.read(s, readings, lines.header)
		if c.due.IsZero() {
			c.due = time.Now() // a first reply may take long, and the ticks start with the first line
		}
		l.at = c.stamp(time.Now())
		conn.SetWriteDeadline(time.Now().Add(stuckTime))
		for _, err := range failed {
			s.note(err.Error())
			fmt.Fprintf(out, "error: %v\n", err)
		}
		if len(failed) < len(readings) && lines.show(l) != nil || conn.Flush() != nil {
			return
		}
		c = c.next(time.Now())
		if sleep(r.Context(), time.Until(c.due)) != nil {
			return
		}
	}
}

// setKind sets the headers that every reading, page and scrape has.
func setKind(out http.ResponseWriter, kind string) {
	out.Header().Set("Content-Type", kind)
	out.Header().Set("Cache-Control", "no-store")
}

// allows reports whether the host of a request is an address or an allowed
// name.
func (w *web) allows(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	host = strings.TrimSuffix(host, ".")
	return host != "" && slices.ContainsFunc(w.names, func(name string) bool { return strings.EqualFold(strings.TrimSuffix(name, "."), host) })
}
