package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// onListening is told the address when the listener is ready.
var onListening = func(net.Addr) {}

func (a address) listen(ctx context.Context) (net.Listener, error) {
	if a.network == socket {
		return listenUnix(a.host)
	}
	if ip, err := netip.ParseAddr(a.host); err == nil && ip.Is4() && a.network == "tcp" {
		a.network = "tcp4" // tcp takes 0.0.0.0 for IPv6 too
	}
	return (&net.ListenConfig{KeepAliveConfig: keepAlive}).Listen(ctx, a.network, a.String())
}

const maxRefusals = 100 // being explained at once

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
// replaces one that nobody answers on.
func listenUnix(path string) (net.Listener, error) {
	if old, err := os.Lstat(path); err == nil && old.Mode().Type() != os.ModeSocket {
		return nil, errors.New("is there already, and no socket")
	}
	for _, kind := range []string{"unix", "unixgram", "unixpacket"} {
		conn, err := net.DialTimeout(kind, path, time.Second)
		if err == nil {
			conn.Close()
		}
		busy, ok := err.(net.Error)
		switch {
		case err == nil, ok && busy.Timeout():
			return nil, errors.New("address already in use")
		case errors.Is(err, os.ErrPermission):
			return nil, err
		case kind == "unix" && errors.Is(err, syscall.EINVAL): // nobody could dial it
			return nil, syscall.ENAMETOOLONG
		}
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

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.socket) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// A server answers every connection to one listener.
type server struct {
	sampler  *sampler
	verbose  int
	once     bool
	silence  time.Duration
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

	var pause time.Duration
	var said time.Time
	for {
		var conn net.Conn
		err := room(2) // for a connection and, beside it, for reading the counters
		if err == nil {
			conn, err = ln.Accept()
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if conn != nil {
				conn.Close()
			}
			return nil
		}
		if err != nil { // out of descriptors, or the client was gone already
			if now := time.Now(); now.Sub(said) > time.Minute {
				log.Printf("accept: %v; waiting", cause(err))
				said = now
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		if !srv.allow.admit(conn.RemoteAddr()) {
			if srv.verbose > 0 {
				log.Printf("%s: not allowed", conn.RemoteAddr())
			}
			conn.Close()
			continue
		}
		if srv.serving.Load() >= srv.maxConns {
			srv.refuse(conn)
			continue
		}
		srv.serving.Add(1)
		srv.running.Add(1)
		go srv.attend(ctx, conn)
		if srv.once {
			return nil
		}
	}
}

// room gives EMFILE unless this process may have n more descriptors.
func room(n int) error {
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
	if srv.verbose > 0 {
		log.Printf("%s: one more than %d connections", conn.RemoteAddr(), srv.maxConns)
	}
	if srv.refusals.Add(1) > maxRefusals {
		srv.refusals.Add(-1)
		conn.Close()
		return
	}
	srv.running.Go(func() {
		defer srv.refusals.Add(-1)
		conn.SetWriteDeadline(time.Now().Add(leaveTime))
		fmt.Fprintf(conn, "error: more than %d connections\n", srv.maxConns)
		hangUp(conn)
	})
}

// attend is the goroutine of one connection. It is started as it is, since
// each function around it would cost stack, and just that much too much.
func (srv *server) attend(ctx context.Context, conn net.Conn) error {
	s := &session{sampler: srv.sampler, silence: srv.silence, web: srv.web != nil}
	var err error
	if srv.verbose > 0 {
		err = srv.tell(ctx, conn, s)
	} else {
		err = s.converse(ctx, conn)
	}
	if err == errHTTP {
		srv.web.take(conn, s, func() { srv.left(conn, s, nil) })
		return nil
	}
	hangUp(conn)
	srv.left(conn, s, err)
	return err
}

// left counts a connection out.
func (srv *server) left(conn net.Conn, s *session, err error) {
	if srv.verbose > 0 {
		end := "closed"
		if err != nil {
			end = "cut off: " + cause(err).Error()
		}
		log.Printf("%s: %s, asked%s", clientOf(conn), end, s.requests())
	}
	srv.serving.Add(-1)
	srv.running.Done()
}

// tell serves one connection, and logs that it came and, with -vv, what it asks.
func (srv *server) tell(ctx context.Context, conn net.Conn, s *session) error {
	client := clientOf(conn)
	log.Printf("%s: connected", client)
	if srv.verbose > 1 {
		s.trace = func(request string) { log.Printf("%s: %s", client, request) }
	}
	return s.converse(ctx, conn)
}

// clientOf names the other end of conn.
func clientOf(conn net.Conn) string {
	if name := conn.RemoteAddr().String(); name != "" && name != "@" {
		return quoteOdd(name)
	}
	return "unix socket"
}
