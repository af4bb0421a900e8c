package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// onListening is called with the address when the listener is ready, for tests.
var onListening = func(net.Addr) {}

func (a address) listen(ctx context.Context) (net.Listener, error) {
	if a.network == socket {
		return listenUnix(ctx, a.host)
	}
	if ip, err := netip.ParseAddr(a.host); err == nil && ip.Is4() && a.network == "tcp" {
		a.network = "tcp4" // with tcp, 0.0.0.0 would include IPv6
	}
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	return config.Listen(ctx, a.network, a.target())
}

// keepAlive detects within half a minute that a peer has disappeared.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// lastReplies is how long sessions may take at shutdown: for their last reply, and
// until its client has disconnected. One that reads the kernel may hang.
const lastReplies = 2*grace + brief

// A server serves all connections of one listener.
type server struct {
	sampler *sampler
	verbose int
	once    bool
	idle    time.Duration // limit for idle clients; 0: none
	allow   prefixes
	web     *web // nil if HTTP is not served

	maxConns    int32
	maxRefusals int32
	running     sync.WaitGroup // goroutines of connections and refusals
	serving     atomic.Int32   // open connections
	refusals    atomic.Int32   // error lines being written to clients beyond maxConns
}

// setLimits limits the number of connections, so that descriptors are left for
// refusals and other files.
func (srv *server) setLimits(maxConns, descriptors int) {
	descriptors -= 16 // standard streams, the listener, what the runtime and the sampler open
	srv.maxRefusals = int32(min(100, descriptors/4))
	srv.maxConns = int32(min(maxConns, descriptors-int(srv.maxRefusals), math.MaxInt32))
}

// serve accepts connections, or one with once, and serves each in its own
// goroutine until ctx is done. Then it waits for them.
func (srv *server) serve(ctx context.Context, ln net.Listener) {
	defer await(ctx, lastReplies, func() error { srv.running.Wait(); return nil })
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		conn, err := srv.accept(ctx, ln)
		switch {
		case err != nil:
			return
		case !srv.allow.admit(conn.RemoteAddr()):
			srv.log(conn, "rejected: address not allowed")
			conn.Close()
		case srv.serving.Load() >= srv.maxConns:
			srv.refuse(conn)
		default:
			srv.serving.Add(1)
			srv.running.Add(1)
			go srv.serveConn(ctx, conn)
			if srv.once {
				return
			}
		}
	}
}

// accept waits for a connection. It fails only if ctx is done or ln is closed.
// Other errors are temporary, such as a client that has disconnected already, so
// it retries.
func (srv *server) accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	const first = 5 * time.Millisecond
	for pause := first; ; pause = min(2*pause, time.Second) {
		conn, err := ln.Accept()
		if err == nil || ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		if pause == first {
			say("accept: %v; retrying", cause(err))
		}
		sleep(ctx, pause)
	}
}

// serveConn serves one connection, which its caller has added to serving and
// running. The call of closed may come later, when HTTP has ended.
func (srv *server) serveConn(ctx context.Context, conn net.Conn) error {
	s := &session{sampler: srv.sampler, idle: srv.idle, scan: scanner{http: srv.web != nil}}
	srv.log(conn, "connected")
	if srv.verbose > 1 {
		s.trace = func(request string) { srv.log(conn, "%s", request) }
	}
	err := s.serve(ctx, conn)
	if err == errHTTP {
		srv.web.handOver(conn, s, func() { srv.closed(conn, s, nil) })
		return nil
	}
	srv.closed(conn, s, err)
	return err
}

// closed logs the end of a connection and removes it from serving and running.
func (srv *server) closed(conn net.Conn, s *session, err error) {
	switch {
	case srv.verbose == 0: // nothing is logged, so s.requests is not needed
	case err == nil:
		srv.log(conn, "closed, %s", s.requests())
	default:
		srv.log(conn, "closed: %v, %s", cause(err), s.requests())
	}
	srv.serving.Add(-1)
	srv.running.Done()
}

// refuse writes an error line for a client beyond the limit, in a goroutine of
// its own, unless there are too many such clients.
func (srv *server) refuse(conn net.Conn) {
	srv.log(conn, "rejected: connection limit %d reached", srv.maxConns)
	if srv.refusals.Add(1) > srv.maxRefusals {
		srv.refusals.Add(-1)
		conn.Close()
		return
	}
	srv.running.Go(func() {
		defer srv.refusals.Add(-1)
		text := fmt.Sprintf("error: too many connections (limit %d)\n", srv.maxConns)
		if srv.web != nil && beginsHTTP(conn) {
			text = fmt.Sprintf("HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"+
				"Content-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s", len(text), text)
		}
		conn.SetWriteDeadline(time.Now().Add(grace))
		io.WriteString(conn, text)
		lingerClose(conn)
	})
}

// beginsHTTP reads for a short time, and reports whether the client speaks
// HTTP.
func beginsHTTP(conn net.Conn) bool {
	conn.SetReadDeadline(time.Now().Add(brief))
	scan := scanner{http: true}
	var in [16]byte // longer than any method
	for {
		n, readErr := conn.Read(in[:])
		for _, b := range in[:n] {
			w, err := scan.next(b)
			if w != noWord || err != nil && err != errMark { // the first word decides
				return err == errHTTP
			}
		}
		if readErr != nil {
			return false
		}
	}
}

// serveStdio serves one connection over standard input and output.
func (srv *server) serveStdio(ctx context.Context, conn *duplex) error {
	srv.serving.Add(1)
	srv.running.Add(1)
	err := await(ctx, lastReplies, func() error {
		defer srv.running.Wait() // the connection may have been handed over to HTTP
		return srv.serveConn(ctx, conn)
	})
	switch {
	case errors.Is(err, errIdle): // not a failure, just as over a network
		err = nil
	case err == errEnd, errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil: // cut short by a signal
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded): // flush would only wait again
		return stdoutError(err)
	}
	return cmp.Or(stdoutError(conn.flush(ctx)), err)
}

// log logs a message about a client, with -v.
func (srv *server) log(conn net.Conn, format string, args ...any) {
	if srv.verbose == 0 {
		return
	}
	client := "unix socket" // that of a client normally has no name, or @
	if name := conn.RemoteAddr().String(); name != "" && name != "@" {
		client = quoteOdd(name)
	}
	say("%s: %s", client, fmt.Sprintf(format, args...))
}
