package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
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

// lastReplies is how long sessions may take at shutdown, to send the last reply and
// to wait until the client has disconnected. One that reads the kernel may hang.
const lastReplies = 2*grace + brief

// A server serves all connections of one listener.
type server struct {
	sampler *sampler
	verbose int
	once    bool
	idle    time.Duration // limit for idle clients; 0: none
	allow   prefixes
	names   []string // of this host, for HTTP
	web     *web

	maxConns int64
	refusals chan struct{}  // a token for each error line that is being written to a client beyond maxConns
	serving  atomic.Int64   // open connections
	running  sync.WaitGroup // connections and refusals
}

// setLimits limits the number of connections, so that descriptors are left for
// refusals and other files.
func (srv *server) setLimits(maxConns, descriptors int) {
	descriptors = max(descriptors-16, 1) // standard streams, the listener, what the runtime and the sampler open
	refusals := min(100, descriptors/4)
	srv.refusals = make(chan struct{}, refusals)
	srv.maxConns = int64(min(maxConns, descriptors-refusals))
}

// serve accepts connections, or one with once, and serves each in its own
// goroutine until ctx is done. Then it waits for them.
func (srv *server) serve(ctx context.Context, ln net.Listener) {
	srv.web = newWeb(ctx, srv.sampler, srv.names, srv.idle, srv.serving.Load)
	defer srv.web.server.Close()
	defer context.AfterFunc(ctx, func() {
		ln.Close()
		srv.web.server.Shutdown(ctx) // returns at once; idle connections are closed, and others after their response
	})()
	defer await(ctx, lastReplies, func() error { srv.running.Wait(); return nil })
	defer ln.Close()
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
// running. If it speaks HTTP, this goroutine ends before the connection, to save
// its memory.
func (srv *server) serveConn(ctx context.Context, conn net.Conn) {
	s := &session{sampler: srv.sampler, idle: srv.idle}
	srv.log(conn, "connected")
	if srv.verbose > 1 {
		s.trace = func(request string) { srv.log(conn, "%s", request) }
	}
	err := s.serve(ctx, conn)
	if err == errHTTP {
		srv.web.handOver(conn, s, func() { srv.closed(conn, s, nil) })
		return
	}
	srv.closed(conn, s, err)
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
	select {
	case srv.refusals <- struct{}{}:
	default:
		conn.Close()
		return
	}
	srv.running.Go(func() {
		defer func() { <-srv.refusals }()
		text := fmt.Sprintf("error: too many connections (limit %d)\n", srv.maxConns)
		if beginsHTTP(conn) {
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
	in := bufio.NewScanner(conn)
	in.Buffer(make([]byte, 16), 16) // longer than any method
	in.Split(bufio.ScanWords)
	return in.Scan() && slices.Contains(methods, in.Text())
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
