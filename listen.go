package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func (a address) listen(ctx context.Context) (net.Listener, error) {
	if a.network == socket {
		return listenUnix(ctx, a.host)
	}
	if ip, err := netip.ParseAddr(a.host); err == nil && ip.Is4() && a.network == "tcp" {
		a.network = "tcp4" // with tcp, 0.0.0.0 would include IPv6
	}
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	if setKeepAlive != nil {
		// Connections inherit the setting, which saves four system calls for
		// each.
		config.KeepAlive, config.KeepAliveConfig.Enable = -1, false
		config.Control = func(_, _ string, socket syscall.RawConn) error {
			var err error
			return cmp.Or(socket.Control(func(fd uintptr) { err = setKeepAlive(fd, keepAlive) }), err)
		}
	}
	return config.Listen(ctx, a.network, a.target())
}

const (
	maxRefusals    = 100 // clients that can be told at the same time why they are refused
	fewDescriptors = 200 // if fewer are left, each new connection is checked, which costs four system calls
)

// keepAlive detects a peer that has disappeared within half a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// A unixListener removes its socket when it is closed, if that is still the one
// at path.
type unixListener struct {
	*net.UnixListener
	path   string
	socket os.FileInfo
}

// listenUnix listens on a socket at path that only its owner can use. It
// replaces a stale socket. If several processes start at once with the same
// path, one succeeds and the others fail.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	unlock, err := lockPath(ctx, path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if old, err := os.Lstat(path); err == nil && old.Mode().Type() != os.ModeSocket {
		return nil, errors.New("exists and is not a socket")
	}
	if err := checkUnused(path); err != nil {
		return nil, err
	}
	// In a directory of its own, nobody can connect to the socket before its
	// mode is set. Renaming it replaces a stale socket atomically.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".cpunc")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	hidden := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if errors.Is(err, syscall.EINVAL) { // because the temporary path is a little longer
		err = syscall.ENAMETOOLONG
	}
	if err != nil {
		return nil, err
	}
	l := &unixListener{UnixListener: ln, path: path}
	if err = os.Chmod(hidden, 0o600); err == nil {
		if l.socket, err = os.Lstat(hidden); err == nil {
			err = os.Rename(hidden, path)
		}
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return l, nil
}

// checkUnused fails if a process listens on the socket at path, or if path
// cannot be dialed.
func checkUnused(path string) error {
	for _, kind := range []string{"unix", "unixgram", "unixpacket"} {
		conn, err := net.DialTimeout(kind, path, time.Second)
		if err == nil {
			conn.Close()
		}
		busy, ok := err.(net.Error)
		switch {
		case err == nil, ok && busy.Timeout():
			return errors.New("address already in use")
		case errors.Is(err, os.ErrPermission):
			return err
		case kind == "unix" && errors.Is(err, syscall.EINVAL): // path is too long to be dialed
			return syscall.ENAMETOOLONG
		}
	}
	return nil
}

// lockTime is how long another process may take to create or remove its socket.
const lockTime = 5 * time.Second

// lockPath waits until no other process is creating or removing a socket at
// path, and prevents that until unlock. The lock is on a separate file, which
// exists only as long as the lock.
func lockPath(ctx context.Context, path string) (unlock func(), err error) {
	name := path + ".lock"
	for deadline := time.Now().Add(lockTime); ; {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if lockFile(f) == nil {
			mine, mineErr := f.Stat()
			now, nowErr := os.Lstat(name)
			if mineErr == nil && nowErr == nil && os.SameFile(mine, now) {
				return func() { os.Remove(name); f.Close() }, nil
			}
		}
		f.Close() // locked by another process, or just removed by it
		if ctx.Err() != nil || time.Now().After(deadline) {
			return nil, errors.New("address already in use")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	soon, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	if unlock, err := lockPath(soon, l.path); err == nil {
		defer unlock()
		// A new socket at path may have the same inode number, so the times are
		// compared, too.
		now, err := os.Lstat(l.path)
		if err == nil && os.SameFile(now, l.socket) && now.ModTime().Equal(l.socket.ModTime()) {
			os.Remove(l.path)
		}
	}
	return l.UnixListener.Close()
}

// A server serves all connections of one listener.
type server struct {
	sampler  *sampler
	verbose  int
	once     bool
	idle     time.Duration // limit for idle clients; 0: none
	allow    prefixes
	maxConns int32
	web      *web // nil if HTTP is not served

	running  sync.WaitGroup
	serving  atomic.Int32 // open connections
	refusals atomic.Int32 // clients that are being told why they are refused
}

// serve accepts connections and serves each in its own goroutine until ctx is
// done. It returns when the last one has ended.
func (srv *server) serve(ctx context.Context, ln net.Listener) error {
	defer srv.running.Wait()
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		conn, err := srv.accept(ctx, ln)
		switch {
		case err != nil:
			return nil
		case !srv.allow.admit(conn.RemoteAddr()):
			srv.log(conn, "rejected: address not allowed")
			conn.Close()
		case srv.serving.Load() >= srv.maxConns:
			srv.refuse(conn)
		default:
			srv.serving.Add(1)
			srv.running.Add(1)
			go srv.attend(ctx, conn)
			if srv.once {
				return nil
			}
		}
	}
}

// accept waits for a connection. It fails only if ctx is done or ln is closed.
// Other errors are temporary, such as too many open files or a client that has
// disconnected already, so it retries.
func (srv *server) accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	var pause time.Duration
	for {
		var conn net.Conn
		var err error
		if int(srv.serving.Load()+srv.refusals.Load()) > maxDescriptors()-fewDescriptors {
			err = checkDescriptors(2) // for a connection, and for reading the counters at the same time
		}
		if err == nil {
			conn, err = ln.Accept()
		}
		switch {
		case ctx.Err() != nil:
			if conn != nil {
				conn.Close()
			}
			return nil, ctx.Err()
		case err == nil, errors.Is(err, net.ErrClosed):
			return conn, err
		case pause == 0:
			say("accept: %v; retrying", cause(err))
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// checkDescriptors fails if n more files cannot be opened.
func checkDescriptors(n int) error {
	for range n {
		f, err := os.Open(os.DevNull)
		if errors.Is(err, syscall.EMFILE) {
			return err
		}
		defer f.Close()
	}
	return nil
}

// refuse tells a client that the connection limit is reached, unless it is
// telling too many clients already.
func (srv *server) refuse(conn net.Conn) {
	srv.log(conn, "rejected: connection limit %d reached", srv.maxConns)
	if srv.refusals.Add(1) > maxRefusals {
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
		conn.SetWriteDeadline(time.Now().Add(leaveTime))
		io.WriteString(conn, text)
		hangUp(conn)
	})
}

// beginsHTTP reads for a short time, and reports whether the client speaks
// HTTP.
func beginsHTTP(conn net.Conn) bool {
	conn.SetReadDeadline(time.Now().Add(leaveTime / 4))
	scan := scanner{http: true}
	var in [16]byte // longer than any method
	for {
		n, readErr := conn.Read(in[:])
		for _, b := range in[:n] {
			w, err := scan.next(b)
			if err != nil || w != noWord {
				return err == errHTTP
			}
		}
		if readErr != nil {
			return false
		}
	}
}

// attend serves one connection, in its own goroutine.
func (srv *server) attend(ctx context.Context, conn net.Conn) error {
	s := &session{sampler: srv.sampler, idle: srv.idle, scan: scanner{http: srv.web != nil}}
	srv.log(conn, "connected")
	if srv.verbose > 1 {
		s.trace = func(request string) { srv.log(conn, "%s", request) }
	}
	err := s.serve(ctx, conn)
	if err == errHTTP {
		srv.web.handOver(conn, s, func() { srv.leave(conn, s, nil) })
		return nil
	}
	srv.leave(conn, s, err)
	return err
}

// leave logs the end of a connection and removes it from the count.
func (srv *server) leave(conn net.Conn, s *session, err error) {
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

// serveStdio serves one connection over standard input and output.
func (srv *server) serveStdio(ctx context.Context, conn *duplex) error {
	srv.serving.Add(1)
	srv.running.Add(1)
	err := srv.attend(ctx, conn)
	srv.running.Wait() // the connection may have been handed over to HTTP
	switch {
	case errors.Is(err, errIdle): // not a failure, just as over a network
		err = nil
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil: // cut short by a signal
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded): // flush would only wait again
		return stdoutError(err)
	}
	return cmp.Or(stdoutError(conn.flush(ctx)), err)
}

// onListening is called with the address when the listener is ready.
var onListening = func(net.Addr) {}

// log logs a message about a client, with -v.
func (srv *server) log(conn net.Conn, format string, args ...any) {
	if srv.verbose == 0 {
		return
	}
	client := "unix socket"
	if name := conn.RemoteAddr().String(); name != "" && name != "@" {
		client = quoteOdd(name)
	}
	say("%s: %s", client, fmt.Sprintf(format, args...))
}
