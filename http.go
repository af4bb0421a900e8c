package main

import (
	"bytes"
	"cmp"
	"context"
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
	"time"
)

const (
	headTime  = 10 * time.Second // for a whole request
	idleTime  = 5 * time.Minute  // between two, unless -w says else
	maxHeader = 8 << 10          // bytes
)

// A web answers the connections that turn out to speak HTTP. It is the
// listener of its own server, which accepts them when they are handed over.
type web struct {
	*http.Server
	sampler     *sampler
	ratchet     ratchet         // of the counters in the metrics
	ctx         context.Context // of the listener, for readings: that of a request ends with the client's input
	connections func() int32

	conns chan net.Conn
	done  chan struct{}
	close func()
	names []string // that a Host may have, besides an address
}

// sessionKey is where a request's context has the session of its connection.
type sessionKey struct{}

// newWeb gives the web of a listener at host, whose connections are counted
// elsewhere and may be silent for that long.
func newWeb(smp *sampler, host string, idle time.Duration, connections func() int32) *web {
	w := &web{sampler: smp, connections: connections, conns: make(chan net.Conn), done: make(chan struct{}), names: []string{"localhost", host}}
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
	gone func()
}

func (c *webConn) Read(p []byte) (int, error) {
	if len(c.begun) > 0 {
		n := copy(p, c.begun)
		c.begun = c.begun[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *webConn) Close() error {
	defer c.gone()
	return c.Conn.Close()
}

func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	s := r.Context().Value(sessionKey{}).(*session)
	if s.trace != nil {
		s.trace(fmt.Sprintf("%q", r.Method+" "+r.URL.Path))
	}
	refuse := func(status int, why string) {
		if s.trace != nil {
			s.trace(why)
		}
		http.Error(out, "error: "+why, status)
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	reading := slices.Index(words[:readings], path)
	switch {
	case !w.known(r.Host):
		// Else a page in a browser here could read this, whose name was made to
		// point at this machine.
		refuse(http.StatusForbidden, fmt.Sprintf("%q is no name of this host", r.Host))
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		out.Header().Set("Allow", "GET, HEAD")
		refuse(http.StatusMethodNotAllowed, "only GET and HEAD")
	case reading >= 0:
		s.answer(w.ctx, word(reading))
		text := s.unsent
		s.unsent = nil
		w.send(out, text, "text/plain; charset=utf-8")
	case path == "metrics":
		s.scrapes++
		w.send(out, w.metrics(w.ctx), "text/plain; version=0.0.4; charset=utf-8")
	default:
		refuse(http.StatusNotFound, "there are /"+strings.Join(words[:readings], ", /")+" and /metrics")
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

// known says whether host, of a request, is an address or a name of this host.
func (w *web) known(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" { // from HTTP/1.0, which no browser speaks
		return true
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return slices.ContainsFunc(w.names, func(name string) bool { return name != "" && strings.EqualFold(name, host) })
}

// metrics gives the counters in Prometheus' text format, those that
// node_exporter has under its names and with its help; or, where they can't
// be read, an error line.
func (w *web) metrics(ctx context.Context) []byte {
	cores, load := w.sampler.sample(ctx, perCPU), w.sampler.sample(ctx, averages)
	if err := cmp.Or(cores.err, load.err); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Appendf(nil, "error: %v\n", err)
	}
	var text []byte
	family := func(name, kind, help string) {
		text = fmt.Appendf(text, "# HELP %s %s\n# TYPE %[1]s %[3]s\n", name, help, kind)
	}
	family("node_cpu_seconds_total", "counter", "Seconds the CPUs spent in each mode.")
	for _, r := range w.ratchet.hold(cores.rows) {
		for mode, name := range modeNames {
			text = fmt.Appendf(text, "node_cpu_seconds_total{cpu=\"%d\",mode=%q} %g\n", r.cpu, name, r.seconds(mode))
		}
	}
	if load.err == nil { // or there are none on this system
		for _, average := range []struct {
			minutes int
			value   float64
		}{{1, load.load[0]}, {5, load.load[1]}, {15, load.load[2]}} {
			name := fmt.Sprintf("node_load%d", average.minutes)
			family(name, "gauge", fmt.Sprintf("%dm load average.", average.minutes))
			text = fmt.Appendf(text, "%s %g\n", name, average.value)
		}
	}
	if pressure := w.sampler.sample(ctx, pressures); pressure.err == nil {
		family("node_pressure_cpu_waiting_seconds_total", "counter", "Total time in seconds that processes have waited for CPU time.")
		text = fmt.Appendf(text, "node_pressure_cpu_waiting_seconds_total %g\n", pressure.waited.Seconds())
	}
	family("cpunc_connections", "gauge", "Connections that are open.")
	text = fmt.Appendf(text, "cpunc_connections %d\n", w.connections())
	family("cpunc_answers_total", "counter", "Answers given to each word.")
	for word := range readings {
		text = fmt.Appendf(text, "cpunc_answers_total{word=%q} %d\n", word.String(), w.sampler.replies[word].Load())
	}
	family("cpunc_build_info", "gauge", "Always 1; what cpunc was built from.")
	return fmt.Appendf(text, "cpunc_build_info{version=%q,goversion=%q} 1\n", version(), runtime.Version())
}
