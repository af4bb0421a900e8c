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
		a.network = "tcp4" // tcp takes 0.0.0.0 for IPv6 too
	}
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	if setKeepAlive != nil {
		// Connections inherit it: four system calls less for each of them.
		config.KeepAlive, config.KeepAliveConfig.Enable = -1, false
		config.Control = func(_, _ string, socket syscall.RawConn) error {
			var err error
			return cmp.Or(socket.Control(func(fd uintptr) { err = setKeepAlive(fd, keepAlive) }), err)
		}
	}
	return config.Listen(ctx, a.network, a.target())
}

const (
	maxRefusals    = 100 // being explained at once
	fewDescriptors = 200 // that are left: then each new connection is checked, which costs four system calls
)

// keepAlive is how a peer that vanished is found out: after half a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// A unixListener removes its socket, if it is still the one at path, when it
// is closed.
type unixListener struct {
	*net.UnixListener
	path   string
	socket os.FileInfo
}

// listenUnix listens on a socket at path that is for its owner alone. It
// replaces one that nobody answers on. Of several that start at once on one path,
// one gets there first.
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
	// In a folder of its own nobody can connect before the mode is set, and
	// its new name replaces an old socket without a moment in between.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".cpunc")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	hidden := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if errors.Is(err, syscall.EINVAL) { // since it is a little longer than path
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

// checkUnused fails if somebody answers on the socket at path, or nobody could.
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
		case kind == "unix" && errors.Is(err, syscall.EINVAL): // nobody could dial it
			return syscall.ENAMETOOLONG
		}
	}
	return nil
}

// lockTime is how long another process may take to make or remove its socket.
const lockTime = 5 * time.Second

// lockPath waits until no other process makes or removes a socket at path, and
// keeps them from it until unlock. The lock is on a file beside path, which is
// there no longer than the lock.
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
		f.Close() // somebody else's, or what its owner has just removed
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
		// A socket that has taken its place may even have its number.
		now, err := os.Lstat(l.path)
		if err == nil && os.SameFile(now, l.socket) && now.ModTime().Equal(l.socket.ModTime()) {
			os.Remove(l.path)
		}
	}
	return l.UnixListener.Close()
}

// A server answers every connection to one listener.
type server struct {
	sampler  *sampler
	verbose  int
	once     bool
	idle     time.Duration // how long a client may send nothing; 0: forever
	allow    prefixes
	maxConns int32
	web      *web // nil where HTTP is not spoken

	running  sync.WaitGroup
	serving  atomic.Int32 // connections
	refusals atomic.Int32 // that are being explained
}

// serve accepts connections, each with a goroutine of its own, until ctx is
// done, and returns when the last of them has ended.
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
			srv.log(conn, "rejected: not in the allowed addresses")
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

// accept waits for a connection until ctx is done or ln closed, which is an
// error. What else fails is tried again: there may be no descriptors for a while,
// or the client be gone already.
func (srv *server) accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	var pause time.Duration
	for {
		var conn net.Conn
		var err error
		if int(srv.serving.Load()+srv.refusals.Load()) > maxDescriptors()-fewDescriptors {
			err = checkDescriptors(2) // for a connection and, beside it, for reading the counters
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

// refuse tells a client that there are too many, unless too many are being told.
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

// beginsHTTP reads, for a moment, until it is clear whether a client speaks HTTP.
func beginsHTTP(conn net.Conn) bool {
	conn.SetReadDeadline(time.Now().Add(leaveTime / 4))
	var in [16]byte // longer than any method
	for n := 0; ; {
		got, err := conn.Read(in[n:])
		n += got
		if http, decided := speaksHTTP(in[:n]); decided || err != nil {
			return http
		}
	}
}

// attend is the goroutine of one connection.
func (srv *server) attend(ctx context.Context, conn net.Conn) error {
	s := &session{sampler: srv.sampler, idle: srv.idle, http: srv.web != nil}
	srv.log(conn, "connected")
	if srv.verbose > 1 {
		s.trace = func(request string) { srv.log(conn, "%s", request) }
	}
	err := s.serve(ctx, conn)
	if err == errHTTP {
		srv.web.take(conn, s, func() { srv.leave(conn, s, nil) })
		return nil
	}
	srv.leave(conn, s, err)
	return err
}

// leave counts a connection out.
func (srv *server) leave(conn net.Conn, s *session, err error) {
	switch {
	case srv.verbose == 0: // then there is no need to count up the requests
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
	srv.running.Wait() // it may have become HTTP
	switch {
	case errors.Is(err, errSilent): // no failure, as little as over a network
		err = nil
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil: // it was not to wait longer
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded): // waited for already
		return stdoutError(err)
	}
	return cmp.Or(stdoutError(conn.flush(ctx)), err)
}

// onListening is told the address when the listener is ready.
var onListening = func(net.Addr) {}

// log says something of a client, if that is asked for.
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
